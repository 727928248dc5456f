"""Routes of the pod network: which way to the pods of every other node, and no way out.

Pure planning; `ip -batch` carries it out. Everything here bears our route protocol number, by
which it is found again after a restart, compared, and taken away at the end.

Rules:
- The pod range as a whole is unreachable, so that what no node owns ends here and never follows
  the default route. The service range leads to the loopback: what the packet rules have not
  translated by then goes nowhere.
- On one layer-2 network a node's pods are reached through that node's address. Otherwise, if so
  configured, through VXLAN, whose addresses all follow from the nodes' own, so that nothing needs
  to be exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pybernetes.api.types.core_v1 import Node

# Ours alone, see /etc/iproute2/rt_protos.
PROTOCOL = 80
VXLAN_LINK = "p8s-vxlan"
VXLAN_ID, VXLAN_PORT = 80, 8472
# What VXLAN adds to a packet: Ethernet, VXLAN, UDP, IP.
VXLAN_OVERHEAD = 50
# Behind every route that leads somewhere, even if it is for the same range.
_LAST_METRIC = 9999


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as far as its pods are to be reached."""

    name: str
    address: IPv4Address
    pods: IPv4Network

    @property
    def tunnel_address(self) -> IPv4Address:
        """Its end of the tunnel: the network address of its range, which no pod has."""
        return self.pods.network_address

    @property
    def tunnel_mac(self) -> str:
        """Locally administered, and different wherever the node's address is."""
        return ":".join(f"{byte:02x}" for byte in (0x0E, 0x50, *self.address.packed))


@dataclass(frozen=True, slots=True)
class Ground:
    """The node's own place: its address, and the cluster's ranges."""

    address: IPv4Address
    pod_range: IPv4Network
    service_range: IPv4Network
    mtu: int = 1500
    vxlan: bool = False

    @property
    def pod_mtu(self) -> int:
        return self.mtu - VXLAN_OVERHEAD if self.vxlan else self.mtu


# Destination -> the rest of the `ip route` line, without protocol.
Routes = dict[str, str]


def leak_routes(ground: Ground) -> Routes:
    """The ranges' own routes, there before any pod is."""
    return {
        f"unreachable {ground.pod_range}": f"metric {_LAST_METRIC}",
        # Loopback's own MTU would be a promise the translated packets cannot keep.
        str(ground.service_range): f"dev lo src {ground.address} mtu {ground.pod_mtu}",
    }


def peers_of(nodes: Iterable[Node], own_name: str) -> list[Peer]:
    """Every other node that has an address and a pod range, by name."""
    found: list[Peer] = []
    for node in nodes:
        address, pods = internal_address(node), node.spec.pod_cidr
        if node.metadata.name == own_name or address is None or not pods:
            continue
        try:
            found.append(Peer(node.metadata.name, address, IPv4Network(pods)))
        except ValueError:
            continue
    return sorted(found, key=lambda peer: peer.name)


def internal_address(node: Node) -> IPv4Address | None:
    for address in node.status.addresses:
        if address.type == "InternalIP":
            try:
                return IPv4Address(address.address)
            except ValueError:
                continue
    return None


def peer_routes(ground: Ground, peers: Iterable[Peer]) -> Routes:
    routes: Routes = {}
    for peer in peers:
        if not peer.pods.subnet_of(ground.pod_range):
            continue
        if ground.vxlan:
            routes[str(peer.pods)] = f"via {peer.tunnel_address} dev {VXLAN_LINK} onlink"
        else:
            routes[str(peer.pods)] = f"via {peer.address}"
    return routes


def plan_routes(
    ground: Ground, peers: Sequence[Peer], existing: Iterable[Mapping[str, Any]]
) -> list[str]:
    """`ip` lines that lead from the existing routes of ours to those there should be."""
    wanted = leak_routes(ground) | peer_routes(ground, peers)
    lines: list[str] = []
    right: set[str] = set()
    for route in existing:
        destination, words = describe(route)
        if destination not in wanted:
            lines.append(f"route delete {destination} proto {PROTOCOL}")
        elif _agrees(words, wanted[destination]):
            right.add(destination)
    for destination, rest in wanted.items():
        if destination not in right:
            lines.append(f"route replace {destination} {rest} proto {PROTOCOL}")
    return lines


def describe(route: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """A route of `ip -json`: its destination as we write it, and what it says."""
    destination = str(route.get("dst", ""))
    if destination.count("/") == 0 and destination != "default":
        destination += "/32"
    if route.get("type") == "unreachable":
        destination = f"unreachable {destination}"
    words = {
        "via": str(route.get("gateway", "")),
        "dev": str(route.get("dev", "")),
        "src": str(route.get("prefsrc", "")),
        "metric": str(route.get("metric", "")),
    }
    for metrics in route.get("metrics", ()):
        words["mtu"] = str(metrics.get("mtu", ""))
    return destination, words


def _agrees(words: Mapping[str, str], wanted: str) -> bool:
    parts = [word for word in wanted.split() if word != "onlink"]
    return all(
        words.get(name, "") == value for name, value in zip(parts[::2], parts[1::2], strict=True)
    )


def plan_tunnel(
    ground: Ground, own_pods: IPv4Network, peers: Sequence[Peer], links: Iterable[str]
) -> list[str]:
    """`ip` lines that make this node's end of the tunnel and name the other ends."""
    own = Peer("", ground.address, own_pods)
    lines: list[str] = []
    if VXLAN_LINK not in set(links):
        lines.append(
            f"link add {VXLAN_LINK} address {own.tunnel_mac} mtu {ground.pod_mtu} type vxlan"
            f" id {VXLAN_ID} dstport {VXLAN_PORT} local {ground.address} nolearning"
        )
    lines.append(f"address replace {own.tunnel_address}/32 dev {VXLAN_LINK}")
    lines.append(f"link set {VXLAN_LINK} up")
    lines += [
        f"neighbour replace {peer.tunnel_address} lladdr {peer.tunnel_mac} dev {VXLAN_LINK}"
        " nud permanent"
        for peer in peers
    ]
    return lines


def plan_forwarding(peers: Sequence[Peer], existing: Iterable[Mapping[str, Any]]) -> list[str]:
    """`bridge` lines that say behind which node each end of the tunnel is."""
    wanted = {peer.tunnel_mac: str(peer.address) for peer in peers}
    known = {str(entry.get("mac")): str(entry.get("dst")) for entry in existing if "dst" in entry}
    lines = [
        f"fdb delete {mac} dev {VXLAN_LINK} dst {address}"
        for mac, address in known.items()
        if wanted.get(mac) != address and mac.startswith("0e:50:")
    ]
    lines += [
        f"fdb replace {mac} dev {VXLAN_LINK} dst {address} self permanent"
        for mac, address in wanted.items()
        if known.get(mac) != address
    ]
    return lines
