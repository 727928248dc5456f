"""Endpoints: the addresses behind a service, in its old form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.containers import PROTOCOLS
from pybernetes.api.core.services import validate_routable
from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import EndpointPort, Endpoints, EndpointSubset
from pybernetes.api.validation import (
    changed_each,
    validate_dns_label,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import (
    dns_subdomain_errors,
    ip_errors,
    port_errors,
    qualified_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import EndpointAddress
    from pybernetes.apimachinery.fielderror import FieldError

_SHOWN = 3


def default_endpoints(new: Endpoints) -> Endpoints:
    subsets = changed_each(new.subsets, _default_subset)
    return new if subsets is new.subsets else replace(new, subsets=subsets)


def _default_subset(subset: EndpointSubset) -> EndpointSubset:
    ports = changed_each(subset.ports, _default_port)
    return subset if ports is subset.ports else replace(subset, ports=ports)


def _default_port(port: EndpointPort) -> EndpointPort:
    return port if port.protocol else replace(port, protocol="TCP")


def validate_endpoints(new: Endpoints, old: Endpoints | None) -> Iterator[FieldError]:
    if old is not None and old.subsets == new.subsets:
        return
    for index, subset in enumerate(new.subsets):
        path = Path("subsets")[index]
        if not subset.addresses and not subset.not_ready_addresses:
            yield path.required("must specify `addresses` or `notReadyAddresses`")
        for number, address in enumerate(subset.addresses):
            yield from _validate_address(address, path.addresses[number])
        for number, address in enumerate(subset.not_ready_addresses):
            yield from _validate_address(address, path.notReadyAddresses[number])
        for number, port in enumerate(subset.ports):
            yield from _validate_port(port, path.ports[number], named=len(subset.ports) > 1)


def _validate_address(address: EndpointAddress, path: Path) -> Iterator[FieldError]:
    if errors := ip_errors(address.ip):
        for message in errors:
            yield path.ip.invalid(address.ip, message)
    else:
        yield from validate_routable(address.ip, path.ip)
    if address.hostname:
        yield from validate_dns_label(address.hostname, path.hostname)
    if address.node_name:
        yield from validate_with(dns_subdomain_errors, address.node_name, path.nodeName)


def _validate_port(port: EndpointPort, path: Path, *, named: bool) -> Iterator[FieldError]:
    if named and not port.name:
        yield path.name.required()
    elif port.name:
        yield from validate_dns_label(port.name, path.name)
    for message in port_errors(port.port):
        yield path.port.invalid(port.port, message)
    if port.protocol not in PROTOCOLS:
        yield from validate_one_of(port.protocol, PROTOCOLS, path.protocol)
    if port.app_protocol:
        yield from validate_with(qualified_name_errors, port.app_protocol, path.appProtocol)


def _endpoints_text(endpoints: Endpoints) -> str | None:
    if not endpoints.subsets:
        return None
    places: list[str] = []
    for subset in endpoints.subsets:
        if not subset.ports:
            places += [address.ip for address in subset.addresses]
        for port in subset.ports:
            for address in subset.addresses:
                host = f"[{address.ip}]" if ":" in address.ip else address.ip
                places.append(f"{host}:{port.port}")
    text = ",".join(places[:_SHOWN])
    return f"{text} + {len(places) - _SHOWN} more..." if len(places) > _SHOWN else text


ENDPOINTS = Resource(
    group="",
    version="v1",
    kind=Endpoints,
    plural="endpoints",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_endpoints,
        validate=validate_endpoints,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    columns=(Column("Endpoints", _endpoints_text), AGE),
)
