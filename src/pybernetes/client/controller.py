"""The controller loop, written once: sources put keys into a queue, workers reconcile them.

Rules every controller gets from here: keys cross the queue, never objects or
events; one key is in the hands of one worker; nothing is reconciled before every
source has been filled once; a failure is tried again with back-off, a success says
when to look again.

`reconcile` returns when to look again (None: when something changes) or raises that
something went wrong; never both. It raises `TerminalError` if trying again cannot
help before something changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from pybernetes.aio.workqueue import WorkQueue
from pybernetes.apimachinery.errors import Conflict, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.client.kind import kind_of
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.client.cache import Cache
    from pybernetes.client.kind import AnyKind

log = logging.getLogger(__name__)

T = TypeVar("T")

Reconcile: TypeAlias = Callable[[Key], Awaitable["timedelta | None"]]
AddKey: TypeAlias = Callable[[Key], None]


class TerminalError(Exception):
    """Reconciling failed, and will fail until something changes: do not try again."""


class Source(Protocol):
    """Something that knows which keys need to be looked at."""

    async def feed(self, add: AddKey) -> None:
        """Add every key there is, then each that changes, until cancelled."""
        ...

    async def wait_synced(self) -> None:
        """Wait until the whole present state has been fed."""
        ...


class CacheSource:
    """Keys derived from a cache: for each change, those of the old state and of the new."""

    def __init__(
        self, name: str, cache: Cache[T], keys: Callable[[T | None, T | None], Iterable[Key]]
    ) -> None:
        self._name = name
        self._cache: Cache[Any] = cache
        self._keys: Callable[[Any, Any], Iterable[Key]] = keys

    async def feed(self, add: AddKey) -> None:
        keys = self._keys

        def changed(old: object, new: object) -> None:
            for key in keys(old, new):
                add(key)

        unsubscribe = self._cache.subscribe(changed)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            unsubscribe()

    async def wait_synced(self) -> None:
        await self._cache.wait_synced()

    def __str__(self) -> str:
        return self._name


def keys_of(cache: Cache[Any]) -> CacheSource:
    """The object that changed."""
    key_of = cache.kind.key_of

    def keys(old: Any, new: Any) -> tuple[Key]:
        return (key_of(old if new is None else new),)

    return CacheSource(str(cache.kind), cache, keys)


def owner_keys_of(cache: Cache[Any], owner: AnyKind[Any]) -> CacheSource:
    """The object of kind `owner` that controls what changed; both, if it changed hands."""
    owner_kind = kind_of(owner)
    owner_key_of = cache.kind.owner_key_of

    def keys(old: Any, new: Any) -> list[Key]:
        return _distinct(owner_key_of(old, owner_kind), owner_key_of(new, owner_kind))

    return CacheSource(f"{owner_kind} owning {cache.kind}", cache, keys)


def mapped(cache: Cache[T], keys_for: Callable[[T], Iterable[Key]]) -> CacheSource:
    """Whatever keys an object stands for, in its old state and in its new."""

    def keys(old: T | None, new: T | None) -> list[Key]:
        found = [] if old is None else list(keys_for(old))
        return _distinct(*found, *(() if new is None else keys_for(new)))

    return CacheSource(f"mapped {cache.kind}", cache, keys)


def changes_of(
    cache: Cache[T], keys_for: Callable[[T | None, T | None], Iterable[Key]]
) -> CacheSource:
    """For whoever must compare the old state with the new."""
    return CacheSource(f"changed {cache.kind}", cache, keys_for)


def _distinct(*keys: Key | None) -> list[Key]:
    return [key for key in dict.fromkeys(keys) if key is not None]


async def run_controller(
    name: str, reconcile: Reconcile, sources: Sequence[Source], *, workers: int = 2
) -> None:
    """Reconcile the keys that sources report, until cancelled."""
    queue: WorkQueue[Key] = WorkQueue()
    try:
        async with asyncio.TaskGroup() as tasks:
            for source in sources:
                tasks.create_task(source.feed(queue.add), name=f"{name}/{source}")
            # A half-filled cache looks like deleted children: never act on one.
            for source in sources:
                await source.wait_synced()
            for n in range(workers):
                tasks.create_task(_work(name, reconcile, queue), name=f"{name}/worker-{n}")
    finally:
        queue.close()


async def _work(name: str, reconcile: Reconcile, queue: WorkQueue[Key]) -> None:
    while True:
        async with queue.next() as key:
            try:
                again = await reconcile(key)
            except Conflict:
                # Somebody wrote first; the cache will show it, usually before the retry.
                queue.retry(key)
            except TerminalError as error:
                log.warning("%s: %s: waiting for a change: %s", name, key, error)
                queue.forget(key)
            except (StatusError, WireError, OSError) as error:
                if isinstance(error, StatusError) and error.has_cause("NamespaceTerminating"):
                    # Nothing new may be made there; that it goes will be news for everybody.
                    queue.forget(key)
                    continue
                # The server said no, or is away: its words say all, a stack trace nothing.
                log.warning("%s: %s: will retry: %s", name, key, error or type(error).__name__)
                queue.retry(key)
            except Exception:
                log.exception("%s: %s: reconcile failed, will retry", name, key)
                queue.retry(key)
            else:
                queue.forget(key)
                if again is not None:
                    queue.add_after(key, again)
