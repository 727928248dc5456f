"""networking.k8s.io: network policies, service addresses and their ranges.

An IPAddress is the claim of one object to one address: its name is the address, in the one
form an address has, so that the store itself sees to it that nobody has it twice. Ingresses
are in `api/ingress.py`.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.ingress import INGRESS_CLASSES, INGRESSES
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.networking_v1 import IPAddress, NetworkPolicy, ServiceCIDR
from pybernetes.api.validation import changed_each, validate_label_selector, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    cidr_errors,
    dns_subdomain_errors,
    parse_ip,
    path_segment_errors,
    port_errors,
    port_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.networking_v1 import (
        IPBlock,
        NetworkPolicyPeer,
        NetworkPolicyPort,
        ParentReference,
    )

GROUP = "networking.k8s.io"

_PROTOCOLS = ("TCP", "UDP", "SCTP")
INGRESS, EGRESS = "Ingress", "Egress"


# --- network policies -----------------------------------------------------------------------------


def _default_port(port: NetworkPolicyPort) -> NetworkPolicyPort:
    return port if port.protocol else replace(port, protocol="TCP")


def _default_rule(rule: Any) -> Any:
    ports = changed_each(rule.ports, _default_port)
    return rule if ports is rule.ports else replace(rule, ports=ports)


def default_policy(new: NetworkPolicy) -> NetworkPolicy:
    spec = new.spec
    types = spec.policy_types or ((INGRESS, EGRESS) if spec.egress else (INGRESS,))
    spec = replace(
        spec,
        policy_types=types,
        ingress=changed_each(spec.ingress, _default_rule),
        egress=changed_each(spec.egress, _default_rule),
    )
    return new if spec == new.spec else replace(new, spec=spec)


def validate_policy(new: NetworkPolicy, old: NetworkPolicy | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from validate_label_selector(spec.pod_selector, path.podSelector)
    for index, incoming in enumerate(spec.ingress):
        here = path.ingress[index]
        yield from _validate_rule(incoming.ports, incoming.from_, here, here.child("from"))
    for index, outgoing in enumerate(spec.egress):
        here = path.egress[index]
        yield from _validate_rule(outgoing.ports, outgoing.to, here, here.to)
    if len(spec.policy_types) > 2:
        yield path.policyTypes.invalid(
            spec.policy_types, "may not specify more than two policyTypes"
        )
        return
    for index, type_ in enumerate(spec.policy_types):
        if type_ not in (INGRESS, EGRESS):
            yield path.policyTypes[index].not_supported(type_, [EGRESS, INGRESS])


def _validate_rule(
    ports: Sequence[NetworkPolicyPort], peers: Sequence[NetworkPolicyPeer], path: Path, at: Path
) -> Iterator[FieldError]:
    for index, port in enumerate(ports):
        yield from _validate_port(port, path.ports[index])
    for index, peer in enumerate(peers):
        yield from _validate_peer(peer, at[index])


def _validate_port(port: NetworkPolicyPort, path: Path) -> Iterator[FieldError]:
    if port.protocol and port.protocol not in _PROTOCOLS:
        yield path.protocol.not_supported(port.protocol, _PROTOCOLS)
    last = port.end_port
    if port.port is None:
        if last is not None:
            yield path.endPort.invalid(last, "may not be specified when `port` is not specified")
    elif isinstance(port.port, int):
        for message in port_errors(port.port):
            yield path.port.invalid(port.port, message)
        if last is not None:
            if last < port.port:
                yield path.endPort.invalid(port.port, "must be greater than or equal to `port`")
            for message in port_errors(last):
                yield path.endPort.invalid(last, message)
    else:
        if last is not None:
            yield path.endPort.invalid(last, "may not be specified when `port` is non-numeric")
        yield from validate_with(port_name_errors, port.port, path.port)


def _validate_peer(peer: NetworkPolicyPeer, path: Path) -> Iterator[FieldError]:
    yield from validate_label_selector(peer.pod_selector, path.podSelector)
    yield from validate_label_selector(peer.namespace_selector, path.namespaceSelector)
    if peer.ip_block is not None:
        yield from _validate_block(peer.ip_block, path.ipBlock)
    has_selector = peer.pod_selector is not None or peer.namespace_selector is not None
    if peer.ip_block is None and not has_selector:
        yield path.required("must specify a peer")
    elif peer.ip_block is not None and has_selector:
        yield path.forbidden("may not specify both ipBlock and another peer")


def _validate_block(block: IPBlock, path: Path) -> Iterator[FieldError]:
    if not block.cidr:
        yield path.cidr.required()
        return
    if errors := cidr_errors(block.cidr):
        for message in errors:
            yield path.cidr.invalid(block.cidr, message)
        return
    whole = ipaddress.ip_network(block.cidr, strict=False)
    for index, text in enumerate(block.except_):
        here = path.child("except")[index]
        if errors := cidr_errors(text):
            for message in errors:
                yield here.invalid(text, message)
            continue
        part = ipaddress.ip_interface(text)
        inside = part.version == whole.version and part.ip in whole
        if not inside or part.network.prefixlen <= whole.prefixlen:
            yield here.invalid(text, "must be a strict subset of `cidr`")


NETWORK_POLICIES = Resource(
    group=GROUP,
    version="v1",
    kind=NetworkPolicy,
    plural="networkpolicies",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_policy, validate=validate_policy),
    columns=(Column("Pod-Selector", lambda p: p.spec.pod_selector), AGE),
)


# --- addresses ------------------------------------------------------------------------------------


def address_errors(name: str) -> list[str]:
    address = parse_ip(name)
    if address is None:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    if str(address) != name:
        return [f'must be in canonical form ("{address}")']
    return []


def validate_address(new: IPAddress, old: IPAddress | None) -> Iterator[FieldError]:
    path = Path("spec").parentRef
    yield from _validate_parent(new.spec.parent_ref, path)
    if old is not None and new.spec.parent_ref != old.spec.parent_ref:
        yield path.immutable(new.spec.parent_ref)


def _validate_parent(parent: ParentReference, path: Path) -> Iterator[FieldError]:
    if parent.group:
        yield from validate_with(dns_subdomain_errors, parent.group, path.group)
    for name, value in (("resource", parent.resource), ("name", parent.name)):
        if not value:
            yield path.child(name).required()
        else:
            yield from validate_with(path_segment_errors, value, path.child(name))
    if parent.namespace:
        yield from validate_with(path_segment_errors, parent.namespace, path.namespace)


def _parent(address: IPAddress) -> str:
    parent = address.spec.parent_ref
    place = f"/{parent.namespace}" if parent.namespace else ""
    return f"{parent.resource}.{parent.group}{place}/{parent.name}"


IP_ADDRESSES = Resource(
    group=GROUP,
    version="v1",
    kind=IPAddress,
    plural="ipaddresses",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_address, name_errors=address_errors, generation_follows=()),
    columns=(Column("ParentRef", _parent),),
)


# --- ranges of addresses --------------------------------------------------------------------------


def validate_service_range(new: ServiceCIDR, old: ServiceCIDR | None) -> Iterator[FieldError]:
    path = Path("spec").cidrs
    if old is None:
        yield from _validate_cidrs(new.spec.cidrs, path)
        return
    before, after = old.spec.cidrs, new.spec.cidrs
    if before == after:
        return
    # A cluster with one family may get the other; nothing else ever changes.
    if len(before) == 1 and len(after) == 2:
        if before[0] != after[0]:
            yield path[0].immutable(after[0])
        yield from _validate_cidrs(after, path)
    else:
        yield path.immutable(after)


def _validate_cidrs(cidrs: Sequence[str], path: Path) -> Iterator[FieldError]:
    if not cidrs:
        yield path.required("at least one CIDR required")
        return
    if len(cidrs) > 2:
        yield path.invalid(cidrs, "may only hold up to 2 values")
        return
    families = []
    for index, cidr in enumerate(cidrs):
        if errors := cidr_errors(cidr):
            for message in errors:
                yield path[index].invalid(cidr, message)
            continue
        network = ipaddress.ip_network(cidr, strict=False)
        families.append(network.version)
        if str(network) != cidr:
            yield path[index].invalid(cidr, f'must be in canonical form ("{network}")')
    if len(families) == 2 and families[0] == families[1]:
        yield path.invalid(
            cidrs,
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24"
            " and 2001:db8::/96",
        )


SERVICE_CIDRS = Resource(
    group=GROUP,
    version="v1",
    kind=ServiceCIDR,
    plural="servicecidrs",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_service_range, generation_follows=()),
    subresources=(Status(),),
    columns=(Column("CIDRs", lambda r: ",".join(r.spec.cidrs)), AGE),
)

NETWORKING_RESOURCES: tuple[Resource[Any], ...] = (
    INGRESS_CLASSES,
    INGRESSES,
    IP_ADDRESSES,
    NETWORK_POLICIES,
    SERVICE_CIDRS,
)
