"""The cluster's DNS on one node: caches feed the zone, the server answers from it.

Rules: it answers only when it knows everything (a Service that is not known yet would be told
not to exist, and resolvers remember that); and an answer is right from the moment the cache is.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Namespace, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.network.dns.chain import build_chain
from pybernetes.network.dns.forward import Forwarder, Upstream
from pybernetes.network.dns.server import DnsServer
from pybernetes.network.dns.zone import Zone, service_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Network
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client.cache import Cache
    from pybernetes.client.caches import Caches

SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Where and for what the DNS of a node answers."""

    # The cluster's DNS address, which must be one of the node's (see dnslink.py).
    address: str
    domain: str = "cluster.local"
    port: int = 53
    # Ranges whose reverse names are the cluster's: Services and pods.
    reverse: tuple[IPv4Network, ...] = ()
    # Resolvers for all other names; none in a cluster that cannot reach any.
    upstreams: tuple[Upstream, ...] = ()


class ClusterDns:
    """One node's DNS: zone, chain and server, kept in step with the caches."""

    def __init__(
        self,
        services: Cache[Service],
        slices: Cache[EndpointSlice],
        namespaces: Cache[Namespace],
        config: DnsConfig,
        *,
        clock: Clock,
        random: Random,
    ) -> None:
        self._services, self._slices, self._namespaces = services, slices, namespaces
        self._config = config
        self.zone = Zone(config.domain, address=config.address, reverse=config.reverse)
        self._forwarder = Forwarder(config.upstreams, clock=clock, random=random)
        self.handler = build_chain(self.zone, self._forwarder)
        self._server = DnsServer(self.handler, random=random)
        # Slices of each Service that has any, by name.
        self._slices_of: dict[Key, dict[str, EndpointSlice]] = {}
        # Services that changed in this turn of the loop: a list of ten thousand is one update.
        self._dirty: dict[Key, None] = {}
        self._flush_handle: asyncio.Handle | None = None

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[tuple[str, int]]:
        """Answer until left; entered when everything is known. Gives the address bound."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._services.subscribe(self._service_changed))
            stack.callback(self._slices.subscribe(self._slice_changed))
            stack.callback(self._namespaces.subscribe(self._namespace_changed))
            stack.callback(self._stop_flush)
            for cache in (self._services, self._slices, self._namespaces):
                await cache.wait_synced()
            self._flush()
            async with self._server.serve(self._config.address, self._config.port) as bound:
                yield bound

    def statistics(self) -> dict[str, int]:
        counters = self._server.counters
        return {
            "names": len(self.zone),
            "queries": counters.queries,
            "repeated": counters.repeated,
            "refused": counters.refused,
            "malformed": counters.malformed,
            **{f"upstream_{name}": n for name, n in self._forwarder.statistics().items()},
        }

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if (service := new or old) is not None:
            self._mark(key_of(service))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for piece, is_there in ((old, False), (new, True)):
            if piece is None or not (name := piece.metadata.labels.get(SERVICE_NAME)):
                continue
            key = Key(piece.metadata.namespace, name)
            known = self._slices_of.setdefault(key, {})
            if is_there:
                known[piece.metadata.name] = piece
            else:
                known.pop(piece.metadata.name, None)
            if not known:
                del self._slices_of[key]
            # Only a headless Service has its endpoints in the zone.
            service = self._services.get(key)
            if service is None or service.spec.cluster_ip == "None":
                self._mark(key)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if (namespace := new or old) is not None:
            name = namespace.metadata.name
            self._server.forget(self.zone.put_namespace(name, exists=new is not None))

    def _mark(self, key: Key) -> None:
        self._dirty[key] = None
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._stop_flush()
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            service = self._services.get(key)
            slices = self._slices_of.get(key, {}).values()
            records = service_records(service, slices, self.zone.domain) if service else {}
            self._server.forget(self.zone.put(key, records))

    def _stop_flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None


@contextlib.asynccontextmanager
async def cluster_dns(
    caches: Caches, config: DnsConfig, *, clock: Clock, random: Random
) -> AsyncIterator[ClusterDns]:
    """A running DNS: entered when it answers, and answers right."""
    dns = ClusterDns(
        caches.of(Service), caches.of(EndpointSlice), caches.of(Namespace), config,
        clock=clock, random=random,
    )  # fmt: skip
    async with dns.serve():
        yield dns


async def run_dns(caches: Caches, config: DnsConfig, *, clock: Clock, random: Random) -> None:
    """Answer until cancelled."""
    async with cluster_dns(caches, config, clock=clock, random=random):
        await asyncio.get_running_loop().create_future()
