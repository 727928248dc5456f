"""A kind's objects as this process knows them: a snapshot, followed by every later change.

Reading never waits. Whoever subscribes first hears of everything that is there and
then of every change, synchronously and in order, with no gap and nothing twice.

Rules: objects are shared by everybody and never changed. Only the reflector writes.
When subscribers are called the cache already shows the new state; after a new list
it shows the whole new state before the first of them is called.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from pybernetes.apimachinery.meta import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.meta_v1 import ObjectMeta
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.client.kind import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

# A plain list; inside the class that word is a method.
Objects: TypeAlias = list[T]

NAMESPACE_INDEX = "namespace"
OWNER_INDEX = "owner uid"

# Called with (None, new) for what appeared, (old, new) for what changed, (old, None)
# for what is gone.
Subscriber = Callable[["T | None", "T | None"], None]


class HasMetadata(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    objects: int
    # Changes that subscribers were told of.
    changes: int
    # How often everything was listed anew; the first time counts.
    replacements: int
    subscribers: int


class Cache(Generic[T]):
    """The objects of one kind, as far as the watch behind it selects them."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind = kind
        self._metadata_of = kind.metadata_of
        # Everything there is, oldest acquaintance first.
        self._objects: dict[Key, T] = {}
        # Only those that somebody has asked for; each covers all of `_objects`.
        self._indexes: dict[str, _Index[T]] = {}
        # Replaced, never changed, so that subscribers may come and go while it is walked.
        self._subscribers: tuple[Subscriber[T], ...] = ()
        # Set by the first `replace`, and never cleared: an old state is still a state.
        self._synced = asyncio.Event()
        self._changes = self._replacements = 0

    # Reading

    def get(self, key: Key) -> T | None:
        return self._objects.get(key)

    def list(self, namespace: str | None = None, selector: Selector | None = None) -> Objects[T]:
        """Everything, or what is in that namespace, or what also has such labels."""
        if namespace is None:
            objects: Iterable[T] = self._objects.values()
        else:
            objects = self._bucket(NAMESPACE_INDEX, namespace).values()
        if selector is None or selector.empty:
            return list(objects)
        metadata_of, matches = self._metadata_of, selector.matches
        return [obj for obj in objects if matches(metadata_of(obj).labels)]

    def owned_by(self, owner: HasMetadata) -> Objects[T]:
        """What the owner controls (its `controller` reference names the owner's uid)."""
        uid = owner.metadata.uid
        return [obj for obj in self.dependents_of(uid) if self._controller_uid(obj) == uid]

    def dependents_of(self, uid: str) -> Objects[T]:
        """What names that uid in any owner reference."""
        return list(self._bucket(OWNER_INDEX, uid).values())

    def index(self, name: str, values_of: Callable[[T], Iterable[str]]) -> None:
        """Have `by_index(name, value)` find the objects for which `values_of` gives that value.

        Asking again for a name that exists changes nothing: it must mean the same.
        """
        if name not in self._indexes:
            self._indexes[name] = index = _Index(values_of)
            for key, obj in self._objects.items():
                index.change(key, None, obj)

    def by_index(self, name: str, value: str) -> Objects[T]:
        return list(self._bucket(name, value).values())

    def index_values(self, name: str) -> Objects[str]:
        """Every value some object has in that index."""
        return list(self._index(name).buckets)

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def keys(self) -> Objects[Key]:
        return list(self._objects)

    # Following

    @property
    def synced(self) -> bool:
        """Has it been filled once? Before that, what is missing may only not be here yet."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def subscribe(self, callback: Subscriber[T]) -> Callable[[], None]:
        """Call back now for everything that is there, then for every change.

        Gives the function that ends it. A callback must not wait and should not fail;
        if it does, that is logged and the others are called all the same.
        """
        for obj in list(self._objects.values()):
            callback(None, obj)
        self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            # Methods compare equal by object; the first equal one is as good as ours.
            kept = list(self._subscribers)
            if callback in kept:
                kept.remove(callback)
            self._subscribers = tuple(kept)

        return unsubscribe

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(
            objects=len(self._objects),
            changes=self._changes,
            replacements=self._replacements,
            subscribers=len(self._subscribers),
        )

    # Writing: the reflector only

    def put(self, obj: T) -> None:
        """An object was added or modified. A version that is here already is no news."""
        metadata = self._metadata_of(obj)
        key = Key(metadata.namespace, metadata.name)
        old = self._objects.get(key)
        if old is not None:
            known = self._metadata_of(old)
            if known.uid != metadata.uid:
                # Deleted and made anew, and nobody told us of the deletion.
                self.remove(key)
                old = None
            elif known.resource_version == metadata.resource_version:
                return
        self._objects[key] = obj
        for index in self._indexes.values():
            index.change(key, old, obj)
        self._tell(old, obj)

    def remove(self, key: Key) -> None:
        """An object is gone. What is not here went before."""
        old = self._objects.pop(key, None)
        if old is None:
            return
        for index in self._indexes.values():
            index.change(key, old, None)
        self._tell(old, None)

    def replace(self, objects: Iterable[T]) -> None:
        """This is all there is now. Subscribers hear the difference: first what is gone.

        An object that was deleted and made anew meanwhile is gone first, and then new.
        """
        metadata_of, before = self._metadata_of, self._objects
        after: dict[Key, T] = {}
        for obj in objects:
            metadata = metadata_of(obj)
            after[Key(metadata.namespace, metadata.name)] = obj
        gone = [old for key, old in before.items() if key not in after]
        changed: list[tuple[T | None, T]] = []
        for key, obj in after.items():
            metadata, old = metadata_of(obj), before.get(key)
            if old is not None:
                known = metadata_of(old)
                if known.uid != metadata.uid:
                    gone.append(old)
                    old = None
                elif known.resource_version == metadata.resource_version:
                    # Keep the one that others may hold already.
                    after[key] = old
                    continue
            changed.append((old, obj))
        self._objects = after
        for index in self._indexes.values():
            index.rebuild(after)
        self._replacements += 1
        self._synced.set()
        for old in gone:
            self._tell(old, None)
        for old_or_none, obj in changed:
            self._tell(old_or_none, obj)

    def check_invariants(self) -> None:
        for key, obj in self._objects.items():
            metadata = self._metadata_of(obj)
            assert key == (metadata.namespace, metadata.name), f"{key} holds another object"
        for name, index in self._indexes.items():
            fresh = _Index(index.values_of)
            fresh.rebuild(self._objects)
            assert index.buckets == fresh.buckets, f"index {name!r} is wrong"

    def _tell(self, old: T | None, new: T | None) -> None:
        self._changes += 1
        for callback in self._subscribers:
            try:
                callback(old, new)
            except Exception:
                log.exception("a subscriber of %s failed", self.kind)

    def _bucket(self, name: str, value: str) -> Mapping[Key, T]:
        return self._index(name).buckets.get(value) or {}

    def _index(self, name: str) -> _Index[T]:
        # The two that everybody may use are made when first used.
        if name not in self._indexes:
            if name == NAMESPACE_INDEX:
                self.index(name, lambda obj: (self._metadata_of(obj).namespace,))
            elif name == OWNER_INDEX:
                self.index(name, self._owner_uids)
        return self._indexes[name]

    def _owner_uids(self, obj: T) -> tuple[str, ...]:
        owners = self._metadata_of(obj).owner_references
        return tuple([owner.uid for owner in owners]) if owners else ()

    def _controller_uid(self, obj: T) -> str:
        for owner in self._metadata_of(obj).owner_references:
            if owner.controller:
                return owner.uid
        return ""


class _Index(Generic[T]):
    """Objects by value. Every bucket holds at least one object."""

    __slots__ = ("buckets", "values_of")

    def __init__(self, values_of: Callable[[T], Iterable[str]]) -> None:
        self.values_of = values_of
        # For each value, the objects that have it.
        self.buckets: dict[str, dict[Key, T]] = {}

    def change(self, key: Key, old: T | None, new: T | None) -> None:
        buckets = self.buckets
        values = () if new is None else tuple(self.values_of(new))
        if old is not None:
            for value in self.values_of(old):
                if value not in values:
                    bucket = buckets[value]
                    bucket.pop(key, None)
                    if not bucket:
                        del buckets[value]
        if new is not None:
            for value in values:
                bucket_of_value = buckets.get(value)
                if bucket_of_value is None:
                    bucket_of_value = buckets[value] = {}
                bucket_of_value[key] = new

    def rebuild(self, objects: Mapping[Key, T]) -> None:
        self.buckets = {}
        for key, obj in objects.items():
            self.change(key, None, obj)
