"""ResourceQuota: the status of a quota says what its namespace really uses.

Watches quotas and the kinds they limit, each kind from the moment the first quota names it; writes
resourcequotas/status. Admission adds to the figure before an object is stored, so a figure that was
looked up a moment too early would be too low: after a change this waits for the writes that are
under way, and looks again after each.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.aio.workqueue import WorkQueue
from pybernetes.api.core.podstate import is_finished
from pybernetes.api.quota import Usage, added, counts, masked, places_of, usage_of
from pybernetes.api.types.core_v1 import PersistentVolumeClaim, Pod, ResourceQuota, Service
from pybernetes.apimachinery.errors import Conflict, NotFound
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.client.discovery import served_resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from pybernetes.client import Cache
    from pybernetes.controllers.context import ControllerContext

log = logging.getLogger(__name__)

# How long the figure waits after a change of what it counts; a write takes far less.
SETTLING = timedelta(milliseconds=200)

Place = tuple[str, str]


def total(quota: ResourceQuota, objects: Iterable[tuple[Place, Any]], now: datetime) -> Usage:
    """What is used of a quota, for everything it limits."""
    used: Usage = dict.fromkeys(quota.spec.hard, "0")
    for (group, plural), obj in objects:
        if counts(quota, obj, group, plural):
            used = added(used, masked(usage_of(obj, group, plural, now), quota.spec.hard))
    return used


class ResourceQuotaController:
    name = "resourcequota-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._caches, self._clock = context.caches, context.clock
        self._quotas = context.caches.of(ResourceQuota)
        self._queue: WorkQueue[Key] = WorkQueue()
        # What is followed because a quota limits it, by group and plural; with what ends that.
        self._followed: dict[Place, tuple[Cache[Any], Callable[[], None]]] = {}

    async def run(self) -> None:
        await self._quotas.wait_synced()
        end = self._quotas.subscribe(self._quota_changed)
        try:
            while True:
                async with self._queue.next() as key:
                    await self._work(key)
        finally:
            end()
            for _, end_one in self._followed.values():
                end_one()
            self._followed.clear()
            self._queue.close()

    async def _work(self, key: Key) -> None:
        try:
            await self.reconcile(key)
        except (Conflict, NotFound):
            self._queue.retry(key)
        except Exception:
            log.exception("quota failed, will retry", extra={"key": str(key)})
            self._queue.retry(key)
        else:
            self._queue.forget(key)

    async def reconcile(self, key: Key) -> None:
        quota = self._quotas.get(key)
        if quota is None:
            return
        places = places_of(quota.spec.hard)
        await self._follow(places)
        objects = (
            (place, obj)
            for place in places
            if place in self._followed
            for obj in self._followed[place][0].list(key.namespace)
        )
        used = total(quota, objects, self._clock.now())
        status = replace(quota.status, hard=quota.spec.hard, used=used)
        if status != quota.status:
            await self._client.update_status(replace(quota, status=status))

    # -- what is counted

    async def _follow(self, places: set[Place]) -> None:
        """Return when everything a quota limits is known. What is not served uses nothing."""
        unknown = places - self._followed.keys()
        if not unknown:
            return
        for resource in await served_resources(self._client):
            kind = resource.kind
            place = (kind.group, kind.plural)
            if place not in unknown or place in self._followed:
                continue
            cache = self._cache_of(kind)
            await cache.wait_synced()
            self._followed[place] = cache, cache.subscribe(self._follower(place))

    def _cache_of(self, kind: Any) -> Cache[Any]:
        """Typed where the content counts; else the metadata is enough, in any form there is."""
        typed = {"pods": Pod, "services": Service, "persistentvolumeclaims": PersistentVolumeClaim}
        if not kind.group and kind.plural in typed:
            return self._caches.of(typed[kind.plural])
        # An empty cache is false, and a cache all the same.
        known = self._caches.known(kind.group, kind.plural)
        return self._caches.of(kind) if known is None else known

    def _follower(self, place: Place) -> Callable[[Any, Any], None]:
        is_pods = place == ("", "pods")

        def changed(old: Any, new: Any) -> None:
            # Most changes of a pod are of its status and count for nothing.
            if is_pods and old is not None and new is not None and not _counts_anew(old, new):
                return
            namespace = (old if new is None else new).metadata.namespace
            for quota in self._quotas.list(namespace):
                self._queue.add_after(key_of(quota), SETTLING)

        return changed

    def _quota_changed(self, old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        # Its status changes with every object admission counts: that is no news.
        if new is not None and (old is None or old.spec != new.spec):
            self._queue.add(key_of(new))


def _counts_anew(old: Pod, new: Pod) -> bool:
    return is_finished(old) != is_finished(new) or old.spec != new.spec
