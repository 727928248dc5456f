"""Expectations: what our own writes have done that the cache has not shown yet.

A controller that counts children in a cache must not act twice on the same count.
Before it writes, it expects the effect; until the cache has shown all that was
expected, `met(key)` is false and the controller leaves creating and deleting alone.

Creations are counted (the name is not known before the server made it), deletions
are remembered by uid, because a pod is seen to be terminating *and* to be gone, and
may count only once. Expectations that are not met after five minutes are taken as
met: better to act on a stale count than never again (upstream's rule).

The cache is followed here, so that a controller cannot forget to report what it saw.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pybernetes.client.kind import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pybernetes.apimachinery.meta import Key
    from pybernetes.client.cache import Cache, HasMetadata
    from pybernetes.client.kind import AnyKind

TIMEOUT = timedelta(minutes=5)


@dataclass(slots=True)
class _Expected:
    """What one owner waits for."""

    # Creations carried out or under way, not yet seen.
    creations: int = 0
    # Uids of children being deleted, not yet seen terminating or gone.
    deletions: set[str] = field(default_factory=set)
    # Loop time of the last write that was expected.
    since: float = 0.0

    @property
    def met(self) -> bool:
        return self.creations <= 0 and not self.deletions


class Expectations:
    """Expectations of one controller, by the key of the owner."""

    def __init__(self, *, timeout: timedelta = TIMEOUT) -> None:
        self._timeout_seconds = timeout.total_seconds()
        # Owners that wait for something; those with nothing left are dropped.
        self._expected: dict[Key, _Expected] = {}

    def met(self, key: Key) -> bool:
        """Has the cache shown everything, or has it had time enough?"""
        expected = self._expected.get(key)
        if expected is None:
            return True
        if asyncio.get_running_loop().time() - expected.since > self._timeout_seconds:
            del self._expected[key]
            return True
        return False

    @contextmanager
    def creation(self, key: Key) -> Iterator[None]:
        """Expect one child more; taken back if the block fails.

        The cache may show the child before the block ends; that is counted too.
        """
        self._touch(key).creations += 1
        try:
            yield
        except BaseException:
            self.saw_creation(key)
            raise

    @contextmanager
    def deletion(self, key: Key, child: HasMetadata) -> Iterator[None]:
        """Expect that child to be terminating or gone; taken back if the block fails."""
        uid = child.metadata.uid
        self._touch(key).deletions.add(uid)
        try:
            yield
        except BaseException:
            self.saw_deletion(key, uid)
            raise

    def saw_creation(self, key: Key) -> None:
        expected = self._expected.get(key)
        if expected is not None:
            # Children that others made may be seen first; never wait for less than none.
            expected.creations = max(expected.creations - 1, 0)
            self._drop_if_met(key, expected)

    def saw_deletion(self, key: Key, uid: str) -> None:
        expected = self._expected.get(key)
        if expected is not None:
            expected.deletions.discard(uid)
            self._drop_if_met(key, expected)

    def forget(self, key: Key) -> None:
        """The owner is gone."""
        self._expected.pop(key, None)

    def expires_in(self, key: Key) -> timedelta | None:
        """When to look again at an owner whose expectations are not met, at the latest."""
        expected = self._expected.get(key)
        if expected is None:
            return None
        waited = asyncio.get_running_loop().time() - expected.since
        # A moment more than the limit, or the look would come a moment too early.
        return timedelta(seconds=max(self._timeout_seconds - waited, 0.0) + 0.001)

    def follow(self, children: Cache[Any], owner: AnyKind[Any]) -> Callable[[], None]:
        """Count what that cache shows from now on; gives the function that ends it.

        To be called when the controller is made, before its sources are fed, so that an
        owner whose key is queued by a change finds the change already counted.
        """
        owner_kind = kind_of(owner)
        metadata_of, owner_key_of = children.kind.metadata_of, children.kind.owner_key_of

        def changed(old: Any, new: Any) -> None:
            if not self._expected:
                return
            before, after = owner_key_of(old, owner_kind), owner_key_of(new, owner_kind)
            if after is not None and old is None:
                self.saw_creation(after)
            if before is not None:
                # Gone, on its way out, or no longer ours: all mean one child less.
                metadata = metadata_of(old if new is None else new)
                if before != after or metadata.deletion_timestamp is not None:
                    self.saw_deletion(before, metadata.uid)

        return children.subscribe(changed)

    def statistics(self) -> dict[str, int]:
        return {
            "owners": len(self._expected),
            "creations": sum(expected.creations for expected in self._expected.values()),
            "deletions": sum(len(expected.deletions) for expected in self._expected.values()),
        }

    def _touch(self, key: Key) -> _Expected:
        expected = self._expected.setdefault(key, _Expected())
        expected.since = asyncio.get_running_loop().time()
        return expected

    def _drop_if_met(self, key: Key, expected: _Expected) -> None:
        if expected.met:
            del self._expected[key]
