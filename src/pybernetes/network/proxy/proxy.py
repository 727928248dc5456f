"""The service proxy of a node: keeps the kernel's rules in step with Services and EndpointSlices.

Caches report which Services changed; when the loop comes to it, those are planned again
(plan.py), summed up (wanted.py), and the difference goes to the kernel in one transaction
(rules.py). What arrives while one is being made is in the next.

Rules:
- The leak rule is in the kernel before the first cache is read.
- Nothing of an earlier run is flushed; a restart is not noticed by any connection.
- An endpoint that stops being ready gets no new connection from the transaction on; established
  ones go on. Only UDP flows to endpoints that are gone are forgotten, for nobody else would.
- Nothing is polled: the kernel tells when somebody else touches our table.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Node, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.network import conntrack, netlink, nfnetlink
from pybernetes.network.conntrack import StaleFlow
from pybernetes.network.program import NetworkError, explain_os_error
from pybernetes.network.proxy.elements import (
    MAPS,
    Packed,
    pack,
    pack_key,
    unpack_backend,
    unpack_key,
)
from pybernetes.network.proxy.health import HealthPorts, run_health_checks
from pybernetes.network.proxy.plan import SERVICE_NAME, LocalFacts, plan_service
from pybernetes.network.proxy.plan import Key as Frontend
from pybernetes.network.proxy.rules import Changes, NftablesRules, Rules
from pybernetes.network.proxy.wanted import Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pybernetes.client.cache import Cache
    from pybernetes.client.caches import Caches
    from pybernetes.network.proxy.ruleset import RulesetConfig

log = logging.getLogger(__name__)

ZONE_LABEL = "topology.kubernetes.io/zone"
# A client may be remembered for an endpoint in the very moment it goes; so look once more.
_SECOND_LOOK_SECONDS = 1.0
# Somebody else's changes come in bursts (a firewall being reloaded): wait for the end of one.
_DISTURBANCE_SECONDS = 0.05
_RETRY_SECONDS = 5.0
# Services planned before others get a turn: some ten milliseconds.
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Whose proxy this is, and in which cluster."""

    node_name: str
    rules: RulesetConfig
    # Addresses the node answers itself (the cluster's DNS): left alone even if a Service has them.
    exempt: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Leftovers:
    """What still remembers endpoints that are gone."""

    flows: set[StaleFlow] = field(default_factory=set)
    # (packed frontend, packed backend) that clients with affinity may be bound to.
    affinity: set[tuple[bytes, bytes]] = field(default_factory=set)


class ServiceProxy:
    """One node's proxy. `run` never returns; `ready` is set once everything is in the kernel."""

    def __init__(
        self,
        services: Cache[Service],
        slices: Cache[EndpointSlice],
        nodes: Cache[Node],
        config: ProxyConfig,
        *,
        rules: Rules,
    ) -> None:
        self._services, self._slices, self._nodes = services, slices, nodes
        self._config = config
        self._rules = rules
        self.ready = asyncio.Event()
        self._wanted = Wanted()
        # Services to plan again, in the order in which they changed.
        self._dirty: dict[Key, None] = {}
        # Slices of each Service that has any, by name.
        self._slices_of: dict[Key, dict[str, EndpointSlice]] = {}
        # Ports on which load balancers ask whether this node has endpoints.
        self.health = HealthPorts()
        self._wake = asyncio.Event()
        self._second_look: set[tuple[bytes, bytes]] = set()
        self._disturbed = False
        self._facts = LocalFacts(config.node_name, exempt=config.exempt)
        self._transactions = self._elements_changed = 0

    async def run(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._services.subscribe(self._service_changed))
            stack.callback(self._slices.subscribe(self._slice_changed))
            stack.callback(self._nodes.subscribe(self._node_changed))
            for cache in (self._services, self._slices, self._nodes):
                await cache.wait_synced()
            await self._plan_dirty()
            self._wanted.take_changes()
            await self._rules.load(self._wanted.elements)
            self.ready.set()
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._step()
                except (NetworkError, OSError) as error:
                    # The kernel has either the last state or this one. Compare all, later.
                    log.error("cannot change the packet rules, will try again: %s", error)
                    self._disturbed = True
                    self._wake.set()
                    await asyncio.sleep(_RETRY_SECONDS)

    def disturbed(self) -> None:
        """Somebody else changed our table: look at all of it, when they are done."""
        if not self._disturbed:
            self._disturbed = True
            self._wake.set()

    def statistics(self) -> dict[str, int]:
        return {
            "services": len(self._services),
            "elements": len(self._wanted),
            "transactions": self._transactions,
            "elements_changed": self._elements_changed,
        }

    async def _step(self) -> None:
        if self._disturbed:
            await asyncio.sleep(_DISTURBANCE_SECONDS)
            self._disturbed = False
            await self._plan_dirty()
            self._wanted.take_changes()
            if await self._rules.load(self._wanted.elements):
                log.warning("the packet rules were not as we left them; they are right again")
            return
        await self._plan_dirty()
        changes = self._wanted.take_changes()
        if changes:
            self._transactions += 1
            self._elements_changed += sum(map(len, changes.values()))
            await self._rules.apply(changes, self._wanted.elements)
            await self._forget(leftovers(changes, self._wanted.elements))
        if self._second_look and not changes:
            stale, self._second_look = self._second_look, set()
            await self._rules.forget_affinity(stale)

    async def _plan_dirty(self) -> None:
        dirty, self._dirty = self._dirty, {}
        # Of two Services that want the same, the older gets it.
        keys = sorted(dirty, key=self._age) if len(dirty) > 1 else list(dirty)
        for start in range(0, len(keys), _CHUNK):
            self._wanted.put({key: self._plan(key) for key in keys[start : start + _CHUNK]})
            if start + _CHUNK < len(keys):
                # What changes meanwhile is marked again, and planned in the next turn.
                await asyncio.sleep(0)

    def _plan(self, key: Key) -> Packed:
        service = self._services.get(key)
        if service is None:
            self.health.remove(key)
            return {}
        plan = plan_service(service, self._slices_of.get(key, {}).values(), self._facts)
        if port := service.spec.health_check_node_port:
            self.health.put(key, port, plan.local_endpoints)
        else:
            self.health.remove(key)
        return pack(plan.elements)

    def _age(self, key: Key) -> tuple[str, Key]:
        service = self._services.get(key)
        created = service.metadata.creation_timestamp if service else None
        return (created.isoformat() if created else "", key)

    async def _forget(self, left: _Leftovers) -> None:
        if left.affinity:
            await self._rules.forget_affinity(left.affinity)
            self._second_look |= left.affinity
            asyncio.get_running_loop().call_later(_SECOND_LOOK_SECONDS, self._wake.set)
        if left.flows:
            try:
                await asyncio.to_thread(conntrack.forget, left.flows)
            except OSError as error:
                log.warning("%s", explain_os_error(error, "forgetting UDP flows"))

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
            self._mark(key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is None or node.metadata.name != self._config.node_name:
            return
        zone = new.metadata.labels.get(ZONE_LABEL, "") if new else ""
        if zone != self._facts.zone:
            self._facts = LocalFacts(self._config.node_name, zone, self._config.exempt)
            for service in self._services:
                self._mark(key_of(service))

    def _mark(self, key: Key) -> None:
        self._dirty[key] = None
        self._wake.set()


def leftovers(changes: Changes, wanted: Packed) -> _Leftovers:
    """Which UDP flows and which remembered clients still lead to endpoints that are gone."""
    left = _Leftovers()
    for name, entries in changes.items():
        if "endpoints-" in name:
            _leave(left, name, entries, changes, wanted)
    for name in ("services", "ports"):
        for key, (old, new) in changes.get(name, {}).items():
            *address, protocol, port = unpack_key(name, key)
            if old is None and new is not None and protocol == "udp":
                left.flows.add(StaleFlow(str(address[0]) if address else "", int(port), None))
    return left


def _leave(
    left: _Leftovers,
    name: str,
    entries: dict[bytes, tuple[bytes | None, bytes | None]],
    changes: Changes,
    wanted: Packed,
) -> None:
    protocol = MAPS[name].protocol
    front, sticky = (
        ("ports", "sticky-ports") if name.startswith("port-") else ("services", "sticky")
    )
    # Frontend -> its backends before and after, as far as they changed.
    before: dict[Frontend, set[bytes]] = {}
    after: dict[Frontend, set[bytes]] = {}
    for key, (old, new) in entries.items():
        *where, port, _ = unpack_key(name, key)
        frontend = (*where, protocol, port)
        if old is not None:
            before.setdefault(frontend, set()).add(old)
        if new is not None:
            after.setdefault(frontend, set()).add(new)
    for frontend, olds in before.items():
        packed = pack_key(front, frontend)
        is_sticky = packed in wanted.get(sticky, {}) or packed in changes.get(sticky, {})
        *address, _, port = frontend
        for backend in olds - after.get(frontend, set()):
            if is_sticky:
                left.affinity.add((packed, backend))
            if protocol == "udp":
                flow_address = str(address[0]) if address else ""
                left.flows.add(StaleFlow(flow_address, int(port), unpack_backend(backend)))


def service_proxy(
    caches: Caches, config: ProxyConfig
) -> contextlib.AbstractAsyncContextManager[ServiceProxy]:
    """A running proxy: entered when every Service is in the kernel.

    Leaving keeps the rules, so that connections survive a restart; `remove_rules` takes them away.
    """
    return service_proxy_over(caches.of(Service), caches.of(EndpointSlice), caches.of(Node), config)


@contextlib.asynccontextmanager
async def service_proxy_over(
    services: Cache[Service],
    slices: Cache[EndpointSlice],
    nodes: Cache[Node],
    config: ProxyConfig,
) -> AsyncIterator[ServiceProxy]:
    """The same over caches that somebody else fills."""
    rules = NftablesRules(config.rules)
    try:
        await rules.prepare()
        proxy = ServiceProxy(services, slices, nodes, config, rules=rules)
        with _notices(proxy, config.rules.table, rules.port):
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(proxy.run(), name="service proxy"),
                    tasks.create_task(run_health_checks(proxy.health), name="health checks"),
                ]
                await proxy.ready.wait()
                try:
                    yield proxy
                finally:
                    for task in running:
                        task.cancel()
    finally:
        rules.close()


async def run_proxy(caches: Caches, config: ProxyConfig) -> None:
    """Serve until cancelled."""
    async with service_proxy(caches, config):
        await asyncio.get_running_loop().create_future()


@contextlib.contextmanager
def _notices(proxy: ServiceProxy, table: str, ours: int) -> Iterator[None]:
    """Tell the proxy when the kernel reports a change to its table by somebody else."""
    if not ours:
        # Changed by nft, our own changes look like anybody's.
        yield
        return
    loop = asyncio.get_running_loop()
    try:
        listener = netlink.listen(nfnetlink.GROUP_NFTABLES)
    except OSError as error:
        log.warning("%s; foreign changes go unseen", explain_os_error(error, "watching nftables"))
        yield
        return

    def heard() -> None:
        for _ in range(64):
            try:
                data = listener.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                # More notices than fit: some may have been about us.
                proxy.disturbed()
                return
            if nfnetlink.touched_by_others(data, table, ours):
                proxy.disturbed()

    loop.add_reader(listener, heard)
    try:
        yield
    finally:
        loop.remove_reader(listener)
        listener.close()
