"""The DNS server over real sockets on loopback, asked by dnspython.

Real: sockets, caches, zone, chain. Fake: the upstream resolver, a server of our own on loopback;
the API server, whose place is taken by putting objects into the caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from pybernetes.aio.clock import SystemClock
from pybernetes.api.types.core_v1 import Namespace, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.meta import Key
from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of
from pybernetes.network.dns import wire
from pybernetes.network.dns.forward import Forwarder, Upstream, lifetime, parse_resolv_conf
from pybernetes.network.dns.server import DnsServer
from pybernetes.network.dns.service import ClusterDns, DnsConfig
from pybernetes.network.dns.wire import Query, Record, Reply, encode_name
from pybernetes.network.program import NetworkError
from tests.network.objects import endpoint_slice, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.realtime

WEB = "web.default.svc.cluster.local."
SOA = Record(
    encode_name("org"), wire.SOA, 60,
    wire.soa_data(encode_name("a.org"), encode_name("b.org"), 1, 20),
)  # fmt: skip


@dataclass
class FakeUpstream:
    """A resolver that knows example.org, and counts what it is asked."""

    asked: list[str] = field(default_factory=list)
    address: Upstream = ("", 0)
    rcode: int = wire.NOERROR
    size: int = 1
    delay: float = 0.0

    async def __call__(self, query: Query) -> Reply:
        self.asked.append(wire.format_name(query.name))
        await asyncio.sleep(self.delay)
        if self.rcode != wire.NOERROR or query.name != encode_name("example.org"):
            return Reply(self.rcode or wire.NXDOMAIN, authority=(SOA,))
        return Reply(
            answers=tuple(
                Record(query.name, wire.A, 30, bytes((192, 0, 2, n % 256)))
                for n in range(self.size)
            )
        )


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    fake = FakeUpstream()
    server = DnsServer(fake, random=random.Random(1))
    async with server.serve("127.0.0.1", 0) as fake.address:
        yield fake


@dataclass
class Running:
    cluster: ClusterDns
    services: Cache[Service]
    slices: Cache[EndpointSlice]
    namespaces: Cache[Namespace]
    address: tuple[str, int] = ("", 0)

    async def ask(
        self, name: str, kind: str = "A", *, tcp: bool = False, edns: bool = True
    ) -> dns.message.Message:
        question = dns.message.make_query(name, kind, use_edns=0 if edns else False)
        where, number = self.address
        if tcp:
            return await asyncio.to_thread(dns.query.tcp, question, where, 5, number)
        return await asyncio.to_thread(dns.query.udp, question, where, 5, number)


@contextlib.asynccontextmanager
async def running(*upstreams: Upstream) -> AsyncIterator[Running]:
    services, slices = Cache(kind_of(Service)), Cache(kind_of(EndpointSlice))
    namespaces = Cache(kind_of(Namespace))
    services.replace([service()])
    slices.replace([])
    namespaces.replace([Namespace(metadata=ObjectMeta(name="default", resource_version="1"))])
    config = DnsConfig("127.0.0.1", port=0, upstreams=tuple(upstreams))
    cluster = ClusterDns(
        services, slices, namespaces, config, clock=SystemClock(), random=random.Random(1)
    )
    async with cluster.serve() as address:
        yield Running(cluster, services, slices, namespaces, address)


async def test_udp_and_tcp_say_the_same() -> None:
    async with running() as here:
        for tcp in (False, True):
            answer = await here.ask(WEB, tcp=tcp)
            assert [str(data) for data in answer.answer[0]] == ["10.96.0.20"]
            assert answer.flags & dns.flags.RA


async def test_repeated_questions_cost_nothing_and_are_still_right() -> None:
    async with running() as here:
        for _ in range(3):
            assert (await here.ask(WEB)).answer
        assert here.cluster.statistics()["repeated"] == 2
        here.services.put(service(address="10.96.0.99", version="2"))
        await asyncio.sleep(0.05)
        assert str((await here.ask(WEB)).answer[0][0]) == "10.96.0.99"
        here.services.remove(Key("default", "web"))
        await asyncio.sleep(0.05)
        assert (await here.ask(WEB)).rcode() == dns.rcode.NXDOMAIN
        here.services.put(service(version="3"))
        await asyncio.sleep(0.05)
        assert (await here.ask(WEB)).answer


async def test_new_namespaces_bring_their_pod_names_to_life() -> None:
    async with running() as here:
        name = "10-1-2-3.new.pod.cluster.local."
        assert (await here.ask(name)).rcode() == dns.rcode.NXDOMAIN
        here.namespaces.put(Namespace(metadata=ObjectMeta(name="new", resource_version="2")))
        assert str((await here.ask(name)).answer[0][0]) == "10.1.2.3"
        here.namespaces.remove(Key("", "new"))
        assert (await here.ask(name)).rcode() == dns.rcode.NXDOMAIN


async def test_endpoints_come_in_changing_order() -> None:
    async with running() as here:
        here.services.put(service("db", address="None"))
        here.slices.put(endpoint_slice(*(f"10.244.0.{n}" for n in range(2, 8)), service="db"))
        await asyncio.sleep(0.05)
        name = "db.default.svc.cluster.local."
        where, number = here.address
        first: set[bytes] = set()
        for _ in range(40):
            question = dns.message.make_query(name, "A", use_edns=False)
            data = await asyncio.to_thread(_exchange, question.to_wire(), where, number)
            first.add(data[12 + len(encode_name(name)) + 4 :][12:16])
            assert len(dns.message.from_wire(data).answer[0]) == 6
        assert len(first) > 1


def _exchange(data: bytes, where: str, number: int) -> bytes:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.sendto(data, (where, number))
        return one.recv(4096)


async def test_other_names_are_asked_upstream_and_remembered(upstream: FakeUpstream) -> None:
    async with running(upstream.address) as here:
        for _ in range(3):
            answer = await here.ask("example.org.")
            assert [str(data) for data in answer.answer[0]] == ["192.0.2.0"]
            assert not answer.flags & dns.flags.AA
            assert (await here.ask("nothing.org.")).rcode() == dns.rcode.NXDOMAIN
        assert sorted(upstream.asked) == ["example.org.", "nothing.org."]


async def test_many_who_ask_the_same_ask_upstream_once(upstream: FakeUpstream) -> None:
    upstream.delay = 0.1
    async with running(upstream.address) as here:
        answers = await asyncio.gather(*(here.ask("example.org.") for _ in range(5)))
        assert all(answer.answer for answer in answers)
        assert upstream.asked == ["example.org."]


async def test_an_alias_that_leads_outside_is_followed_there(upstream: FakeUpstream) -> None:
    alias = service("alias", address="", type="ExternalName", external_name="example.org")
    async with running(upstream.address) as here:
        here.services.put(alias)
        await asyncio.sleep(0.05)
        answer = await here.ask("alias.default.svc.cluster.local.")
        assert [rrset.rdtype for rrset in answer.answer] == [dns.rdatatype.CNAME, dns.rdatatype.A]


async def test_long_answers_of_the_upstream_go_over_tcp(upstream: FakeUpstream) -> None:
    upstream.size = 120
    async with running(upstream.address) as here:
        short = await here.ask("example.org.", edns=False)
        assert short.flags & dns.flags.TC
        whole = await here.ask("example.org.", tcp=True)
        assert len(whole.answer[0]) == 120


async def test_the_next_upstream_is_asked_when_one_is_dead(upstream: FakeUpstream) -> None:
    # Nothing listens on the discard port; loopback refuses at once.
    async with running(("127.0.0.1", 9), upstream.address) as here:
        assert (await here.ask("example.org.")).answer


async def test_without_an_upstream_the_answer_is_immediate() -> None:
    async with running() as here, asyncio.timeout(1):
        assert (await here.ask("example.org.")).rcode() == dns.rcode.REFUSED


async def test_rubbish_is_answered_or_ignored_but_never_kills(upstream: FakeUpstream) -> None:
    async with running(upstream.address) as here:
        where, number = here.address
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for data in (b"", b"x", b"\0" * 12, b"\xff" * 600, b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c"):
                one.sendto(data, (where, number))
        _, writer = await asyncio.open_connection(where, number)
        writer.write(b"\0\5hello")
        writer.close()
        assert (await here.ask(WEB)).answer
        assert here.cluster.statistics()["malformed"] >= 4


async def test_a_taken_address_says_what_to_do() -> None:
    async with running() as here:
        server = DnsServer(here.cluster.handler, random=random.Random(1))
        with pytest.raises(NetworkError, match="see who has the port with: ss -lnp"):
            async with server.serve(*here.address):
                pass


def test_resolv_conf_without_ourselves() -> None:
    text = "# written by dhcp\nsearch lan\nnameserver 10.96.0.10\nnameserver 192.0.2.3 # x\nnameserver ::1\nnameserver\n"
    assert parse_resolv_conf(text, without=("10.96.0.10",)) == [("192.0.2.3", 53)]


def test_lifetimes_follow_the_records() -> None:
    record = Record(encode_name("a.org"), wire.A, 90, b"\1\2\3\4")
    assert lifetime(Reply(answers=(record,))) == 90
    assert lifetime(Reply(wire.NXDOMAIN, authority=(SOA,))) == 20
    assert lifetime(Reply(wire.NXDOMAIN)) == 0
    assert lifetime(Reply(wire.SERVFAIL, answers=(record,))) == 0
    assert lifetime(Reply(answers=(record,), truncated=True)) == 0


async def test_remembered_answers_grow_older(upstream: FakeUpstream) -> None:
    times = [0.0]

    class Settable(SystemClock):
        def monotonic(self) -> float:
            return times[0]

    forwarder = Forwarder((upstream.address,), clock=Settable(), random=random.Random(1))
    for times[0], ttl, asked in ((0.0, 30, 1), (12.5, 18, 1), (31.0, 30, 2)):
        reply = await forwarder.resolve(encode_name("example.org"), wire.A)
        assert reply.answers[0].ttl == ttl
        assert len(upstream.asked) == asked
