"""What happens in a CRI runtime, as events, from whichever source it offers.

In this order: CRI's own GetContainerEvents (containerd ≥ 1.7, CRI-O), containerd's internal event
stream (older containerds), and, where there is neither, a relist every second. Beside a stream
everything is listed once a minute, because streams have been seen to lose events.

Rules:
- A STOPPED event is published only when the runtime's status says so too: containerd tells of a
  process's end before it has written it down, and a reader who looked at once would see it run.
- After every (re)connection comes RESYNC, and only when the stream is known to be live, so that
  nothing can happen between the list and the first event.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any

from pybernetes.aio.backoff import Backoff
from pybernetes.kubelet.runtime.grpc_channel import RpcFailed
from pybernetes.kubelet.runtime.interface import (
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerState,
    EventKind,
    RuntimeEvent,
    SandboxNotFound,
    SandboxState,
)
from pybernetes.kubelet.runtime.proto import containerd_events_pb2 as events_pb
from pybernetes.kubelet.runtime.proto import cri_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from pybernetes.kubelet.runtime.cri import CriRuntime
    from pybernetes.kubelet.runtime.grpc_channel import GrpcChannel

log = logging.getLogger(__name__)

CRI_EVENTS = "/runtime.v1.RuntimeService/GetContainerEvents"
CONTAINERD_SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"
CONTAINERD_PUBLISH = "/containerd.services.events.v1.Events/Publish"

# The containerd namespace in which its CRI service keeps everything.
CONTAINERD_NAMESPACE = "k8s.io"
# Published by ourselves to see that a subscription is live. Nobody else looks at this topic.
HELLO_TOPIC = "/pybernetes/hello"
FILTERS = (
    f'namespace=={CONTAINERD_NAMESPACE},topic~="^/tasks/(start|exit)$"',
    f'namespace=={CONTAINERD_NAMESPACE},topic=="/containers/delete"',
    f'namespace=={CONTAINERD_NAMESPACE},topic=="{HELLO_TOPIC}"',
)

# How long a server is given to say that it does not know GetContainerEvents.
REFUSAL_TIME = timedelta(milliseconds=200)
# How long the status may lag behind an event before the event is published all the same.
SETTLE_TIME = timedelta(seconds=10)
RELIST_WITHOUT_STREAM = timedelta(seconds=1)
RECONNECT = Backoff(timedelta(milliseconds=100), timedelta(seconds=5), jitter=0.2)

_CRI_KINDS = {
    pb.CONTAINER_CREATED_EVENT: EventKind.CREATED,
    pb.CONTAINER_STARTED_EVENT: EventKind.STARTED,
    pb.CONTAINER_STOPPED_EVENT: EventKind.STOPPED,
    pb.CONTAINER_DELETED_EVENT: EventKind.DELETED,
}
_STATE_KINDS = {
    ContainerState.CREATED: EventKind.CREATED,
    ContainerState.RUNNING: EventKind.STARTED,
    ContainerState.EXITED: EventKind.STOPPED,
    ContainerState.UNKNOWN: EventKind.STOPPED,
    SandboxState.READY: EventKind.STARTED,
    SandboxState.NOT_READY: EventKind.STOPPED,
}


@dataclass(slots=True)
class _Thing:
    """A sandbox (then `sandbox_id` is its own id) or container, and what was last told of it."""

    sandbox_id: str
    pod_uid: str
    told: EventKind


class EventPump:
    """Reads one runtime's events and publishes them, until cancelled."""

    def __init__(
        self,
        runtime: CriRuntime,
        channel: GrpcChannel,
        publish: Callable[[RuntimeEvent], None],
        *,
        random: Random,
        relist: timedelta,
    ) -> None:
        self._runtime = runtime
        self._channel = channel
        self._publish = publish
        self._random = random
        self._relist_interval = relist
        # Everything that exists in the runtime as far as we know, by id.
        self._things: dict[str, _Thing] = {}
        # Ids whose end was announced and whose status does not show it yet; each has a task.
        self._settling: set[str] = set()
        # The sources still worth trying with this runtime, best first.
        self._sources: tuple[Callable[[asyncio.TaskGroup], AsyncIterator[None]], ...]
        self._sources = (self._follow_cri, self._follow_containerd, self._follow_lists)

    def learn(self, thing_id: str, *, sandbox_id: str, pod_uid: str) -> None:
        """We made this ourselves: no need to ask whose it is."""
        kind = EventKind.STARTED if thing_id == sandbox_id else EventKind.CREATED
        # A relist may have found it before the call that made it returned.
        if thing_id not in self._things:
            self._things[thing_id] = _Thing(sandbox_id, pod_uid, kind)
            self._tell(kind, thing_id)

    async def sandbox_of(self, container_id: str) -> str:
        thing = self._things.get(container_id)
        if thing is not None:
            return thing.sandbox_id
        found = await self._runtime.find_container(container_id)
        return found.sandbox_id if found else ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_relist(), name="cri relist")
            await self._run_stream(tasks)

    # --- the stream -------------------------------------------------------------------------------

    async def _run_stream(self, tasks: asyncio.TaskGroup) -> None:
        failures = 0
        while True:
            try:
                async for _ in self._sources[0](tasks):
                    failures = 0
                reason = "the stream ended"
            except RpcFailed as error:
                if error.unimplemented and len(self._sources) > 1:
                    self._sources = self._sources[1:]
                    continue
                reason = error.message
            except ContainerRuntimeError as error:
                reason = error.message
            if failures == 0:
                log.warning("runtime events interrupted: %s", reason)
            await asyncio.sleep(RECONNECT.delay(failures, self._random).total_seconds())
            failures += 1

    async def _follow_cri(self, tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
        """Yields once for every sign of life; so do the other sources."""
        async with self._channel.stream(
            CRI_EVENTS, pb.GetEventsRequest(), pb.ContainerEventResponse, refusal_time=REFUSAL_TIME
        ) as stream:
            await self._resync()
            yield
            async for message in stream:
                sandbox = message.pod_sandbox_status
                kind = _CRI_KINDS.get(message.container_event_type)
                if kind is not None:
                    thing = _Thing(sandbox.id, sandbox.metadata.uid, kind)
                    self._things.setdefault(message.container_id, thing)
                    self._handle(kind, message.container_id, tasks)
                yield

    async def _follow_containerd(self, tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
        async with self._channel.stream(
            CONTAINERD_SUBSCRIBE,
            events_pb.SubscribeRequest(filters=FILTERS),
            events_pb.Envelope,
        ) as stream:
            hello = tasks.create_task(self._say_hello(), name="containerd hello")
            try:
                async for envelope in stream:
                    if envelope.topic != HELLO_TOPIC:
                        self._handle_envelope(envelope, tasks)
                    elif not hello.done():
                        hello.cancel()
                        await self._resync()
                    yield
            finally:
                hello.cancel()

    async def _say_hello(self) -> None:
        # A subscription is not acknowledged: the first event of ours that comes back shows that
        # it is live. Any registered type will do as content.
        event = Any(type_url="containerd.events.TaskOOM")
        while True:
            try:
                await self._channel.call(
                    CONTAINERD_PUBLISH,
                    events_pb.PublishRequest(topic=HELLO_TOPIC, event=event),
                    events_pb.PublishResponse,
                    timeout=5.0,
                    metadata={"containerd-namespace": CONTAINERD_NAMESPACE},
                )
            except ContainerRuntimeError as error:
                log.debug("hello not sent: %s", error)
            await asyncio.sleep(0.05)

    async def _follow_lists(self, tasks: asyncio.TaskGroup) -> AsyncIterator[None]:
        await self._resync()
        while True:
            yield
            await asyncio.sleep(RELIST_WITHOUT_STREAM.total_seconds())
            await self._relist()

    def _handle_envelope(self, envelope: events_pb.Envelope, tasks: asyncio.TaskGroup) -> None:
        content = envelope.event.value
        if envelope.topic == "/tasks/exit":
            exited = events_pb.TaskExit.FromString(content)
            # Otherwise an exec ended, a probe for example.
            if exited.id == exited.container_id:
                self._handle(EventKind.STOPPED, exited.container_id, tasks)
        elif envelope.topic == "/tasks/start":
            started = events_pb.TaskEvent.FromString(content)
            self._handle(EventKind.STARTED, started.container_id, tasks)
        elif envelope.topic == "/containers/delete":
            deleted = events_pb.ContainerEvent.FromString(content)
            self._handle(EventKind.DELETED, deleted.id, tasks)

    def _handle(self, kind: EventKind, thing_id: str, tasks: asyncio.TaskGroup) -> None:
        if kind is EventKind.STOPPED:
            if thing_id not in self._settling:
                self._settling.add(thing_id)
                tasks.create_task(self._tell_when_stopped(thing_id), name=f"settle {thing_id}")
        elif kind is EventKind.DELETED or thing_id in self._things:
            self._tell(kind, thing_id)
        # Else a start of something unknown: our own call that made it has not returned yet (then
        # `learn` follows), or somebody else made it (then the relist finds it).

    # --- ends -------------------------------------------------------------------------------------

    async def _tell_when_stopped(self, thing_id: str) -> None:
        try:
            async with asyncio.timeout(SETTLE_TIME.total_seconds()):
                pause = 0.002
                while not await self._has_ended(thing_id):
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, 0.5)
        except (TimeoutError, ContainerRuntimeError) as error:
            log.warning("the end of %s is not in its status: %s", thing_id, error)
        finally:
            self._settling.discard(thing_id)
        if thing_id in self._things:
            self._tell(EventKind.STOPPED, thing_id)

    async def _has_ended(self, thing_id: str) -> bool:
        thing = self._things.get(thing_id)
        try:
            if thing is None or thing_id != thing.sandbox_id:
                status = await self._runtime.container_status(thing_id)
                return status.state not in (ContainerState.RUNNING, ContainerState.CREATED)
            sandbox = await self._runtime.sandbox_status(thing_id)
            return sandbox.state is SandboxState.NOT_READY
        except (ContainerNotFound, SandboxNotFound):
            return True

    # --- lists ------------------------------------------------------------------------------------

    async def _run_relist(self) -> None:
        while True:
            await asyncio.sleep(self._relist_interval.total_seconds())
            try:
                await self._relist()
            except ContainerRuntimeError as error:
                log.debug("relist failed: %s", error)

    async def _resync(self) -> None:
        """Learn what there is, and send every reader to do the same."""
        self._things = await self._list()
        self._publish(RuntimeEvent(EventKind.RESYNC))

    async def _relist(self) -> None:
        """Publish what nobody told."""
        listed = await self._list()
        for thing_id in [known for known in self._things if known not in listed]:
            self._tell(EventKind.DELETED, thing_id)
        for thing_id, thing in listed.items():
            known = self._things.setdefault(thing_id, thing)
            if known is thing or known.told is not thing.told:
                self._tell(thing.told, thing_id)

    async def _list(self) -> dict[str, _Thing]:
        things = {
            sandbox.id: _Thing(sandbox.id, sandbox.uid, _STATE_KINDS[sandbox.state])
            for sandbox in await self._runtime.list_sandboxes()
        }
        for container in await self._runtime.list_containers():
            things[container.id] = _Thing(
                container.sandbox_id, container.pod_uid, _STATE_KINDS[container.state]
            )
        return things

    def _tell(self, kind: EventKind, thing_id: str) -> None:
        thing = self._things.get(thing_id)
        if kind is EventKind.DELETED:
            self._things.pop(thing_id, None)
        if thing is None:
            return
        thing.told = kind
        is_sandbox = thing_id == thing.sandbox_id
        self._publish(
            RuntimeEvent(
                kind,
                sandbox_id=thing.sandbox_id,
                container_id="" if is_sandbox else thing_id,
                pod_uid=thing.pod_uid,
            )
        )
