"""The garbage collector's loop: follows the metadata of every kind, acts on one uid at a time.

One watch per kind that can be deleted, of metadata only; kinds that the process caches anyway are
shared. Work is keyed by uid, never by name: an object made anew under an old name is another one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from pybernetes.aio.workqueue import WorkQueue
from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet
from pybernetes.api.types.core_v1 import Namespace, Node, Pod, Service
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.client import PatchType, kind_of, metadata_kind
from pybernetes.client.discovery import served_resources
from pybernetes.controllers.garbagecollector.graph import FOREGROUND, ORPHAN, Graph, Identity
from pybernetes.controllers.garbagecollector.plan import Action, OwnerState, plan_collection

if TYPE_CHECKING:
    from pybernetes.client import Cache, Kind
    from pybernetes.client.discovery import ServedResource
    from pybernetes.controllers.context import ControllerContext
    from pybernetes.controllers.garbagecollector.graph import GraphNode

log = logging.getLogger(__name__)

WORKERS = 4
# Kinds that other controllers cache whole; a second cache of their metadata would be a waste.
SHARED = (Pod, ReplicaSet, Deployment, Service, EndpointSlice, Node, Namespace)
# Events are owned by nobody, and there are many.
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
NEEDED_VERBS = frozenset({"delete", "list", "watch"})


class GarbageCollector:
    name = "generic-garbage-collector"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._caches = context.caches
        self.graph = Graph()
        self._queue: WorkQueue[str] = WorkQueue()
        # By group and kind, what is served: how an owner is asked for.
        self._kinds: dict[tuple[str, str], Kind[Any]] = {}

    async def run(self) -> None:
        """Collect until cancelled."""
        resources = [r for r in await served_resources(self._client) if is_collected(r)]
        unsubscribe = []
        for resource in resources:
            cache = self._cache_of(resource)
            self._kinds[(resource.kind.group, resource.kind.kind)] = cache.kind
            await cache.wait_synced()
            unsubscribe.append(cache.subscribe(self._follow(cache)))
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(WORKERS):
                    tasks.create_task(self._work(), name=f"{self.name}/worker-{number}")
        finally:
            for end in unsubscribe:
                end()
            self._queue.close()

    def _cache_of(self, resource: ServedResource) -> Cache[Any]:
        for shared in SHARED:
            kind = kind_of(shared)
            if (kind.group, kind.plural) == (resource.kind.group, resource.kind.plural):
                return self._caches.of(shared)
        return self._caches.of(resource.kind)

    def _follow(self, cache: Cache[Any]) -> Any:
        kind = cache.kind

        def changed(old: Any, new: Any) -> None:
            if new is None:
                affected = self.graph.lost(kind.metadata_of(old).uid)
            else:
                metadata = kind.metadata_of(new)
                affected = self.graph.saw(identity_of(kind, metadata), metadata)
            for uid in affected:
                self._queue.add(uid)

        return changed

    async def _work(self) -> None:
        while True:
            async with self._queue.next() as uid:
                try:
                    await self._collect(uid)
                except (Conflict, NotFound):
                    # The watch shows what changed, and brings it back if there is still a need.
                    self._queue.retry(uid)
                except StatusError as error:
                    log.warning("%s: %s: will retry: %s", self.name, uid, error)
                    self._queue.retry(uid)
                except Exception:
                    log.exception("%s: %s: failed, will retry", self.name, uid)
                    self._queue.retry(uid)
                else:
                    self._queue.forget(uid)

    async def _collect(self, uid: str) -> None:
        node = self.graph.get(uid)
        if node is None:
            return
        if node.is_virtual:
            await self._verify(node)
            return
        if node.deletes_dependents:
            await self._delete_dependents(node)
        elif node.orphans_dependents:
            await self._orphan_dependents(node)
        if node.owners:
            await self._judge(node)

    async def _verify(self, node: GraphNode) -> None:
        """An owner nobody has seen: ask for it; absent ones leave their dependents ownerless."""
        if not await self._exists(node.identity):
            for dependent in list(node.dependents):
                self._queue.add(dependent)

    async def _judge(self, node: GraphNode) -> None:
        states = [(owner.uid, await self._state_of(owner.uid)) for owner in node.owners]
        plan = plan_collection(node, states, has_dependents=bool(node.dependents))
        if plan.action is Action.DROP_REFERENCES:
            await self._drop_references(node, plan.owners)
        elif plan.action is Action.DELETE:
            identity = node.identity
            await self._client.delete(
                self._kind_of(identity),
                identity.name,
                identity.namespace,
                uid=identity.uid,
                propagation=plan.propagation,
            )

    async def _state_of(self, uid: str) -> OwnerState:
        owner = self.graph.get(uid)
        if owner is None or owner.is_virtual:
            there = owner is not None and await self._exists(owner.identity)
            return OwnerState.SOLID if there else OwnerState.ABSENT
        return OwnerState.WAITING if owner.deletes_dependents else OwnerState.SOLID

    async def _exists(self, identity: Identity) -> bool:
        """Asked from the API itself; a kind that is not served has no objects."""
        kind = self._kind_of(identity)
        namespace = identity.namespace if kind.namespaced else ""
        if kind.namespaced and not namespace:
            # A cluster-scoped object cannot be owned by a namespaced one (API convention).
            return False
        found = await self._client.get_or_none(kind, identity.name, namespace)
        return found is not None and kind.metadata_of(found).uid == identity.uid

    async def _delete_dependents(self, node: GraphNode) -> None:
        """Foreground: dependents first; the object goes with the last that blocks it."""
        if not self.graph.blocking_dependents(node):
            await self._remove_finalizer(node, FOREGROUND)
            return
        for dependent in self.graph.dependents(node):
            if not dependent.deletes_dependents:
                self._queue.add(dependent.identity.uid)

    async def _orphan_dependents(self, node: GraphNode) -> None:
        for dependent in self.graph.dependents(node):
            try:
                await self._drop_references(dependent, (node.identity.uid,))
            except NotFound:
                continue
        await self._remove_finalizer(node, ORPHAN)

    async def _drop_references(self, node: GraphNode, owners: tuple[str, ...]) -> None:
        """With the uid in the patch: an object made anew meanwhile is refused, not changed."""
        identity = node.identity
        kept = [owner for owner in node.owners if owner.uid not in owners]
        await self._client.patch(
            self._kind_of(identity),
            identity.name,
            identity.namespace,
            patch={"metadata": {"uid": identity.uid, "ownerReferences": kept or None}},
            type=PatchType.MERGE,
        )

    async def _remove_finalizer(self, node: GraphNode, finalizer: str) -> None:
        identity = node.identity
        kept = [name for name in node.finalizers if name != finalizer]
        await self._client.patch(
            self._kind_of(identity),
            identity.name,
            identity.namespace,
            patch={"metadata": {"uid": identity.uid, "finalizers": kept or None}},
            type=PatchType.MERGE,
        )

    def _kind_of(self, identity: Identity) -> Kind[Any]:
        group = identity.api_version.rpartition("/")[0]
        known = self._kinds.get((group, identity.kind))
        if known is not None:
            return known
        version = identity.api_version.rpartition("/")[2]
        # Not served as far as we know: asking by the usual plural gives 404, which is the answer.
        return metadata_kind(group, version, f"{identity.kind.lower()}s", kind=identity.kind)


def is_collected(resource: ServedResource) -> bool:
    place = (resource.kind.group, resource.kind.plural)
    return resource.verbs >= NEEDED_VERBS and place not in IGNORED


def identity_of(kind: Kind[Any], metadata: Any) -> Identity:
    version = f"{kind.group}/{kind.version}" if kind.group else kind.version
    return Identity(version, kind.kind, metadata.namespace, metadata.name, metadata.uid)
