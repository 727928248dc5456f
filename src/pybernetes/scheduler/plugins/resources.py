"""NodeResourcesFit, NodeResourcesBalancedAllocation and NodePorts: what a node has left."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from pybernetes.api.core.podresources import CPU, MEMORY
from pybernetes.scheduler.features import PODS
from pybernetes.scheduler.framework import (
    ALL_SLOTS,
    MAX_SCORE,
    Cycle,
    Follows,
    Verdict,
    pass_all_but,
)
from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pybernetes.scheduler.columns import NodeColumns
    from pybernetes.scheduler.derived import SlotIndex
    from pybernetes.scheduler.features import PodFeatures
    from pybernetes.scheduler.framework import Bools, Floats

    Ints = NDArray[np.int64]


class Strategy(Enum):
    """How free room is valued (NodeResourcesFitArgs.scoringStrategy.type)."""

    LEAST_ALLOCATED = "LeastAllocated"
    MOST_ALLOCATED = "MostAllocated"
    REQUESTED_TO_CAPACITY_RATIO = "RequestedToCapacityRatio"


@dataclass(frozen=True, slots=True)
class ShapePoint:
    """A point of the line that RequestedToCapacityRatio scores by; both 0 to 100."""

    utilization: int
    score: int


class NodeResourcesFit:
    """A node takes a pod only if what it asks for is still free; scores by how much stays free."""

    name = "NodeResourcesFit"
    follows = Follows.SLOT

    def __init__(
        self,
        strategy: Strategy = Strategy.LEAST_ALLOCATED,
        weights: tuple[tuple[str, int], ...] = ((CPU, 1), (MEMORY, 1)),
        shape: tuple[ShapePoint, ...] = (ShapePoint(0, 0), ShapePoint(100, 100)),
    ) -> None:
        self._strategy = strategy
        self._weights = weights
        self._shape = shape

    def filter(self, cycle: Cycle) -> Verdict | None:
        columns, here = cycle.columns, cycle.window
        passes = columns.requested(PODS)[here] < columns.allocatable_of(PODS)[here]
        for name, amount in cycle.features.requests:
            passes &= columns.requested(name)[here] + amount <= columns.allocatable_of(name)[here]
        # What is to be said by pattern of what is short: there are few of those. Worked out when
        # first asked, which is after the last pod of a sweep was placed.
        patterns: list[int] = []
        known: dict[int, tuple[Refusal, ...]] = {}

        def why(slot: int) -> tuple[Refusal, ...]:
            if not patterns:
                patterns.extend(self._patterns(cycle).tolist())
            pattern = patterns[slot]
            if pattern not in known:
                known[pattern] = self._why(cycle, slot)
            return known[pattern]

        return Verdict(passes, why)

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        columns, features = cycle.columns, cycle.features
        asked = dict(features.requests)
        weights = tuple((n, w) for n, w in self._weights if n in (CPU, MEMORY) or asked.get(n))
        if not weights:
            return None

        def scores(here: SlotIndex) -> Floats:
            total: Floats | float = 0.0
            for name, weight in weights:
                total += weight * self._value(*_scored_use(columns, features, name, here))
            found: Floats = np.floor(total / sum(weight for _, weight in weights))
            return found

        if cycle.window is not ALL_SLOTS:
            return scores(cycle.window)
        key = (self, features.requests, features.scored_cpu, features.scored_memory)
        return columns.of_usage(key, scores)

    def _patterns(self, cycle: Cycle) -> Ints:
        """A number per slot, equal for slots of which the same is to be said."""
        columns = cycle.columns
        pattern = (columns.requested(PODS) >= columns.allocatable_of(PODS)).astype(np.int64)
        for name, amount in cycle.features.requests:
            allocatable = columns.allocatable_of(name)
            # Short, and larger than the whole node: two digits of one number.
            pattern = pattern * 4 + (columns.requested(name) + amount > allocatable)
            pattern += 2 * (amount > allocatable)
        return pattern

    def _why(self, cycle: Cycle, slot: int) -> tuple[Refusal, ...]:
        columns = cycle.columns
        found = []
        if columns.requested(PODS)[slot] + 1 > columns.allocatable_of(PODS)[slot]:
            found.append(Refusal(self.name, "TooManyPods", "Too many pods", resolvable=True))
        for name, amount in cycle.features.requests:
            allocatable = int(columns.allocatable_of(name)[slot])
            if columns.requested(name)[slot] + amount > allocatable:
                found.append(
                    Refusal(
                        self.name,
                        "InsufficientResource",
                        f"Insufficient {name}",
                        # Nothing helps a pod that is larger than the whole node.
                        resolvable=amount <= allocatable,
                        details={"resource": name, "requested": str(amount)},
                    )
                )
        return tuple(found)

    def _value(self, used: Ints, capacity: Ints) -> Floats:
        """0 to 100 per slot; 0 where nothing of the resource exists."""
        # In floats, and rounded down: several times faster than dividing integers, and the same up
        # to 2^46, which is 64 TiB.
        room = np.maximum(capacity, 1).astype(np.float64)
        fits = used <= capacity
        value: Floats
        if self._strategy is Strategy.LEAST_ALLOCATED:
            value = np.floor((capacity - used) * float(MAX_SCORE) / room)
        elif self._strategy is Strategy.MOST_ALLOCATED:
            value = np.floor(used * float(MAX_SCORE) / room)
        else:
            points = [(p.utilization, p.score) for p in self._shape]
            xs, ys = zip(*points, strict=True)
            value = np.trunc(np.interp(used * 100 / room, xs, ys))
        value *= fits & (capacity > 0)
        return value


class NodeResourcesBalancedAllocation:
    """Prefers nodes on which cpu and memory would be used to the same degree."""

    name = "NodeResourcesBalancedAllocation"
    follows = Follows.SLOT

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        columns, requests = cycle.columns, dict(cycle.features.requests)
        if not requests:
            return None

        def scores(here: SlotIndex) -> Floats:
            fractions = []
            for name in (CPU, MEMORY):
                capacity = columns.allocatable_of(name)[here]
                used = columns.requested(name)[here] + requests.get(name, 0)
                # Without any of it, and beyond all of it, a node is full.
                share = np.where(capacity > 0, used, 1) / np.maximum(capacity, 1)
                fractions.append(np.minimum(share, 1.0, out=share))
            # The standard deviation of two values is half their distance.
            found: Floats = fractions[0] - fractions[1]
            np.abs(found, out=found)
            found *= -MAX_SCORE / 2
            found += MAX_SCORE
            return np.floor(found, out=found)

        if cycle.window is not ALL_SLOTS:
            return scores(cycle.window)
        return columns.of_usage((self, cycle.features.requests), scores)


class NodePorts:
    """Two pods cannot have the same host port on one node."""

    name = "NodePorts"
    follows = Follows.SLOT

    _WHY = (
        Refusal(
            "NodePorts",
            "PortTaken",
            "node(s) didn't have free ports for the requested pod ports",
            resolvable=True,
        ),
    )

    def filter(self, cycle: Cycle) -> Verdict | None:
        wanted = cycle.features.host_ports
        if not wanted:
            return None
        taken = cycle.columns.ports_taken(wanted)
        passes = pass_all_but(cycle.columns.capacity, taken)
        return Verdict(passes[cycle.window], lambda slot: self._WHY)


def _scored_use(
    columns: NodeColumns, features: PodFeatures, resource: str, here: SlotIndex
) -> tuple[Ints, Ints]:
    """Use and capacity as scores see them: containers that ask for nothing count a little."""
    capacity = columns.allocatable_of(resource)[here]
    if resource == CPU:
        return columns.scored_cpu[here] + features.scored_cpu, capacity
    if resource == MEMORY:
        return columns.scored_memory[here] + features.scored_memory, capacity
    return columns.requested(resource)[here] + dict(features.requests).get(resource, 0), capacity
