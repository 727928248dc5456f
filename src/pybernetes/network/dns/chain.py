"""The chain every question passes through; its order is LINKS.

A handler takes a query and gives a reply. A link is made around the next one, answers what it
can and hands on the rest: what is no plain question of the Internet is refused, what is ours is
answered from the zone, an ExternalName that leads outside is followed there, the rest is asked
upstream.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pybernetes.network.dns import wire
from pybernetes.network.dns.wire import Query, Reply

if TYPE_CHECKING:
    from pybernetes.network.dns.zone import Zone

Handler = Callable[[Query], Awaitable[Reply]]
Link = Callable[["Zone", Handler], Handler]

_QUERY_OPCODE = 0
# Zone transfers and other questions about the server instead of names.
_META_TYPES = frozenset(range(128, 255)) | {wire.OPT}


def sensible(zone: Zone, following: Handler) -> Handler:
    """Refuse what is not a question about names of the Internet."""

    async def handle(query: Query) -> Reply:
        if wire.opcode_of(query.flags) != _QUERY_OPCODE:
            return Reply(wire.NOTIMP)
        if query.edns_version > 0:
            return Reply(wire.BADVERS)
        if query.rclass != wire.IN or query.type in _META_TYPES:
            return Reply(wire.REFUSED)
        return await following(query)

    return handle


def outside_alias(zone: Zone, following: Handler) -> Handler:
    """Complete an answer that ends in a CNAME to a name outside the cluster."""

    async def handle(query: Query) -> Reply:
        reply = await following(query)
        target = zone.outside_target(reply) if reply.authoritative else None
        if target is None or query.type in (wire.CNAME, wire.ANY):
            return reply
        further = await following(replace(query, name=target, asked=target))
        if further.rcode == wire.REFUSED:
            # Nobody to ask: the alias itself is all there is to say, for now.
            return replace(reply, names=frozenset())
        return Reply(
            further.rcode, (*reply.answers, *further.answers), further.authority,
            authoritative=True, truncated=further.truncated,
        )  # fmt: skip

    return handle


def cluster_zone(zone: Zone, following: Handler) -> Handler:
    """Answer what is ours from what the caches know."""

    async def handle(query: Query) -> Reply:
        if zone.is_ours(query.name):
            return zone.lookup(query.name, query.type)
        return await following(query)

    return handle


LINKS: tuple[Link, ...] = (sensible, outside_alias, cluster_zone)


def build_chain(zone: Zone, last: Handler) -> Handler:
    """LINKS around `last`, which asks upstream."""
    handler = last
    for link in reversed(LINKS):
        handler = link(zone, handler)
    return handler
