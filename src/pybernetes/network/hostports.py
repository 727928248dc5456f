"""Host ports: a port of the node leads to a port of one of its pods.

The usual CNI plugin for this needs iptables and leaves chains behind; here it is one map in the
pod network's table, rewritten in one transaction when a pod with host ports comes or goes, which
is rare.

Rule: of two pods that claim the same port the older keeps it (the scheduler sees to it that there
are no two).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from pybernetes.network.proxy.plan import PROTOCOLS, is_ipv4

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pybernetes.api.types.core_v1 import Pod

MAP, MAP_AT, HAIRPIN = "host-ports", "host-ports-at", "host-port-pods"
_ANY = ("", "0.0.0.0")
_OVER = ("Succeeded", "Failed")


class HostPort(NamedTuple):
    """Where it is on the node; an empty address is any but loopback."""

    address: str
    protocol: str
    port: int


HostPorts = dict[HostPort, tuple[str, int]]


def plan_host_ports(pods: Iterable[Pod]) -> HostPorts:
    """Every host port of pods that have an address and are not over."""
    found: HostPorts = {}
    for pod in sorted(pods, key=_age):
        if pod.spec.host_network or pod.status.phase in _OVER or not is_ipv4(pod.status.pod_ip):
            continue
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            for port in container.ports:
                protocol = PROTOCOLS.get(port.protocol or "TCP")
                if not port.host_port or protocol is None:
                    continue
                address = "" if port.host_ip in _ANY else port.host_ip
                if address and not is_ipv4(address):
                    continue
                place = HostPort(address, protocol, port.host_port)
                found.setdefault(place, (pod.status.pod_ip, port.container_port))
    return found


def declarations() -> str:
    """Maps and chains of the pod network's table that host ports need."""
    frontend = "meta l4proto . th dport"
    rules = f"""
    fib daddr type != local return
    ip daddr 127.0.0.0/8 return
    dnat ip to ip daddr . {frontend} map @{MAP_AT}
    dnat ip to {frontend} map @{MAP}"""
    return f"""
  map {MAP} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map {MAP_AT} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  set {HAIRPIN} {{ type ipv4_addr . ipv4_addr; }}
  chain host-ports-in {{
    type nat hook prerouting priority dstnat + 5; policy accept;{rules}
  }}
  chain host-ports-out {{
    type nat hook output priority -95; policy accept;{rules}
  }}
  chain host-ports-back {{
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat ip saddr . ip daddr @{HAIRPIN} masquerade fully-random
  }}"""


def update_script(table: str, ports: Mapping[HostPort, tuple[str, int]]) -> str:
    """Replace all host ports at once."""
    everywhere: list[str] = []
    at: list[str] = []
    for place, (address, number) in sorted(ports.items()):
        text = f"{place.protocol} . {place.port} : {address} . {number}"
        if place.address:
            at.append(f"{place.address} . {text}")
        else:
            everywhere.append(text)
    pods = sorted({f"{address} . {address}" for address, _ in ports.values()})
    lines = [
        f"flush map ip {table} {MAP}",
        f"flush map ip {table} {MAP_AT}",
        f"flush set ip {table} {HAIRPIN}",
    ]
    for name, elements in ((MAP, everywhere), (MAP_AT, at), (HAIRPIN, pods)):
        if elements:
            lines.append(f"add element ip {table} {name} {{ {', '.join(elements)} }}")
    return "\n".join(lines) + "\n"


def _age(pod: Pod) -> tuple[datetime, str, str]:
    created = pod.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC)
    return created, pod.metadata.namespace, pod.metadata.name
