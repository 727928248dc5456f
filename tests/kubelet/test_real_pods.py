"""Pods in real containers. Real: kubelet, API server, containerd, runc, CNI, busybox.

All in a network namespace without a way out; connections to pods are made inside it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.aio.clock import SystemClock
from pybernetes.api.types.core_v1 import (
    ConfigMapKeySelector,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    EnvVar,
    EnvVarSource,
    ExecAction,
    HostAlias,
    HTTPGetAction,
    Namespace,
    ObjectFieldSelector,
    Pod,
    PodSecurityContext,
    Probe,
    SecretVolumeSource,
    SecurityContext,
    Volume,
    VolumeMount,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.server import ApiServer
from pybernetes.client import Caches, Client, EventWriter
from pybernetes.kubelet import Kubelet, KubeletConfig
from pybernetes.kubelet.agent import Agent
from pybernetes.kubelet.runtime.interface import SandboxState
from pybernetes.kubelet.runtime.linux import cgroup_roots
from pybernetes.kubelet.server import LogOptions
from pybernetes.storage.memory import MemoryStore
from pybernetes.testing.builders import config_map, container, pod, secret
from pybernetes.testing.runtime_contract import FOR_EVER, IMAGE
from pybernetes.wire.client import HttpClient
from pybernetes.wire.memory import MemoryHttpClient
from tests.kubelet.runtime.realcontainers import make_place, remove_place, why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from pybernetes.kubelet.runtime.containerd import Containerd
    from pybernetes.kubelet.runtime.cri import CriRuntime
    from pybernetes.wire.http import Connection
    from tests.kubelet.runtime.realcontainers import Place

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.realtime,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

NODE = "node-1"
WHOLE_LOG = LogOptions()


class InsideNetwork:
    """Reaches pods from inside their network namespace."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def connect(self, host: str, port: int) -> Connection:
        return await self._place.connect(host, port)

    async def http_get(
        self, host: str, port: int, path: str, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[int, bytes]:
        client = HttpClient(f"http://{host}:{port}", connect=lambda: self.connect(host, port))
        try:
            response = await client.request("GET", path, headers=headers)
            return response.status, await response.read()
        finally:
            await client.close()


class InsideRuntime:
    """The runtime, with pods reached from inside; everything else is containerd's."""

    def __init__(self, runtime: CriRuntime, place: Place) -> None:
        self._runtime = runtime
        self.pod_network = InsideNetwork(place)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


class World:
    def __init__(
        self, client: Client, runtime: InsideRuntime, place: Place, containerd: Containerd
    ) -> None:
        self.client, self.runtime, self.place = client, runtime, place
        self.containerd = containerd
        self.kubelet: Kubelet | None = None

    @property
    def agent(self) -> Agent:
        assert self.kubelet is not None
        return Agent(self.kubelet)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Kubelet]:
        chance = random.Random(1)
        caches = Caches(self.client, random=chance, lifetime=None)
        events = EventWriter(self.client, clock=SystemClock(), random=chance)
        config = KubeletConfig(
            node_name=NODE,
            root_dir=self.place.directory / "kubelet",
            log_dir=self.place.directory / "logs",
            addresses=("127.0.0.1",),
            cgroup_root=f"/{self.place.namespace}",
        )
        self.kubelet = Kubelet(
            self.client,
            caches,
            self.runtime,  # type: ignore[arg-type]  # a Runtime by delegation
            config,
            SystemClock(),
            chance,
            events.recorder("kubelet", host=NODE),
        )
        tasks = [
            asyncio.create_task(work) for work in (caches.run(), events.run(), self.kubelet.run())
        ]
        try:
            yield self.kubelet
        finally:
            for task in reversed(tasks):
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def create(self, name: str, **fields: Any) -> Pod:
        return await self.client.create(pod(name, node=NODE, **fields))

    async def until(self, name: str, met: Callable[[Pod], bool], within: float = 20) -> Pod:
        found = await self.client.get(Pod, name, "default")
        async with asyncio.timeout(within):
            while not met(found):
                await asyncio.sleep(0.05)
                found = await self.client.get(Pod, name, "default")
        return found

    async def until_gone(self, name: str, within: float = 20) -> None:
        async with asyncio.timeout(within):
            with suppress(NotFound):
                while True:
                    await self.client.get(Pod, name, "default")
                    await asyncio.sleep(0.05)

    async def run(self, found: Pod, *command: str) -> str:
        return (await self.agent.run(found, "main", command)).decode()

    async def log(self, found: Pod, options: LogOptions = WHOLE_LOG) -> str:
        chunks = await self.agent.read_log(found, "main", options)
        return b"".join([chunk async for chunk in chunks]).decode()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = make_place()
    yield place
    remove_place(place)
    for root in cgroup_roots():
        for directory in sorted((root / place.namespace).rglob("*/"), reverse=True):
            directory.rmdir()
        with suppress(FileNotFoundError):
            (root / place.namespace).rmdir()


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    clock = SystemClock()
    async with (
        place.containerd() as (containerd, runtime),
        ApiServer(MemoryStore(), clock, random.Random(2)) as server,
    ):
        client = Client(MemoryHttpClient(server.handle))
        for name in ("default", "kube-node-lease"):
            await client.create(Namespace(metadata=ObjectMeta(name=name)))
        yield World(client, InsideRuntime(runtime, place), place, containerd)


def main(*command: str, **fields: Any) -> Any:
    return container(
        image=IMAGE, image_pull_policy="Never", command=command or tuple(FOR_EVER), **fields
    )


def has_restarted(found: Pod) -> bool:
    return any(status.restart_count for status in found.status.container_statuses)


def is_ready(found: Pod) -> bool:
    statuses = found.status.container_statuses
    return bool(statuses) and all(status.ready for status in statuses)


async def test_volumes_environment_and_names(world: World) -> None:
    await world.client.create(config_map("config", colour="blue"))
    await world.client.create(secret("secret", word="c2VzYW1l"))
    volumes = (
        Volume(name="config", config_map=ConfigMapVolumeSource(name="config")),
        Volume(name="secret", secret=SecretVolumeSource(secret_name="secret", default_mode=0o400)),
        Volume(name="scratch", empty_dir=EmptyDirVolumeSource()),
        Volume(name="memory", empty_dir=EmptyDirVolumeSource(medium="Memory")),
        Volume(
            name="self",
            downward_api=DownwardAPIVolumeSource(
                items=(
                    DownwardAPIVolumeFile(
                        path="labels", field_ref=ObjectFieldSelector(field_path="metadata.labels")
                    ),
                )
            ),
        ),
    )
    mounts = tuple(VolumeMount(name=v.name, mount_path=f"/{v.name}") for v in volumes)
    mounts += (
        VolumeMount(name="config", mount_path="/etc/colour", sub_path="colour"),
        VolumeMount(name="scratch", mount_path="/sub", sub_path_expr="$(POD)/x"),
    )
    env = (
        EnvVar(
            name="POD",
            value_from=EnvVarSource(field_ref=ObjectFieldSelector(field_path="metadata.name")),
        ),
        EnvVar(
            name="COLOUR",
            value_from=EnvVarSource(
                config_map_key_ref=ConfigMapKeySelector(name="config", key="colour")
            ),
        ),
        EnvVar(name="BOTH", value="$(POD)-$(COLOUR)"),
    )
    async with world.running():
        await world.create(
            "full",
            labels={"app": "full"},
            volumes=volumes,
            containers=[main(volume_mounts=mounts, env=env)],
            hostname="host",
            host_aliases=(HostAlias(ip="192.0.2.1", hostnames=("alias",)),),
        )
        found = await world.until("full", is_ready)
        assert found.status.pod_ip.startswith("10.211.0.")
        assert found.status.container_statuses[0].container_id.startswith("containerd://")
        assert await world.run(found, "cat", "/config/colour") == "blue"
        assert await world.run(found, "cat", "/etc/colour") == "blue"
        assert await world.run(found, "cat", "/secret/word") == "sesame"
        assert await world.run(found, "cat", "/self/labels") == 'app="full"'
        environment = await world.run(found, "env")
        assert "BOTH=full-blue\n" in environment
        assert await world.run(found, "hostname") == "host\n"
        hosts = await world.run(found, "cat", "/etc/hosts")
        assert f"{found.status.pod_ip}\thost\n" in hosts
        assert "192.0.2.1\talias\n" in hosts
        assert "tmpfs on /memory" in await world.run(found, "mount")
        await world.run(found, "touch", "/sub/file")
        assert await world.run(found, "ls", "/scratch/full/x") == "file\n"
        changed = config_map("config", colour="green")
        await world.client.patch(
            type(changed), "config", "default", patch={"data": {"colour": "green"}}
        )
        async with asyncio.timeout(5):
            while await world.run(found, "cat", "/config/colour") != "green":
                await asyncio.sleep(0.05)
        await world.client.delete(found, grace_seconds=1)
        await world.until_gone("full")
        await asyncio.sleep(0.5)
        assert not await world.runtime.list_sandboxes()
        assert not list((world.place.directory / "kubelet" / "pods").iterdir())
        assert not list((world.place.directory / "logs").iterdir())
        assert not world.place.addresses_in_use


async def test_users_groups_and_limits(world: World) -> None:
    async with world.running():
        await world.create(
            "user",
            volumes=(Volume(name="v", empty_dir=EmptyDirVolumeSource()),),
            containers=[
                main(
                    security_context=SecurityContext(
                        run_as_user=1234,
                        run_as_group=2345,
                        read_only_root_filesystem=True,
                        allow_privilege_escalation=False,
                    ),
                    volume_mounts=(VolumeMount(name="v", mount_path="/v"),),
                    requests={"memory": "32Mi", "cpu": "50m"},
                    limits={"memory": "64Mi", "cpu": "500m"},
                )
            ],
            security_context=PodSecurityContext(fs_group=3456),
        )
        found = await world.until("user", is_ready)
        assert found.status.qos_class == "Burstable"
        ids = await world.run(found, "id")
        assert "uid=1234" in ids
        assert "gid=2345" in ids
        assert "3456" in ids
        assert "Read-only" in await world.run(found, "touch", "/file")
        await world.run(found, "touch", "/v/file")
        assert "3456" in await world.run(found, "ls", "-ln", "/v/file")
        assert "NoNewPrivs:\t1" in await world.run(found, "cat", "/proc/1/status")
        status = await world.runtime.container_status(
            found.status.container_statuses[0].container_id.partition("//")[2]
        )
        assert status.resources is None or status.resources.memory_limit_bytes == 64 * 2**20
        where = f"{world.place.namespace}/burstable/pod{found.metadata.uid}"
        assert where in await world.run(found, "cat", "/proc/1/cgroup")
        above = [root / where for root in cgroup_roots() if (root / where).is_dir()]
        limits = [
            int((directory / name).read_text())
            for directory in above
            for name in ("memory.limit_in_bytes", "memory.max")
            if (directory / name).exists()
        ]
        assert limits == [64 * 2**20]
        await world.client.delete(found, grace_seconds=1)
        async with asyncio.timeout(10):
            while any(directory.exists() for directory in above):
                await asyncio.sleep(0.1)


async def test_probes_logs_last_words_and_restarts(world: World) -> None:
    script = "echo one; echo two; echo bye > /dev/termination-log; sleep 1; exit 3"
    async with world.running():
        await world.create("words", containers=[main("sh", "-c", script)])
        found = await world.until("words", has_restarted)
        (status,) = found.status.container_statuses
        assert status.last_state.terminated is not None
        assert status.last_state.terminated.exit_code == 3
        assert status.last_state.terminated.message == "bye\n"
        assert await world.log(found, LogOptions(previous=True)) == "one\ntwo\n"
        assert await world.log(found, LogOptions(tail_lines=1)) == "two\n"
        followed = await asyncio.wait_for(world.log(found, LogOptions(follow=True)), 10)
        assert followed == "one\ntwo\n"
        await world.client.delete(found, grace_seconds=0)
        probe = Probe(
            http_get=HTTPGetAction(port=8080, path="/"), period_seconds=1, failure_threshold=1
        )
        server = "mkdir /www; echo hello > /www/index.html; httpd -f -p 8080 -h /www"
        await world.create("server", containers=[main("sh", "-c", server, readiness_probe=probe)])
        ready = await world.until("server", is_ready)
        live = Probe(exec=ExecAction(command=("test", "-f", "/alive")), period_seconds=1)
        await world.create(
            "dying",
            containers=[main("sh", "-c", "touch /alive; sleep 1000", liveness_probe=live)],
            termination_grace_period_seconds=1,
        )
        dying = await world.until("dying", is_ready)
        await world.run(dying, "rm", "/alive")
        await world.until("dying", has_restarted)
        await world.client.delete(ready, grace_seconds=1)
        await world.until_gone("server")


async def test_a_kubelet_that_comes_back_finds_its_pods(world: World) -> None:
    async with world.running():
        await world.create("kept", containers=[main()])
        before = await world.until("kept", is_ready)
        gone = await world.create("gone", containers=[main()])
        await world.until("gone", is_ready)
    await world.client.delete(gone, grace_seconds=0)
    async with world.running():
        await asyncio.sleep(2)
        after = await world.until("kept", is_ready)
        assert after.status == before.status
        async with asyncio.timeout(10):
            while len(await world.runtime.list_sandboxes()) > 1:
                await asyncio.sleep(0.1)


async def test_containerd_may_die_under_us(world: World) -> None:
    """Containers go on; one that ends while nobody listens is restarted when it is back."""
    async with world.running():
        await world.create("steady", containers=[main()])
        await world.create("short", containers=[main("sh", "-c", "sleep 4; exit 1")])
        before = await world.until("steady", is_ready)
        await world.until("short", is_ready)
        assert world.containerd.pid is not None
        os.kill(world.containerd.pid, signal.SIGKILL)
        await world.until("short", has_restarted, 30)
        await world.create("later", containers=[main()])
        await world.until("later", is_ready)
        after = await world.until("steady", is_ready)
        assert after.status.container_statuses == before.status.container_statuses
        assert world.containerd.restarts == 1


async def test_a_sandbox_killed_from_outside_is_replaced(world: World) -> None:
    async with world.running():
        await world.create("victim", containers=[main()], termination_grace_period_seconds=1)
        before = await world.until("victim", is_ready)
        (sandbox,) = await world.runtime.list_sandboxes(state=SandboxState.READY)
        await world.runtime.stop_sandbox(sandbox.id)
        after = await world.until("victim", has_restarted)
        assert after.status.phase == "Running"
        after = await world.until("victim", is_ready)
        assert after.status.pod_ip != before.status.pod_ip
