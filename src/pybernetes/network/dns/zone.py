"""The cluster's zone: which records Services, EndpointSlices and namespaces make (DNS-Based
Service Discovery 1.1.0), and what is answered from them.

`service_records` is the specification: one Service in, its names out. `Zone` holds the sum and
answers. It counts for each name why it exists, because a name with nothing but names below it
has no data (NOERROR) and one without is NXDOMAIN; resolvers that search a list of domains depend
on the difference.

Pure: no sockets, no clock. `put` says which names now answer differently, so that whatever was
made of the old answers can be dropped.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TYPE_CHECKING

from pybernetes.network.dns import wire
from pybernetes.network.dns.wire import FormatError, Record, Reply, encode_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pybernetes.api.types.core_v1 import Service
    from pybernetes.api.types.discovery_v1 import Endpoint, EndpointSlice
    from pybernetes.apimachinery.meta import Key

SPECIFICATION = "1.1.0"
# Seconds an answer may be kept: short, because endpoints come and go.
TTL = 5
NEGATIVE_TTL = 5
# A chain of ExternalNames that lead to each other ends somewhere.
_MAX_CHAIN = 8
_REVERSE = encode_name("in-addr.arpa")

# (name, type) -> the data of each record, without duplicates.
Records = dict[tuple[bytes, int], tuple[bytes, ...]]


def service_records(service: Service, slices: Iterable[EndpointSlice], domain: str) -> Records:
    """Everything one Service puts into the zone, reverse names included."""
    metadata, spec = service.metadata, service.spec
    try:
        base = encode_name(f"{metadata.name}.{metadata.namespace}.svc.{domain}")
    except FormatError:
        return {}
    found: dict[tuple[bytes, int], dict[bytes, None]] = {}
    if spec.type == "ExternalName":
        entries = _external_name(base, spec.external_name)
    elif spec.cluster_ip == "None":
        entries = _headless(base, slices)
    else:
        entries = _cluster_ips(base, service)
    for name, kind, data in entries:
        found.setdefault((name, kind), {})[data] = None
    return {place: tuple(data) for place, data in found.items()}


def _external_name(base: bytes, target: str) -> Iterator[tuple[bytes, int, bytes]]:
    if (address := wire.address_data(target)) is not None:
        yield base, *address
        return
    try:
        yield base, wire.CNAME, encode_name(target)
    except FormatError:
        return


def _cluster_ips(base: bytes, service: Service) -> Iterator[tuple[bytes, int, bytes]]:
    spec = service.spec
    for text in dict.fromkeys((spec.cluster_ip, *spec.cluster_ips)):
        if (address := wire.address_data(text)) is not None:
            yield base, *address
            yield reverse_name(text), wire.PTR, base
    for port in spec.ports:
        if port.name:
            name = _port_name(port.name, port.protocol) + base
            yield name, wire.SRV, wire.srv_data(port.port, base)


def _headless(base: bytes, slices: Iterable[EndpointSlice]) -> Iterator[tuple[bytes, int, bytes]]:
    for piece in slices:
        for endpoint in piece.endpoints:
            if endpoint.conditions.ready is False:
                continue
            for text in endpoint.addresses:
                if (address := wire.address_data(text)) is None:
                    continue
                own = _label(endpoint_label(endpoint, text)) + base
                yield base, *address
                yield own, *address
                yield reverse_name(text), wire.PTR, own
                for port in piece.ports:
                    if port.name and port.port:
                        name = _port_name(port.name, port.protocol) + base
                        yield name, wire.SRV, wire.srv_data(port.port, own)


def endpoint_label(endpoint: Endpoint, address: str) -> str:
    """The first label of an endpoint's own name: its hostname, else its address in dashes."""
    return endpoint.hostname or address.replace(".", "-").replace(":", "-")


def reverse_name(address: str) -> bytes:
    return encode_name(ip_address(address).reverse_pointer)


def _port_name(name: str, protocol: str) -> bytes:
    return _label(f"_{name}") + _label(f"_{(protocol or 'TCP')}")


def _label(text: str) -> bytes:
    raw = text.lower().encode("ascii", "replace")[:63]
    return bytes((len(raw),)) + raw


class Zone:
    """Records of the whole cluster, and answers from them."""

    def __init__(self, domain: str, *, address: str, reverse: Iterable[IPv4Network] = ()) -> None:
        self.domain = domain.strip(".").lower()
        self.apex = encode_name(self.domain)
        # Ranges whose reverse names are ours even where there is no record.
        self._reverse = tuple(reverse)
        self._svc = _label("svc") + self.apex
        self._pod = _label("pod") + self.apex
        # name -> type -> data of each record.
        self._records: dict[bytes, dict[int, tuple[bytes, ...]]] = {}
        # name -> why it exists: one for each name at or below it that has records or is a namespace.
        self._reasons: dict[bytes, int] = {}
        # Which Services put what data where, for names that more than one may have (PTR).
        self._by_service: dict[Key, Records] = {}
        self._namespaces: set[str] = set()
        primary = encode_name(f"ns.dns.{self.domain}")
        mailbox = encode_name(f"hostmaster.{self.domain}")
        soa = wire.soa_data(primary, mailbox, 1, NEGATIVE_TTL)
        self.soa = Record(self.apex, wire.SOA, NEGATIVE_TTL, soa)
        self._set(self.apex, wire.SOA, (soa,))
        self._set(self.apex, wire.NS, (primary,))
        if (own := wire.address_data(address)) is not None:
            self._set(primary, own[0], (own[1],))
        version = encode_name(f"dns-version.{self.domain}")
        self._set(version, wire.TXT, (wire.text_data(SPECIFICATION),))
        for name in (self._svc, self._pod):
            self._count(name, 1)

    def __len__(self) -> int:
        return len(self._records)

    def put(self, service: Key, records: Records) -> set[bytes]:
        """Replace what a Service has; the names that now answer differently."""
        before = self._by_service.get(service, {})
        if records:
            self._by_service[service] = records
        else:
            self._by_service.pop(service, None)
        touched: set[bytes] = set()
        for place in before.keys() | records.keys():
            if before.get(place) == records.get(place):
                continue
            name, kind = place
            current = dict.fromkeys(self._records.get(name, {}).get(kind, ()))
            for data in before.get(place, ()):
                current.pop(data, None)
            current.update(dict.fromkeys(records.get(place, ())))
            touched |= self._set(name, kind, tuple(current))
        return touched

    def put_namespace(self, name: str, *, exists: bool) -> set[bytes]:
        if (name in self._namespaces) == exists:
            return set()
        touched: set[bytes] = set()
        for above in (self._svc, self._pod):
            own = _label(name) + above
            touched |= self._count(own, 1 if exists else -1) | {own}
        if exists:
            self._namespaces.add(name)
        else:
            self._namespaces.discard(name)
        return touched

    def is_ours(self, name: bytes) -> bool:
        """Do we answer for this name, and nobody else?"""
        if wire.is_below(name, self.apex):
            return True
        if wire.is_below(name, _REVERSE):
            if name in self._records:
                return True
            address = _reversed_address(name)
            return address is not None and any(address in network for network in self._reverse)
        return False

    def lookup(self, name: bytes, kind: int) -> Reply:
        """The answer about a name that is ours, as far as the zone knows.

        An ExternalName that leads outside ends with its CNAME: the rest is for the forwarder.
        """
        answers: list[Record] = []
        names = {name}
        if wire.parent_of(above := wire.parent_of(name)) == self._pod:
            # Whether a pod's address is a name depends on its namespace.
            names.add(above)
        for _ in range(_MAX_CHAIN):
            found = self._find(name)
            if found is None:
                return self._negative(wire.NXDOMAIN, answers, names)
            alias = found.get(wire.CNAME)
            if alias and kind not in (wire.CNAME, wire.ANY):
                answers.append(Record(name, wire.CNAME, TTL, alias[0]))
                name = alias[0].lower()
                names.add(name)
                if not self.is_ours(name):
                    break
                continue
            data = found.get(kind, ())
            if kind == wire.ANY and found:
                kind, data = next(iter(found.items()))
            if not data:
                return self._negative(wire.NOERROR, answers, names)
            answers += [Record(name, kind, TTL, item) for item in data]
            break
        extra = self._targets(answers) if kind == wire.SRV else ()
        names |= {record.name for record in extra}
        return Reply(
            answers=tuple(answers), additional=tuple(extra), authoritative=True,
            names=frozenset(names),
        )  # fmt: skip

    def outside_target(self, reply: Reply) -> bytes | None:
        """Where a CNAME at the end of an answer leads, if that is not ours."""
        if not reply.answers or reply.answers[-1].type != wire.CNAME:
            return None
        target = reply.answers[-1].data.lower()
        return None if self.is_ours(target) else target

    def check_invariants(self) -> None:
        reasons: dict[bytes, int] = {}
        namespaces = [
            _label(n) + above for n in self._namespaces for above in (self._svc, self._pod)
        ]
        for name in (*self._records, self._svc, self._pod, *namespaces):
            while name != b"\0":
                reasons[name] = reasons.get(name, 0) + 1
                name = wire.parent_of(name)
        assert reasons == self._reasons, "a name exists for no reason, or has lost one"

    def _find(self, name: bytes) -> Mapping[int, tuple[bytes, ...]] | None:
        """The records of a name; empty if it exists without any, None if it does not exist."""
        found = self._records.get(name)
        if found is not None:
            return found
        if name in self._reasons:
            return {}
        return self._pod_records(name)

    def _pod_records(self, name: bytes) -> Mapping[int, tuple[bytes, ...]] | None:
        """`10-244-0-2.default.pod`: an address is its own record, if the namespace exists."""
        above = wire.parent_of(name)
        if wire.parent_of(above) != self._pod or not self._is_namespace(above):
            return None
        label = wire.labels_of(name)[0].decode("ascii", "replace")
        for text in (label.replace("-", "."), label.replace("-", ":")):
            if (address := wire.address_data(text)) is not None:
                return {address[0]: (address[1],)}
        return None

    def _is_namespace(self, name: bytes) -> bool:
        if wire.parent_of(name) not in (self._svc, self._pod):
            return False
        return wire.labels_of(name)[0].decode("ascii", "replace") in self._namespaces

    def _negative(self, rcode: int, answers: list[Record], names: set[bytes]) -> Reply:
        return Reply(rcode, tuple(answers), (self.soa,), authoritative=True, names=frozenset(names))

    def _targets(self, answers: list[Record]) -> list[Record]:
        """Addresses of what SRV records point at, so that nobody has to ask again."""
        found: dict[bytes, None] = {}
        for record in answers:
            if record.type == wire.SRV:
                found[record.data[6:]] = None
        return [
            Record(name, kind, TTL, data)
            for name in found
            for kind in (wire.A, wire.AAAA)
            for data in self._records.get(name, {}).get(kind, ())
        ]

    def _set(self, name: bytes, kind: int, data: tuple[bytes, ...]) -> set[bytes]:
        kinds = self._records.get(name)
        if kinds is None:
            if not data:
                return set()
            self._records[name] = {kind: data}
            return self._count(name, 1) | {name}
        if data:
            kinds[kind] = data
            return {name}
        kinds.pop(kind, None)
        if kinds:
            return {name}
        del self._records[name]
        return self._count(name, -1) | {name}

    def _count(self, name: bytes, change: int) -> set[bytes]:
        """Give or take a reason for a name and all above it; those that began or ceased to be."""
        touched: set[bytes] = set()
        while name != b"\0":
            before = self._reasons.get(name, 0)
            after = before + change
            if after:
                self._reasons[name] = after
            else:
                del self._reasons[name]
            if not before or not after:
                touched.add(name)
            name = wire.parent_of(name)
        return touched


def _reversed_address(name: bytes) -> IPv4Address | None:
    """The address whose reverse name this is; None for the name of a part of one."""
    labels = wire.labels_of(name)
    if len(labels) != 6:
        return None
    try:
        return IPv4Address(b".".join(reversed(labels[:4])).decode("ascii", "replace"))
    except ValueError:
        return None
