"""What the cluster's zone answers. Pure but for the chain's awaits; dnspython is the oracle for
the bytes."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Network

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.discovery_v1 import EndpointPort
from pybernetes.apimachinery.meta import Key
from pybernetes.network.dns import wire
from pybernetes.network.dns.chain import build_chain
from pybernetes.network.dns.wire import FormatError, Query, Record, Reply, encode_name
from pybernetes.network.dns.zone import Zone, service_records
from tests.network.objects import endpoint, endpoint_slice, port, service

DOMAIN = "cluster.local"
WEB_PORTS = (port(80, name="http"), port(53, name="dns", protocol="UDP"))
SLICE_PORTS = (
    EndpointPort(name="http", port=8080, protocol="TCP"),
    EndpointPort(name="dns", port=5353, protocol="UDP"),
)


def make_zone() -> Zone:
    zone = Zone(
        DOMAIN, address="10.96.0.10",
        reverse=(IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/16")),
    )  # fmt: skip
    for name in ("default", "empty"):
        zone.put_namespace(name, exists=True)
    headless = endpoint_slice(
        endpoint("10.244.0.2", hostname="db-0"),
        endpoint("10.244.0.3", hostname="db-1"),
        endpoint("10.244.0.4"),
        endpoint("10.244.0.5", ready=False),
        service="db",
        ports=SLICE_PORTS,
    )
    for what, slices in (
        (service("web", ports=WEB_PORTS), ()),
        (service("db", address="None", ports=WEB_PORTS), (headless,)),
        (service("lonely", address="None", ports=WEB_PORTS), ()),
        (service("alias", type="ExternalName", address="", external_name="Example.org"), ()),
        (
            service(
                "inner", type="ExternalName", address="",
                external_name="web.default.svc.cluster.local.",
            ),
            (),
        ),
        (service("number", type="ExternalName", address="", external_name="192.0.2.1"), ()),
        (
            service("loop", type="ExternalName", address="",
                    external_name="loop.default.svc.cluster.local"),
            (),
        ),
    ):  # fmt: skip
        key = Key("default", what.metadata.name)
        zone.put(key, service_records(what, slices, DOMAIN))
    zone.check_invariants()
    return zone


async def nobody(query: Query) -> Reply:
    return Reply(wire.REFUSED)


async def ask(name: str, kind: str, *, zone: Zone | None = None) -> dns.message.Message:
    """Question and answer go through dnspython, so that it judges both."""
    question = dns.message.make_query(name, kind, use_edns=0, payload=4096)
    query = wire.parse_query(question.to_wire())
    reply = await build_chain(zone or make_zone(), nobody)(query)
    answer = dns.message.from_wire(wire.encode_reply(query, reply))
    assert question.is_response(answer)
    return answer


def lines(answer: dns.message.Message) -> list[str]:
    return sorted(
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {data}"
        for rrset in answer.answer
        for data in rrset
    )


SVC = "default.svc.cluster.local."


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        pytest.param(f"web.{SVC}", "A", ["A 10.96.0.20"], id="cluster ip"),
        pytest.param(
            f"_http._tcp.web.{SVC}", "SRV", [f"SRV 0 100 80 web.{SVC}"], id="port of a cluster ip"
        ),
        pytest.param(
            f"_dns._udp.web.{SVC}", "SRV", [f"SRV 0 100 53 web.{SVC}"], id="port over udp"
        ),
        pytest.param(
            f"db.{SVC}", "A", ["A 10.244.0.2", "A 10.244.0.3", "A 10.244.0.4"], id="headless"
        ),
        pytest.param(f"db-1.db.{SVC}", "A", ["A 10.244.0.3"], id="hostname"),
        pytest.param(f"10-244-0-4.db.{SVC}", "A", ["A 10.244.0.4"], id="no hostname"),
        pytest.param(
            f"_http._tcp.db.{SVC}",
            "SRV",
            [
                f"SRV 0 100 8080 10-244-0-4.db.{SVC}",
                f"SRV 0 100 8080 db-0.db.{SVC}",
                f"SRV 0 100 8080 db-1.db.{SVC}",
            ],
            id="ports of a headless service",
        ),
        pytest.param("20.0.96.10.in-addr.arpa.", "PTR", [f"PTR web.{SVC}"], id="reverse"),
        pytest.param(
            "2.0.244.10.in-addr.arpa.", "PTR", [f"PTR db-0.db.{SVC}"], id="reverse of a pod"
        ),
        pytest.param(f"alias.{SVC}", "CNAME", ["CNAME example.org."], id="external name"),
        pytest.param(f"number.{SVC}", "A", ["A 192.0.2.1"], id="external name that is an address"),
        pytest.param("10-1-2-3.default.pod.cluster.local.", "A", ["A 10.1.2.3"], id="pod"),
        pytest.param("dns-version.cluster.local.", "TXT", ['TXT "1.1.0"'], id="version"),
        pytest.param("cluster.local.", "NS", ["NS ns.dns.cluster.local."], id="name server"),
        pytest.param("ns.dns.cluster.local.", "A", ["A 10.96.0.10"], id="its address"),
        pytest.param(f"WeB.{SVC}", "A", ["A 10.96.0.20"], id="letters do not matter"),
    ],
)
async def test_answers(name: str, kind: str, expected: list[str]) -> None:
    answer = await ask(name, kind)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AA
    assert lines(answer) == [f"{name} {line}" for line in expected]


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        pytest.param(f"nobody.{SVC}", "A", "NXDOMAIN", id="no such service"),
        pytest.param("web.nowhere.svc.cluster.local.", "A", "NXDOMAIN", id="no such namespace"),
        pytest.param(f"web.{SVC}", "AAAA", "NOERROR", id="no IPv6"),
        pytest.param(f"web.{SVC}", "TXT", "NOERROR", id="no text"),
        pytest.param(f"_tcp.web.{SVC}", "A", "NOERROR", id="only names below"),
        pytest.param(f"_http._udp.web.{SVC}", "SRV", "NXDOMAIN", id="no such port"),
        pytest.param(SVC, "A", "NOERROR", id="namespace"),
        pytest.param("empty.svc.cluster.local.", "A", "NOERROR", id="namespace without services"),
        pytest.param("svc.cluster.local.", "A", "NOERROR", id="svc"),
        pytest.param("pod.cluster.local.", "A", "NOERROR", id="pod"),
        pytest.param("cluster.local.", "A", "NOERROR", id="apex"),
        pytest.param(f"lonely.{SVC}", "A", "NXDOMAIN", id="headless without endpoints"),
        pytest.param(
            "1-2-3-4.nowhere.pod.cluster.local.", "A", "NXDOMAIN", id="pod in no namespace"
        ),
        pytest.param("1-2-3.default.pod.cluster.local.", "A", "NXDOMAIN", id="no address"),
        pytest.param(
            "10-1-2-3.default.pod.cluster.local.", "AAAA", "NOERROR", id="pod without IPv6"
        ),
        pytest.param("99.0.96.10.in-addr.arpa.", "PTR", "NXDOMAIN", id="address of nobody"),
        pytest.param("5.0.244.10.in-addr.arpa.", "PTR", "NXDOMAIN", id="unready pod"),
        pytest.param(f"example.org.{SVC}", "A", "NXDOMAIN", id="search list"),
    ],
)
async def test_says_no_in_the_right_way(name: str, kind: str, rcode: str) -> None:
    answer = await ask(name, kind)
    assert dns.rcode.to_text(answer.rcode()) == rcode
    assert not answer.answer
    (soa,) = answer.authority
    assert soa.name == dns.name.from_text(DOMAIN)
    assert soa.rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    "name", ["example.org.", "local.", "xcluster.local.", "1.2.0.192.in-addr.arpa."]
)
async def test_what_is_not_ours_is_handed_on(name: str) -> None:
    assert (await ask(name, "A")).rcode() == dns.rcode.REFUSED


async def test_an_alias_within_the_cluster_is_followed() -> None:
    answer = await ask(f"inner.{SVC}", "A")
    assert lines(answer) == [f"inner.{SVC} CNAME web.{SVC}", f"web.{SVC} A 10.96.0.20"]
    endless = await ask(f"loop.{SVC}", "A")
    assert endless.rcode() == dns.rcode.NOERROR


async def test_srv_brings_the_addresses_along() -> None:
    answer = await ask(f"_http._tcp.db.{SVC}", "SRV")
    extra = sorted(str(data) for rrset in answer.additional for data in rrset)
    assert extra == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]


async def test_the_case_of_the_question_is_kept() -> None:
    question = dns.message.make_query(f"WeB.{SVC}", "A")
    query = wire.parse_query(question.to_wire())
    reply = await build_chain(make_zone(), nobody)(query)
    data = wire.encode_reply(query, reply)
    assert b"\x03WeB" in data
    assert b"\x03web" not in data


async def test_long_answers_are_cut_and_say_so() -> None:
    zone = make_zone()
    many = endpoint_slice(*(f"10.244.7.{n}" for n in range(1, 201)), service="many")
    zone.put(
        Key("default", "many"), service_records(service("many", address="None"), [many], DOMAIN)
    )
    for edns, size in ((False, 512), (True, 1232)):
        question = dns.message.make_query(
            f"many.{SVC}", "A", use_edns=0 if edns else False, payload=size
        )
        query = wire.parse_query(question.to_wire())
        reply = await build_chain(zone, nobody)(query)
        data = wire.encode_reply(query, reply)
        assert len(data) <= size
        answer = dns.message.from_wire(data)
        assert answer.flags & dns.flags.TC
        assert len(answer.answer[0]) > (size - 100) // 16
    over_tcp = wire.parse_query(question.to_wire(), over_tcp=True)
    assert len(dns.message.from_wire(wire.encode_reply(over_tcp, reply)).answer[0]) == 200


async def test_odd_questions_are_refused_by_their_right_name() -> None:
    for opcode, version, rcode in ((2, 0, dns.rcode.NOTIMP), (0, 1, dns.rcode.BADVERS)):
        question = dns.message.make_query(f"web.{SVC}", "A", use_edns=version)
        question.set_opcode(dns.opcode.Opcode(opcode))
        query = wire.parse_query(question.to_wire())
        reply = await build_chain(make_zone(), nobody)(query)
        assert dns.message.from_wire(wire.encode_reply(query, reply)).rcode() == rcode
    question = dns.message.make_query(f"web.{SVC}", "A", rdclass="CH")
    assert (await build_chain(make_zone(), nobody)(wire.parse_query(question.to_wire()))).rcode == 5
    assert (await ask(f"web.{SVC}", "AXFR")).rcode() == dns.rcode.REFUSED


async def test_what_changes_is_named() -> None:
    zone = make_zone()
    other = service("web", address="10.96.0.21", ports=WEB_PORTS)
    touched = zone.put(Key("default", "web"), service_records(other, (), DOMAIN))
    reverse = {encode_name(f"{n}.0.96.10.in-addr.arpa") for n in (20, 21)}
    # More may be named, if a parent was gone in between; never less.
    assert touched >= {encode_name(f"web.{SVC}"), *reverse}
    zone.put(Key("default", "web"), {})
    assert (await ask(f"web.{SVC}", "A", zone=zone)).rcode() == dns.rcode.NXDOMAIN
    assert (await ask(f"_tcp.web.{SVC}", "A", zone=zone)).rcode() == dns.rcode.NXDOMAIN
    zone.check_invariants()


# Names that look like Services' and collide often.
_NAMES = st.sampled_from(["a", "b", "c"])
_PLANS = st.lists(
    st.tuples(_NAMES, st.sampled_from(["web", "None", "gone"]), st.lists(_NAMES, max_size=3)),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_PLANS)
def test_the_zone_forgets_as_well_as_it_learns(plans: list[tuple[str, str, list[str]]]) -> None:
    zone = make_zone()
    before = dict(zone._records)
    for name, what, hosts in plans:
        key = Key("default", f"x-{name}")
        slices = [
            endpoint_slice(
                *(endpoint(f"10.244.3.{ord(host)}", hostname=host) for host in hosts),
                service=key.name,
            )
        ]
        address = "10.96.9.9" if what == "web" else what
        made = service(key.name, address=address, ports=WEB_PORTS)
        zone.put(key, {} if what == "gone" else service_records(made, slices, DOMAIN))
        zone.check_invariants()
    for name in "abc":
        zone.put(Key("default", f"x-{name}"), {})
    assert zone._records == before
    zone.check_invariants()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_can_do_harm(data: bytes) -> None:
    for attempt in (
        lambda: wire.parse_query(data),
        lambda: wire.parse_query(b"\0\1\1\0\0\1\0\0\0\0\0\1" + data),
        lambda: wire.parse_reply(b"\0\1\x81\0\0\1\0\2\0\1\0\0\1a\0\0\1\0\1" + data, 1, b"\1a\0", 1),
    ):
        with contextlib.suppress(FormatError):
            attempt()
    wire.error_reply(data, wire.FORMERR)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.b.c.", "b.c.", "x.b.c.", "c.", "other.org.", "A.b.C."]),
            st.ip_addresses(v=4),
        ),
        max_size=40,
    )
)
def test_compression_is_what_dnspython_reads(records: list[tuple[str, object]]) -> None:
    question = dns.message.make_query("a.b.c.", "A", use_edns=0)
    query = wire.parse_query(question.to_wire())
    answers = tuple(
        Record(encode_name(name), wire.A, 5, wire.address_data(str(address))[1])  # type: ignore[index]  # it is one
        for name, address in records
    )
    parsed = dns.message.from_wire(wire.encode_reply(query, Reply(answers=answers)))
    found = {(str(rrset.name).lower(), str(d)) for rrset in parsed.answer for d in rrset}
    assert found == {(name.lower(), str(address)) for name, address in records}
