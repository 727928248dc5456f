"""A model of a store, too simple to be wrong, and the steps that compare one with it.

The steps are what Hypothesis makes up: bundles of writes called at once, reads of
the past, watches, compactions. `Model` knows the state at every revision; a step
is played on both, and every answer of the store must be the model's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st

from pybernetes.storage import (
    Change,
    Compacted,
    Durability,
    KeyNotFound,
    KeyValue,
    RevisionMismatch,
    Store,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence


@dataclass(frozen=True)
class Put:
    key: str
    value: bytes
    durability: Durability
    # None: unconditional; True: with the current revision; False: with a wrong one.
    condition: bool | None


@dataclass(frozen=True)
class Delete:
    key: str
    durability: Durability
    condition: bool | None


@dataclass(frozen=True)
class Writes:
    """Writes that are called at once, so that a backend may commit them together."""

    writes: tuple[Put | Delete, ...]


@dataclass(frozen=True)
class Watch:
    prefix: str
    back: int


@dataclass(frozen=True)
class Read:
    prefix: str
    back: int
    limit: int


@dataclass(frozen=True)
class Compact:
    back: int


Round = Writes | Watch | Read | Compact

_keys = st.sampled_from(["/a/1", "/a/2", "/b/1", "/b/2", "/c"])
_prefixes = st.sampled_from(["/", "/a/", "/b/", "/c", "/d/"])
_conditions = st.sampled_from([None, None, True, False])
_durabilities = st.sampled_from(list(Durability))
_writes = st.one_of(
    st.builds(Put, _keys, st.binary(max_size=3), _durabilities, _conditions),
    st.builds(Delete, _keys, _durabilities, _conditions),
)
WRITES = st.builds(Writes, st.lists(_writes, min_size=1, max_size=8).map(tuple))
WATCH = st.builds(Watch, _prefixes, st.integers(0, 20))
READ = st.builds(Read, _prefixes, st.integers(0, 20), st.integers(0, 3))
COMPACT = st.builds(Compact, st.integers(0, 20))

# (key, value, revision, created), a change without its previous value
Line = tuple[str, bytes | None, int, bool]


@dataclass
class Model:
    """What a store is, said as simply as possible."""

    state: dict[str, KeyValue] = field(default_factory=dict)
    history: list[Line] = field(default_factory=list)
    # The state at every revision.
    states: dict[int, dict[str, KeyValue]] = field(default_factory=lambda: {1: {}})
    revision: int = 1
    floor: int = 1

    def write(self, write: Put | Delete, if_revision: int | None) -> KeyValue | type[StoreError]:
        """Do it, and say what the writer should be told."""
        current = self.state.get(write.key)
        if isinstance(write, Delete) and current is None:
            return KeyNotFound
        if if_revision is not None and if_revision != (current.revision if current else 0):
            return RevisionMismatch
        self.revision += 1
        value = write.value if isinstance(write, Put) else None
        self.history.append((write.key, value, self.revision, current is None))
        created = current.created if current else self.revision
        if isinstance(write, Put):
            result = KeyValue(write.key, write.value, self.revision, created)
            self.state[write.key] = result
        else:
            assert current is not None
            result = KeyValue(write.key, current.value, self.revision, created)
            del self.state[write.key]
        self.states[self.revision] = dict(self.state)
        return result


async def play(store: Store, model: Model, step: Writes | Read | Compact) -> None:
    if isinstance(step, Writes):
        await _play_writes(store, model, step.writes)
    elif isinstance(step, Read):
        await _play_read(store, model, step)
    else:
        model.floor = max(model.floor, store.revision - step.back)
        await store.compact(model.floor)


async def _play_writes(store: Store, model: Model, writes: Sequence[Put | Delete]) -> None:
    calls: list[Coroutine[Any, Any, KeyValue]] = []
    expected = []
    for write in writes:
        if_revision = _condition_of(model, write)
        expected.append(model.write(write, if_revision))
        if isinstance(write, Put):
            call = store.put(
                write.key, write.value, if_revision=if_revision, durability=write.durability
            )
        else:
            call = store.delete(write.key, if_revision=if_revision, durability=write.durability)
        calls.append(call)
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result, wanted in zip(results, expected, strict=True):
        assert result == wanted if isinstance(wanted, KeyValue) else type(result) is wanted
    assert store.revision == model.revision


def _condition_of(model: Model, write: Put | Delete) -> int | None:
    """Conditions see the model's future, so that a write may rest on one still under way."""
    if write.condition is None:
        return None
    current = model.state.get(write.key)
    right = current.revision if current else 0
    return right if write.condition else right + 1


async def _play_read(store: Store, model: Model, step: Read) -> None:
    revision = max(1, store.revision - step.back)
    if revision < model.floor:
        with pytest.raises(Compacted):
            await store.range(step.prefix, revision=revision)
        return
    past = model.states[revision]
    wanted = [past[key] for key in sorted(past) if key.startswith(step.prefix)]
    page = await store.range(step.prefix, limit=step.limit, revision=revision)
    shown = wanted if step.limit == 0 else wanted[: step.limit]
    assert list(page.items) == shown
    assert (page.revision, page.remaining) == (revision, len(wanted) - len(shown))
    for key in ("/a/1", "/b/2"):
        assert await store.get(key, revision=revision) == past.get(key)


async def finish_watch(
    store: Store, model: Model, watch: AsyncIterator[Sequence[Change]], prefix: str, since: int
) -> None:
    """Read a watch to the end, which is a change made now, and compare."""
    end = Put(f"{prefix}/end", b"", Durability.DURABLE, None)
    model.write(end, None)
    last = await store.put(end.key, end.value)
    if since < model.floor:
        with pytest.raises(Compacted):
            await anext(watch)
        return
    changes: list[Change] = []
    while not changes or changes[-1].revision < last.revision:
        changes += await anext(watch)
    wanted = [line for line in model.history if line[0].startswith(prefix) and line[2] > since]
    assert [line_of(change) for change in changes] == wanted
    for change in changes:
        before = model.states[change.revision - 1].get(change.key)
        assert change.previous == (before.value if before else None)


async def compare(store: Store, model: Model) -> None:
    page = await store.range("")
    assert list(page.items) == [model.state[key] for key in sorted(model.state)]
    assert store.revision == model.revision


def line_of(change: Change) -> Line:
    return (change.key, change.value, change.revision, change.created)


def replay(state: dict[str, KeyValue], change: Change) -> None:
    if change.value is None:
        # A life that began and ended between two commits may show only its end.
        state.pop(change.key, None)
    else:
        assert change.created or change.key in state
        state[change.key] = KeyValue(change.key, change.value, change.revision, 0)
