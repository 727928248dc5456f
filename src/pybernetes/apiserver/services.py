"""Addresses of Services: cluster IPs and node ports, given out when a Service is written.

Runs as the last of the mutating plugins: completes what the user left open (families, cluster
IP, node ports), keeps on an update what the user did not mention, and drops what belonged to the
type a Service had before. Numbers are reserved until the write is over and then follow from what
is stored, so a refused write, a dry run or a deletion gives everything back by itself.

One range, one family: IPv4. The first address belongs to the Service `kubernetes`.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import Service
from pybernetes.apimachinery.errors import InternalError, Invalid
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apiserver.addresses import Full, NumberPool, OutOfRange, Taken
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from random import Random

    from pybernetes.api.types.core_v1 import ServicePort, ServiceSpec
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.apiserver.hooks import Attributes
    from pybernetes.apiserver.watchcache import Event

NONE = "None"
CLUSTER_IP, NODE_PORT, LOAD_BALANCER = "ClusterIP", "NodePort", "LoadBalancer"
EXTERNAL_NAME = "ExternalName"
IPV4, IPV6 = "IPv4", "IPv6"
SINGLE, PREFER_DUAL, REQUIRE_DUAL = "SingleStack", "PreferDualStack", "RequireDualStack"
FIRST_NODE_PORT, LAST_NODE_PORT = 30000, 32767

# Whose address is the first of the range, in whatever order Services are made.
_KUBERNETES = "default/kubernetes"


def needs_address(spec: ServiceSpec) -> bool:
    return spec.type != EXTERNAL_NAME and not is_headless(spec)


def is_headless(spec: ServiceSpec) -> bool:
    if spec.type == EXTERNAL_NAME:
        return False
    return spec.cluster_ip == NONE or spec.cluster_ips[:1] == (NONE,)


def needs_node_ports(spec: ServiceSpec) -> bool:
    if spec.type == LOAD_BALANCER:
        return spec.allocate_load_balancer_node_ports is not False
    return spec.type == NODE_PORT


def may_have_node_ports(spec: ServiceSpec) -> bool:
    return spec.type in (NODE_PORT, LOAD_BALANCER)


def needs_health_port(spec: ServiceSpec) -> bool:
    return spec.type == LOAD_BALANCER and spec.external_traffic_policy == "Local"


# --- what an update means -------------------------------------------------------------------------


def kept(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """What was given out before and the user did not mention stays; what the type lost goes."""
    if new.type == EXTERNAL_NAME:
        return _without_addresses(new, old)
    if old.type != EXTERNAL_NAME:
        if not new.cluster_ip and not new.cluster_ips:
            new = replace(new, cluster_ip=old.cluster_ip, cluster_ips=old.cluster_ips)
        elif not new.cluster_ips and new.cluster_ip == old.cluster_ip:
            new = replace(new, cluster_ips=old.cluster_ips)
        elif new.cluster_ip != old.cluster_ip and new.cluster_ips == old.cluster_ips:
            # Somebody who knows only the older field has changed it.
            new = replace(new, cluster_ips=(new.cluster_ip,) if new.cluster_ip else ())
        if not new.ip_families:
            new = replace(new, ip_families=old.ip_families)
        if not new.ip_family_policy:
            new = replace(new, ip_family_policy=old.ip_family_policy)
    if may_have_node_ports(old):
        new = _with_node_ports_of(new, old)
    if needs_health_port(old) and old.health_check_node_port:
        if needs_health_port(new):
            port = new.health_check_node_port or old.health_check_node_port
            new = replace(new, health_check_node_port=port)
        elif new.health_check_node_port == old.health_check_node_port:
            new = replace(new, health_check_node_port=None)
    return new


def _without_addresses(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """An ExternalName has no addresses; those it had as another type are dropped silently."""
    if old.type == EXTERNAL_NAME:
        return new
    if (new.cluster_ip, new.cluster_ips) == (old.cluster_ip, old.cluster_ips):
        new = replace(new, cluster_ip="", cluster_ips=())
    if new.ip_families == old.ip_families:
        new = replace(new, ip_families=())
    if new.ip_family_policy == old.ip_family_policy:
        new = replace(new, ip_family_policy="")
    return _with_node_ports_of(new, old)


def _with_node_ports_of(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    before = {(port.protocol, port.port): port.node_port for port in old.ports}
    old_ports = {port.node_port for port in old.ports if port.node_port}
    ports = []
    for port in new.ports:
        if needs_node_ports(new):
            if not port.node_port and (known := before.get((port.protocol, port.port))):
                port = replace(port, node_port=known)
        elif not may_have_node_ports(new) and port.node_port in old_ports:
            port = replace(port, node_port=None)
        ports.append(port)
    # Two ports of the new one must not inherit the same number.
    return replace(new, ports=tuple(ports))


def with_families(spec: ServiceSpec) -> ServiceSpec:
    """Families and policy where they were left open. Raises ValueError(field, value, text)."""
    if is_headless(spec) and not spec.selector:
        # Whoever fills in the endpoints of such a Service may use any family.
        policy = spec.ip_family_policy or REQUIRE_DUAL
        families = spec.ip_families or (IPV4,)
        if policy != SINGLE and len(families) == 1:
            families = (*families, IPV6 if families[0] == IPV4 else IPV4)
        return replace(spec, ip_family_policy=policy, ip_families=families)
    return replace(
        spec,
        ip_family_policy=spec.ip_family_policy or SINGLE,
        ip_families=spec.ip_families or (IPV4,),
    )


def family_errors(spec: ServiceSpec) -> list[FieldError]:
    path = Path("spec")
    if is_headless(spec) and not spec.selector:
        return []
    problems = []
    if spec.ip_family_policy == REQUIRE_DUAL:
        problems.append(
            path.ipFamilyPolicy.invalid(
                spec.ip_family_policy, "this cluster is not configured for dual-stack services"
            )
        )
    for index, family in enumerate(spec.ip_families):
        if family == IPV6:
            problems.append(
                path.ipFamilies[index].invalid(family, "not configured on this cluster")
            )
    return problems


# --- giving out -----------------------------------------------------------------------------------


class ServiceAddresses(Plugin):
    """Gives every Service what it needs, and knows what is taken."""

    def __init__(
        self,
        catalog: Catalog,
        random: Random,
        *,
        network: IPv4Network,
        node_ports: tuple[int, int] = (FIRST_NODE_PORT, LAST_NODE_PORT),
    ) -> None:
        self._services = Typed(catalog, Service)
        self._random = random
        self._network = network
        first, last = int(network[1]), int(network[-2])
        # The lower part is left to addresses that people choose: 16 to 256 of them.
        apart = min(max(16, (last - first) // 16), 256)
        self.addresses = NumberPool(first, last, preferred_from=min(first + apart, last))
        self.ports = NumberPool(*node_ports)
        self.addresses.own(_KUBERNETES, [first])
        # By key of a Service: its addresses and its ports, as the pools know them.
        self._known: dict[str, tuple[frozenset[int], frozenset[int]]] = {}
        self._filled = False
        self._services.follow(self._on_change)

    # -- what is stored

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        for service in self._services.list():
            self._own(f"{service.metadata.namespace}/{service.metadata.name}", service.spec)

    def _on_change(self, event: Event) -> None:
        if not self._filled:
            return
        key = event.entry.key
        if (known := self._known.pop(key, None)) is not None:
            self.addresses.disown(key, known[0])
            self.ports.disown(key, known[1])
        service = None if event.deleted else self._services.at(key)
        if service is not None:
            self._own(key, service.spec)
        elif key == _KUBERNETES:
            self.addresses.own(key, [self.addresses.first])

    def _own(self, key: str, spec: ServiceSpec) -> None:
        addresses = {number for text in spec.cluster_ips if (number := _number(text)) is not None}
        if key == _KUBERNETES:
            addresses.add(self.addresses.first)
        ports = {port.node_port for port in spec.ports if port.node_port}
        if spec.health_check_node_port:
            ports.add(spec.health_check_node_port)
        self._known[key] = (frozenset(addresses), frozenset(ports))
        self.addresses.own(key, addresses)
        self.ports.own(key, ports)

    # -- a write

    async def mutate(self, attributes: Attributes) -> None:
        if not attributes.is_for("", "services") or attributes.operation is Operation.DELETE:
            return
        self._fill()
        service: Service = attributes.obj
        spec = service.spec
        if attributes.operation is Operation.UPDATE:
            spec = kept(spec, attributes.old.spec)
        if spec.type != EXTERNAL_NAME:
            if spec.cluster_ip and not spec.cluster_ips:
                spec = replace(spec, cluster_ips=(spec.cluster_ip,))
            spec = with_families(spec)
            if problems := family_errors(spec):
                raise self._invalid(attributes, problems)
        # Nothing below waits, so nobody comes between looking and reserving.
        key = f"{attributes.namespace}/{attributes.name or service.metadata.name}"
        giving = _Giving(self, attributes, key)
        if needs_address(spec):
            spec = giving.with_address(spec)
        if may_have_node_ports(spec):
            spec = giving.with_node_ports(spec)
        if needs_health_port(spec):
            spec = giving.with_health_port(spec)
        attributes.obj = replace(service, spec=spec)

    def _invalid(self, attributes: Attributes, problems: list[FieldError]) -> Invalid:
        name = attributes.name or attributes.obj.metadata.name
        return Invalid("Service", "", name, problems)


class _Giving:
    """One write's share: what it gets is promised to it until it is over."""

    def __init__(self, plugin: ServiceAddresses, attributes: Attributes, key: str) -> None:
        self._plugin, self._attributes, self._key = plugin, attributes, key
        # Ports this Service has now or was promised in this write; TCP and UDP may share one.
        self._ports: set[int] = set()

    def with_address(self, spec: ServiceSpec) -> ServiceSpec:
        pool = self._plugin.addresses
        if not spec.cluster_ip:
            if spec.cluster_ips:
                return spec  # refused by validation
            try:
                number = pool.reserve_any(self._plugin._random)
            except Full:
                raise InternalError("failed to allocate a serviceIP: range is full") from None
            self._attributes.afterwards(lambda: pool.release(number))
            text = str(IPv4Address(number))
            return replace(spec, cluster_ip=text, cluster_ips=(text,))
        wanted = _number(spec.cluster_ip)
        if wanted is None or pool.is_owned_by(wanted, self._key):
            return spec  # not an address: refused by validation
        try:
            pool.reserve(wanted)
        except Taken:
            raise self._address_error(spec, "provided IP is already allocated") from None
        except OutOfRange:
            text = (
                "provided IP is not in the valid range. The range of valid IPs is"
                f" {self._plugin._network}"
            )
            raise self._address_error(spec, text) from None
        self._attributes.afterwards(lambda: pool.release(wanted))
        return spec

    def _address_error(self, spec: ServiceSpec, text: str) -> Invalid:
        problem = Path("spec").clusterIPs.invalid(
            list(spec.cluster_ips), f"failed to allocate IP {spec.cluster_ip}: {text}"
        )
        return self._plugin._invalid(self._attributes, [problem])

    def with_node_ports(self, spec: ServiceSpec) -> ServiceSpec:
        ports: list[ServicePort] = []
        # What people chose first: a number we choose must not be in its way.
        for index, port in enumerate(spec.ports):
            if port.node_port:
                self._reserve_port(port.node_port, Path("spec").ports[index].nodePort)
        by_port: dict[int, dict[str, int]] = {}
        for port in spec.ports:
            if port.node_port:
                by_port.setdefault(port.port, {})[port.protocol] = port.node_port
        for port in spec.ports:
            if not port.node_port and needs_node_ports(spec):
                # The same port in another protocol gets the same number.
                same = by_port.setdefault(port.port, {})
                number = next(iter(same.values()), 0) if port.protocol not in same else 0
                port = replace(port, node_port=number or self._any_port())
                assert port.node_port is not None
                same[port.protocol] = port.node_port
            ports.append(port)
        return replace(spec, ports=tuple(ports))

    def with_health_port(self, spec: ServiceSpec) -> ServiceSpec:
        if spec.health_check_node_port:
            self._reserve_port(spec.health_check_node_port, Path("spec").healthCheckNodePort)
            return spec
        return replace(spec, health_check_node_port=self._any_port())

    def _reserve_port(self, number: int, path: Path) -> None:
        pool = self._plugin.ports
        if number in self._ports or pool.is_owned_by(number, self._key):
            return
        try:
            pool.reserve(number)
        except Taken:
            problem = path.invalid(number, "provided port is already allocated")
            raise self._plugin._invalid(self._attributes, [problem]) from None
        except OutOfRange:
            problem = path.invalid(
                number,
                "provided port is not in the valid range. The range of valid ports is"
                f" {pool.first}-{pool.last}",
            )
            raise self._plugin._invalid(self._attributes, [problem]) from None
        self._ports.add(number)
        self._attributes.afterwards(lambda: pool.release(number))

    def _any_port(self) -> int:
        pool = self._plugin.ports
        try:
            number = pool.reserve_any(self._plugin._random)
        except Full:
            raise InternalError("failed to allocate a nodePort: range is full") from None
        self._ports.add(number)
        self._attributes.afterwards(lambda: pool.release(number))
        return number


def _number(text: str) -> int | None:
    try:
        return int(IPv4Address(text))
    except AddressValueError:
        return None
