"""What can be scripted in the simulated runtime. Real: the runtime. Virtual: time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pybernetes.kubelet.runtime.interface import (
    ContainerRuntimeError,
    ContainerState,
    EventKind,
    ImagePullFailed,
    RegistryAuth,
    Resources,
    RuntimeUnavailable,
    SandboxState,
)
from pybernetes.kubelet.runtime.script import (
    ExecResult,
    execs,
    exits,
    fails_to_create,
    http,
    ignores_stop,
    listens,
    logs,
    missing,
    never_ready,
    oom,
    pattern_matches,
    pulls,
    ready,
    stops,
    unauthorized,
    uses,
)
from pybernetes.kubelet.runtime.simulated import SimulatedRuntime
from pybernetes.kubelet.runtime.simulated_image import full_reference
from pybernetes.testing.runtime_contract import (
    FOR_EVER,
    IMAGE,
    Pod,
    read_log,
    sandbox_spec,
    until_exited,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.fixture
async def runtime(clock: Clock, random: Random) -> AsyncIterator[SimulatedRuntime]:
    runtime = SimulatedRuntime(clock, random)
    runtime.images.add(IMAGE)
    yield runtime
    runtime.check_invariants()


async def make_pod(runtime: SimulatedRuntime, name: str = "web") -> Pod:
    spec = replace(sandbox_spec(name), log_directory=f"/logs/{name}")
    return Pod(runtime, spec, await runtime.run_sandbox(spec))


async def state_of(pod: Pod, container_id: str) -> ContainerState:
    return (await pod.runtime.container_status(container_id)).state


# --- scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("web", True),
        ("main", True),
        ("web/main", True),
        ("default/web/main", True),
        ("w*", True),
        ("*/main", True),
        ("other/main", False),
        ("web/side", False),
        ("kube-system/web/main", False),
        ("default/web/main/more", False),
        ("we", False),
    ],
)
def test_patterns_name_containers(pattern: str, matches: bool) -> None:
    assert pattern_matches(pattern, "default", "web", "main") is matches


async def test_a_scripted_container_exits_when_it_should(runtime: SimulatedRuntime) -> None:
    runtime.script("web", exits(code=1, after=seconds(90), message="no more"))
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    await asyncio.sleep(89.9)
    assert await state_of(pod, container_id) is ContainerState.RUNNING
    await asyncio.sleep(0.2)
    status = await runtime.container_status(container_id)
    assert (status.exit_code, status.reason, status.message) == (1, "Error", "no more")
    assert status.started_at is not None
    assert status.finished_at == status.started_at + seconds(90)


async def test_a_script_may_cover_the_first_starts_only(runtime: SimulatedRuntime) -> None:
    runtime.script("web", exits(code=1), attempts=2)
    pod = await make_pod(runtime)
    for attempt in range(2):
        assert (await until_exited(runtime, await pod.start(attempt=attempt))).exit_code == 1
    third = await pod.start(attempt=2)
    await asyncio.sleep(1000)
    assert await state_of(pod, third) is ContainerState.RUNNING


async def test_later_scripts_lie_over_earlier_ones(runtime: SimulatedRuntime) -> None:
    runtime.script("*", exits(code=1, after=seconds(1)), logs("hello"))
    runtime.script("web", exits(code=2, after=seconds(1)))
    pod = await make_pod(runtime)
    status = await until_exited(runtime, await pod.start())
    assert status.exit_code == 2
    assert [line["text"] for line in read_log(runtime, status.log_path)] == ["hello"]


async def test_starts_and_their_gaps_are_remembered(runtime: SimulatedRuntime) -> None:
    runtime.script("web", exits(code=1, after=seconds(1)))
    pod = await make_pod(runtime)
    for attempt, pause in enumerate((1, 11, 21)):
        await pod.start(attempt=attempt)
        await asyncio.sleep(pause)
    await pod.start(attempt=3)
    assert runtime.start_gaps("web") == [seconds(1), seconds(11), seconds(21)]
    await runtime.remove_sandbox(pod.id)
    assert len(runtime.starts("contract/web/main")) == 4


async def test_memory_beyond_the_limit_kills(runtime: SimulatedRuntime) -> None:
    runtime.script("web", uses(memory_bytes=200))
    pod = await make_pod(runtime)
    limited = await pod.start(resources=Resources(memory_limit_bytes=100))
    assert (await until_exited(runtime, limited)).reason == "OOMKilled"
    free = await pod.start(name="second", resources=Resources(memory_limit_bytes=300))
    stats = await runtime.container_stats(free)
    assert (stats.memory_working_set_bytes, stats.memory_available_bytes) == (200, 100)


async def test_the_kernel_may_be_scripted_to_kill(runtime: SimulatedRuntime) -> None:
    runtime.script("web", oom(after=seconds(5)))
    pod = await make_pod(runtime)
    status = await until_exited(runtime, await pod.start())
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_a_container_that_cannot_be_created_is_not_there(runtime: SimulatedRuntime) -> None:
    runtime.script("web", fails_to_create("no such device"))
    pod = await make_pod(runtime)
    with pytest.raises(ContainerRuntimeError, match="no such device"):
        await pod.create()
    assert await runtime.list_containers() == []


@pytest.mark.parametrize(
    ("behaviour", "takes", "code"),
    [
        pytest.param(stops(), 0, 0, id="at once"),
        pytest.param(stops(after=seconds(3), code=143), 3, 143, id="after a while"),
        pytest.param(stops(after=seconds(60)), 30, 137, id="too slowly"),
        pytest.param(ignores_stop(), 30, 137, id="never"),
    ],
)
async def test_containers_take_being_stopped_differently(
    runtime: SimulatedRuntime, behaviour: object, takes: int, code: int
) -> None:
    runtime.script("web", behaviour)  # type: ignore[arg-type]  # a parameter
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    began = asyncio.get_running_loop().time()
    await runtime.stop_container(container_id, seconds(30))
    assert asyncio.get_running_loop().time() - began == pytest.approx(takes)
    assert (await runtime.container_status(container_id)).exit_code == code


async def test_a_second_stop_may_shorten_the_first(runtime: SimulatedRuntime) -> None:
    runtime.script("web", ignores_stop())
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runtime.stop_container(container_id, seconds(300)))
        await asyncio.sleep(1)
        tasks.create_task(runtime.stop_container(container_id, seconds(2)))
    assert loop.time() - began == pytest.approx(3)


async def test_simple_commands_need_no_script(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    container_id = await pod.start("sh", "-c", "echo working; sleep 2; echo done >&2; exit 4")
    status = await until_exited(runtime, container_id)
    assert status.exit_code == 4
    assert [(line["stream"], line["text"]) for line in read_log(runtime, status.log_path)] == [
        ("stdout", "working"),
        ("stderr", "done"),
    ]
    unknown = await pod.start("sh", "-c", "echo $HOME; exit 1", name="second")
    await asyncio.sleep(100)
    assert await state_of(pod, unknown) is ContainerState.RUNNING


async def test_killing_from_outside_is_told(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    events = runtime.events()
    assert runtime.kill("web") == 1
    assert runtime.kill("web") == 0
    event = await anext(events)
    assert (event.kind, event.container_id) == (EventKind.STOPPED, container_id)
    assert runtime.kill_sandbox("web") == 1
    assert (await runtime.sandbox_status(pod.id)).state is SandboxState.NOT_READY
    await events.aclose()


# --- the node -------------------------------------------------------------------------------------


async def test_sandboxes_may_fail_some_times(runtime: SimulatedRuntime) -> None:
    runtime.fail_sandboxes("web*", "plugin says no", times=1)
    with pytest.raises(ContainerRuntimeError, match="plugin says no"):
        await make_pod(runtime)
    await make_pod(runtime)


async def test_addresses_are_used_again_as_late_as_possible(clock: Clock, random: Random) -> None:
    runtime = SimulatedRuntime(clock, random, pod_cidr="10.1.2.0/29")
    ids = [await runtime.run_sandbox(sandbox_spec()) for _ in range(5)]
    assert (await runtime.sandbox_status(ids[0])).ips == ("10.1.2.2",)
    with pytest.raises(ContainerRuntimeError, match="no IP addresses available"):
        await runtime.run_sandbox(sandbox_spec())
    await runtime.stop_sandbox(ids[3])
    last = await runtime.run_sandbox(sandbox_spec())
    assert (await runtime.sandbox_status(last)).ips == ("10.1.2.5",)
    runtime.check_invariants()


async def test_a_runtime_that_is_away_answers_nobody(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    runtime.script("web", exits(after=seconds(5)))
    container_id = await pod.start()
    events = runtime.events()
    runtime.go_away()
    with pytest.raises(RuntimeUnavailable):
        await runtime.status()
    await asyncio.sleep(10)
    runtime.come_back()
    kinds = [(await anext(events)).kind for _ in range(2)]
    assert kinds == [EventKind.STOPPED, EventKind.RESYNC]
    assert await state_of(pod, container_id) is ContainerState.EXITED
    await events.aclose()


async def test_conditions_can_fail(runtime: SimulatedRuntime) -> None:
    runtime.set_condition("NetworkReady", "cni plugin not initialized")
    status = await runtime.status()
    assert status.runtime_ready
    assert not status.network_ready
    runtime.set_condition("NetworkReady")
    assert (await runtime.status()).network_ready


async def test_thousands_of_pods_are_cheap(runtime: SimulatedRuntime) -> None:
    pods = [await make_pod(runtime, f"pod-{n}") for n in range(3000)]
    for pod in pods:
        await pod.start(*FOR_EVER)
    assert len(await runtime.list_containers(state=ContainerState.RUNNING)) == 3000


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("quay.io/a/b@sha256:00", "quay.io/a/b@sha256:00"),
    ],
)
def test_references_are_completed(short: str, full: str) -> None:
    assert full_reference(short) == full


async def test_images_are_pulled_as_scripted(runtime: SimulatedRuntime) -> None:
    runtime.script_image("slow", pulls(after=seconds(40), uid=7))
    runtime.script_image("gone", missing(failures=1))
    runtime.script_image("secret", unauthorized(wants="me"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    image_id = await runtime.pull_image("slow")
    assert loop.time() - began == pytest.approx(40)
    image = await runtime.image_status("slow")
    assert image is not None
    assert (image.id, image.uid) == (image_id, 7)

    with pytest.raises(ImagePullFailed, match=r"docker\.io/library/gone:latest: not found"):
        await runtime.pull_image("gone")
    await runtime.pull_image("gone")
    assert runtime.images.pull_count("gone") == 2

    with pytest.raises(ImagePullFailed, match="authorization"):
        await runtime.pull_image("secret", RegistryAuth("you"))
    await runtime.pull_image("secret", RegistryAuth("me"))
    await runtime.remove_image("secret")
    assert await runtime.image_status("secret") is None


# --- probes and streams ---------------------------------------------------------------------------


async def test_readiness_answers_every_kind_of_probe(runtime: SimulatedRuntime) -> None:
    runtime.script("web", ready(after=seconds(5), until=seconds(10)))
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    [address] = (await runtime.sandbox_status(pod.id)).ips
    network = runtime.pod_network

    async def probes() -> tuple[int, bool, int]:
        status, _ = await network.http_get(address, 80, "/")
        serving = await network.grpc_health(address, 80)
        _, _, code = await runtime.exec_sync(container_id, ["check", "health"])
        return status, serving, code

    assert await probes() == (503, False, 1)
    await asyncio.sleep(5)
    assert await probes() == (200, True, 0)
    await asyncio.sleep(5)
    assert await probes() == (503, False, 1)


async def test_probes_follow_new_scripts_at_once(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    await pod.start(*FOR_EVER)
    [address] = (await runtime.sandbox_status(pod.id)).ips
    assert await runtime.pod_network.http_get(address, 80, "/") == (200, b"web\n")
    runtime.script("web", never_ready())
    assert (await runtime.pod_network.http_get(address, 80, "/"))[0] == 503
    runtime.script("web", http(lambda port, path: (418, f"{port}{path}".encode())))
    assert await runtime.pod_network.http_get(address, 80, "/tea") == (418, b"80/tea")


async def test_ports_belong_to_containers(runtime: SimulatedRuntime) -> None:
    runtime.script("web/main", listens(80), http(lambda port, path: (200, b"main")))
    runtime.script("web/side", listens(81), http(lambda port, path: (200, b"side")))
    pod = await make_pod(runtime)
    [address] = (await runtime.sandbox_status(pod.id)).ips
    with pytest.raises(ConnectionRefusedError):
        await runtime.pod_network.connect(address, 80)
    await pod.start(*FOR_EVER)
    await pod.start(*FOR_EVER, name="side")
    assert (await runtime.pod_network.http_get(address, 80, "/"))[1] == b"main"
    assert (await runtime.pod_network.http_get(address, 81, "/"))[1] == b"side"
    with pytest.raises(ConnectionRefusedError):
        await runtime.pod_network.connect(address, 82)
    with pytest.raises(OSError, match="No route to host"):
        await runtime.pod_network.connect("10.99.99.99", 80)


async def test_connections_speak_http_or_echo(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    await pod.start(*FOR_EVER)
    ports = await runtime.port_forward(pod.id, [80])
    connection = await ports.connect(80)
    connection.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    connection.write(b"Connection: close\r\n\r\n")
    answer = await connection.read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n")
    assert answer.endswith(b"\r\n\r\nweb\n")
    assert await connection.read() == b""
    echo = await ports.connect(7)
    echo.write(b"\x00\x01 anything")
    assert await echo.read() == b"\x00\x01 anything"
    await ports.close()
    assert await echo.read() == b""


async def test_exec_streams_carry_input_and_output(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER)
    cat = await runtime.exec(container_id, ["cat"], stdin=True)
    await cat.write(b"one ")
    await cat.write(b"two")
    await cat.close_stdin()
    assert b"".join([part.data async for part in cat.output()]) == b"one two"
    assert await cat.wait() == 0

    runtime.script("web", execs({"say": ExecResult(b"yes\n", b"no\n", 3, seconds(2))}))
    said = await runtime.exec(container_id, ["say"])
    assert [tuple(part) async for part in said.output()] == [(b"yes\n", False), (b"no\n", True)]
    assert await said.wait() == 3

    endless = await runtime.exec(container_id, ["sleep", "infinity"])
    await endless.close()
    assert await endless.wait() == 137


async def test_attach_shows_what_comes_and_ends_with_the_container(
    runtime: SimulatedRuntime,
) -> None:
    pod = await make_pod(runtime)
    container_id = await pod.start(*FOR_EVER, stdin=True)
    runtime.log("web", "before")
    attached = await runtime.attach(container_id, stdin=True)
    runtime.log("web", "after")
    await attached.write(b"typed\n")
    runtime.kill("web", 5)
    assert [part.data async for part in attached.output()] == [b"after\n", b"typed\n"]
    assert await attached.wait() == 5
    status = await runtime.container_status(container_id)
    texts = [line["text"] for line in read_log(runtime, status.log_path)]
    assert texts == ["before", "after", "typed"]
    await attached.close()


async def test_logs_can_be_followed(runtime: SimulatedRuntime) -> None:
    runtime.script("web", logs("tick", every=seconds(10)), exits(after=seconds(25)))
    pod = await make_pod(runtime)
    status = await runtime.container_status(await pod.start())
    log = runtime.open_log(status.log_path)
    assert log is not None
    sizes = []
    for _ in range(3):
        await log.wait_longer_than(log.size)
        sizes.append(log.size)
    # Two more ticks, and then the end, which is no longer line.
    assert len(set(sizes)) == 2
    assert runtime.open_log("/logs/nosuch") is None


async def test_long_lines_are_split_as_runtimes_do(runtime: SimulatedRuntime) -> None:
    pod = await make_pod(runtime)
    status = await runtime.container_status(await pod.start(*FOR_EVER))
    runtime.log("web", "x" * 20000)
    parts = read_log(runtime, status.log_path)
    assert [(part["tag"], len(part["text"])) for part in parts] == [("P", 16384), ("F", 3616)]
