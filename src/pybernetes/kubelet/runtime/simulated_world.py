"""The life of simulated sandboxes and containers: every change, made at once, told at once.

The async face of this is `simulated.SimulatedRuntime`. Here nothing waits; what happens later is a
timer of the running loop, which belongs to one container and goes with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.events import EventSource
from pybernetes.kubelet.runtime.interface import (
    REASON_COMPLETED,
    REASON_ERROR,
    REASON_OOM_KILLED,
    REASON_START_ERROR,
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerState,
    EventKind,
    ImageNotFound,
    RuntimeEvent,
    SandboxNotFound,
)
from pybernetes.kubelet.runtime.script import ZERO, LogLines, Scripts, pattern_matches
from pybernetes.kubelet.runtime.simulated_image import SimulatedImages
from pybernetes.kubelet.runtime.simulated_process import run_of
from pybernetes.kubelet.runtime.simulated_state import AddressPool, Container, Sandbox
from pybernetes.kubelet.runtime.simulated_stream import MemoryLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.kubelet.runtime.interface import ContainerSpec, SandboxSpec
    from pybernetes.kubelet.runtime.simulated_shell import Run

KILLED = 137
NEVER_STARTED = 128

# How many starts of how many containers are remembered.
STARTS_OF_ONE = 1000
STARTS_OF_ALL = 10_000


class SimulatedWorld:
    """All that exists on one simulated node."""

    def __init__(self, clock: Clock, random: Random, pod_cidr: str) -> None:
        self.clock = clock
        self._random = random
        self.events = EventSource()
        self.images = SimulatedImages()
        self.scripts = Scripts()
        self.addresses = AddressPool(pod_cidr)
        # By id, in the order they were made.
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}
        # Ids of sandboxes by what must be unique of their pods (see `_sandbox_name`).
        self._names: dict[str, str] = {}
        # Sandboxes by address; those on the host's network are in `sandboxes` only.
        self._by_address: dict[str, Sandbox] = {}
        # Containers by the path of their log.
        self._by_log: dict[str, Container] = {}
        # When containers started, and how often each ever did, by (namespace, pod, container).
        self.starts: dict[tuple[str, str, str], deque[datetime]] = {}
        self._start_counts: dict[tuple[str, str, str], int] = {}
        # (pattern over pods, message, how many more times; None: always)
        self.sandbox_failures: list[tuple[str, str, int | None]] = []

    # --- finding ----------------------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> Sandbox:
        try:
            return self.sandboxes[sandbox_id]
        except KeyError:
            raise SandboxNotFound(f'sandbox "{sandbox_id}" does not exist: not found') from None

    def container(self, container_id: str) -> Container:
        try:
            return self.containers[container_id]
        except KeyError:
            raise ContainerNotFound(
                f'container "{container_id}" does not exist: not found'
            ) from None

    def running_container(self, container_id: str) -> Container:
        container = self.container(container_id)
        if container.state is not ContainerState.RUNNING:
            raise ContainerRuntimeError(
                f"container is in {container.state.value} state", code="FailedPrecondition"
            )
        self.refresh(container)
        return container

    def running(self, pattern: str) -> list[Container]:
        return [
            container
            for container in self.containers.values()
            if container.state is ContainerState.RUNNING
            and pattern_matches(pattern, *_key(container))
        ]

    def sandbox_at(self, host: str) -> Sandbox | None:
        """Whose address that is; else a pod on the host's network, whatever the host's is."""
        found = self._by_address.get(host)
        return found or next(
            (s for s in self.sandboxes.values() if s.ready and s.on_host_network), None
        )

    def containers_in(self, sandbox_id: str) -> Iterator[Container]:
        """All of them, if no sandbox is named."""
        if not sandbox_id:
            yield from self.containers.values()
        elif (sandbox := self.sandboxes.get(sandbox_id)) is not None:
            yield from sandbox.containers.values()

    # --- sandboxes --------------------------------------------------------------------------------

    def run_sandbox(self, spec: SandboxSpec) -> Sandbox:
        self._fail_if_scripted(spec)
        name = _sandbox_name(spec)
        if (holder := self._names.get(name)) is not None:
            raise ContainerRuntimeError(
                f'failed to reserve sandbox name "{name}": name "{name}" is reserved for "{holder}"'
            )
        sandbox = Sandbox(self._new_id(), spec, self.clock.now(), None)
        if not sandbox.on_host_network:
            sandbox.address = self.addresses.take()
            self._by_address[sandbox.ip] = sandbox
        self.sandboxes[sandbox.id] = sandbox
        self._names[name] = sandbox.id
        self._tell(EventKind.STARTED, sandbox)
        return sandbox

    def _fail_if_scripted(self, spec: SandboxSpec) -> None:
        for place, (pattern, message, times) in enumerate(self.sandbox_failures):
            if times != 0 and pattern_matches(pattern, spec.namespace, spec.name, ""):
                if times is not None:
                    self.sandbox_failures[place] = (pattern, message, times - 1)
                raise ContainerRuntimeError(message)

    def stop_sandbox(self, sandbox: Sandbox) -> None:
        for container in sandbox.containers.values():
            self.end(container, KILLED)
        if sandbox.address is not None:
            del self._by_address[sandbox.ip]
            self.addresses.release(sandbox.address)
            sandbox.address = None
        if sandbox.ready:
            sandbox.ready = False
            self._tell(EventKind.STOPPED, sandbox)

    def remove_sandbox(self, sandbox: Sandbox) -> None:
        self.stop_sandbox(sandbox)
        for container in list(sandbox.containers.values()):
            self.remove(container)
        del self.sandboxes[sandbox.id]
        del self._names[_sandbox_name(sandbox.spec)]
        self._tell(EventKind.DELETED, sandbox)

    # --- containers -------------------------------------------------------------------------------

    def create(self, sandbox_id: str, spec: ContainerSpec) -> Container:
        sandbox = self.sandbox(sandbox_id)
        if not sandbox.ready:
            raise ContainerRuntimeError(f"sandbox container {sandbox_id!r} is not running")
        for other in sandbox.containers.values():
            if (other.spec.name, other.spec.attempt) == (spec.name, spec.attempt):
                raise ContainerRuntimeError(f"container {spec.name} is reserved for {other.id}")
        image = self.images.find(spec.image)
        if image is None:
            raise ImageNotFound(f'failed to resolve image "{spec.image}": not found')
        container = Container(
            id=self._new_id(),
            sandbox=sandbox,
            spec=spec,
            created_at=self.clock.now(),
            image=next(iter(image.repo_tags), spec.user_specified_image or spec.image),
            image_ref=next(iter(image.repo_digests), image.id),
            resources=spec.resources,
        )
        container.start_number = self._start_counts.get(_key(container), 0)
        self.refresh(container)
        if container.script.create_error:
            raise ContainerRuntimeError(container.script.create_error)
        sandbox.containers[container.id] = self.containers[container.id] = container
        if container.log_path:
            self._by_log[container.log_path] = container
        self._tell(EventKind.CREATED, sandbox, container)
        return container

    def start(self, container: Container) -> None:
        if container.state is not ContainerState.CREATED:
            raise ContainerRuntimeError(
                f"container is in {container.state.value} state", code="FailedPrecondition"
            )
        self._count_start(container)
        self.refresh(container)
        script = container.script
        if script.start_error:
            container.state = ContainerState.EXITED
            container.finished_at = self.clock.now()
            container.exit_code = NEVER_STARTED
            container.reason, container.message = REASON_START_ERROR, script.start_error
            self._tell(EventKind.STOPPED, container.sandbox, container)
            raise ContainerRuntimeError(script.start_error)
        container.state = ContainerState.RUNNING
        container.started_at = self.clock.now()
        self._tell(EventKind.STARTED, container.sandbox, container)
        usual = self._usual_run(container)
        for lines in script.logs or ():
            self._write_later(container, lines, lines.after)
        limit = container.resources.memory_limit_bytes
        if script.memory_bytes is not None and limit and script.memory_bytes > limit:
            self.end_later(container, ZERO, KILLED, REASON_OOM_KILLED)
        elif script.exit_after is not None:
            self.end_later(
                container,
                script.exit_after,
                script.exit_code or 0,
                script.exit_reason or "",
                script.exit_message or "",
            )
        elif usual is not None and usual.after is not None:
            self.end_later(container, usual.after, usual.code)

    def _usual_run(self, container: Container) -> Run | None:
        """What its command does, if that is known and nothing else was scripted."""
        script, spec = container.script, container.spec
        if script.exit_after is not None or script.logs is not None or not spec.command:
            return None
        usual = run_of(container, (*spec.command, *spec.args))
        if usual is not None:
            for printed in usual.printed:
                text = printed.data.decode().removesuffix("\n")
                lines = LogLines((text,), printed.after, is_stderr=printed.is_stderr)
                self._write_later(container, lines, lines.after)
        return usual

    def _count_start(self, container: Container) -> None:
        key = _key(container)
        container.start_number = self._start_counts.get(key, 0)
        container.script_version = -1
        if key not in self.starts:
            while len(self.starts) >= STARTS_OF_ALL:
                oldest = next(iter(self.starts))
                del self.starts[oldest], self._start_counts[oldest]
            self.starts[key] = deque(maxlen=STARTS_OF_ONE)
        self._start_counts[key] = container.start_number + 1
        self.starts[key].append(self.clock.now())

    def refresh(self, container: Container) -> None:
        """Let it follow what was scripted since it was last asked."""
        if container.script_version != self.scripts.version:
            container.script_version = self.scripts.version
            container.script = self.scripts.of(*_key(container), container.start_number)

    def end_later(
        self, container: Container, after: timedelta, code: int, reason: str = "", message: str = ""
    ) -> None:
        loop = asyncio.get_running_loop()
        end = partial(self.end, container, code, reason, message)
        # One turn of the loop later: what it writes at the same moment must not be lost.
        then = partial(loop.call_soon, end)
        container.timers.append(loop.call_later(after.total_seconds(), then))

    def end(self, container: Container, code: int, reason: str = "", message: str = "") -> None:
        """The process ends now; nothing happens if it does not run."""
        if container.state is not ContainerState.RUNNING:
            return
        for timer in container.timers:
            timer.cancel()
        container.timers.clear()
        container.state = ContainerState.EXITED
        container.finished_at = self.clock.now()
        container.exit_code = code
        container.reason = reason or (REASON_ERROR if code else REASON_COMPLETED)
        container.message = message
        if container.log is not None:
            container.log.end()
        on_end, container.on_end = container.on_end, []
        for callback in on_end:
            callback()
        self._tell(EventKind.STOPPED, container.sandbox, container)

    async def wait_ended(self, container: Container) -> None:
        if container.state is ContainerState.RUNNING:
            ended = asyncio.Event()
            container.on_end.append(ended.set)
            await ended.wait()

    def remove(self, container: Container) -> None:
        self.end(container, KILLED)
        del self.containers[container.id], container.sandbox.containers[container.id]
        if self._by_log.get(container.log_path) is container:
            del self._by_log[container.log_path]
        self._tell(EventKind.DELETED, container.sandbox, container)

    # --- logs -------------------------------------------------------------------------------------

    def log_at(self, path: str) -> MemoryLog | None:
        container = self._by_log.get(path)
        return None if container is None else self.log_of(container)

    def log_of(self, container: Container) -> MemoryLog:
        # Made when somebody writes or reads it: most simulated containers have nothing to say.
        if container.log is None:
            container.log = MemoryLog()
            if container.state is ContainerState.EXITED:
                container.log.end()
        return container.log

    def write(self, container: Container, text: str, *, is_stderr: bool = False) -> None:
        self.log_of(container).write(self.clock.now(), text.encode() + b"\n", is_stderr=is_stderr)

    def _write_later(self, container: Container, lines: LogLines, after: timedelta) -> None:
        if after == ZERO:
            self._write_lines(container, lines)
        else:
            loop = asyncio.get_running_loop()
            write = partial(self._write_lines, container, lines)
            container.timers.append(loop.call_later(after.total_seconds(), write))

    def _write_lines(self, container: Container, lines: LogLines) -> None:
        for line in lines.lines:
            self.write(container, line, is_stderr=lines.is_stderr)
        if lines.every:
            # The timer that brought us here is done.
            now = asyncio.get_running_loop().time()
            container.timers = [timer for timer in container.timers if timer.when() > now]
            self._write_later(container, lines, lines.every)

    # --- the rest ---------------------------------------------------------------------------------

    def _tell(self, kind: EventKind, sandbox: Sandbox, container: Container | None = None) -> None:
        container_id = "" if container is None else container.id
        self.events.publish(RuntimeEvent(kind, sandbox.id, container_id, sandbox.spec.uid))

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def check_invariants(self) -> None:
        addresses = [s.address for s in self.sandboxes.values() if s.address is not None]
        assert len(addresses) == len(set(addresses)), "two pods have one address"
        assert self.addresses.used == set(addresses), "an address was not released"
        assert set(self._by_address) == {s.ip for s in self.sandboxes.values() if s.ip}
        for container in self.containers.values():
            assert self.sandboxes.get(container.sandbox.id) is container.sandbox
            running = container.state is ContainerState.RUNNING
            assert container.sandbox.ready or not running, "a container runs in a dead sandbox"
            assert running or not container.timers, "a timer outlives its container"


def _key(container: Container) -> tuple[str, str, str]:
    spec = container.sandbox.spec
    return spec.namespace, spec.name, container.spec.name


def _sandbox_name(spec: SandboxSpec) -> str:
    return f"{spec.name}_{spec.namespace}_{spec.uid}_{spec.attempt}"
