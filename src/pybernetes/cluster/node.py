"""A real node: container runtime, pod network, service proxy, DNS and node agent, in that order.

`node_agent` is used twice: by the server for its own machine, over the in-memory transport, and by
`p8s agent` for a machine that joins, over HTTPS. Everything it needs of the API comes through the
client and the caches it is given.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.aio.supervision import run_restarting
from pybernetes.api.conditions import condition_of
from pybernetes.api.core.nodestate import READY, is_ready
from pybernetes.api.types.core_v1 import Node
from pybernetes.api.user import NODES, UserInfo
from pybernetes.cluster import nodesettings, pki
from pybernetes.cluster.config import LONELY_ADDRESS
from pybernetes.cluster.controlplane import RESTARTS
from pybernetes.cluster.nodelinks import authenticate, authorize
from pybernetes.cluster.serving import serving_context
from pybernetes.kubelet import Kubelet, KubeletConfig
from pybernetes.kubelet.runtime.containerd import Containerd
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.network.dns.forward import parse_resolv_conf
from pybernetes.network.dns.service import DnsConfig, cluster_dns
from pybernetes.network.podnetwork import pod_network
from pybernetes.network.program import run_ip
from pybernetes.network.proxy.proxy import service_proxy
from pybernetes.wire.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Caches, Client, EventRecorder
    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.controlplane import ControlPlane
    from pybernetes.cluster.nodesettings import NodeSettings
    from pybernetes.cluster.progress import Progress

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Connection:
    """How a node reaches the API, and with what it is given its time and chance."""

    client: Client
    caches: Caches
    recorder: EventRecorder
    clock: Clock
    random: Random


@asynccontextmanager
async def local_node(
    plane: ControlPlane, config: ClusterConfig, settings: NodeSettings, progress: Progress
) -> AsyncIterator[None]:
    """The node of the server's own machine."""
    keys = pki.Pki(config.pki_directory)
    pair = pki.ensure_node(keys, settings.name, [settings.address, "127.0.0.1"], plane.clock.now())
    user = UserInfo(f"system:node:{settings.name}", (NODES,))
    connection = Connection(
        client=plane.client_as(user),
        caches=plane.caches,
        recorder=plane.recorder("kubelet", host=settings.name),
        clock=plane.clock,
        random=plane.random,
    )
    async with node_agent(connection, settings, pair, keys.ca.certificate, progress):
        yield


@asynccontextmanager
async def node_agent(
    connection: Connection,
    settings: NodeSettings,
    pair: pki.KeyPair,
    client_ca: Path,
    progress: Progress,
) -> AsyncIterator[None]:
    """Run a node while the block runs; entered when the node is Ready."""
    # Moments in the API are whole seconds.
    started = connection.clock.now().replace(microsecond=0)
    nodesettings.save(settings)
    if settings.address == LONELY_ADDRESS:
        await asyncio.to_thread(add_lonely_address)
    async with AsyncExitStack() as stack:
        socket = settings.runtime_socket
        if not socket:
            with progress.step("containerd"):
                containerd = Containerd(settings.containerd(), random=connection.random)
                socket = (await stack.enter_async_context(containerd)).socket_path
        runtime = await stack.enter_async_context(CriRuntime(socket, random=connection.random))
        with progress.step("pod network"):
            await stack.enter_async_context(pod_network(connection.caches, settings.pod_network()))
        if settings.proxy:
            with progress.step("service proxy"):
                await stack.enter_async_context(
                    service_proxy(connection.caches, settings.service_proxy())
                )
        if settings.dns:
            with progress.step("DNS"):
                await stack.enter_async_context(
                    cluster_dns(
                        connection.caches,
                        dns_config(settings),
                        clock=connection.clock,
                        random=connection.random,
                    )
                )
        kubelet = Kubelet(
            connection.client,
            connection.caches,
            runtime,
            kubelet_config(settings),
            connection.clock,
            connection.random,
            connection.recorder,
        )
        server = kubelet.server(authenticate=authenticate, authorize=authorize)
        await stack.enter_async_context(
            serve(
                server.handle,
                host=settings.address,
                port=settings.kubelet_port,
                tls=serving_context(pair, client_ca),
            )
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = tasks.create_task(
            run_restarting(
                "kubelet", kubelet.run, backoff=RESTARTS, random=connection.random, log=log
            ),
            name="kubelet",
        )
        stack.callback(running.cancel)
        with progress.step(f"node {settings.name} is ready"):
            await wait_ready(connection.caches, settings.name, since=started)
        yield


def add_lonely_address() -> None:
    """Give a machine without any network an address that its pods can reach."""
    run_ip([f"address replace {LONELY_ADDRESS}/32 dev lo"])


async def wait_ready(caches: Caches, name: str, *, since: datetime) -> None:
    """Until the API says that the node is Ready, in words of this life and not of an earlier one."""
    nodes = caches.of(Node)
    ready = asyncio.Event()

    def changed(old: Node | None, new: Node | None) -> None:
        if new is None or new.metadata.name != name or not is_ready(new):
            return
        condition = condition_of(new.status.conditions, READY)
        said_at = condition.last_heartbeat_time if condition else None
        if said_at is not None and said_at >= since:
            ready.set()

    unsubscribe = nodes.subscribe(changed)
    try:
        await ready.wait()
    finally:
        unsubscribe()


def kubelet_config(settings: NodeSettings) -> KubeletConfig:
    return KubeletConfig(
        node_name=settings.name,
        root_dir=settings.kubelet_directory,
        log_dir=settings.directory / "logs",
        addresses=(settings.address,),
        port=settings.kubelet_port,
        cluster_dns=(settings.dns_address,) if settings.dns else (),
        cluster_domain=settings.cluster_domain,
        cgroup_root=f"/{settings.cgroup_parent}",
        labels=dict(label.partition("=")[::2] for label in settings.labels),
    )


def dns_config(settings: NodeSettings) -> DnsConfig:
    """Other names are asked of the machine's own resolvers, unless there is no way out."""
    try:
        text = RESOLV_CONF.read_text()
    except OSError:
        text = ""
    upstreams = (
        () if settings.namespace else parse_resolv_conf(text, without=[settings.dns_address])
    )
    return DnsConfig(
        address=settings.dns_address,
        domain=settings.cluster_domain,
        reverse=settings.networks,
        upstreams=tuple(upstreams),
    )
