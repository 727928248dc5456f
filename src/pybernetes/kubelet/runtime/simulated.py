"""A runtime whose containers are scripted: nothing runs, time may be virtual, nothing is guessed.

For tests, simulation and benchmarks: pods get addresses from a range, containers start at once, and
everything they do later comes from `script` (see that module). A container costs a record and a
timer at most, no task and no file; logs are in memory.

Rules:
- Everything happens at the moment of the call or of a timer: an event is published before the call
  that caused it returns, so a test that is settled has seen everything.
- The same calls at the same times give the same ids, addresses and events: chance comes from the
  `random` that was given.
- What happens to a container does not stop when the kubelet does: a runtime may be handed to one
  kubelet after another.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import (
    ContainerState,
    ContainerStats,
    EventKind,
    ExecTimeout,
    FilesystemUsage,
    RuntimeCondition,
    RuntimeEvent,
    RuntimeStatus,
    RuntimeUnavailable,
    RuntimeVersion,
)
from pybernetes.kubelet.runtime.script import ZERO, pattern_matches
from pybernetes.kubelet.runtime.simulated_network import SimulatedNetwork, SimulatedPorts
from pybernetes.kubelet.runtime.simulated_process import result_of, start_process
from pybernetes.kubelet.runtime.simulated_state import AddressPool, labels_match
from pybernetes.kubelet.runtime.simulated_stream import SimulatedProcess
from pybernetes.kubelet.runtime.simulated_world import KILLED, SimulatedWorld

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.kubelet.runtime.events import Events
    from pybernetes.kubelet.runtime.interface import (
        ContainerSpec,
        ContainerStatus,
        ContainerSummary,
        ImageStatus,
        RegistryAuth,
        Resources,
        SandboxSpec,
        SandboxState,
        SandboxStatus,
        SandboxSummary,
    )
    from pybernetes.kubelet.runtime.script import ImageScript, Script
    from pybernetes.kubelet.runtime.simulated_image import SimulatedImages
    from pybernetes.kubelet.runtime.simulated_state import Container
    from pybernetes.kubelet.runtime.simulated_stream import MemoryLog

# What an unscripted container is said to use.
USUAL_CPU_NANOCORES = 1_000_000
USUAL_MEMORY_BYTES = 4 * 1024 * 1024

# As long as a command that never ends is waited for.
LONGEST_COMMAND = timedelta(days=365)


class SimulatedRuntime:
    """A `Runtime`, and the handles by which a test moves its world."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        *,
        pod_cidr: str = "10.244.0.0/16",
        latency: timedelta = ZERO,
    ) -> None:
        """`latency` is what starting a sandbox or container takes."""
        self._clock = clock
        self._latency = latency
        self._world = SimulatedWorld(clock, random, pod_cidr)
        self._network = SimulatedNetwork(self._world.sandbox_at, self._world.refresh, clock)
        self._away = False
        # Condition → what is wrong; empty: it is true.
        self._problems = {"RuntimeReady": "", "NetworkReady": ""}

    # --- what a test does and asks ----------------------------------------------------------------

    @property
    def images(self) -> SimulatedImages:
        """What is on the node, and what pulling does."""
        return self._world.images

    def script(self, pattern: str, *behaviours: Script, attempts: int | None = None) -> None:
        """Say what matching containers do from now on; see the module `script`.

        How a running container answers probes and commands changes at once; its end and its log
        were settled when it started.
        """
        self._world.scripts.add(pattern, behaviours, attempts)

    def script_image(self, pattern: str, script: ImageScript) -> None:
        """Say what pulls of matching references do; by default every image exists."""
        self._world.images.script(pattern, script)

    def fail_sandboxes(self, pattern: str, message: str, *, times: int | None = None) -> None:
        """`run_sandbox` of pods with such names fails (so many times)."""
        self._world.sandbox_failures.append((pattern, message, times))

    def kill(self, pattern: str, code: int = KILLED, *, reason: str = "") -> int:
        """End matching running containers now, from outside; returns how many there were."""
        found = self._world.running(pattern)
        for container in found:
            self._world.end(container, code, reason)
        return len(found)

    def kill_sandbox(self, pattern: str) -> int:
        """End the sandboxes of matching pods, with all that is in them."""
        found = [
            sandbox
            for sandbox in self._world.sandboxes.values()
            if sandbox.ready
            and pattern_matches(pattern, sandbox.spec.namespace, sandbox.spec.name, "")
        ]
        for sandbox in found:
            self._world.stop_sandbox(sandbox)
        return len(found)

    def log(self, pattern: str, text: str, *, is_stderr: bool = False) -> None:
        """Matching running containers write this line now."""
        for container in self._world.running(pattern):
            self._world.write(container, text, is_stderr=is_stderr)

    def go_away(self) -> None:
        """From now on nobody answers; containers go on."""
        self._away = True

    def come_back(self) -> None:
        self._away = False
        self._world.events.publish(RuntimeEvent(EventKind.RESYNC))

    def set_condition(self, kind: str, problem: str = "") -> None:
        """`RuntimeReady` or `NetworkReady`: false with this message; true again without one."""
        self._problems[kind] = problem

    def starts(self, pattern: str) -> list[datetime]:
        """When matching containers started, oldest first; removed ones too."""
        return sorted(
            moment
            for key, moments in self._world.starts.items()
            if pattern_matches(pattern, *key)
            for moment in moments
        )

    def start_gaps(self, pattern: str) -> list[timedelta]:
        """The times between those starts."""
        return [later - earlier for earlier, later in pairwise(self.starts(pattern))]

    def check_invariants(self) -> None:
        self._world.check_invariants()

    # --- runtime ----------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._away:
            raise RuntimeUnavailable("the simulated runtime is away")

    async def _check_slowly(self) -> None:
        self._check()
        if self._latency:
            await asyncio.sleep(self._latency.total_seconds())
            self._check()

    async def version(self) -> RuntimeVersion:
        self._check()
        return RuntimeVersion("simulated", "1", "v1")

    async def status(self) -> RuntimeStatus:
        self._check()
        return RuntimeStatus(
            tuple(
                RuntimeCondition(kind, not problem, f"{kind}Failed" if problem else "", problem)
                for kind, problem in self._problems.items()
            )
        )

    async def update_pod_cidr(self, cidr: str) -> None:
        """Takes effect while no pod has an address."""
        self._check()
        if cidr and not self._world.addresses.used:
            self._world.addresses = AddressPool(cidr)

    def events(self) -> Events:
        return self._world.events.open()

    @property
    def pod_network(self) -> SimulatedNetwork:
        return self._network

    # --- sandboxes --------------------------------------------------------------------------------

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        await self._check_slowly()
        return self._world.run_sandbox(spec).id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._check()
        if (sandbox := self._world.sandboxes.get(sandbox_id)) is not None:
            self._world.stop_sandbox(sandbox)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._check()
        if (sandbox := self._world.sandboxes.get(sandbox_id)) is not None:
            self._world.remove_sandbox(sandbox)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        self._check()
        return self._world.sandbox(sandbox_id).status()

    async def list_sandboxes(
        self, *, state: SandboxState | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[SandboxSummary]:
        self._check()
        return [
            sandbox.summary()
            for sandbox in self._world.sandboxes.values()
            if (state is None or sandbox.state is state) and labels_match(sandbox.labels, labels)
        ]

    # --- containers -------------------------------------------------------------------------------

    async def create_container(
        self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec
    ) -> str:
        self._check()
        return self._world.create(sandbox_id, spec).id

    async def start_container(self, container_id: str) -> None:
        await self._check_slowly()
        self._world.start(self._world.container(container_id))

    async def stop_container(self, container_id: str, timeout: timedelta) -> None:
        self._check()
        container = self._world.containers.get(container_id)
        if container is None or container.state is not ContainerState.RUNNING:
            return
        self._world.refresh(container)
        script = container.script
        after = script.stop_after or ZERO
        if timeout <= ZERO:
            self._world.end(container, KILLED)
        elif script.ignores_stop or after > timeout:
            self._world.end_later(container, timeout, KILLED)
        elif after > ZERO:
            self._world.end_later(container, after, script.stop_code or 0)
        else:
            self._world.end(container, script.stop_code or 0)
        await self._world.wait_ended(container)

    async def remove_container(self, container_id: str) -> None:
        self._check()
        if (container := self._world.containers.get(container_id)) is not None:
            self._world.remove(container)

    async def list_containers(
        self,
        *,
        sandbox_id: str = "",
        state: ContainerState | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Sequence[ContainerSummary]:
        self._check()
        return [
            container.summary()
            for container in self._world.containers_in(sandbox_id)
            if (state is None or container.state is state)
            and labels_match(container.labels, labels)
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        self._check()
        return self._world.container(container_id).status()

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        self._check()
        self._world.container(container_id).resources = resources

    # --- logs and streams -------------------------------------------------------------------------

    async def reopen_log(self, container_id: str) -> None:
        self._check()
        self._world.running_container(container_id)

    def open_log(self, log_path: str) -> MemoryLog | None:
        return self._world.log_at(log_path)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: timedelta | None = None
    ) -> tuple[bytes, bytes, int]:
        self._check()
        container = self._world.running_container(container_id)
        result = result_of(container, command, self._clock.now())
        if timeout is not None and result.after > timeout:
            await asyncio.sleep(timeout.total_seconds())
            raise ExecTimeout(f"command {list(command)} timed out")
        if result.after > ZERO:
            # Bounded, because the loop's clock takes no infinite wait.
            await asyncio.sleep(min(result.after, LONGEST_COMMAND).total_seconds())
        return result.stdout, result.stderr, result.code

    async def exec(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> SimulatedProcess:
        self._check()
        container = self._world.running_container(container_id)
        return start_process(container, command, self._clock.now())

    async def attach(
        self,
        container_id: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> SimulatedProcess:
        """Its output from now on. What is written to it comes back and into its log, as of `cat`."""
        self._check()
        container = self._world.running_container(container_id)
        log = self._world.log_of(container)

        def hear(_: SimulatedProcess, data: bytes) -> None:
            if data:
                log.write(self._clock.now(), data)

        process = SimulatedProcess(
            hear if stdin else None, on_close=lambda: log.listeners.remove(process.pass_on)
        )
        log.listeners.append(process.pass_on)
        container.on_end.append(lambda: process.exit(container.exit_code))
        return process

    async def port_forward(self, sandbox_id: str, ports: Sequence[int] = ()) -> SimulatedPorts:
        self._check()
        return SimulatedPorts(self._network, self._world.sandbox(sandbox_id))

    # --- images -----------------------------------------------------------------------------------

    async def pull_image(
        self, ref: str, auth: RegistryAuth | None = None, sandbox: SandboxSpec | None = None
    ) -> str:
        self._check()
        return await self._world.images.pull(ref, auth)

    async def image_status(self, ref: str) -> ImageStatus | None:
        self._check()
        return self._world.images.find(ref)

    async def list_images(self) -> Sequence[ImageStatus]:
        self._check()
        return self._world.images.all()

    async def remove_image(self, ref: str) -> None:
        self._check()
        self._world.images.remove(ref)

    async def image_filesystems(self) -> Sequence[FilesystemUsage]:
        self._check()
        images = self._world.images.all()
        used = sum(image.size_bytes for image in images)
        return [FilesystemUsage("/simulated", used, len(images), self._clock.now())]

    # --- statistics -------------------------------------------------------------------------------

    async def container_stats(self, container_id: str) -> ContainerStats:
        self._check()
        return self._stats_of(self._world.container(container_id))

    async def list_container_stats(
        self, *, sandbox_id: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerStats]:
        self._check()
        return [
            self._stats_of(container)
            for container in self._world.containers_in(sandbox_id)
            if container.state is ContainerState.RUNNING and labels_match(container.labels, labels)
        ]

    def _stats_of(self, container: Container) -> ContainerStats:
        self._world.refresh(container)
        now, script = self._clock.now(), container.script
        cpu = script.cpu_nanocores if script.cpu_nanocores is not None else USUAL_CPU_NANOCORES
        memory = script.memory_bytes if script.memory_bytes is not None else USUAL_MEMORY_BYTES
        age = now - container.started_at if container.started_at else ZERO
        limit = container.resources.memory_limit_bytes
        return ContainerStats(
            id=container.id,
            name=container.spec.name,
            labels=container.labels,
            at=now,
            cpu_usage_nanoseconds=int(age.total_seconds() * cpu),
            cpu_usage_nanocores=cpu,
            memory_usage_bytes=memory,
            memory_working_set_bytes=memory,
            memory_available_bytes=max(0, limit - memory) if limit else None,
            memory_rss_bytes=memory,
            writable_layer_bytes=0,
            writable_layer_inodes=0,
        )
