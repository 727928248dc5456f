"""The contract of runtimes, kept by containerd through CRI, and what only a real one can show.

Real: containerd, runc, CNI, busybox containers; all in a network namespace without a way out.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from pybernetes.kubelet.runtime import linux
from pybernetes.kubelet.runtime.containerd import Containerd
from pybernetes.kubelet.runtime.containerd_config import Layout
from pybernetes.kubelet.runtime.containerd_removal import CNI_NOTES, remove_all_traces, shims_of
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.kubelet.runtime.interface import (
    ContainerState,
    DnsSpec,
    EventKind,
    Mount,
    NamespaceMode,
    Namespaces,
    Resources,
    RuntimeUnavailable,
    SandboxState,
    Security,
)
from pybernetes.testing.runtime_contract import (
    FOR_EVER,
    Pod,
    RuntimeContract,
    next_event,
    read_log,
    sandbox_spec,
    until_exited,
)
from pybernetes.wire.client import HttpClient
from pybernetes.wire.remoteprocess import Wanted, open_over_spdy
from pybernetes.wire.spdy import SpdySession
from tests.kubelet.runtime.realcontainers import make_place, remove_place, why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pybernetes.kubelet.runtime.interface import StreamUrl
    from pybernetes.wire.http import Connection
    from tests.kubelet.runtime.realcontainers import Place

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.realtime,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = make_place()
    try:
        yield place
    finally:
        remove_place(place)


@pytest.fixture
async def both(place: Place) -> AsyncIterator[tuple[Containerd, CriRuntime]]:
    async with place.containerd() as both:
        yield both


@pytest.fixture
async def runtime(both: tuple[Containerd, CriRuntime]) -> CriRuntime:
    return both[1]


@pytest.fixture
async def pod(runtime: CriRuntime, tmp_path: Path) -> Pod:
    return await make_pod(runtime, tmp_path)


async def make_pod(runtime: CriRuntime, directory: Path, **options: object) -> Pod:
    spec = replace(sandbox_spec(log_directory=directory), **options)  # type: ignore[arg-type]  # fields of SandboxSpec
    return Pod(runtime, spec, await runtime.run_sandbox(spec))


class TestContainerd(RuntimeContract):
    """`runtime` is the module's."""


async def pid_of(pod: Pod, container_id: str) -> int:
    """The container's first process, as the machine numbers it."""
    marker = container_id.encode()
    for pid, _ in linux.processes():
        try:
            with open(f"/proc/{pid}/cgroup", "rb") as file:
                if marker in file.read():
                    return pid
        except OSError:
            continue
    raise AssertionError(f"no process in {container_id}")


# --- containers -----------------------------------------------------------------------------------


async def test_mounts_users_and_directories_are_as_asked(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from outside\n")
    container_id = await pod.start(
        *FOR_EVER,
        working_dir="/work",
        mounts=(
            Mount("/given", str(tmp_path / "given"), readonly=True),
            Mount("/shared", str(tmp_path)),
        ),
        security=Security(
            run_as_user=1234, run_as_group=99, supplemental_groups=(77,), readonly_rootfs=True
        ),
    )
    tmp_path.chmod(0o777)

    async def shell(command: str) -> tuple[bytes, int]:
        out, _, code = await pod.runtime.exec_sync(container_id, ["sh", "-c", command])
        return out.strip(), code

    assert await shell("cat /given; pwd") == (b"from outside\n/work", 0)
    assert await shell("id -u; id -g; id -G") == (b"1234\n99\n99 77", 0)
    assert (await shell("echo x > /given"))[1] != 0
    assert (await shell("echo x > /tmp/x"))[1] != 0
    assert (await shell("echo back > /shared/back"))[1] == 0
    assert (tmp_path / "back").read_text() == "back\n"


async def test_dns_and_hostname_are_as_asked(runtime: CriRuntime, tmp_path: Path) -> None:
    dns = DnsSpec(servers=("10.211.9.10",), searches=("svc.cluster.local",), options=("ndots:5",))
    pod = await make_pod(runtime, tmp_path, dns=dns)
    container_id = await pod.start(*FOR_EVER)
    out, _, _ = await runtime.exec_sync(container_id, ["cat", "/etc/resolv.conf", "/etc/hostname"])
    expected = "search svc.cluster.local\nnameserver 10.211.9.10\noptions ndots:5\n"
    assert out.decode() == f"{expected}{pod.spec.name}\n"


async def test_the_machine_is_hidden_from_containers(pod: Pod) -> None:
    container_id = await pod.start(*FOR_EVER)
    script = (
        "cat /proc/kcore | wc -c; echo x > /proc/sys/kernel/hostname; dmesg; mount -t tmpfs x /tmp"
    )
    out, err, code = await pod.runtime.exec_sync(container_id, ["sh", "-c", script])
    assert out.split()[0] == b"0"
    assert b"Read-only file system" in err
    assert code != 0


async def test_limits_are_in_the_cgroup(pod: Pod) -> None:
    limits = Resources(
        cpu_shares=256,
        cpu_quota_microseconds=50_000,
        cpu_period_microseconds=100_000,
        memory_limit_bytes=48 * MEGABYTE,
    )
    container_id = await pod.start(*FOR_EVER, resources=limits)
    if linux.cgroup_mode() is linux.CgroupMode.V1:
        files = {"memory/memory.limit_in_bytes": 48 * MEGABYTE, "cpu/cpu.cfs_quota_us": 50_000}
    elif linux.cgroup_mode() is linux.CgroupMode.V2:
        files = {"memory.max": 48 * MEGABYTE}
    else:
        pytest.skip("no usable cgroups on this machine")
    for name, value in files.items():
        out, _, _ = await pod.runtime.exec_sync(container_id, ["cat", f"/sys/fs/cgroup/{name}"])
        assert int(out) == value


@pytest.mark.skipif(
    linux.cgroup_mode() is linux.CgroupMode.NONE, reason="no usable cgroups on this machine"
)
async def test_who_takes_more_memory_than_its_limit_is_killed(pod: Pod) -> None:
    limits = Resources(memory_limit_bytes=16 * MEGABYTE, memory_swap_limit_bytes=16 * MEGABYTE)
    # tail keeps the whole of its input's last line, and this one never ends.
    container_id = await pod.start("tail", "/dev/zero", resources=limits)
    status = await until_exited(pod.runtime, container_id)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


async def test_a_container_killed_from_outside_has_stopped(runtime: CriRuntime, pod: Pod) -> None:
    container_id = await pod.start(*FOR_EVER)
    async with aclosing(runtime.events()) as events:
        os.kill(await pid_of(pod, container_id), signal.SIGKILL)
        await next_event(events, EventKind.STOPPED, container_id=container_id)
        status = await runtime.container_status(container_id)
        assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)


async def test_a_pods_network_is_gone_with_its_sandbox(
    place: Place, runtime: CriRuntime, pod: Pod
) -> None:
    [address] = (await runtime.sandbox_status(pod.id)).ips
    assert address in place.addresses_in_use
    await runtime.stop_sandbox(pod.id)
    assert address not in place.addresses_in_use


async def test_a_shared_process_namespace_has_its_orphans_collected(
    runtime: CriRuntime, tmp_path: Path
) -> None:
    """The pause program is process 1 there, and waits for everybody's children."""
    shared = Security(namespaces=Namespaces(pid=NamespaceMode.POD))
    pod = await make_pod(runtime, tmp_path, security=shared)
    container_id = await pod.start(*FOR_EVER, security=shared)
    script = "(sleep 0.1 &) ; sleep 0.5; ps -o pid,stat,comm"
    out, _, _ = await runtime.exec_sync(container_id, ["sh", "-c", script])
    lines = out.decode().splitlines()
    assert any(line.split()[0] == "1" and line.endswith("pause") for line in lines), lines
    assert not any("Z" in line.split()[1] for line in lines[1:]), lines


async def test_a_log_can_be_rotated(pod: Pod) -> None:
    container_id = await pod.start("sh", "-c", "while true; do echo tick; sleep 0.05; done")
    status = await pod.runtime.container_status(container_id)
    await asyncio.sleep(0.2)
    os.rename(status.log_path, status.log_path + ".1")
    await pod.runtime.reopen_log(container_id)
    await asyncio.sleep(0.2)
    assert read_log(pod.runtime, status.log_path)
    assert read_log(pod.runtime, status.log_path + ".1")


# --- streams --------------------------------------------------------------------------------------


async def open_stream(place: Place, stream: StreamUrl, protocol: str) -> Connection:
    """What whoever proxies the stream does."""
    parts = urlsplit(stream.url)
    assert parts.hostname == "127.0.0.1"
    assert parts.port is not None
    port = parts.port
    client = HttpClient(stream.url, connect=lambda: place.connect("127.0.0.1", port))
    headers = [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", protocol),
    ]
    response, connection = await client.upgrade("POST", "", headers=headers)
    assert response.status == 101
    assert connection is not None
    return connection


async def read_all(stream: Connection) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_exec_moves_a_megabyte_both_ways(place: Place, runtime: CriRuntime, pod: Pod) -> None:
    container_id = await pod.start(*FOR_EVER)
    stream = await runtime.exec(container_id, ["sh", "-c", "cat; echo bye >&2; exit 9"], stdin=True)
    content = random.Random(7).randbytes(MEGABYTE)
    async with asyncio.timeout(30):
        connection = await open_stream(place, stream, "v4.channel.k8s.io")
        async with SpdySession(connection, client=True) as session:
            process = await open_over_spdy(session, Wanted(stdin=True, stdout=True, stderr=True))
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None

            async def send(stdin: Connection) -> None:
                for start in range(0, len(content), 32768):
                    stdin.write(content[start : start + 32768])
                    await stdin.drain()
                stdin.write_eof()  # type: ignore[attr-defined]  # a SPDY stream has it

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send(process.stdin))
                received = tasks.create_task(read_all(process.stdout))
                errors = tasks.create_task(read_all(process.stderr))
                status = tasks.create_task(read_all(process.status))
    assert received.result() == content
    assert errors.result() == b"bye\n"
    [cause] = json.loads(status.result())["details"]["causes"]
    assert cause["message"] == "9"


async def test_who_attaches_talks_with_the_container_and_leaves_it_alone(
    place: Place, runtime: CriRuntime, pod: Pod
) -> None:
    container_id = await pod.start("cat", stdin=True)
    stream = await runtime.attach(container_id, stdin=True)
    async with asyncio.timeout(30):
        connection = await open_stream(place, stream, "v4.channel.k8s.io")
        async with SpdySession(connection, client=True) as session:
            process = await open_over_spdy(session, Wanted(stdin=True, stdout=True, stderr=True))
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"hello\n")
            assert await process.stdout.read() == b"hello\n"
    status = await runtime.container_status(container_id)
    assert status.state is ContainerState.RUNNING
    assert [line["text"] for line in read_log(runtime, status.log_path)] == ["hello"]


async def test_a_port_is_forwarded(place: Place, runtime: CriRuntime, pod: Pod) -> None:
    await pod.start("nc", "-ll", "-p", "7000", "-e", "cat")
    stream = await runtime.port_forward(pod.id, [7000])
    content = random.Random(8).randbytes(MEGABYTE)
    async with asyncio.timeout(30):
        await asyncio.sleep(0.2)
        connection = await open_stream(place, stream, "portforward.k8s.io")
        async with SpdySession(connection, client=True) as session:
            fields = [("port", "7000"), ("requestid", "0")]
            error = await session.open([("streamtype", "error"), *fields])
            error.write_eof()
            data = await session.open([("streamtype", "data"), *fields])

            async def send() -> None:
                for start in range(0, len(content), 32768):
                    data.write(content[start : start + 32768])
                    await data.drain()

            received = b""
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                while len(received) < len(content) and (part := await data.read()):
                    received += part
            data.write_eof()
            problem = await read_all(error)
    assert problem == b""
    assert received == content


# --- containerd itself ----------------------------------------------------------------------------


async def until_unavailable(runtime: CriRuntime) -> None:
    with suppress(RuntimeUnavailable):
        async with asyncio.timeout(10):
            while True:
                await runtime.version()
                await asyncio.sleep(0.01)


class KubeletDied(Exception):
    """Leaves a place without tidying it."""


async def test_a_containerd_that_dies_is_started_again_and_its_containers_live(
    both: tuple[Containerd, CriRuntime], pod: Pod
) -> None:
    containerd, runtime = both
    container_id = await pod.start(*FOR_EVER)
    process = await pid_of(pod, container_id)
    async with aclosing(runtime.events()) as events:
        # The first RESYNC belongs to the first connection.
        assert containerd.pid is not None
        os.kill(containerd.pid, signal.SIGKILL)
        await until_unavailable(runtime)
        async with asyncio.timeout(20):
            while (await anext(events)).kind is not EventKind.RESYNC:
                pass
        assert containerd.restarts == 1
        assert (await runtime.sandbox_status(pod.id)).state is SandboxState.READY
        assert (await runtime.container_status(container_id)).state is ContainerState.RUNNING
        assert await pid_of(pod, container_id) == process
        # And what happens now is heard again.
        os.kill(process, signal.SIGKILL)
        await next_event(events, EventKind.STOPPED, container_id=container_id)


async def test_containers_outlive_containerd_and_are_found_again(
    place: Place, tmp_path: Path
) -> None:
    chance = random.Random(0)
    async with Containerd(place.options, random=chance) as containerd:
        runtime = CriRuntime(containerd.socket_path, random=chance)
        pod = await make_pod(runtime, tmp_path)
        container_id = await pod.start(*FOR_EVER)
        runtime.close()
    with pytest.raises(RuntimeUnavailable, match="is not running"):
        await runtime.version()
    runtime.close()
    async with place.containerd() as (_, again):
        assert (await again.container_status(container_id)).state is ContainerState.RUNNING


async def test_a_containerd_left_behind_is_adopted(place: Place) -> None:
    chance = random.Random(0)
    async with Containerd(place.options, random=chance) as first:
        async with Containerd(place.options, random=chance) as second:
            assert second.pid == first.pid
        # The second stopped it on leaving; the first starts it again.
        async with asyncio.timeout(20):
            while first.restarts == 0:
                await asyncio.sleep(0.05)


async def test_nothing_is_left_after_removal(tmp_path: Path) -> None:
    place = make_place()
    notes = set(CNI_NOTES.glob("*"))
    layout = Layout(place.options.directory)
    try:
        with suppress(KubeletDied):
            async with place.containerd() as (_, runtime):
                pods = [await make_pod(runtime, tmp_path / str(n)) for n in range(2)]
                pids = [await pid_of(pod, await pod.start(*FOR_EVER)) for pod in pods]
                raise KubeletDied
        assert len(shims_of(layout)) == 2
        assert len(place.addresses_in_use) == 2
        await remove_all_traces(place.options, random=random.Random(0))
        assert not shims_of(layout)
        # A zombie, which the machine's process 1 has not collected yet, has no arguments.
        assert not any(linux.arguments_of(pid) for pid in pids)
        assert not place.addresses_in_use
        assert not any(set(CNI_NOTES.glob("*")) - notes)
        assert not layout.directory.exists()
        assert not [m for m in linux.mount_points() if str(place.directory) in m.path]
    finally:
        await asyncio.to_thread(remove_place, place)


async def test_even_without_containerd_nothing_is_left(tmp_path: Path) -> None:
    """containerd's memory is lost: sandboxes are unknown, but shims and mounts are there."""
    place = make_place()
    notes = set(CNI_NOTES.glob("*"))
    layout = Layout(place.options.directory)
    try:
        with suppress(KubeletDied):
            async with place.containerd() as (_, runtime):
                pod = await make_pod(runtime, tmp_path)
                await pod.start(*FOR_EVER)
                raise KubeletDied
        (layout.config).write_text("broken =\n")
        for file in (layout.root / "io.containerd.metadata.v1.bolt").iterdir():
            file.unlink()
        await remove_all_traces(place.options, random=random.Random(0))
        assert not shims_of(layout)
        assert not any(set(CNI_NOTES.glob("*")) - notes)
        assert not layout.directory.exists()
    finally:
        await asyncio.to_thread(remove_place, place)


async def test_without_overlay_layers_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Overlay works on every machine at hand, so the answer has to be made up.
    monkeypatch.setattr(linux, "overlay_works", lambda directory: False)
    place = make_place()
    try:
        async with place.containerd() as (_, runtime):
            pod = await make_pod(runtime, tmp_path)
            container_id = await pod.start(*FOR_EVER)
            out, _, _ = await runtime.exec_sync(container_id, ["cat", "/proc/self/mounts"])
            assert not out.startswith(b"overlay")
            assert (await runtime.configuration())["containerd"]["snapshotter"] == "native"
    finally:
        await asyncio.to_thread(remove_place, place)


async def test_the_cgroup_driver_is_told(runtime: CriRuntime) -> None:
    driver = (await runtime.status()).cgroup_driver
    assert driver == ("systemd" if linux.look_at_machine().has_systemd else "cgroupfs")
