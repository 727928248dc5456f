"""What is worked out from the columns and kept for the next pod.

Columns of single nodes and of what is used on them are brought up to date when they are asked
for, slot by slot, from a log of changes; counts of pods are kept up by whoever places and removes
pods (`NodeColumns`). All of it can be thrown away and made again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from numpy.typing import NDArray

    from pybernetes.api.types.core_v1 import Node
    from pybernetes.scheduler.columns import NodeColumns
    from pybernetes.scheduler.features import PodTerm

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    SlotIndex = slice | Ints

T = TypeVar("T")


class DerivedColumn:
    """A function of single nodes, kept up to date lazily."""

    def __init__(
        self, columns: NodeColumns, compute: Callable[[Node], int], *, missing: int = 0
    ) -> None:
        self._columns = columns
        self._compute = compute
        self._missing = missing
        self._values: Ints = np.full(0, missing, dtype=np.int64)
        # Position in the columns' log of changes up to which the values are right.
        self._seen = -1

    def values(self) -> Ints:
        """One value per slot; slots without a node hold `missing`."""
        columns = self._columns
        if self._seen == columns.changed.position and len(self._values) == columns.capacity:
            return self._values
        if len(self._values) != columns.capacity:
            larger = np.full(columns.capacity, self._missing, dtype=np.int64)
            larger[: len(self._values)] = self._values
            self._values = larger
        changed = columns.changed.since(self._seen)
        for slot in range(columns.capacity) if changed is None else changed:
            node = columns.nodes[slot]
            self._values[slot] = self._missing if node is None else self._compute(node)
        self._seen = columns.changed.position
        return self._values

    def forget(self) -> None:
        """Work out everything anew when next asked."""
        self._seen = -1

    def check(self) -> None:
        for slot, (value, node) in enumerate(zip(self.values(), self._columns.nodes, strict=True)):
            right = self._missing if node is None else self._compute(node)
            assert value == right, f"a derived column is off at slot {slot}"


class UsageColumn:
    """A function of slots and what is placed on them, kept up to date lazily.

    `compute` answers for an index of slots: a slice or an array.
    """

    def __init__(self, columns: NodeColumns, compute: Callable[[SlotIndex], Floats]) -> None:
        self._columns = columns
        self._compute = compute
        self._values: Floats = compute(slice(None))
        self._seen = columns.touched.position

    def values(self) -> Floats:
        """One value per slot; not to be changed by whoever asks."""
        columns = self._columns
        changed = columns.touched.since(self._seen)
        if changed is None or len(self._values) != columns.capacity:
            self._values = self._compute(slice(None))
        elif changed:
            slots = np.fromiter(changed, dtype=np.int64, count=len(changed))
            self._values[slots] = self._compute(slots)
        self._seen = columns.touched.position
        return self._values

    def check(self) -> None:
        again = self._compute(slice(None))
        assert (self.values() == again).all(), "a usage column is off"


class ChangeLog:
    """Slots that changed, the oldest first; readers remember how far they have read."""

    def __init__(self) -> None:
        self._slots: list[int] = []
        self._start = 0

    @property
    def position(self) -> int:
        return self._start + len(self._slots)

    def note(self, slot: int, limit: int) -> None:
        """Remembers at most `limit`: whoever is further behind looks at everything."""
        self._slots.append(slot)
        if len(self._slots) > limit:
            self._start += len(self._slots)
            self._slots.clear()

    def since(self, position: int) -> set[int] | None:
        """None: that is too long ago."""
        if position < self._start:
            return None
        return set(self._slots[position - self._start :])


class PodCounter:
    """Placed pods of one namespace scope that a selector names, counted per slot."""

    def __init__(
        self,
        key: str,
        matches: Callable[[str, Mapping[str, str]], bool],
        capacity: int,
        *,
        staying: bool,
    ) -> None:
        self.key = key
        self.matches = matches
        # Whether pods that are going away are left out.
        self.staying = staying
        self.counts: Ints = np.zeros(capacity, dtype=np.int64)

    def grow(self, capacity: int) -> None:
        self.counts = grown(self.counts, capacity)


class TermCounter:
    """Placed pods that carry one and the same affinity term, counted per slot."""

    def __init__(self, term: PodTerm, capacity: int) -> None:
        self.term = term
        self.total = 0
        self.counts: Ints = np.zeros(capacity, dtype=np.int64)

    def grow(self, capacity: int) -> None:
        self.counts = grown(self.counts, capacity)


class Topology:
    """The values of one topology label as codes: 0 is "has no such label"."""

    def __init__(self, columns: NodeColumns, key: str) -> None:
        self._codes: dict[str, int] = {}
        self._column = DerivedColumn(columns, lambda node: self._code(node.metadata.labels, key))

    def codes(self) -> Ints:
        codes = self._column.values()
        if len(self._codes) > 2 * len(codes):
            # Names of nodes that left long ago: number the values anew.
            self._codes.clear()
            self._column.forget()
            codes = self._column.values()
        return codes

    @property
    def size(self) -> int:
        """One more than the highest code given so far."""
        return len(self._codes) + 1

    def per_value(self, counts: Ints) -> Ints:
        """The counts of slots added up per topology value; index 0 is without the label."""
        return np.bincount(self.codes(), weights=counts, minlength=self.size).astype(np.int64)

    def _code(self, labels: Mapping[str, str], key: str) -> int:
        value = labels.get(key)
        if value is None:
            return 0
        return self._codes.setdefault(value, len(self._codes) + 1)


class Kept(Generic[T]):
    """The most recently used of what can be computed again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if (item := self._items.get(key)) is not None:
            self._items.move_to_end(key)
            return item
        item = self._items[key] = make()
        if len(self._items) > self._limit:
            self._items.popitem(last=False)
        return item

    def values(self) -> Iterator[T]:
        return iter(self._items.values())


def grown(column: NDArray[Any], capacity: int) -> NDArray[Any]:
    larger = np.zeros(capacity, dtype=column.dtype)
    larger[: len(column)] = column
    return larger
