"""Service: one name and address for many pods. Entry, normalisation, validation.

Addresses and node ports are allocated by admission; here is only what follows from the
object alone. A service has the same address in an old field (`clusterIP`) and a new one
(`clusterIPs`), and old clients know one of them: `_with_both_addresses` keeps them equal.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.containers import PROTOCOLS
from pybernetes.api.core.probes import validate_port_or_name
from pybernetes.api.resource import AGE, Column, Proxy, Resource, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import (
    ClientIPConfig,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceSpec,
    SessionAffinityConfig,
)
from pybernetes.api.validation import (
    changed_each,
    validate_dns_label,
    validate_labels,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import (
    cidr_errors,
    dns_1035_label_errors,
    dns_subdomain_errors,
    ip_errors,
    parse_ip,
    port_errors,
    qualified_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

CLUSTER_IP, NODE_PORT, LOAD_BALANCER = "ClusterIP", "NodePort", "LoadBalancer"
EXTERNAL_NAME = "ExternalName"
TYPES = frozenset({CLUSTER_IP, NODE_PORT, LOAD_BALANCER, EXTERNAL_NAME})
# The cluster IP of a service that wants none.
HEADLESS = "None"
STICKY_SECONDS = 10800
_POLICIES = frozenset({"Cluster", "Local"})
_DISTRIBUTIONS = frozenset({"PreferClose", "PreferSameNode", "PreferSameZone"})
_FAMILIES = frozenset({"IPv4", "IPv6"})
_FAMILY_POLICIES = frozenset({"PreferDualStack", "RequireDualStack", "SingleStack"})
_SPEC = Path("spec")


def needs_cluster_ip(spec: ServiceSpec) -> bool:
    return spec.type in (CLUSTER_IP, NODE_PORT, LOAD_BALANCER)


def is_headless(spec: ServiceSpec) -> bool:
    return spec.cluster_ip == HEADLESS or spec.cluster_ips[:1] == (HEADLESS,)


def needs_node_ports(spec: ServiceSpec) -> bool:
    if spec.type == LOAD_BALANCER:
        return spec.allocate_load_balancer_node_ports is not False
    return spec.type == NODE_PORT


def needs_health_check_port(spec: ServiceSpec) -> bool:
    return spec.type == LOAD_BALANCER and spec.external_traffic_policy == "Local"


def is_externally_accessible(spec: ServiceSpec) -> bool:
    return spec.type in (NODE_PORT, LOAD_BALANCER) or (
        spec.type == CLUSTER_IP and bool(spec.external_ips)
    )


# --- defaults -----------------------------------------------------------------------------


def default_service(new: Service) -> Service:
    spec = new.spec
    changes: dict[str, Any] = {}
    kind = spec.type or CLUSTER_IP
    if not spec.type:
        changes["type"] = kind
    affinity = spec.session_affinity or "None"
    if not spec.session_affinity:
        changes["session_affinity"] = affinity
    if affinity == "None":
        if spec.session_affinity_config is not None:
            changes["session_affinity_config"] = None
    elif affinity == "ClientIP":
        config = spec.session_affinity_config
        if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
            sticky = ClientIPConfig(timeout_seconds=STICKY_SECONDS)
            changes["session_affinity_config"] = SessionAffinityConfig(client_ip=sticky)
    ports = changed_each(spec.ports, _default_port)
    if ports is not spec.ports:
        changes["ports"] = ports
    external = kind in (NODE_PORT, LOAD_BALANCER) or (kind == CLUSTER_IP and spec.external_ips)
    if external and not spec.external_traffic_policy:
        changes["external_traffic_policy"] = "Cluster"
    if kind in (CLUSTER_IP, NODE_PORT, LOAD_BALANCER) and not spec.internal_traffic_policy:
        changes["internal_traffic_policy"] = "Cluster"
    if kind == LOAD_BALANCER:
        if spec.allocate_load_balancer_node_ports is None:
            changes["allocate_load_balancer_node_ports"] = True
        new = _with_ip_modes(new)
    return replace(new, spec=replace(spec, **changes)) if changes else new


def _default_port(port: ServicePort) -> ServicePort:
    changes: dict[str, Any] = {}
    if not port.protocol:
        changes["protocol"] = "TCP"
    if port.target_port in (None, 0, ""):
        changes["target_port"] = port.port
    return replace(port, **changes) if changes else port


def _with_ip_modes(service: Service) -> Service:
    balancer = service.status.load_balancer

    def with_mode(ingress: LoadBalancerIngress) -> LoadBalancerIngress:
        if not ingress.ip or ingress.ip_mode:
            return ingress
        return replace(ingress, ip_mode="VIP")

    ingress = changed_each(balancer.ingress, with_mode)
    if ingress is balancer.ingress:
        return service
    balancer = replace(balancer, ingress=ingress)
    return replace(service, status=replace(service.status, load_balancer=balancer))


# --- normalisation ------------------------------------------------------------------------


def _prepare_create(new: Service) -> Service:
    spec = new.spec
    if spec.cluster_ip and not spec.cluster_ips:
        return replace(new, spec=replace(spec, cluster_ips=(spec.cluster_ip,)))
    return new


def _prepare_update(new: Service, old: Service) -> Service:
    spec = _with_allocated(new.spec, old.spec)
    spec = _with_both_addresses(spec, old.spec)
    spec = _without_leftovers(spec, old.spec)
    return new if spec is new.spec else replace(new, spec=spec)


def _with_allocated(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """Who replaces a service without naming what was allocated for it keeps that."""
    changes: dict[str, Any] = {}
    if needs_cluster_ip(old) and needs_cluster_ip(new):
        cluster_ip = new.cluster_ip
        if not cluster_ip:
            changes["cluster_ip"] = cluster_ip = old.cluster_ip
        if not new.cluster_ips and cluster_ip == old.cluster_ip:
            changes["cluster_ips"] = old.cluster_ips
    if needs_node_ports(old) and needs_node_ports(new):
        changes["ports"] = _with_old_node_ports(new.ports, old.ports)
    if (
        needs_health_check_port(old)
        and needs_health_check_port(new)
        and not new.health_check_node_port
    ):
        changes["health_check_node_port"] = old.health_check_node_port
    return replace(new, **changes) if changes else new


def _with_old_node_ports(
    ports: tuple[ServicePort, ...], were: tuple[ServicePort, ...]
) -> tuple[ServicePort, ...]:
    by_name = {port.name: port.node_port for port in were}
    used = {port.node_port for port in were} & {port.node_port for port in ports}
    result = []
    for port in ports:
        before = by_name.get(port.name)
        if not port.node_port and before and before not in used:
            used.add(before)
            port = replace(port, node_port=before)
        result.append(port)
    return tuple(result)


def _with_both_addresses(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    same_list = new.cluster_ips == old.cluster_ips
    if new.cluster_ip == old.cluster_ip:
        if old.cluster_ips and not new.cluster_ips:
            return replace(new, cluster_ips=old.cluster_ips)
        return new
    if not same_list:
        return new
    # Only the old field was changed: the writer does not know the new one.
    return replace(new, cluster_ips=(new.cluster_ip,) if new.cluster_ip else ())


def _without_leftovers(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """What only the old type had, and the writer did not touch, goes with it."""
    changes: dict[str, Any] = {}
    if needs_cluster_ip(old) and not needs_cluster_ip(new):
        if (new.cluster_ip, new.cluster_ips) == (old.cluster_ip, old.cluster_ips):
            changes |= {"cluster_ip": "", "cluster_ips": ()}
        if new.ip_families == old.ip_families:
            changes["ip_families"] = ()
        if new.ip_family_policy == old.ip_family_policy:
            changes["ip_family_policy"] = ""
        if new.internal_traffic_policy == old.internal_traffic_policy:
            changes["internal_traffic_policy"] = ""
    if needs_node_ports(old) and not needs_node_ports(new):
        numbers = [port.node_port for port in new.ports]
        if numbers == [port.node_port for port in old.ports]:
            changes["ports"] = tuple(replace(port, node_port=None) for port in new.ports)
    leftovers = (
        ("health_check_node_port", needs_health_check_port, None),
        ("allocate_load_balancer_node_ports", _is_load_balancer, None),
        ("load_balancer_class", _is_load_balancer, ""),
        ("external_traffic_policy", is_externally_accessible, ""),
    )
    for name, needs, nothing in leftovers:
        if needs(old) and not needs(new) and getattr(new, name) == getattr(old, name):
            changes[name] = nothing
    return replace(new, **changes) if changes else new


def _is_load_balancer(spec: ServiceSpec) -> bool:
    return spec.type == LOAD_BALANCER


# --- validation ---------------------------------------------------------------------------


def validate_service(new: Service, old: Service | None) -> Iterator[FieldError]:
    spec = new.spec
    if not is_headless(spec) and spec.type != EXTERNAL_NAME and not spec.ports:
        yield _SPEC.ports.required()
    yield from _validate_type(spec)
    yield from _validate_ports(spec)
    if spec.selector:
        yield from validate_labels(spec.selector, _SPEC.selector)
    yield from _validate_affinity(spec)
    yield from _validate_cluster_ips(spec, old.spec if old is not None else None)
    yield from _validate_external(spec)
    yield from _validate_traffic(spec)
    yield from _validate_load_balancer(spec)
    if old is not None:
        yield from _validate_update(spec, old.spec)


def _validate_type(spec: ServiceSpec) -> Iterator[FieldError]:
    if spec.type not in TYPES:
        yield from validate_one_of(spec.type, TYPES, _SPEC.type)
    if spec.type in (LOAD_BALANCER, NODE_PORT) and is_headless(spec):
        yield _SPEC.clusterIPs[0].invalid(
            HEADLESS, f"may not be set to 'None' for {spec.type} services"
        )
    if spec.type == EXTERNAL_NAME:
        for wire_name, value in (
            ("clusterIPs", spec.cluster_ips),
            ("ipFamilies", spec.ip_families),
            ("ipFamilyPolicy", spec.ip_family_policy),
        ):
            if value:
                yield _SPEC.child(wire_name).forbidden("may not be set for ExternalName services")
        # A trailing dot is how DNS itself writes such names.
        if spec.external_name:
            yield from validate_with(
                lambda name: dns_subdomain_errors(name.removesuffix(".")),
                spec.external_name,
                _SPEC.externalName,
            )
        else:
            yield _SPEC.externalName.required()


def _validate_ports(spec: ServiceSpec) -> Iterator[FieldError]:
    names: set[str] = set()
    places: set[tuple[str, int]] = set()
    node_places: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        here = _SPEC.ports[index]
        if port.name:
            yield from validate_dns_label(port.name, here.name)
            if port.name in names:
                yield here.name.duplicate(port.name)
            names.add(port.name)
        elif len(spec.ports) > 1:
            yield here.name.required()
        for message in port_errors(port.port):
            yield here.port.invalid(port.port, message)
        if port.protocol not in PROTOCOLS:
            yield from validate_one_of(port.protocol, PROTOCOLS, here.protocol)
        if port.target_port is not None:
            yield from validate_port_or_name(port.target_port, here.targetPort)
        if port.app_protocol:
            yield from validate_with(qualified_name_errors, port.app_protocol, here.appProtocol)
        place = (port.protocol, port.port)
        if place in places:
            yield here.duplicate({"protocol": port.protocol, "port": port.port})
        places.add(place)
        if port.node_port:
            if spec.type == CLUSTER_IP:
                yield here.nodePort.forbidden("may not be used when `type` is 'ClusterIP'")
            if (port.protocol, port.node_port) in node_places:
                yield here.nodePort.duplicate(port.node_port)
            node_places.add((port.protocol, port.node_port))


def _validate_affinity(spec: ServiceSpec) -> Iterator[FieldError]:
    if spec.session_affinity not in ("None", "ClientIP"):
        yield from validate_one_of(
            spec.session_affinity, frozenset({"ClientIP", "None"}), _SPEC.sessionAffinity
        )
    config, path = spec.session_affinity_config, _SPEC.sessionAffinityConfig
    if spec.session_affinity == "None" and config is not None:
        yield path.forbidden("must not be set when session affinity is None")
    elif spec.session_affinity == "ClientIP":
        if config is None or config.client_ip is None:
            yield path.required("when session affinity type is ClientIP")
            return
        seconds = config.client_ip.timeout_seconds or 0
        if not 0 < seconds <= 86400:
            yield path.clientIP.timeoutSeconds.invalid(
                seconds, "must be greater than 0 and less than 86400"
            )


def _validate_cluster_ips(spec: ServiceSpec, old: ServiceSpec | None) -> Iterator[FieldError]:
    ips, path = spec.cluster_ips, _SPEC.clusterIPs
    if spec.ip_family_policy and spec.ip_family_policy not in _FAMILY_POLICIES:
        yield _SPEC.ipFamilyPolicy.not_supported(spec.ip_family_policy, _FAMILY_POLICIES)
    for index, family in enumerate(spec.ip_families):
        if family not in _FAMILIES:
            yield _SPEC.ipFamilies[index].not_supported(family, _FAMILIES)
        elif family in spec.ip_families[:index]:
            yield _SPEC.ipFamilies[index].duplicate(family)
    if spec.type == EXTERNAL_NAME:
        return
    if not spec.cluster_ip:
        if ips:
            yield path.invalid(ips, "must be empty when `clusterIP` is not specified")
    elif not ips:
        yield path.required("must be set when `clusterIP` is also specified")
    elif ips[0] != spec.cluster_ip:
        yield path.invalid(ips, "first value must match `clusterIP`")
    if len(ips) > 1 and HEADLESS in ips:
        yield path.invalid(ips, "'None' must be the first and only value")
        return
    if HEADLESS in ips:
        return
    if len(ips) > 2:
        yield path.invalid(ips, "may only hold up to 2 values")
    for index, address in enumerate(ips):
        for message in ip_errors(address):
            yield path[index].invalid(address, message)
    versions = [parsed.version for parsed in map(parse_ip, ips) if parsed is not None]
    if len(set(versions)) < len(versions):
        yield path.invalid(ips, "may specify no more than one IP for each IP family")


def _validate_external(spec: ServiceSpec) -> Iterator[FieldError]:
    for index, address in enumerate(spec.external_ips):
        path = _SPEC.externalIPs[index]
        if errors := ip_errors(address):
            for message in errors:
                yield path.invalid(address, message)
        else:
            yield from validate_routable(address, path)


def validate_routable(address: str, path: Path) -> Iterator[FieldError]:
    """An address that others can send to."""
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified:
        yield path.invalid(address, f"may not be unspecified ({address})")
    if ip.is_loopback:
        yield path.invalid(address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if ip.is_link_local:
        yield path.invalid(
            address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        )
    # The link-local blocks 224.0.0.0/24 and ff02::/10, as upstream writes them.
    if ip in ipaddress.ip_network("224.0.0.0/24") or address.lower().startswith("ff02:"):
        yield path.invalid(
            address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        )


def _validate_traffic(spec: ServiceSpec) -> Iterator[FieldError]:
    policy = spec.external_traffic_policy
    if policy and not is_externally_accessible(spec):
        yield _SPEC.externalTrafficPolicy.invalid(
            policy, "may only be set for externally-accessible services"
        )
    elif is_externally_accessible(spec) and policy not in _POLICIES:
        yield from validate_one_of(policy, _POLICIES, _SPEC.externalTrafficPolicy)
    if needs_cluster_ip(spec) and spec.internal_traffic_policy not in _POLICIES:
        yield from validate_one_of(
            spec.internal_traffic_policy, _POLICIES, _SPEC.internalTrafficPolicy
        )
    if spec.health_check_node_port and not needs_health_check_port(spec):
        yield _SPEC.healthCheckNodePort.invalid(
            spec.health_check_node_port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        )
    if spec.traffic_distribution and spec.traffic_distribution not in _DISTRIBUTIONS:
        yield _SPEC.trafficDistribution.not_supported(spec.traffic_distribution, _DISTRIBUTIONS)


def _validate_load_balancer(spec: ServiceSpec) -> Iterator[FieldError]:
    only = "may only be used when `type` is 'LoadBalancer'"
    balancer = spec.type == LOAD_BALANCER
    path = _SPEC.loadBalancerSourceRanges
    if spec.load_balancer_source_ranges and not balancer:
        yield path.forbidden(only)
    for index, cidr in enumerate(spec.load_balancer_source_ranges):
        yield from validate_with(lambda text: cidr_errors(text.strip()), cidr, path[index])
    if spec.allocate_load_balancer_node_ports is not None and not balancer:
        yield _SPEC.allocateLoadBalancerNodePorts.forbidden(only)
    if balancer and spec.allocate_load_balancer_node_ports is None:
        yield _SPEC.allocateLoadBalancerNodePorts.required()
    if spec.load_balancer_class:
        if not balancer:
            yield _SPEC.loadBalancerClass.forbidden(only)
        yield from validate_with(
            qualified_name_errors, spec.load_balancer_class, _SPEC.loadBalancerClass
        )


def _validate_update(new: ServiceSpec, old: ServiceSpec) -> Iterator[FieldError]:
    once = "may not change once set"
    if needs_cluster_ip(old) and needs_cluster_ip(new):
        if old.cluster_ips and new.cluster_ips[:1] != old.cluster_ips[:1]:
            yield _SPEC.clusterIPs[0].invalid(new.cluster_ips[:1], once)
        if old.ip_families and new.ip_families and new.ip_families[0] != old.ip_families[0]:
            yield _SPEC.ipFamilies[0].invalid(new.ip_families[0], once)
    both_balance = _is_load_balancer(new) and _is_load_balancer(old)
    if both_balance and new.load_balancer_class != old.load_balancer_class:
        yield _SPEC.loadBalancerClass.invalid(new.load_balancer_class or None, once)
    if (
        needs_health_check_port(new)
        and needs_health_check_port(old)
        and new.health_check_node_port != old.health_check_node_port
    ):
        yield _SPEC.healthCheckNodePort.forbidden("field is immutable")


def validate_service_status(new: Service, old: Service | None) -> Iterator[FieldError]:
    path = Path("status").loadBalancer
    ingress = new.status.load_balancer.ingress
    if new.spec.type != LOAD_BALANCER and ingress:
        if old is None or ingress != old.status.load_balancer.ingress:
            yield path.ingress.forbidden("may only be used when `spec.type` is 'LoadBalancer'")
        return
    for index, entry in enumerate(ingress):
        here = path.ingress[index]
        if entry.ip:
            yield from validate_with(ip_errors, entry.ip, here.ip)
        elif entry.ip_mode:
            yield here.ipMode.forbidden("may not be specified when `ip` is not set")
        if entry.hostname:
            yield from validate_with(dns_subdomain_errors, entry.hostname, here.hostname)
            if parse_ip(entry.hostname) is not None:
                yield here.hostname.invalid(entry.hostname, "must be a DNS name, not an IP address")


# --- columns ------------------------------------------------------------------------------


def _external_ip(service: Service) -> str:
    spec = service.spec
    if spec.type == EXTERNAL_NAME:
        return spec.external_name
    listed = list(spec.external_ips)
    if spec.type == LOAD_BALANCER:
        ingress = service.status.load_balancer.ingress
        given = sorted({entry.ip or entry.hostname for entry in ingress} - {""})
        return ",".join(given + listed) or "<pending>"
    return ",".join(listed) or "<none>"


def _ports_text(service: Service) -> str:
    parts = [
        f"{port.port}:{port.node_port}/{port.protocol}"
        if port.node_port
        else f"{port.port}/{port.protocol}"
        for port in service.spec.ports
    ]
    return ",".join(parts) or "<none>"


SERVICES = Resource(
    group="",
    version="v1",
    kind=Service,
    plural="services",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_service,
        prepare_create=_prepare_create,
        prepare_update=_prepare_update,
        validate=validate_service,
        name_errors=dns_1035_label_errors,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    subresources=(Status(validate=validate_service_status), Proxy()),
    columns=(
        Column("Type", lambda service: service.spec.type),
        Column(
            "Cluster-IP",
            lambda service: service.spec.cluster_ips[0] if service.spec.cluster_ips else None,
        ),
        Column("External-IP", _external_ip),
        Column("Port(s)", _ports_text),
        AGE,
        Column("Selector", lambda service: service.spec.selector, wide=True),
    ),
    selectable_fields={
        "spec.clusterIP": lambda service: service.spec.cluster_ip,
        "spec.type": lambda service: service.spec.type,
    },
)
