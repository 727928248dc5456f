"""The garbage collector's loop: follows the metadata of every kind, acts on one uid at a time.

One watch per kind that can be deleted, of metadata only; kinds that the process caches anyway are
shared. Work is keyed by uid, never by name: an object made anew under an old name is another one.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pybernetes.aio.workqueue import WorkQueue
from pybernetes.api.types.core_v1 import ObjectReference
from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.client import WARNING, PatchType
from pybernetes.client.discovery import served_resources
from pybernetes.controllers.garbagecollector.graph import FOREGROUND, ORPHAN, Graph, Identity
from pybernetes.controllers.garbagecollector.plan import Action, OwnerState, plan_collection
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.api.types.meta_v1 import OwnerReference
    from pybernetes.client import Cache, Kind
    from pybernetes.client.discovery import ServedResource
    from pybernetes.controllers.context import ControllerContext
    from pybernetes.controllers.garbagecollector.graph import GraphNode

log = logging.getLogger(__name__)

WORKERS = 4
# Events are owned by nobody, and there are many.
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
NEEDED_VERBS = frozenset({"delete", "list", "watch"})
# The server is asked anew what it serves at most this often, when somebody names an unknown kind.
DISCOVERY_PAUSE_SECONDS = 5.0
# Objects of these kinds say that other kinds are served from now on, or no more.
ANNOUNCING = frozenset(
    {
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "apiservices"),
    }
)
# The queue's key for asking what is served; never the uid of an object.
DISCOVERY = ""
DISCOVERY_DELAY = timedelta(seconds=1)


class UnresolvedOwnerError(Exception):
    """An owner cannot even be asked for: nothing may be concluded from that."""


class GarbageCollector:
    name = "generic-garbage-collector"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._recorder = context.recorder_for("garbage-collector-controller")
        self._caches, self._clock = context.caches, context.clock
        self.graph = Graph()
        self._queue: WorkQueue[str] = WorkQueue()
        # By group and kind, what is served: how an owner is asked for.
        self._kinds: dict[tuple[str, str], Kind[Any]] = {}
        # What we follow, and what ends that, by group and plural.
        self._followed: dict[tuple[str, str], tuple[Cache[Any], Callable[[], None]]] = {}
        self._discovered_at = float("-inf")

    async def run(self) -> None:
        """Collect until cancelled."""
        try:
            await self._discover()
            async with asyncio.TaskGroup() as tasks:
                for number in range(WORKERS):
                    tasks.create_task(self._work(), name=f"{self.name}/worker-{number}")
        finally:
            for _, end in self._followed.values():
                end()
            self._followed.clear()
            self._queue.close()

    async def _discover(self) -> None:
        """Follow everything that is served by now; returns when all of it is known."""
        self._discovered_at = self._clock.monotonic()
        kinds = [r.kind for r in await served_resources(self._client) if is_collected(r)]
        self._kinds = {(kind.group, kind.kind): kind for kind in kinds}
        wanted = {place_of(kind): self._cache_of(kind) for kind in kinds}
        for place in self._followed.keys() - wanted.keys():
            cache, end = self._followed.pop(place)
            end()
            if cache.kind.form == "metadata":
                await self._caches.drop(cache)
        for place, cache in wanted.items():
            await cache.wait_synced()
            if place not in self._followed:
                self._followed[place] = cache, cache.subscribe(self._follower(cache))

    def _cache_of(self, kind: Kind[Any]) -> Cache[Any]:
        """What others cache whole is not cached a second time for its metadata."""
        known = self._followed.get(place_of(kind))
        if known is not None:
            return known[0]
        shared = self._caches.known(*place_of(kind))
        # An empty cache is false, and a cache all the same.
        return self._caches.of(kind) if shared is None else shared

    def _follower(self, cache: Cache[Any]) -> Callable[[Any, Any], None]:
        kind = cache.kind

        def changed(old: Any, new: Any) -> None:
            if new is None:
                affected = self.graph.lost(kind.metadata_of(old).uid)
            else:
                metadata = kind.metadata_of(new)
                affected = self.graph.saw(identity_of(kind, metadata), metadata)
            for uid in affected:
                self._queue.add(uid)
            if place_of(kind) in ANNOUNCING:
                self._queue.add_after(DISCOVERY, DISCOVERY_DELAY)

        return changed

    async def _work(self) -> None:
        while True:
            async with self._queue.next() as uid:
                try:
                    if uid == DISCOVERY:
                        await self._discover()
                    else:
                        await self._collect(uid)
                except (Conflict, NotFound):
                    # The watch shows what changed, and brings it back if there is still a need.
                    self._queue.retry(uid)
                except UnresolvedOwnerError as error:
                    # It stays; somebody may begin to serve the kind.
                    log.info("%s: %s: %s", self.name, uid, error)
                    self._queue.retry(uid)
                except (StatusError, WireError, OSError) as error:
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
        """An owner not in the graph: look for it; absent ones leave their dependents ownerless."""
        if not self._recall(node.identity) and not await self._exists(node.identity):
            for dependent in list(node.dependents):
                self._queue.add(dependent)

    def _recall(self, identity: Identity) -> bool:
        """Take an object into the graph that was seen and not kept, because it stood alone.

        From the cache and without waiting, so that it cannot be gone by the time it is taken in.
        """
        kind = self._kinds.get((identity.api_version.rpartition("/")[0], identity.kind))
        followed = None if kind is None else self._followed.get(place_of(kind))
        if kind is None or followed is None:
            return False
        cache = followed[0]
        namespace = identity.namespace if kind.namespaced else ""
        found = cache.get(Key(namespace, identity.name))
        if found is None or (metadata := cache.kind.metadata_of(found)).uid != identity.uid:
            return False
        for affected in self.graph.saw(identity_of(kind, metadata), metadata):
            self._queue.add(affected)
        return True

    async def _judge(self, node: GraphNode) -> None:
        states = [(owner.uid, await self._state_of(node, owner)) for owner in node.owners]
        plan = plan_collection(node, states, has_dependents=bool(node.dependents))
        if plan.action is Action.DROP_REFERENCES:
            await self._drop_references(node, plan.owners)
        elif plan.action is Action.DELETE:
            identity = node.identity
            await self._client.delete(
                await self._kind_of(identity),
                identity.name,
                identity.namespace,
                uid=identity.uid,
                propagation=plan.propagation,
            )

    async def _state_of(self, node: GraphNode, reference: OwnerReference) -> OwnerState:
        """What a reference means is what a client would find that asks for it.

        So an object of that uid in another namespace is not the owner: owners live in the
        namespace of what they own, or in none.
        """
        meant = identity_meant(node, reference)
        owner = self.graph.get(reference.uid)
        if owner is not None and owner.is_virtual and self._recall(meant):
            owner = self.graph.get(reference.uid)
        if owner is not None and not owner.is_virtual:
            if owner.identity.namespace not in ("", node.identity.namespace):
                self._complain(node, reference)
                return OwnerState.ABSENT
            return OwnerState.WAITING if owner.deletes_dependents else OwnerState.SOLID
        return OwnerState.SOLID if await self._exists(meant) else OwnerState.ABSENT

    def _complain(self, node: GraphNode, reference: OwnerReference) -> None:
        identity = node.identity
        said = (
            f"ownerRef [{reference.api_version}/{reference.kind}, namespace: "
            f"{identity.namespace}, name: {reference.name}, uid: {reference.uid}] does not exist "
            f'in namespace "{identity.namespace}"'
        )
        about = ObjectReference(
            kind=identity.kind,
            api_version=identity.api_version,
            namespace=identity.namespace,
            name=identity.name,
            uid=identity.uid,
        )
        self._recorder.record(about, WARNING, "OwnerRefInvalidNamespace", said)

    async def _exists(self, identity: Identity) -> bool:
        """Asked from the API itself. Raises UnresolvedOwnerError if that is impossible."""
        kind = await self._kind_of(identity)
        if kind.namespaced and not identity.namespace:
            # A cluster-scoped object cannot be owned by a namespaced one (API convention); what
            # somebody meant by it is unknown, so that it is left alone, as upstream.
            raise UnresolvedOwnerError(f"no namespace is known for its owner {identity.name}")
        namespace = identity.namespace if kind.namespaced else ""
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
            await self._kind_of(identity),
            identity.name,
            identity.namespace,
            patch={"metadata": {"uid": identity.uid, "ownerReferences": kept or None}},
            type=PatchType.MERGE,
        )

    async def _remove_finalizer(self, node: GraphNode, finalizer: str) -> None:
        identity = node.identity
        kept = [name for name in node.finalizers if name != finalizer]
        await self._client.patch(
            await self._kind_of(identity),
            identity.name,
            identity.namespace,
            patch={"metadata": {"uid": identity.uid, "finalizers": kept or None}},
            type=PatchType.MERGE,
        )

    async def _kind_of(self, identity: Identity) -> Kind[Any]:
        place = (identity.api_version.rpartition("/")[0], identity.kind)
        pause = self._clock.monotonic() - self._discovered_at
        if place not in self._kinds and pause >= DISCOVERY_PAUSE_SECONDS:
            await self._discover()
        try:
            return self._kinds[place]
        except KeyError:
            # Absent is only what was asked for and not found.
            raise UnresolvedOwnerError(
                f"the server has no {identity.kind} in {identity.api_version}"
            ) from None


def identity_meant(node: GraphNode, reference: OwnerReference) -> Identity:
    return Identity(
        reference.api_version,
        reference.kind,
        node.identity.namespace,
        reference.name,
        reference.uid,
    )


def is_collected(resource: ServedResource) -> bool:
    return resource.verbs >= NEEDED_VERBS and place_of(resource.kind) not in IGNORED


def place_of(kind: Kind[Any]) -> tuple[str, str]:
    return kind.group, kind.plural


def identity_of(kind: Kind[Any], metadata: Any) -> Identity:
    version = f"{kind.group}/{kind.version}" if kind.group else kind.version
    return Identity(version, kind.kind, metadata.namespace, metadata.name, metadata.uid)
