"""Which elements of which maps make one Service work on one node: pure, and readable.

The packet rules never change (see ruleset.py); what a Service is to this node is a handful of
map elements. A *frontend* is what clients connect to: (address, protocol, port), or (protocol,
port) for a node port, which is any address of the node. Its element in `services` or `ports`
names the chain that picks one of N endpoints by chance (`tcp-3`), and `endpoints-tcp` or
`port-endpoints-tcp` holds those N as slots 0 to N-1. So one endpoint more or less touches only
its own Service.

Two views of a frontend can differ: a Service with externalTrafficPolicy Local shows clients
outside the cluster only the endpoints on this node (`services-outside`), while pods and the node
itself see all of them. Slots of the outside view begin at OUTSIDE_SLOTS.

Behaviour is kube-proxy's: only ready endpoints; if there is none, those still serving while they
terminate; Local without a local endpoint drops, a Service without any endpoint rejects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pybernetes.api.types.core_v1 import Service, ServicePort
    from pybernetes.api.types.discovery_v1 import Endpoint, EndpointSlice

# The label by which an EndpointSlice says whose it is.
SERVICE_NAME = "kubernetes.io/service-name"
# Somebody else's proxy serves it.
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
OUTSIDE_SLOTS = 65536
# Three hours, as upstream's default for ClientIP affinity.
DEFAULT_AFFINITY_SECONDS = 10800

PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}

Key = tuple[str | int, ...]
# A verdict ("pick-3", "drop", "refuse", "learn-10800"), an endpoint, or nothing for a set.
Value = str | tuple[str, int] | None


class Element(NamedTuple):
    """One element of the map or set called `map`."""

    map: str
    key: Key


Elements = dict[Element, Value]


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What the plan must know about the node it is for."""

    node_name: str
    zone: str = ""
    # Addresses the node answers itself, such as that of the cluster's DNS: no Service may take them.
    exempt: frozenset[str] = frozenset()


class Backend(NamedTuple):
    """Where a connection may end."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of one service port, with what decides whether it is used."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool
    local: bool
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Not ready, but still answering while it terminates."""
        return self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class Choice:
    """The endpoints of one service port, per view."""

    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    # Addresses of this node's endpoints: a pod may reach itself through its own Service.
    hairpin: tuple[str, ...] = ()


@dataclass(slots=True)
class ServicePlan:
    """Everything one Service needs, and how many local endpoints it has (for health checks)."""

    elements: Elements = field(default_factory=dict)
    local_endpoints: int = 0


def plan_service(
    service: Service, slices: Iterable[EndpointSlice], facts: LocalFacts
) -> ServicePlan:
    """The elements of a Service; empty for one that needs no rules or is another proxy's."""
    plan = ServicePlan()
    if not is_proxied(service):
        return plan
    known = [piece for piece in slices if piece.address_type in ("IPv4", "")]
    for port in service.spec.ports:
        protocol = PROTOCOLS.get(port.protocol or "TCP")
        if protocol is None:
            continue
        choice = choose_endpoints(candidates_of(port, known, facts), facts)
        plan.local_endpoints = max(plan.local_endpoints, len(choice.local))
        plan.elements.update(_port_elements(service, port, protocol, choice, facts))
    return plan


def is_proxied(service: Service) -> bool:
    """Is this Service reached through packet rules, and are they ours to make?"""
    if service.spec.type == "ExternalName" or PROXY_NAME in service.metadata.labels:
        return False
    return service.spec.cluster_ip not in ("", "None")


def candidates_of(
    port: ServicePort, slices: Iterable[EndpointSlice], facts: LocalFacts
) -> list[Candidate]:
    """The endpoints of one service port, in a fixed order, each once."""
    best: dict[Backend, Candidate] = {}
    for piece in slices:
        for slice_port in piece.ports:
            if (slice_port.name or "") != port.name or slice_port.port is None:
                continue
            if (slice_port.protocol or "TCP") != (port.protocol or "TCP"):
                continue
            for endpoint in piece.endpoints:
                if not endpoint.addresses:
                    continue
                candidate = _candidate(endpoint, slice_port.port, facts)
                # An endpoint on its way from one slice to another is in both for a moment.
                known = best.get(candidate.backend)
                if known is None or (candidate.ready and not known.ready):
                    best[candidate.backend] = candidate
    return [best[backend] for backend in sorted(best)]


def choose_endpoints(candidates: Sequence[Candidate], facts: LocalFacts) -> Choice:
    ready = [c for c in candidates if c.ready]
    cluster = _by_hints(ready, facts) or [c for c in candidates if c.usable]
    local = [c for c in ready if c.local] or [c for c in candidates if c.local and c.usable]
    return Choice(
        cluster=tuple(c.backend for c in cluster),
        local=tuple(c.backend for c in local),
        hairpin=tuple(
            sorted({c.backend.address for c in candidates if c.local and (c.ready or c.usable)})
        ),
    )


def _by_hints(ready: list[Candidate], facts: LocalFacts) -> list[Candidate]:
    """Endpoints hinted for this node, else for its zone; all of them unless every one is hinted."""
    if ready and all(c.nodes for c in ready):
        near = [c for c in ready if facts.node_name in c.nodes]
        if near:
            return near
    if facts.zone and ready and all(c.zones for c in ready):
        near = [c for c in ready if facts.zone in c.zones]
        if near:
            return near
    return ready


def _candidate(endpoint: Endpoint, port: int, facts: LocalFacts) -> Candidate:
    conditions, hints = endpoint.conditions, endpoint.hints
    ready = conditions.ready is not False
    return Candidate(
        backend=Backend(endpoint.addresses[0], port),
        ready=ready,
        # Absent means the same as ready, for writers older than the field.
        serving=ready if conditions.serving is None else conditions.serving,
        terminating=conditions.terminating is True,
        local=bool(endpoint.node_name) and endpoint.node_name == facts.node_name,
        zones=tuple(zone.name for zone in hints.for_zones) if hints else (),
        nodes=tuple(node.name for node in hints.for_nodes) if hints else (),
    )


def _port_elements(
    service: Service, port: ServicePort, protocol: str, choice: Choice, facts: LocalFacts
) -> Elements:
    spec = service.spec
    affinity = affinity_seconds(service)
    outside_local = spec.external_traffic_policy == "Local"
    elements: Elements = {}
    for address in cluster_addresses(service, facts):
        # No element at all rejects too: nothing in the service range is let through untranslated.
        if spec.internal_traffic_policy != "Local":
            elements |= _frontend("services", (address,), protocol, port.port, choice.cluster)
        elif choice.local:
            elements |= _frontend("services", (address,), protocol, port.port, choice.local)
        elif choice.cluster:
            elements[Element("services", (address, protocol, port.port))] = "drop"
    fronts: list[tuple[tuple[str, ...], int]] = [
        ((address,), port.port) for address in external_addresses(service, facts)
    ]
    if port.node_port and spec.type in ("NodePort", "LoadBalancer"):
        fronts.append(((), port.node_port))
    for where, number in fronts:
        elements |= _external(where, protocol, number, choice, outside_local)
    for where, number in _limited(service, port, facts):
        elements |= _source_limits(where, protocol, number, service)
    if affinity is not None:
        elements = dict(_sticky(elements, affinity))
    for address in choice.hairpin:
        elements[Element("hairpin", (address, address))] = None
    return elements


def _external(
    where: tuple[str, ...], protocol: str, port: int, choice: Choice, outside_local: bool
) -> Elements:
    """A frontend that clients outside the cluster may use; `where` is () for a node port."""
    name = "services" if where else "ports"
    key: Key = (*where, protocol, port)
    if not choice.cluster and not choice.local:
        return {Element("refused" if where else "refused-ports", key): "refuse"}
    elements = _frontend(name, where, protocol, port, choice.cluster)
    if not outside_local:
        # The answer must come back through this node, whichever node the endpoint is on.
        elements[Element("masqueraded" if where else "masqueraded-ports", key)] = None
    elif choice.local:
        elements |= _frontend(
            name, where, protocol, port, choice.local, suffix="-outside", first=OUTSIDE_SLOTS
        )
    else:
        # Dropped, not refused, so that a load balancer stops asking this node.
        elements[Element(f"{name}-outside", key)] = "drop"
    return elements


def _frontend(
    name: str,
    where: tuple[str, ...],
    protocol: str,
    port: int,
    backends: Sequence[Backend],
    *,
    suffix: str = "",
    first: int = 0,
) -> Elements:
    if not backends:
        return {}
    key: Key = (*where, protocol, port)
    chain = ("" if where else "port-") + protocol + suffix
    slots = f"endpoints-{protocol}" if where else f"port-endpoints-{protocol}"
    elements: Elements = {Element(name + suffix, key): f"{chain}-{len(backends)}"}
    for slot, backend in enumerate(backends, first):
        elements[Element(slots, (*where, port, slot))] = (backend.address, backend.port)
    return elements


def _sticky(elements: Elements, seconds: int) -> Iterator[tuple[Element, Value]]:
    """The same elements, remembering for each client where it went."""
    for element, value in elements.items():
        if element.map.startswith(("services", "ports")) and isinstance(value, str):
            if value == "drop":
                yield element, value
                continue
            chain, _, count = value.rpartition("-")
            yield element, f"{chain}-sticky-{count}"
            learn = "sticky" if element.map.startswith("services") else "sticky-ports"
            yield Element(learn, element.key), f"learn-{seconds}"
        else:
            yield element, value


def affinity_seconds(service: Service) -> int | None:
    """For how long a client stays with its endpoint; None if it does not."""
    spec = service.spec
    if spec.session_affinity != "ClientIP":
        return None
    config = spec.session_affinity_config
    client = config.client_ip if config else None
    if client is None or not client.timeout_seconds:
        return DEFAULT_AFFINITY_SECONDS
    return client.timeout_seconds


def cluster_addresses(service: Service, facts: LocalFacts) -> list[str]:
    spec = service.spec
    return _usable_addresses((spec.cluster_ip, *spec.cluster_ips), facts)


def external_addresses(service: Service, facts: LocalFacts) -> list[str]:
    """External IPs and those of the load balancer, unless it proxies by itself."""
    ingress = service.status.load_balancer.ingress
    balanced = [entry.ip for entry in ingress if entry.ip and entry.ip_mode != "Proxy"]
    return _usable_addresses((*service.spec.external_ips, *balanced), facts)


def _usable_addresses(addresses: Iterable[str], facts: LocalFacts) -> list[str]:
    found: dict[str, None] = {}
    for text in addresses:
        if is_ipv4(text) and text not in facts.exempt:
            found[text] = None
    return list(found)


def is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _limited(
    service: Service, port: ServicePort, facts: LocalFacts
) -> Iterator[tuple[tuple[str, ...], int]]:
    """The frontends that loadBalancerSourceRanges protects: those of the load balancer."""
    if service.spec.type != "LoadBalancer" or not service.spec.load_balancer_source_ranges:
        return
    ingress = service.status.load_balancer.ingress
    balanced = [entry.ip for entry in ingress if entry.ip and entry.ip_mode != "Proxy"]
    for address in _usable_addresses(balanced, facts):
        yield (address,), port.port


def _source_limits(where: tuple[str, ...], protocol: str, port: int, service: Service) -> Elements:
    key: Key = (*where, protocol, port)
    elements: Elements = {Element("source-limited", key): None}
    for text in service.spec.load_balancer_source_ranges:
        try:
            network = IPv4Network(text.strip(), strict=False)
        except ValueError:
            continue
        first, last = str(network[0]), str(network[-1])
        elements[Element("source-ranges", (*key, first, *key, last))] = None
    return elements


def group_by_service(
    slices: Iterable[EndpointSlice],
) -> Mapping[tuple[str, str], list[EndpointSlice]]:
    """Slices by (namespace, name) of the Service they belong to."""
    grouped: dict[tuple[str, str], list[EndpointSlice]] = {}
    for piece in slices:
        if name := piece.metadata.labels.get(SERVICE_NAME):
            grouped.setdefault((piece.metadata.namespace, name), []).append(piece)
    return grouped
