"""The pod network of one node: leak rule first, then the way for pods, then the ways to others.

`PodNetwork` watches Nodes: its own for the range its pods get (that is when the CNI configuration
can be written), the others for routes; and the node's pods for host ports. Everything outside its own objects is done through
`ip`, `bridge` and `nft` by lines that pure functions make (routes.py, this file).

Rules: routes that end here stand before anything that could use them. Whatever is changed on the
machine is either recognisable as ours or written down before, so that `remove_all_traces` needs
nobody's memory and can be called twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.network import cni, hostports, routes
from pybernetes.network.cni import CniConfig
from pybernetes.network.program import NetworkError, load_nft, run_ip, run_nft, run_program
from pybernetes.network.routes import PROTOCOL, VXLAN_LINK, Ground

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pybernetes.client.cache import Cache
    from pybernetes.client.caches import Caches
    from pybernetes.network.hostports import HostPorts

log = logging.getLogger(__name__)

DNS_LINK = "p8s-dns"
_SYSCTL = Path("/proc/sys/net")
FORWARDING = "ipv4/ip_forward"
BRIDGED = "bridge/bridge-nf-call-iptables"
_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PodNetworkConfig:
    """One node's part of the pod network."""

    node_name: str
    # Where other nodes reach this one; must be an address of this machine.
    node_address: str
    pod_cidr: str
    service_cidr: str
    dns_address: str
    # What the container runtime reads, and where we may keep notes.
    cni_conf_dir: Path
    state_dir: Path
    # "routes" where all nodes share a layer-2 network, else "vxlan".
    backend: str = "routes"
    table: str = "p8s-pods"
    # 0: that of the interface which has the node's address.
    mtu: int = 0

    @property
    def lease_dir(self) -> Path:
        return self.state_dir / "leases"

    @property
    def notes(self) -> Path:
        return self.state_dir / "sysctl.json"

    def cni(self, mtu: int = 0) -> CniConfig:
        return CniConfig(self.cni_conf_dir, self.lease_dir, mtu=mtu, bridge=can_filter_bridges())


def table_script(config: PodNetworkConfig) -> str:
    """Pods leave the cluster under the node's address; within it they keep their own."""
    return f"""add table ip {config.table}
delete table ip {config.table}
table ip {config.table} {{{hostports.declarations()}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr != {config.pod_cidr} return
    ip daddr {{ {config.pod_cidr}, {config.service_cidr}, 224.0.0.0/4 }} return
    masquerade fully-random
  }}
}}
"""


class PodNetwork:
    """A node's pod network. `ready` is set when pods can be put on it."""

    def __init__(self, nodes: Cache[Node], pods: Cache[Pod], config: PodNetworkConfig) -> None:
        # All nodes, and the pods of this one.
        self._nodes, self._pods = nodes, pods
        self._config = config
        self.ready = asyncio.Event()
        self._wake = asyncio.Event()
        # The range of this node's pods, once it has one.
        self.pods: IPv4Network | None = None
        # Host ports as the kernel has them.
        self._host_ports: HostPorts = {}

    async def run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._nodes.subscribe(self._node_changed))
            stack.callback(self._pods.subscribe(self._pod_changed))
            await self._nodes.wait_synced()
            await self._pods.wait_synced()
            while True:
                self._wake.clear()
                try:
                    await self._step()
                except NetworkError as error:
                    log.error("cannot set up the pod network, will try again: %s", error)
                    asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._wake.set)
                await self._wake.wait()

    async def _step(self) -> None:
        nodes = list(self._nodes)
        peers = routes.peers_of(nodes, self._config.node_name)
        own = [node for node in nodes if node.metadata.name == self._config.node_name]
        pods = IPv4Network(own[0].spec.pod_cidr) if own and own[0].spec.pod_cidr else None
        await asyncio.to_thread(carry_out, self._config, pods, peers)
        if pods is not None:
            if pods != self.pods:
                log.info("pods of this node get addresses of %s", pods)
            self.pods = pods
            self.ready.set()
        host_ports = hostports.plan_host_ports(self._pods)
        if host_ports != self._host_ports:
            await load_nft(hostports.update_script(self._config.table, host_ports))
            self._host_ports = host_ports

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        # Heartbeats change nothing here.
        if _place_of(old) != _place_of(new):
            self._wake.set()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if any(pod is not None and has_host_ports(pod) for pod in (old, new)):
            self._wake.set()


def has_host_ports(pod: Pod) -> bool:
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return any(port.host_port for container in containers for port in container.ports)


def _place_of(node: Node | None) -> tuple[object, ...] | None:
    if node is None:
        return None
    return (node.metadata.name, node.spec.pod_cidr, routes.internal_address(node))


def prepare(config: PodNetworkConfig) -> None:
    """Everything that does not depend on the API: leak routes first, then the rest."""
    if config.backend not in ("routes", "vxlan"):
        raise NetworkError(f"--pod-network {config.backend}: choose routes or vxlan")
    ground = look_around(config)
    run_ip(routes.plan_routes(ground, (), leak_routes_only(our_routes())))
    run_nft(table_script(config))
    wanted = {FORWARDING: "1"}
    if can_filter_bridges():
        wanted[BRIDGED] = "1"
    change_sysctls(wanted, config.notes)
    add_dns_address(config.dns_address)


def carry_out(
    config: PodNetworkConfig, pods: IPv4Network | None, peers: Sequence[routes.Peer]
) -> None:
    """Make the machine agree with what the API says: configuration, tunnel, routes."""
    ground = look_around(config)
    if pods is not None:
        cni.write_config(config.cni(ground.pod_mtu), pods)
        if ground.vxlan:
            run_ip(routes.plan_tunnel(ground, pods, peers, link_names()))
            known = _json("bridge", "-json", "fdb", "show", "dev", VXLAN_LINK)
            if lines := routes.plan_forwarding(peers, known):
                run_program(("bridge", "-batch", "-"), "\n".join(lines) + "\n")
    reachable = [peer for peer in peers if ground.vxlan or is_on_link(peer)]
    for peer in peers:
        if peer not in reachable:
            log.warning(
                "node %s (%s) is not on a network of this node, so its pods are out of reach;"
                " start the nodes with --pod-network vxlan",
                peer.name,
                peer.address,
            )
    run_ip(routes.plan_routes(ground, reachable, our_routes()))


def look_around(config: PodNetworkConfig) -> Ground:
    """The node's place in the network. Raises NetworkError if its address is not this machine's."""
    for link in _json("ip", "-json", "-4", "address", "show"):
        for entry in link.get("addr_info", ()):
            if entry.get("local") == config.node_address:
                return Ground(
                    IPv4Address(config.node_address),
                    IPv4Network(config.pod_cidr),
                    IPv4Network(config.service_cidr),
                    # Loopback's is no measure for what leaves.
                    config.mtu or min(int(link.get("mtu", 1500)), 9000),
                    config.backend == "vxlan",
                )
    raise NetworkError(
        f"the node's address {config.node_address} is not an address of this machine;"
        " see which there are with: ip -4 address"
    )


def leak_routes_only(existing: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the existing routes those that `prepare` may compare: the ways to peers are not its."""
    return [route for route in existing if not route.get("gateway")]


def add_dns_address(address: str) -> None:
    """Make the cluster's DNS address one of this node's, so that pods ask the node itself."""
    if has_address(address):
        return
    try:
        run_ip([f"link add {DNS_LINK} type dummy"])
        link = DNS_LINK
    except NetworkError as error:
        if "File exists" in str(error):
            link = DNS_LINK
        elif "Unknown device type" in str(error) or "not supported" in str(error):
            # A kernel without dummy interfaces: the loopback takes one more address.
            link = "lo"
        else:
            raise
    run_ip([f"address add {address}/32 dev {link}", f"link set {link} up"])


def change_sysctls(wanted: dict[str, str], notes: Path) -> None:
    """Set kernel parameters, noting first what they were."""
    before: dict[str, str] = json.loads(notes.read_text()) if notes.exists() else {}
    changed = {
        name: current
        for name, value in wanted.items()
        if (current := read_sysctl(name)) is not None and current != value
    }
    if not changed:
        return
    notes.parent.mkdir(parents=True, exist_ok=True)
    # The first note is the one to go back to.
    notes.write_text(json.dumps(changed | before))
    for name in changed:
        write_sysctl(name, wanted[name])


def read_sysctl(name: str) -> str | None:
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    try:
        (_SYSCTL / name).write_text(value)
    except OSError as error:
        raise NetworkError(
            f"cannot set net/{name} to {value} ({error.strerror}); run p8s as root"
        ) from error


def can_filter_bridges() -> bool:
    return (_SYSCTL / BRIDGED).exists()


def our_routes() -> list[dict[str, Any]]:
    return _json("ip", "-json", "-details", "-4", "route", "show", "proto", str(PROTOCOL))


def link_names() -> list[str]:
    return [str(link.get("ifname")) for link in _json("ip", "-json", "link", "show")]


def has_address(address: str) -> bool:
    return any(
        entry.get("local") == address
        for link in _json("ip", "-json", "-4", "address", "show")
        for entry in link.get("addr_info", ())
    )


def is_on_link(peer: routes.Peer) -> bool:
    """Is the node reached without a gateway, and not by the default route?"""
    try:
        found = _json("ip", "-json", "-4", "route", "get", str(peer.address))
    except NetworkError:
        return False
    return bool(found) and "gateway" not in found[0]


def remove_all_traces(config: PodNetworkConfig) -> None:
    """Take away routes, links, rules, leases and configuration; put kernel parameters back.

    Goes on after a failure, and finds nothing to do when called again.
    """
    with contextlib.suppress(NetworkError):
        run_nft(f"add table ip {config.table}\ndelete table ip {config.table}\n")
    lines = [f"route flush proto {PROTOCOL}"]
    present = set(link_names())
    lines += [
        f"link delete {link}" for link in (cni.BRIDGE, DNS_LINK, VXLAN_LINK) if link in present
    ]
    if DNS_LINK not in present and has_address(config.dns_address):
        lines.append(f"address delete {config.dns_address}/32 dev lo")
    with contextlib.suppress(NetworkError):
        run_ip(lines, force=True)
    cni.remove_config(config.cni())
    if config.notes.exists():
        for name, value in json.loads(config.notes.read_text()).items():
            with contextlib.suppress(NetworkError):
                write_sysctl(name, value)
        config.notes.unlink()
    with contextlib.suppress(OSError):
        config.state_dir.rmdir()


@contextlib.asynccontextmanager
async def pod_network(caches: Caches, config: PodNetworkConfig) -> AsyncIterator[PodNetwork]:
    """A running pod network: entered when the leak rule stands and the DNS address is ours.

    Whether pods can be put on it is told by `ready`: that waits for the node's pod range, which
    is given only to a node that has registered.
    """
    await asyncio.to_thread(prepare, config)
    mine = caches.of(Pod, field_selector=f"spec.nodeName={config.node_name}")
    network = PodNetwork(caches.of(Node), mine, config)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(network.run(), name="pod network")
        try:
            yield network
        finally:
            running.cancel()


async def run_pod_network(caches: Caches, config: PodNetworkConfig) -> None:
    """Keep it right until cancelled."""
    async with pod_network(caches, config):
        await asyncio.get_running_loop().create_future()


def _json(*command: str) -> list[dict[str, Any]]:
    return list(json.loads(run_program(command) or "[]"))
