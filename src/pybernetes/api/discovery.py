"""discovery.k8s.io: endpoint slices, the addresses behind Services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.discovery_v1 import Endpoint, EndpointPort, EndpointSlice
from pybernetes.api.validation import validate_immutable, validate_one_of
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_label_errors, dns_subdomain_errors, ip_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Printed in this order in refusals.
ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
PROTOCOLS = ("SCTP", "TCP", "UDP")
MAX_ENDPOINTS = 1000
MAX_ADDRESSES = 100
MAX_PORTS = 20000
_SHOWN = 3


def default_slice(new: EndpointSlice) -> EndpointSlice:
    return msgspec.structs.replace(new, ports=tuple(_default_port(port) for port in new.ports))


def _default_port(port: EndpointPort) -> EndpointPort:
    if port.name is not None and port.protocol:
        return port
    return msgspec.structs.replace(port, name=port.name or "", protocol=port.protocol or "TCP")


def validate_slice(new: EndpointSlice, old: EndpointSlice | None) -> Iterator[FieldError]:
    yield from validate_one_of(new.address_type, ADDRESS_TYPES, Path("addressType"))
    if old is not None:
        yield from validate_immutable(new.address_type, old.address_type, Path("addressType"))
    yield from _validate_endpoints(new.endpoints, new.address_type)
    yield from _validate_ports(new.ports)


def _validate_endpoints(endpoints: Sequence[Endpoint], kind: str) -> Iterator[FieldError]:
    path = Path("endpoints")
    if len(endpoints) > MAX_ENDPOINTS:
        yield path.too_many(len(endpoints), MAX_ENDPOINTS)
        return
    for index, endpoint in enumerate(endpoints):
        here = path[index].addresses
        if not endpoint.addresses:
            yield here.required("must contain at least 1 address")
        elif len(endpoint.addresses) > MAX_ADDRESSES:
            yield here.too_many(len(endpoint.addresses), MAX_ADDRESSES)
        for number, address in enumerate(endpoint.addresses):
            wrong = dns_subdomain_errors(address) if kind == "FQDN" else ip_errors(address)
            for detail in wrong:
                yield here[number].invalid(address, detail)
        if endpoint.hostname:
            for detail in dns_label_errors(endpoint.hostname):
                yield path[index].hostname.invalid(endpoint.hostname, detail)
        if endpoint.node_name:
            for detail in dns_subdomain_errors(endpoint.node_name):
                yield path[index].nodeName.invalid(endpoint.node_name, detail)


def _validate_ports(ports: Sequence[EndpointPort]) -> Iterator[FieldError]:
    path = Path("ports")
    if len(ports) > MAX_PORTS:
        yield path.too_many(len(ports), MAX_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.name or ""
        if name in seen:
            yield path[index].name.duplicate(name)
        seen.add(name)
        if name:
            for detail in dns_label_errors(name):
                yield path[index].name.invalid(name, detail)
        yield from validate_one_of(port.protocol, PROTOCOLS, path[index].protocol)


def _first(values: Sequence[str]) -> str:
    if not values:
        return "<unset>"
    more = f" + {len(values) - _SHOWN} more..." if len(values) > _SHOWN else ""
    return ",".join(values[:_SHOWN]) + more


def _ports(found: EndpointSlice) -> str:
    return _first(["*" if port.port is None else str(port.port) for port in found.ports])


def _addresses(found: EndpointSlice) -> str:
    return _first([address for endpoint in found.endpoints for address in endpoint.addresses])


ENDPOINT_SLICES = Resource(
    group="discovery.k8s.io",
    version="v1",
    kind=EndpointSlice,
    plural="endpointslices",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_slice,
        validate=validate_slice,
        generation_follows=("endpoints", "ports", "addressType", "metadata.labels"),
    ),
    columns=(
        Column("AddressType", lambda s: s.address_type),
        Column("Ports", _ports),
        Column("Endpoints", _addresses),
        AGE,
    ),
)

DISCOVERY_RESOURCES = (ENDPOINT_SLICES,)
