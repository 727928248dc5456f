"""One pod's task: carries out what the pod machine says and tells it what came of it.

Everything reaches the machine through one inbox, in order: outcomes of actions, changes of the
object, looks at the runtime, and a timer set for the moment the machine asked for. Between them the
task waits; an idle pod costs nothing.

Rules: an action always ends in an event, whatever goes wrong, unless it was cancelled on purpose.
The object is deleted from the API only when nothing of the pod runs.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.api.types.node_v1 import RuntimeClass
from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.kubelet import pod_events
from pybernetes.kubelet.adoption import NOTHING, Found, adopted
from pybernetes.kubelet.container_actions import ContainerActions
from pybernetes.kubelet.pod_events import Exited, SandboxLost, StopContainer
from pybernetes.kubelet.pod_machine import pod_step
from pybernetes.kubelet.pod_state import (
    PodStage,
    Stage,
)
from pybernetes.kubelet.probeset import ProbeSet
from pybernetes.kubelet.references import references_of
from pybernetes.kubelet.runtime.interface import (
    POD_UID_LABEL,
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerState,
    SandboxNotFound,
    SandboxState,
)
from pybernetes.kubelet.runtime_spec import (
    cgroup_parent,
    sandbox_spec,
)
from pybernetes.kubelet.statuswriter import MirrorWriter, StatusWriter
from pybernetes.kubelet.volumes.pod import PodVolumes, VolumeProblem
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Node, Pod
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.pod_events import Action, Event
    from pybernetes.kubelet.pod_state import PodState
    from pybernetes.kubelet.runtime.interface import (
        ContainerSummary,
        SandboxSummary,
    )

log = logging.getLogger(__name__)

# A runtime that is away is asked again so often.
RETRY = timedelta(seconds=2)
# A volume whose content could not be made anew keeps the old one so long.
VOLUME_RETRY = timedelta(seconds=10)


class PodWorker:
    """Runs one pod, from the moment it is bound to this node until nothing of it is left."""

    def __init__(
        self,
        context: NodeContext,
        pod: Pod,
        found: Found = NOTHING,
        refusal: pod_events.Condemned | None = None,
        static_on: Callable[[], Node | None] | None = None,
    ) -> None:
        """`refusal`: the node does not take the pod, which fails for that reason.

        `static_on`: it is a static pod, and this gives its node.
        """
        self._context = context
        self._state = adopted(pod, found, context.clock.now())
        self.volumes = PodVolumes(context, pod)
        self.volumes.ips = self._state.ips
        self._mirror = None if static_on is None else MirrorWriter(context, self, static_on)
        self._status = self._mirror or StatusWriter(context, self)
        # What happened and was not looked at. Bounded by what can be under way for one pod.
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        # Work under way, by what it is: "volumes", "pull web" …
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._group: asyncio.TaskGroup | None = None
        self._refusal = refusal
        self._superfluous = len(found.sandboxes) > 1
        self._held = references_of(pod)
        self._unsubscribe: list[Callable[[], None]] = []
        # Who waits for which container (by id) to end.
        self._awaited: list[tuple[str, asyncio.Future[None]]] = []
        self._containers = ContainerActions(context, self)
        records = self._state.containers.values()
        self._probes = ProbeSet(
            context, self, {r.latest.id for r in records if r.latest is not None}
        )

    @property
    def state(self) -> PodState:
        return self._state

    @property
    def newest(self) -> Pod:
        """The newest version of the object that the API has shown."""
        return self._state.pod if self.is_static else self._status.known

    @property
    def is_static(self) -> bool:
        return self._mirror is not None

    def mirror_changed(self, mirror: Pod | None) -> None:
        if self._mirror is not None:
            self._mirror.mirror_changed(mirror)
            if self._group is not None:
                self._mirror.look()

    @property
    def address(self) -> str:
        """By which its containers are reached."""
        ips = self._state.ips
        if self._state.pod.spec.host_network:
            ips = self._context.facts.addresses
        return ips[0] if ips else ""

    @property
    def is_active(self) -> bool:
        """Uses the node's resources, or soon will."""
        return not self._state.stage.is_over

    @property
    def pod(self) -> Pod:
        """The newest version of the object, with the status as we see it."""
        return self._status.pod_now(self._state)

    def ended(self, container_id: str) -> asyncio.Future[None]:
        """Done when that container does not run any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((container_id, future))
        self._tell_ended()
        return future

    def _tell_ended(self) -> None:
        running = {
            record.latest.id
            for record in self._state.containers.values()
            if record.latest is not None and not record.latest.ended
        }
        if self._state.stage.is_over:
            running.clear()
        for container_id, future in self._awaited:
            if container_id not in running and not future.done():
                future.set_result(None)
        self._awaited = [entry for entry in self._awaited if not entry[1].done()]

    def post(self, event: Event) -> None:
        self._inbox.put_nowait(event)

    async def run(self) -> None:
        """Until nothing of the pod is left."""
        for kind, key in self._held:
            self._context.objects.hold(kind, key)
        try:
            async with asyncio.TaskGroup() as self._group:
                try:
                    self._follow_contents()
                    if self._superfluous:
                        self._spawn("old sandboxes", self._remove_sandboxes(self._state.sandbox_id))
                    self._step(self._first_event())
                    while self._state.stage is not PodStage.GONE:
                        self._step(await self._inbox.get())
                finally:
                    self._end_tasks()
        finally:
            for unsubscribe in self._unsubscribe:
                unsubscribe()
            for kind, key in self._held:
                await self._context.objects.release(kind, key)

    def _first_event(self) -> Event | None:
        pod = self._state.pod
        if pod.metadata.deletion_timestamp is not None:
            # Deleted before we came: there may never be another change to hear of.
            return pod_events.Changed(pod)
        return self._refusal

    def _end_tasks(self) -> None:
        for timer in (self._timer, self._renewal):
            if timer is not None:
                timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        self._probes.stop()
        self._status.stop()
        for _, future in self._awaited:
            if not future.done():
                future.set_result(None)

    # --- stepping ---------------------------------------------------------------------------------

    def _step(self, event: Event | None) -> None:
        if isinstance(event, pod_events.Changed):
            self._changed(event.pod)
        now = self._context.clock.now()
        step = pod_step(self._state, event, now)
        self._state = step.state
        self.volumes.ips = step.state.ips
        for action in step.actions:
            self._begin(action)
        self._set_timer(step.wake_at, now)
        self._probes.sync()
        if self._awaited:
            self._tell_ended()
        if self._state.stage is not PodStage.GONE:
            self._status.look()

    def _changed(self, pod: Pod) -> None:
        old = self._state.pod.metadata
        self.volumes.pod = pod
        new = references_of(pod) - self._held
        for kind, key in new:
            self._context.objects.hold(kind, key)
        self._held |= new
        self._status.heard(pod)
        if (old.labels, old.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            self._refresh_volumes()

    def _set_timer(self, wake_at: datetime | None, now: datetime) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            # Never earlier than the moment itself, or the machine would see nothing to do.
            delay = max((wake_at - now).total_seconds(), 0.0) + 0.001
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self.post, pod_events.Tick())

    def _begin(self, action: Action) -> None:
        match action:
            case pod_events.Say(type_, reason, message, container):
                self._context.say(self._state.pod, type_, reason, message, container)
            case pod_events.Abandon():
                for name in list(self._tasks):
                    if name == "volumes" or name.startswith("pull "):
                        self._tasks[name].cancel()
            case pod_events.PrepareVolumes():
                self._spawn("volumes", self._prepare_volumes())
            case pod_events.RunSandbox(number):
                self._spawn("sandbox", self._run_sandbox(number))
            case pod_events.StopSandbox(id_):
                self._spawn("sandbox", self._stop_sandbox(id_))
            case pod_events.PullImage(name):
                self._spawn(f"pull {name}", self._containers.pull(name))
            case pod_events.StartContainer(name, number):
                self._spawn(f"start {name}", self._containers.start(name, number))
            case pod_events.RunPostStart(name, id_):
                self._spawn(f"hook {name}", self._containers.post_start(name, id_))
            case StopContainer(name):
                self._spawn(f"stop {name}", self._containers.stop(action))
            case pod_events.Remove(delete_object):
                self._spawn("remove", self._remove(delete_object))

    def create_task(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work, name=name)

    def _spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Begin work under a name; what was under way under that name is cancelled."""
        assert self._group is not None
        before = self._tasks.get(name)
        if before is not None:
            before.cancel()
        task = self._group.create_task(work, name=f"{self._state.pod.metadata.name} {name}")
        self._tasks[name] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._tasks.get(name) is done:
                del self._tasks[name]

        task.add_done_callback(forget)

    # --- looking at the runtime -------------------------------------------------------------------

    def look_at(self, container_id: str, sandbox_id: str) -> None:
        """The runtime says something happened there."""
        if self._group is None or self._state.stage is PodStage.GONE:
            return
        if container_id:
            for record in self._state.containers.values():
                starting = record.stage is Stage.STARTING
                known = record.latest is not None and record.latest.id == container_id
                if (known and record.is_alive) or starting:
                    self._spawn(f"look {container_id}", self._look(container_id))
                    return
        elif sandbox_id == self._state.sandbox_id:
            self._spawn("look", self._look_at_sandbox(sandbox_id))

    def relisted(
        self, sandboxes: Mapping[str, SandboxSummary], containers: Mapping[str, ContainerSummary]
    ) -> None:
        """All there is, after events may have been lost."""
        for record in self._state.containers.values():
            if record.latest is None or not record.is_alive or record.stage is Stage.STARTING:
                continue
            summary = containers.get(record.latest.id)
            if summary is None or summary.state is not ContainerState.RUNNING:
                self.look_at(record.latest.id, "")
        sandbox = sandboxes.get(self._state.sandbox_id)
        if self._state.sandbox_ready and (
            sandbox is None or sandbox.state is not SandboxState.READY
        ):
            self.look_at("", self._state.sandbox_id)

    async def _look(self, container_id: str) -> None:
        try:
            status = await self._context.runtime.container_status(container_id)
        except ContainerNotFound:
            self._containers.lost(container_id)
        except ContainerRuntimeError:
            # It will be listed when the runtime is back.
            return
        else:
            if status.state is ContainerState.EXITED:
                self.post(Exited(status.name, await self._containers.incarnation(status)))

    async def _look_at_sandbox(self, sandbox_id: str) -> None:
        try:
            status = await self._context.runtime.sandbox_status(sandbox_id)
            lost = status.state is not SandboxState.READY
        except SandboxNotFound:
            lost = True
        except ContainerRuntimeError:
            return
        if lost:
            self.post(SandboxLost(sandbox_id))

    # --- actions ----------------------------------------------------------------------------------

    async def _prepare_volumes(self) -> None:
        try:
            await self.volumes.prepare()
        except VolumeProblem as problem:
            self._context.say(self._state.pod, "Warning", "FailedMount", str(problem))
            self.post(pod_events.VolumesFailed(str(problem)))
        except Exception as error:  # a pod must not hang on what we did not think of
            log.exception("volumes of %s", self._state.pod.metadata.name)
            self.post(pod_events.VolumesFailed(str(error)))
        else:
            self._plan_renewal()
            self.post(pod_events.VolumesReady())

    async def _run_sandbox(self, number: int) -> None:
        context, pod = self._context, self._state.pod
        try:
            spec = sandbox_spec(context, pod, number, await self._runtime_handler())
            if not context.config.is_simulated:
                Path(spec.log_directory).mkdir(parents=True, exist_ok=True)
            if context.cgroups is not None and context.cgroup_driver != "systemd":
                await asyncio.to_thread(context.cgroups.prepare, pod, spec.cgroup_parent)
            id_ = await context.runtime.run_sandbox(spec)
            status = await context.runtime.sandbox_status(id_)
        except (ContainerRuntimeError, StatusError) as error:
            text = f"Failed to create pod sandbox: {error.message}"
            self.post(pod_events.SandboxFailed(text))
        except Exception as error:
            log.exception("sandbox of %s", pod.metadata.name)
            self.post(pod_events.SandboxFailed(f"Failed to create pod sandbox: {error}"))
        else:
            self.post(pod_events.SandboxReady(id_, status.ips))
            if number:
                await self._remove_sandboxes(keep=id_)

    async def _remove_sandboxes(self, keep: str = "") -> None:
        """Those of earlier attempts, or all."""
        labels = {POD_UID_LABEL: self._state.pod.metadata.uid}
        try:
            for sandbox in await self._context.runtime.list_sandboxes(labels=labels):
                if sandbox.id != keep:
                    await self._context.runtime.remove_sandbox(sandbox.id)
        except ContainerRuntimeError as error:
            log.warning("old sandboxes of %s: %s", self._state.pod.metadata.name, error)

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id:
            await self._insist(lambda: self._context.runtime.stop_sandbox(sandbox_id))
        self.post(pod_events.SandboxStopped())

    async def _insist(self, call: Callable[[], Coroutine[None, None, None]]) -> None:
        """Until the runtime has done it."""
        while True:
            try:
                await call()
                return
            except ContainerRuntimeError as error:
                log.warning("%s: %s, trying again", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())

    async def _runtime_handler(self) -> str:
        """Raises NotFound for a RuntimeClass that there is not."""
        name = self._state.pod.spec.runtime_class_name
        if not name:
            return ""
        return (await self._context.client.get(RuntimeClass, name)).handler

    async def _remove(self, delete_object: bool) -> None:
        await self._status.flush()
        while True:
            try:
                await self.volumes.remove()
                break
            except OSError as error:
                log.warning("volumes of %s: %s", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())
        if self._mirror is not None:
            await self._mirror.remove()
        elif delete_object:
            await self._delete_object()
        await self._remove_sandboxes()
        context, pod = self._context, self._state.pod
        if context.cgroups is not None and context.cgroup_driver != "systemd":
            parent = cgroup_parent(context, pod)
            await asyncio.to_thread(context.cgroups.remove, pod, parent)
        if not context.config.is_simulated:
            directory = context.config.pod_log_dir(pod)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self.post(pod_events.Removed())

    async def _delete_object(self) -> None:
        while True:
            try:
                await self._context.client.delete(self._state.pod, grace_seconds=0)
                return
            except (NotFound, Conflict):
                # Somebody was faster, or the name belongs to another pod by now.
                return
            except (StatusError, WireError, OSError) as error:
                log.warning("deleting %s: %s", self._state.pod.metadata.name, error)
                await asyncio.sleep(RETRY.total_seconds())

    # --- probes -----------------------------------------------------------------------------------

    # --- volumes that change ----------------------------------------------------------------------

    def _follow_contents(self) -> None:
        """Hear of changes of what the pod refers to."""
        for kind, key in self._held:
            self._unsubscribe.append(self._context.objects.follow(kind, key, self._content_changed))

    def _content_changed(self, old: object, new: object) -> None:
        if new is not None:
            self.post(pod_events.ObjectsChanged())
            self._refresh_volumes()

    def _refresh_volumes(self) -> None:
        working = (PodStage.SANDBOXING, PodStage.RUNNING, PodStage.RESETTING)
        if self._group is not None and self._state.stage in working:
            self._spawn("refresh", self._refresh())

    async def _refresh(self) -> None:
        try:
            await self.volumes.refresh()
        except VolumeProblem as problem:
            self._context.say(self._state.pod, "Warning", "FailedMount", str(problem))
            await asyncio.sleep(VOLUME_RETRY.total_seconds())
            self._refresh_volumes()
            return
        self._plan_renewal()

    def _plan_renewal(self) -> None:
        """Tokens are replaced before they expire."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self.volumes.renew_at is not None:
            delay = (self.volumes.renew_at - self._context.clock.now()).total_seconds()
            loop = asyncio.get_running_loop()
            self._renewal = loop.call_later(max(delay, 1.0), self._refresh_volumes)
