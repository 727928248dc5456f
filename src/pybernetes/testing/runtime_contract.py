"""What every container runtime must do for the kubelet. Subclass and say how to get one.

    class TestMyRuntime(RuntimeContract):
        @pytest.fixture
        async def runtime(self) -> AsyncIterator[Runtime]: ...

The runtime has the image `IMAGE` (a busybox) and no pods. Where a runtime must be told what a real
container would do by nature (`will_be_stubborn`, `will_not_start`), a hook says so.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pybernetes.kubelet.runtime.interface import (
    CONTAINER_NAME_LABEL,
    POD_NAME_LABEL,
    POD_NAMESPACE_LABEL,
    POD_UID_LABEL,
    ContainerNotFound,
    ContainerRuntimeError,
    ContainerSpec,
    ContainerState,
    EventKind,
    ExecTimeout,
    ImageNotFound,
    ImagePullFailed,
    NamespaceMode,
    Namespaces,
    Resources,
    SandboxNotFound,
    SandboxSpec,
    SandboxState,
    Security,
)

if TYPE_CHECKING:
    from pybernetes.kubelet.runtime.interface import ContainerStatus, EventStream, Runtime

IMAGE = "localhost/contract:1"
# On this machine nobody listens there, and in a simulation nobody has it.
IMPOSSIBLE_IMAGE = "127.0.0.1:1/nobody/has:this"

FOR_EVER = ("sleep", "infinity")
LOG_LINE = re.compile(r"(?P<time>\S+) (?P<stream>stdout|stderr) (?P<tag>[FP]) (?P<text>.*)")

_numbers = count(1)


def sandbox_spec(name: str = "", *, log_directory: Path | None = None) -> SandboxSpec:
    number = next(_numbers)
    name = name or f"pod-{number}"
    return SandboxSpec(
        name=name,
        namespace="contract",
        uid=f"uid-{number}",
        hostname=name,
        log_directory=str(log_directory or ""),
        labels={"app": name},
    )


async def until_exited(runtime: Runtime, container_id: str) -> ContainerStatus:
    async with asyncio.timeout(20):
        while True:
            status = await runtime.container_status(container_id)
            if status.state is ContainerState.EXITED:
                return status
            await asyncio.sleep(0.02)


async def next_event(
    events: EventStream, kind: EventKind, *, container_id: str = "", sandbox_id: str = ""
) -> None:
    """Wait for that event about that container or sandbox."""
    async with asyncio.timeout(20):
        async for event in events:
            about = event.container_id or event.sandbox_id
            if event.kind is kind and about == (container_id or sandbox_id):
                return


def read_log(runtime: Runtime, path: str) -> list[re.Match[str]]:
    """The lines of a container's log, wherever it is."""
    log = runtime.open_log(path)
    content = Path(path).read_bytes() if log is None else log.read(0, log.size)
    lines = [LOG_LINE.fullmatch(line) for line in content.decode().splitlines()]
    assert all(lines), content
    return [line for line in lines if line]


class Pod:
    """A running sandbox and the means to put containers into it."""

    def __init__(self, runtime: Runtime, spec: SandboxSpec, sandbox_id: str) -> None:
        self.runtime, self.spec, self.id = runtime, spec, sandbox_id

    async def create(self, *command: str, name: str = "main", **options: object) -> str:
        spec = ContainerSpec(name=name, image=IMAGE, command=command, log_path=f"{name}.log")
        return await self.runtime.create_container(
            self.id,
            replace(spec, **options),  # type: ignore[arg-type]  # fields of ContainerSpec
            self.spec,
        )

    async def start(self, *command: str, name: str = "main", **options: object) -> str:
        container_id = await self.create(*command, name=name, **options)
        await self.runtime.start_container(container_id)
        return container_id


class RuntimeContract:
    """What every container runtime must do for the kubelet."""

    def will_be_stubborn(self, runtime: Runtime, container: str) -> None:
        """A container of that name will not end when asked to. `sleep` as process 1 is like that."""

    def will_not_start(self, runtime: Runtime, container: str) -> None:
        """A container of that name, whose command is /nosuch, cannot be started."""

    @pytest.fixture
    async def pod(self, runtime: Runtime, tmp_path: Path) -> Pod:
        spec = sandbox_spec(log_directory=tmp_path)
        return Pod(runtime, spec, await runtime.run_sandbox(spec))

    # --- runtime ----------------------------------------------------------------------------------

    async def test_a_healthy_runtime_is_ready(self, runtime: Runtime) -> None:
        version = await runtime.version()
        assert version.name
        assert version.version
        status = await runtime.status()
        assert status.runtime_ready
        assert status.network_ready
        assert "" in status.handlers

    # --- sandboxes --------------------------------------------------------------------------------

    async def test_a_sandbox_runs_until_it_is_stopped(self, runtime: Runtime) -> None:
        spec = sandbox_spec()
        sandbox_id = await runtime.run_sandbox(spec)
        status = await runtime.sandbox_status(sandbox_id)
        assert (status.name, status.namespace, status.uid) == (spec.name, "contract", spec.uid)
        assert status.state is SandboxState.READY
        assert status.ips
        assert status.labels["app"] == spec.name
        assert status.labels[POD_UID_LABEL] == spec.uid

        await runtime.stop_sandbox(sandbox_id)
        assert (await runtime.sandbox_status(sandbox_id)).state is SandboxState.NOT_READY
        await runtime.remove_sandbox(sandbox_id)
        with pytest.raises(SandboxNotFound):
            await runtime.sandbox_status(sandbox_id)

    async def test_stopping_and_removing_a_sandbox_twice_does_no_harm(
        self, runtime: Runtime
    ) -> None:
        sandbox_id = await runtime.run_sandbox(sandbox_spec())
        for _ in range(2):
            await runtime.stop_sandbox(sandbox_id)
        for _ in range(2):
            await runtime.remove_sandbox(sandbox_id)
        await runtime.stop_sandbox(sandbox_id)

    async def test_a_running_sandbox_can_be_removed(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        await pod.runtime.remove_sandbox(pod.id)
        assert not await pod.runtime.list_sandboxes()
        with pytest.raises(ContainerNotFound):
            await pod.runtime.container_status(container_id)

    async def test_every_pod_has_an_address_of_its_own(self, runtime: Runtime) -> None:
        ids = [await runtime.run_sandbox(sandbox_spec()) for _ in range(3)]
        addresses = [(await runtime.sandbox_status(one)).ips[0] for one in ids]
        assert len(set(addresses)) == 3

    async def test_a_pod_on_the_hosts_network_has_no_address(self, runtime: Runtime) -> None:
        spec = replace(
            sandbox_spec(), security=Security(namespaces=Namespaces(network=NamespaceMode.NODE))
        )
        status = await runtime.sandbox_status(await runtime.run_sandbox(spec))
        assert status.ips == ()
        assert status.network is NamespaceMode.NODE

    async def test_the_same_attempt_of_a_pod_exists_once(self, runtime: Runtime) -> None:
        spec = sandbox_spec()
        first = await runtime.run_sandbox(spec)
        with pytest.raises(ContainerRuntimeError):
            await runtime.run_sandbox(spec)
        await runtime.run_sandbox(replace(spec, attempt=1))
        await runtime.remove_sandbox(first)
        await runtime.run_sandbox(spec)

    async def test_sandboxes_are_listed_by_state_and_label(self, runtime: Runtime) -> None:
        specs = [sandbox_spec(), sandbox_spec()]
        ready, stopped = [await runtime.run_sandbox(spec) for spec in specs]
        await runtime.stop_sandbox(stopped)
        assert {s.id for s in await runtime.list_sandboxes()} == {ready, stopped}
        assert [s.id for s in await runtime.list_sandboxes(state=SandboxState.READY)] == [ready]
        labels = {"app": specs[1].name}
        found = await runtime.list_sandboxes(labels=labels)
        assert [(s.id, s.uid) for s in found] == [(stopped, specs[1].uid)]

    # --- containers -------------------------------------------------------------------------------

    async def test_a_container_lives_and_ends(self, pod: Pod) -> None:
        runtime = pod.runtime
        container_id = await pod.create("sh", "-c", "sleep 0.3; exit 3")
        status = await runtime.container_status(container_id)
        assert status.state is ContainerState.CREATED
        assert status.started_at is None

        await runtime.start_container(container_id)
        status = await runtime.container_status(container_id)
        assert status.state is ContainerState.RUNNING
        assert status.started_at is not None
        assert status.finished_at is None

        status = await until_exited(runtime, container_id)
        assert (status.exit_code, status.reason) == (3, "Error")
        assert status.started_at is not None
        assert status.finished_at is not None
        assert status.created_at <= status.started_at < status.finished_at

    async def test_a_container_that_did_its_work_is_completed(self, pod: Pod) -> None:
        status = await until_exited(pod.runtime, await pod.start("true"))
        assert (status.exit_code, status.reason) == (0, "Completed")

    async def test_a_container_says_whose_it_is(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER, attempt=4, annotations={"note": "x"})
        status = await pod.runtime.container_status(container_id)
        [summary] = await pod.runtime.list_containers()
        for described in (status, summary):
            assert described.id == container_id
            assert described.sandbox_id == pod.id
            assert (described.name, described.attempt) == ("main", 4)
            assert described.pod_uid == pod.spec.uid
            assert described.labels[POD_NAME_LABEL] == pod.spec.name
            assert described.labels[POD_NAMESPACE_LABEL] == "contract"
            assert described.labels[CONTAINER_NAME_LABEL] == "main"
            assert described.annotations["note"] == "x"
            assert described.image_ref
        assert status.image == IMAGE

    async def test_a_command_that_does_not_exist_is_a_start_error(self, pod: Pod) -> None:
        self.will_not_start(pod.runtime, "main")
        container_id = await pod.create("/nosuch")
        with pytest.raises(ContainerRuntimeError, match="nosuch"):
            await pod.runtime.start_container(container_id)
        status = await until_exited(pod.runtime, container_id)
        assert (status.exit_code, status.reason) == (128, "StartError")
        assert "nosuch" in status.message

    async def test_a_container_is_started_once(self, pod: Pod) -> None:
        container_id = await pod.start("true")
        await until_exited(pod.runtime, container_id)
        with pytest.raises(ContainerRuntimeError):
            await pod.runtime.start_container(container_id)

    async def test_a_container_is_killed_at_once_without_a_timeout(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        await pod.runtime.stop_container(container_id, timedelta(0))
        status = await pod.runtime.container_status(container_id)
        assert status.state is ContainerState.EXITED
        assert (status.exit_code, status.reason) == (137, "Error")

    async def test_a_stubborn_container_is_killed_after_the_timeout(self, pod: Pod) -> None:
        self.will_be_stubborn(pod.runtime, "main")
        container_id = await pod.start(*FOR_EVER)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await pod.runtime.stop_container(container_id, timedelta(seconds=1))
        assert 0.9 < loop.time() - began < 10
        status = await pod.runtime.container_status(container_id)
        assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)

    async def test_stopping_and_removing_a_container_twice_does_no_harm(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        for _ in range(2):
            await pod.runtime.stop_container(container_id, timedelta(0))
        for _ in range(2):
            await pod.runtime.remove_container(container_id)
        await pod.runtime.stop_container(container_id, timedelta(0))

    async def test_a_running_container_can_be_removed(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        await pod.runtime.remove_container(container_id)
        assert not await pod.runtime.list_containers()
        # Its name is free again.
        await pod.start(*FOR_EVER)

    async def test_stopping_a_sandbox_ends_its_containers(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        await pod.runtime.stop_sandbox(pod.id)
        status = await until_exited(pod.runtime, container_id)
        assert status.exit_code == 137

    async def test_what_is_not_there_is_said_to_be_not_there(self, pod: Pod) -> None:
        runtime = pod.runtime
        with pytest.raises(ContainerNotFound):
            await runtime.container_status("nosuch")
        with pytest.raises(ContainerNotFound):
            await runtime.exec_sync("nosuch", ["true"])
        with pytest.raises(ContainerNotFound):
            await runtime.start_container("nosuch")
        with pytest.raises(SandboxNotFound):
            await runtime.create_container(
                "nosuch", ContainerSpec(name="main", image=IMAGE), pod.spec
            )
        with pytest.raises(ImageNotFound):
            await pod.create(*FOR_EVER, image="localhost/nosuch:1")

    async def test_containers_are_listed_by_sandbox_state_and_label(
        self, runtime: Runtime, pod: Pod, tmp_path: Path
    ) -> None:
        other_spec = sandbox_spec(log_directory=tmp_path / "other")
        other = Pod(runtime, other_spec, await runtime.run_sandbox(other_spec))
        runs = await pod.start(*FOR_EVER, labels={"role": "a"})
        waits = await pod.create(*FOR_EVER, name="second", labels={"role": "b"})
        elsewhere = await other.start(*FOR_EVER, labels={"role": "b"})

        async def listed(**which: object) -> set[str]:
            found = await runtime.list_containers(**which)  # type: ignore[arg-type]  # see below
            return {container.id for container in found}

        assert await listed() == {runs, waits, elsewhere}
        assert await listed(sandbox_id=pod.id) == {runs, waits}
        assert await listed(state=ContainerState.CREATED) == {waits}
        assert await listed(labels={"role": "b"}) == {waits, elsewhere}
        assert await listed(sandbox_id=pod.id, labels={"role": "b"}) == {waits}

    # --- logs and commands ------------------------------------------------------------------------

    async def test_output_is_logged_line_by_line(self, pod: Pod) -> None:
        container_id = await pod.start("sh", "-c", "echo one; echo two >&2; sleep 0.1; echo three")
        status = await until_exited(pod.runtime, container_id)
        lines = read_log(pod.runtime, status.log_path)
        assert sorted((line["stream"], line["tag"], line["text"]) for line in lines) == [
            ("stderr", "F", "two"),
            ("stdout", "F", "one"),
            ("stdout", "F", "three"),
        ]
        moments = [datetime.fromisoformat(line["time"][:26] + "+00:00") for line in lines]
        assert moments == sorted(moments)
        assert lines[-1]["text"] == "three"

    async def test_a_command_in_a_container_returns_output_and_code(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        command = ["sh", "-c", "echo out; echo err >&2; exit 5"]
        assert await pod.runtime.exec_sync(container_id, command) == (b"out\n", b"err\n", 5)

    async def test_a_command_sees_the_containers_environment(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER, env=(("COLOUR", "blue=green"),))
        stdout, _, code = await pod.runtime.exec_sync(container_id, ["env"])
        assert code == 0
        assert b"COLOUR=blue=green\n" in stdout
        stdout, _, _ = await pod.runtime.exec_sync(container_id, ["hostname"])
        assert stdout.decode().strip() == pod.spec.hostname

    async def test_a_slow_command_is_ended(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        with pytest.raises(ExecTimeout):
            await pod.runtime.exec_sync(container_id, ["sleep", "30"], timedelta(seconds=1))

    async def test_no_command_runs_in_a_container_that_ended(self, pod: Pod) -> None:
        container_id = await pod.start("true")
        await until_exited(pod.runtime, container_id)
        with pytest.raises(ContainerRuntimeError):
            await pod.runtime.exec_sync(container_id, ["true"])

    # --- events -----------------------------------------------------------------------------------

    async def test_a_containers_life_is_told(self, runtime: Runtime, pod: Pod) -> None:
        async with aclosing(runtime.events()) as events:
            container_id = await pod.start("sh", "-c", "sleep 0.2; exit 3")
            await next_event(events, EventKind.STARTED, container_id=container_id)
            await next_event(events, EventKind.STOPPED, container_id=container_id)
            # Whoever hears of the end and looks, sees it.
            status = await runtime.container_status(container_id)
            assert (status.state, status.exit_code) == (ContainerState.EXITED, 3)
            await runtime.remove_container(container_id)
            await next_event(events, EventKind.DELETED, container_id=container_id)

    async def test_a_sandboxs_life_is_told(self, runtime: Runtime) -> None:
        async with aclosing(runtime.events()) as events:
            spec = sandbox_spec()
            sandbox_id = await runtime.run_sandbox(spec)
            async with asyncio.timeout(20):
                while (event := await anext(events)).sandbox_id != sandbox_id:
                    pass
            assert event.pod_uid == spec.uid
            await runtime.stop_sandbox(sandbox_id)
            await next_event(events, EventKind.STOPPED, sandbox_id=sandbox_id)
            assert (await runtime.sandbox_status(sandbox_id)).state is SandboxState.NOT_READY
            await runtime.remove_sandbox(sandbox_id)
            await next_event(events, EventKind.DELETED, sandbox_id=sandbox_id)

    async def test_commands_are_not_told(self, runtime: Runtime, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        async with aclosing(runtime.events()) as events:
            await runtime.exec_sync(container_id, ["true"])
            marker = await runtime.run_sandbox(sandbox_spec())
            async with asyncio.timeout(20):
                while (event := await anext(events)).sandbox_id != marker:
                    assert event.kind is not EventKind.STOPPED

    # --- images -----------------------------------------------------------------------------------

    async def test_images_are_known_by_name_and_id(self, runtime: Runtime) -> None:
        image = await runtime.image_status(IMAGE)
        assert image is not None
        assert IMAGE in image.repo_tags
        assert image.size_bytes > 0
        assert await runtime.image_status(image.id) == image
        assert image.id in {one.id for one in await runtime.list_images()}
        assert await runtime.image_status("localhost/nosuch:1") is None

    async def test_removing_an_image_that_is_not_there_does_no_harm(self, runtime: Runtime) -> None:
        await runtime.remove_image("localhost/nosuch:1")

    async def test_a_pull_that_cannot_be_says_why(self, runtime: Runtime) -> None:
        with pytest.raises(ImagePullFailed, match=re.escape(IMPOSSIBLE_IMAGE)) as caught:
            await runtime.pull_image(IMPOSSIBLE_IMAGE)
        assert caught.value.reason == "ErrImagePull"

    async def test_image_storage_is_measured(self, runtime: Runtime) -> None:
        [usage, *_] = await runtime.image_filesystems()
        assert usage.mountpoint
        assert usage.used_bytes > 0

    # --- resources --------------------------------------------------------------------------------

    async def test_a_running_container_has_statistics(self, pod: Pod) -> None:
        container_id = await pod.start(*FOR_EVER)
        stats = await pod.runtime.container_stats(container_id)
        assert (stats.id, stats.name) == (container_id, "main")
        assert stats.labels[POD_UID_LABEL] == pod.spec.uid
        assert stats.cpu_usage_nanoseconds is not None
        assert stats.memory_working_set_bytes
        [same] = await pod.runtime.list_container_stats(sandbox_id=pod.id)
        assert same.id == container_id
        with pytest.raises(ContainerNotFound):
            await pod.runtime.container_stats("nosuch")

    async def test_limits_can_be_changed_while_it_runs(self, pod: Pod) -> None:
        limits = Resources(memory_limit_bytes=64 * 2**20, cpu_shares=512)
        container_id = await pod.start(*FOR_EVER, resources=limits)
        more = replace(limits, memory_limit_bytes=96 * 2**20)
        await pod.runtime.update_resources(container_id, more)
        status = await pod.runtime.container_status(container_id)
        assert status.state is ContainerState.RUNNING
        if status.resources is not None:
            assert status.resources.memory_limit_bytes == 96 * 2**20
