"""Ask the resolvers outside the cluster, and remember for a while what they said.

Every question goes from a socket and a port of its own with a number nobody can guess, and only
the answer to that very question is believed. The same question asked by many at once is asked
once.

Rule: without an upstream (an isolated cluster) every question is REFUSED at once, so that no pod
waits for an answer that cannot come.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pybernetes.network.dns import wire
from pybernetes.network.dns.wire import FormatError, Query, Record, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from pybernetes.aio.clock import Clock

Upstream = tuple[str, int]
# name, type, whether signatures are wanted
Question = tuple[bytes, int, bool]

_TIMEOUT_SECONDS = 2.0
_ROUNDS = 2
_CACHE_ENTRIES = 10_000
_MAX_TTL, _MAX_NEGATIVE_TTL = 3600, 30
_REFUSED = Reply(wire.REFUSED)
_FAILED = Reply(wire.SERVFAIL)


@dataclass(slots=True)
class _Remembered:
    reply: Reply
    since: float
    until: float


class Forwarder:
    """Answers from upstream resolvers, tried in order."""

    def __init__(self, upstreams: Sequence[Upstream], *, clock: Clock, random: Random) -> None:
        self._upstreams = tuple(upstreams)
        self._clock, self._random = clock, random
        # Answers by question, the least recently asked first.
        self._cache: dict[Question, _Remembered] = {}
        # Questions that are being asked, with everybody who waits for the answer.
        self._asking: dict[Question, asyncio.Future[Reply]] = {}
        self._asked = self._remembered = 0

    async def __call__(self, query: Query) -> Reply:
        return await self.resolve(query.name, query.type, dnssec=query.dnssec, tcp=query.over_tcp)

    async def resolve(
        self, name: bytes, kind: int, *, dnssec: bool = False, tcp: bool = False
    ) -> Reply:
        if not self._upstreams:
            return _REFUSED
        question = (name, kind, dnssec)
        if (known := self._recall(question)) is not None and not (known.truncated and tcp):
            self._remembered += 1
            return known
        if (waiting := self._asking.get(question)) is not None:
            # Shielded: one who gives up must not take the answer from the others.
            return await asyncio.shield(waiting)
        future = self._asking[question] = asyncio.get_running_loop().create_future()
        reply = _FAILED
        try:
            reply = await self._ask_all(question, tcp)
            self._remember(question, reply)
            return reply
        finally:
            del self._asking[question]
            future.set_result(reply)

    def statistics(self) -> dict[str, int]:
        return {
            "asked": self._asked,
            "remembered": self._remembered,
            "cached": len(self._cache),
        }

    async def _ask_all(self, question: Question, tcp: bool) -> Reply:
        last = _FAILED
        for _ in range(_ROUNDS):
            for upstream in self._upstreams:
                try:
                    async with asyncio.timeout(_TIMEOUT_SECONDS):
                        self._asked += 1
                        reply = await self._ask(upstream, question, tcp)
                except (OSError, TimeoutError, FormatError):
                    continue
                if reply.rcode in (wire.NOERROR, wire.NXDOMAIN):
                    return reply
                last = reply
        return last

    async def _ask(self, upstream: Upstream, question: Question, tcp: bool) -> Reply:
        name, kind, dnssec = question
        number = self._random.getrandbits(16)
        message = wire.encode_query(number, name, kind, dnssec=dnssec)
        if tcp:
            return await _ask_tcp(upstream, message, number, name, kind)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.connect(upstream)
            await loop.sock_sendall(one, message)
            while True:
                data = await loop.sock_recv(one, 65535)
                # A stray or forged datagram must not end the wait for the real one.
                with contextlib.suppress(FormatError):
                    return wire.parse_reply(data, number, name, kind)

    def _recall(self, question: Question) -> Reply | None:
        entry = self._cache.pop(question, None)
        now = self._clock.monotonic()
        if entry is None or now >= entry.until:
            return None
        self._cache[question] = entry
        age = int(now - entry.since)
        return replace(
            entry.reply,
            answers=_aged(entry.reply.answers, age),
            authority=_aged(entry.reply.authority, age),
            additional=_aged(entry.reply.additional, age),
        )

    def _remember(self, question: Question, reply: Reply) -> None:
        ttl = lifetime(reply)
        if ttl <= 0:
            return
        now = self._clock.monotonic()
        self._cache[question] = _Remembered(reply, now, now + ttl)
        if len(self._cache) > _CACHE_ENTRIES:
            del self._cache[next(iter(self._cache))]


def lifetime(reply: Reply) -> int:
    """For how many seconds an answer may be repeated (RFC 2308 for negative ones)."""
    if reply.rcode not in (wire.NOERROR, wire.NXDOMAIN) or reply.truncated:
        return 0
    if reply.rcode == wire.NOERROR and reply.answers:
        shortest = wire.minimum_ttl((*reply.answers, *reply.authority, *reply.additional))
        return min(shortest or 0, _MAX_TTL)
    for record in reply.authority:
        if record.type == wire.SOA:
            return min(record.ttl, wire.soa_minimum(record.data), _MAX_NEGATIVE_TTL)
    return 0


def parse_resolv_conf(text: str, *, without: Sequence[str] = ()) -> list[Upstream]:
    """The IPv4 name servers of a resolv.conf, except our own addresses."""
    found: list[Upstream] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2 or words[0] != "nameserver" or words[1] in without:
            continue
        address = wire.address_data(words[1])
        if address is not None and address[0] == wire.A:
            found.append((words[1], 53))
    return found[:3]


async def _ask_tcp(
    upstream: Upstream, message: bytes, number: int, name: bytes, kind: int
) -> Reply:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(len(message).to_bytes(2, "big") + message)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return wire.parse_reply(await reader.readexactly(length), number, name, kind)
    except asyncio.IncompleteReadError:
        raise FormatError("the connection ended too soon") from None
    finally:
        writer.close()


def _aged(records: tuple[Record, ...], age: int) -> tuple[Record, ...]:
    if not age:
        return records
    return tuple(replace(record, ttl=max(0, record.ttl - age)) for record in records)
