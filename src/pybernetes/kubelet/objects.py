"""The ConfigMaps and Secrets that the pods of this node use, each followed by a watch of its own.

A kubelet may read only what its pods refer to (the node authorizer sees to that), so there is no
watch over a whole namespace. An object is followed from the first pod that needs it to the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from pybernetes.api.types.core_v1 import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.apimachinery.meta import Key
    from pybernetes.client import Cache, Caches

T = TypeVar("T")


# For each `Caches`: how many pods hold an object; only held ones have a cache. Kubelets of one process
# may share their caches, and then one must not end what another follows.
_HOLDERS: WeakKeyDictionary[Caches, dict[tuple[type[Any], Key], int]] = WeakKeyDictionary()


class Objects:
    """Objects by kind and key, shared by all pods of the node."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._holders = _HOLDERS.setdefault(caches, {})
        self.services: Cache[Service] = caches.of(Service)

    async def get(self, kind: type[T], key: Key) -> T | None:
        """The newest version, or None if there is none. The object must be held."""
        cache = self._cache(kind, key)
        await cache.wait_synced()
        return cache.get(key)

    def hold(self, kind: type[Any], key: Key) -> None:
        self._holders[kind, key] = self._holders.get((kind, key), 0) + 1
        self._cache(kind, key)

    async def release(self, kind: type[Any], key: Key) -> None:
        left = self._holders.pop((kind, key), 0) - 1
        if left > 0:
            self._holders[kind, key] = left
        elif left == 0:
            await self._caches.drop(self._cache(kind, key))

    def follow(
        self, kind: type[T], key: Key, callback: Callable[[T | None, T | None], None]
    ) -> Callable[[], None]:
        """Call back for every change; gives what ends it."""
        return self._cache(kind, key).subscribe(callback)

    def _cache(self, kind: type[T], key: Key) -> Cache[T]:
        return self._caches.of(
            kind, namespace=key.namespace, field_selector=f"metadata.name={key.name}"
        )
