"""Caches: one watch per kind and selector for the whole process, started when first asked for.

Every component of a process asks the same `Caches`, so a pod is decoded once however
many controllers look at it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of
from pybernetes.client.reflector import Reflector

if TYPE_CHECKING:
    from random import Random

    from pybernetes.client.cache import CacheStatistics
    from pybernetes.client.client import Client
    from pybernetes.client.kind import AnyKind, Kind

T = TypeVar("T")

# Upstream's: how long a watch is asked to last, at least; it may be twice as long.
LIFETIME = timedelta(minutes=5)


class _Selection(NamedTuple):
    kind: Kind[Any]
    namespace: str
    label_selector: str
    field_selector: str


class Caches:
    """The caches of one process, all filled with one identity.

    `lifetime=None` lets watches last for ever, which is right where the server cannot
    vanish without a word: in the same process.
    """

    def __init__(
        self, client: Client, *, random: Random, lifetime: timedelta | None = LIFETIME
    ) -> None:
        self._client = client
        self._random = random
        self._lifetime = lifetime
        # Every cache that was asked for and not dropped, with what keeps it up to date.
        self._caches: dict[_Selection, tuple[Cache[Any], Reflector[Any]]] = {}
        # Set while `run` runs; then every cache has a task in it.
        self._group: asyncio.TaskGroup | None = None
        # The running reflectors.
        self._tasks: dict[_Selection, asyncio.Task[None]] = {}

    def of(
        self,
        kind: AnyKind[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> Cache[T]:
        """The cache of that kind, the same one each time; it is filled while `run` runs."""
        selection = _Selection(kind_of(kind), namespace, label_selector, field_selector)
        if selection not in self._caches:
            cache = Cache(selection.kind)
            reflector = Reflector(
                self._client,
                cache,
                random=self._random,
                lifetime=self._lifetime,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
            )
            self._caches[selection] = (cache, reflector)
            self._start(selection)
        return self._caches[selection][0]

    def known(self, group: str, plural: str) -> Cache[Any] | None:
        """A cache of everything of that resource which somebody asked for already, in any form."""
        for selection, (cache, _) in self._caches.items():
            place = (selection.kind.group, selection.kind.plural)
            if place == (group, plural) and not any(selection[1:]):
                return cache
        return None

    async def drop(self, cache: Cache[Any]) -> None:
        """Stop following a cache nobody needs any more (its custom resource is gone)."""
        for selection, (known, _) in list(self._caches.items()):
            if known is cache:
                del self._caches[selection]
                task = self._tasks.pop(selection, None)
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task])

    async def run(self) -> None:
        """Keep all caches up to date, those asked for later too, until cancelled."""
        if self._group is not None:
            raise RuntimeError("these caches are running already")
        try:
            async with asyncio.TaskGroup() as self._group:
                for selection in self._caches:
                    self._start(selection)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._tasks.clear()

    async def wait_synced(self) -> None:
        """Wait until everything that was asked for so far is filled."""
        for cache, _ in list(self._caches.values()):
            await cache.wait_synced()

    def statistics(self) -> dict[str, CacheStatistics]:
        """By kind and, where there is one, selection."""
        return {
            "/".join([str(selection.kind), *filter(None, selection[1:])]): cache.statistics()
            for selection, (cache, _) in self._caches.items()
        }

    def _start(self, selection: _Selection) -> None:
        if self._group is not None:
            _, reflector = self._caches[selection]
            self._tasks[selection] = self._group.create_task(
                reflector.run(), name=f"cache of {selection.kind}"
            )
