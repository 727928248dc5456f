"""Network namespaces for `p8s up --isolated`: real nodes that cannot reach the outside.

    calling namespace ──veth── hub (a bridge) ──veth── node 0 (control plane, first node)
                                              └─veth── node 1 …

Every node is a namespace with loopback, one interface and no default route: what its pods send
to any address but the cluster's own ends there. The calling namespace gets one interface with
one address, and with it the one link route by which API server and nodes are reached.

Rules: all names follow from the cluster's name, so that making it again changes nothing and
removing it needs no memory. What happens in the calling namespace is decided by
`plan_isolation` alone, and is never anything but: make namespaces, make that veth pair, give it
its address, bring it up.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pybernetes.network.program import NetworkError, run_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# RFC 2544: for tests of networks, routed nowhere; the other half of it belongs to simulated nodes.
# Each cluster takes a /24.
RANGE = IPv4Network("198.18.0.0/16")
_PREFIX = "p8s-"
NAMESPACES = Path("/run/netns")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_MAX_NODES = 200
_FIRST_NODE = 10
_CLONE_NEWNET = 0x40000000


class IsolationError(NetworkError):
    """Namespaces could not be made or found; the message says what to do."""


@dataclass(frozen=True, slots=True)
class IsolatedNode:
    """One node: a network namespace."""

    index: int
    namespace: str
    address: IPv4Address

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` inside, in the same process and mounts."""
        return command_in(self.namespace, arguments)


@dataclass(frozen=True, slots=True)
class IsolatedCluster:
    """Where an isolated cluster is: its nodes, and how the calling namespace reaches them."""

    name: str
    subnet: IPv4Network
    # The interface in the calling namespace, and its address.
    interface: str
    host_address: IPv4Address
    nodes: tuple[IsolatedNode, ...]

    @property
    def api_address(self) -> IPv4Address:
        """Where the control plane listens: the first node."""
        return self.nodes[0].address


@dataclass(frozen=True, slots=True)
class Existing:
    """What is there already. The calling namespace is called ""."""

    namespaces: frozenset[str] = frozenset()
    # Namespace -> names of its interfaces.
    links: dict[str, frozenset[str]] = field(default_factory=dict)
    # Namespace -> IPv4 addresses in it, with prefix length.
    addresses: dict[str, frozenset[str]] = field(default_factory=dict)
    # Destinations of the calling namespace's routes, as far as they are networks.
    routes: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """`ip` commands carried out inside one namespace ("" is the calling one)."""

    namespace: str
    lines: tuple[str, ...]


def layout(name: str, nodes: int, subnet: IPv4Network) -> IsolatedCluster:
    """All names and addresses of a cluster. Raises IsolationError for an impossible one."""
    if not _NAME.fullmatch(name):
        raise IsolationError(
            f"{name!r} cannot name an isolated cluster; use up to 32 lower case letters, digits"
            " and hyphens"
        )
    if not 1 <= nodes <= _MAX_NODES:
        raise IsolationError(f"--nodes {nodes}: choose from 1 to {_MAX_NODES} isolated nodes")
    return IsolatedCluster(
        name=name,
        subnet=subnet,
        interface=f"p8s{hashlib.sha256(name.encode()).hexdigest()[:8]}",
        host_address=subnet[1],
        nodes=tuple(
            IsolatedNode(n, f"{_PREFIX}{name}-node-{n}", subnet[_FIRST_NODE + n])
            for n in range(nodes)
        ),
    )


def hub_of(name: str) -> str:
    return f"{_PREFIX}{name}-hub"


def choose_subnet(name: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """The /24 that the name leads to, or the next one nobody routes."""
    subnets = list(RANGE.subnets(new_prefix=24))
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(subnets)
    # A default route takes in everything and yet claims nothing.
    others = [network for network in taken if network.prefixlen > 0]
    for offset in range(len(subnets)):
        subnet = subnets[(start + offset) % len(subnets)]
        if not any(subnet.overlaps(network) for network in others):
            return subnet
    raise IsolationError(f"every network of {RANGE} has a route already; remove one of them")


def plan_isolation(wanted: IsolatedCluster, existing: Existing) -> list[Step]:
    """What is still missing, in order; nothing if all of it is there."""
    hub = hub_of(wanted.name)
    here: list[str] = []
    for namespace in (hub, *(node.namespace for node in wanted.nodes)):
        if namespace not in existing.namespaces:
            here.append(f"netns add {namespace}")
    if wanted.interface not in existing.links.get("", frozenset()):
        here.append(f"link add {wanted.interface} type veth peer name uplink netns {hub}")
    host = f"{wanted.host_address}/{wanted.subnet.prefixlen}"
    if host not in existing.addresses.get("", frozenset()):
        here.append(f"address add {host} dev {wanted.interface}")
    # No IPv6: not even a link-local address appears in the calling namespace.
    here.append(f"link set {wanted.interface} addrgenmode none up")
    steps = [Step("", tuple(here))]

    in_hub = ["link set lo up"]
    links = existing.links.get(hub, frozenset())
    if "hub" not in links:
        in_hub.append("link add hub type bridge")
    for node in wanted.nodes:
        if f"port-{node.index}" not in links:
            in_hub.append(
                f"link add port-{node.index} type veth peer name eth0 netns {node.namespace}"
            )
        in_hub += [f"link set port-{node.index} master hub", f"link set port-{node.index} up"]
    in_hub += ["link set uplink master hub", "link set uplink up", "link set hub up"]
    steps.append(Step(hub, tuple(in_hub)))

    for node in wanted.nodes:
        address = f"{node.address}/{wanted.subnet.prefixlen}"
        inside = ["link set lo up"]
        if address not in existing.addresses.get(node.namespace, frozenset()):
            inside.append(f"address add {address} dev eth0")
        steps.append(Step(node.namespace, (*inside, "link set eth0 up")))
    return steps


def create(name: str, nodes: int = 1) -> IsolatedCluster:
    """Make what is missing of a cluster's namespaces. Raises IsolationError or NetworkError."""
    if os.geteuid() != 0:
        raise IsolationError(
            "an isolated cluster needs root to make network namespaces; run this with sudo,"
            " or try it without containers: p8s up --simulate"
        )
    known = find(name)
    existing = look(name, nodes)
    subnet = known.subnet if known else choose_subnet(name, existing.routes)
    wanted = layout(name, max(nodes, len(known.nodes) if known else 0), subnet)
    try:
        for step in plan_isolation(wanted, existing):
            _carry_out(step)
    except NetworkError:
        if known is None:
            remove(name)
        raise
    return wanted


def find(name: str) -> IsolatedCluster | None:
    """The cluster of that name as far as it exists: its address and how many nodes it has."""
    bare = layout(name, 1, RANGE)
    for entry in _ip_json("", "-4", "address", "show", "dev", bare.interface):
        for address in entry.get("addr_info", ()):
            if address.get("family") != "inet":
                continue
            subnet = IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
            indexes = _node_indexes(name)
            return layout(name, max(indexes) + 1 if indexes else 1, subnet)
    return None


def list_clusters() -> list[str]:
    """The names of the isolated clusters on this machine."""
    hubs = [_cluster_of(path) for path in _namespace_names() if path.endswith("-hub")]
    return sorted(name for name in hubs if name)


def remove(name: str) -> list[int]:
    """Take everything of a cluster away; the ids of processes that still run inside.

    Their namespaces live on without a name until they end, but have no interface any more.
    """
    layout(name, 1, RANGE)
    hub = hub_of(name)
    mine = [hub, *(f"{_PREFIX}{name}-node-{n}" for n in _node_indexes(name))]
    present = [namespace for namespace in mine if namespace in _namespace_names()]
    left: list[int] = []
    for namespace in present:
        left += _processes_in(namespace)
    # The veth pairs go with either of their ends, and the hub holds one end of each.
    for link in _ip_json(hub, "link", "show", "type", "veth") if hub in present else ():
        _quietly("ip", "-n", hub, "link", "delete", str(link["ifname"]))
    _quietly("ip", "link", "delete", layout(name, 1, RANGE).interface)
    for namespace in present:
        run_program(("ip", "netns", "delete", namespace))
    return sorted(set(left))


def command_in(namespace: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs `arguments` in a namespace.

    Unlike `ip netns exec` it leaves the mounts alone: containers made inside must be seen by
    whoever cleans up.
    """
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--", *arguments]


@contextlib.contextmanager
def in_namespace(namespace: str) -> Iterator[None]:
    """Put the calling thread into a namespace for a while; sockets made meanwhile stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(libc, inside)
        finally:
            os.close(inside)
        try:
            yield
        finally:
            _set_namespace(libc, before)
    finally:
        os.close(before)


def look(name: str, nodes: int) -> Existing:
    """What exists of a cluster, and which networks the calling namespace routes."""
    hub = hub_of(name)
    everyone = {hub, *(f"{_PREFIX}{name}-node-{n}" for n in {*range(nodes), *_node_indexes(name)})}
    namespaces = frozenset(everyone & set(_namespace_names()))
    links: dict[str, frozenset[str]] = {}
    addresses: dict[str, frozenset[str]] = {}
    for namespace in ("", *sorted(namespaces)):
        entries = _ip_json(namespace, "-4", "address", "show")
        addresses[namespace] = frozenset(
            f"{address['local']}/{address['prefixlen']}"
            for entry in entries
            for address in entry.get("addr_info", ())
        )
        everything = _ip_json(namespace, "link", "show")
        links[namespace] = frozenset(str(entry["ifname"]) for entry in everything)
    return Existing(namespaces, links, addresses, tuple(_routed()))


def _routed() -> Iterator[IPv4Network]:
    for route in _ip_json("", "-4", "route", "show", "table", "all"):
        with contextlib.suppress(ValueError):
            yield IPv4Network(str(route.get("dst", "")))


def _carry_out(step: Step) -> None:
    where = ("-n", step.namespace) if step.namespace else ()
    run_program(("ip", *where, "-batch", "-"), "\n".join(step.lines) + "\n")


def _ip_json(namespace: str, *arguments: str) -> list[dict[str, Any]]:
    where = ("-n", namespace) if namespace else ()
    try:
        text = run_program(("ip", *where, "-json", *arguments))
    except NetworkError as error:
        if "does not exist" in str(error) or "Cannot find device" in str(error):
            return []
        raise
    return list(json.loads(text or "[]"))


def _namespace_names() -> list[str]:
    try:
        return sorted(path.name for path in NAMESPACES.iterdir())
    except FileNotFoundError:
        return []


def _node_indexes(name: str) -> list[int]:
    pattern = re.compile(re.escape(f"{_PREFIX}{name}-node-") + r"(\d+)")
    return [int(m[1]) for m in map(pattern.fullmatch, _namespace_names()) if m]


def _cluster_of(hub: str) -> str:
    return hub.removeprefix(_PREFIX).removesuffix("-hub") if hub.startswith(_PREFIX) else ""


def _processes_in(namespace: str) -> list[int]:
    output = run_program(("ip", "netns", "pids", namespace))
    return [int(word) for word in output.split()]


def _quietly(*arguments: str) -> None:
    with contextlib.suppress(NetworkError, subprocess.SubprocessError):
        run_program(arguments)


def _set_namespace(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise IsolationError(f"cannot enter a network namespace: {os.strerror(number)}")
