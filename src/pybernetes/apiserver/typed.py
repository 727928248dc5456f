"""Typed objects out of the watch caches, for what decides inside the server.

Access control and admission look at a few small kinds again and again: namespaces, service
accounts, roles, classes. A `Typed` decodes an entry when it is first asked for and keeps the
object as long as the entry is the present one. A kind that is not served has no objects.

Rule: what is returned is frozen and shared; it is the present, as of the last acknowledged write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pybernetes.api.types._index import info_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pybernetes.apiserver.catalog import Catalog, Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.watchcache import Event, WatchCache

T = TypeVar("T")

# Decoded objects kept; beyond it all are forgotten and decoded anew when asked for.
KEPT = 4096
# For kinds of which there are many and none is asked for twice: a typed pod has 14 KB.
HARDLY_ANY = 64


class Typed(Generic[T]):
    """The objects of one kind; of those decoded at most `keep` stay in memory."""

    def __init__(self, catalog: Catalog, kind: type[T], *, keep: int = KEPT) -> None:
        info = info_of(kind)
        self.served: Served | None = catalog.find(info.group, info.version, info.plural)
        self.cache: WatchCache | None = None
        self._keep = keep
        if self.served is not None and self.served.is_stored:
            self.cache = self.served.cache
        # By cache key, with the entry it was decoded from.
        self._decoded: dict[str, tuple[Entry, T]] = {}

    def get(self, name: str, namespace: str = "") -> T | None:
        return self.at(f"{namespace}/{name}" if namespace else name)

    def at(self, key: str) -> T | None:
        """By the key of the cache: `namespace/name`, or `name`."""
        entry = None if self.cache is None else self.cache.entries.get(key)
        if entry is None:
            self._decoded.pop(key, None)
            return None
        return self._of(entry)

    def entry(self, name: str, namespace: str = "") -> Entry | None:
        if self.cache is None:
            return None
        return self.cache.entries.get(f"{namespace}/{name}" if namespace else name)

    def list(self, namespace: str = "") -> Iterator[T]:
        """All objects, or those of a namespace, in the order of their keys."""
        if self.cache is not None:
            for entry in tuple(self.cache.select(namespace)):
                yield self._of(entry)

    def entries(self) -> Iterator[Entry]:
        """All entries as bytes, for whoever needs to decode only some."""
        if self.cache is not None:
            yield from tuple(self.cache.entries.values())

    def follow(self, callback: Callable[[Event], None]) -> None:
        """Tell of every change from now on; see `WatchCache.listeners`."""
        if self.cache is not None:
            self.cache.listeners.append(callback)

    def decode(self, entry: Entry) -> T:
        """Any entry of the kind, a past one too."""
        assert self.served is not None
        obj: Any = self.served.decode(entry)
        decoded: T = obj
        return decoded

    def _of(self, entry: Entry) -> T:
        known = self._decoded.get(entry.key)
        if known is not None and known[0] is entry:
            return known[1]
        obj = self.decode(entry)
        if len(self._decoded) >= self._keep:
            self._decoded.clear()
        self._decoded[entry.key] = (entry, obj)
        return obj
