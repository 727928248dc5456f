"""Why a node was refused, as data first and as upstream's sentence second.

A filter gives, for each node it refuses, a `Refusal`. `Diagnosis` counts them over all nodes; the
event, the pod's condition and `Scheduler.explain` all read the same record.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Refusal:
    """One plugin's reason for one kind of refusal.

    `resolvable` says whether removing other pods could change the verdict: only such nodes are
    looked at by preemption.
    """

    plugin: str
    # A stable word for programs: "InsufficientResource", "UntoleratedTaint" …
    code: str
    # Upstream's words for people, as they stand in the event.
    text: str
    resolvable: bool = False
    # What the reason is about: the resource, the taint, the topology key.
    details: Mapping[str, str] = field(default_factory=dict, hash=False)


class RefusedNodes(Mapping[str, tuple[Refusal, ...]]):
    """Refusals by node name, kept small: thousands of pods may wait, each with one of these.

    Nodes are grouped by what was said of them, as slots into a table of names that all such
    records of one moment share.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._slots: dict[tuple[Refusal, ...], array[int]] = {}
        # The refusals given last: plugins mostly give the same object again.
        self._last: tuple[tuple[Refusal, ...], array[int]] | None = None

    def add(self, slot: int, refusals: tuple[Refusal, ...]) -> None:
        if self._last is None or self._last[0] is not refusals:
            self._last = (refusals, self._slots.setdefault(refusals, array("l")))
        self._last[1].append(slot)

    def groups(self) -> Iterator[tuple[tuple[Refusal, ...], int]]:
        """What was said, and of how many nodes."""
        return ((refusals, len(slots)) for refusals, slots in self._slots.items())

    def where(self, refusals: tuple[Refusal, ...]) -> list[str]:
        return [self._names[slot] for slot in self._slots[refusals]]

    def __getitem__(self, name: str) -> tuple[Refusal, ...]:
        for refusals, slots in self._slots.items():
            if any(self._names[slot] == name for slot in slots):
                return refusals
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (self._names[slot] for slots in self._slots.values() for slot in slots)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))


def refused_nodes(by_node: Mapping[str, tuple[Refusal, ...]]) -> RefusedNodes:
    """The same from a plain mapping."""
    refused = RefusedNodes(tuple(by_node))
    for slot, refusals in enumerate(by_node.values()):
        refused.add(slot, refusals)
    return refused


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What happened to a pod that no node could take."""

    nodes: int
    # Refusals of each node that was refused by a filter, by node name.
    by_node: RefusedNodes = field(default_factory=lambda: RefusedNodes(()))
    # Said about the pod as a whole, before any node was looked at.
    of_pod: Refusal | None = None
    # What preemption found, for the second sentence.
    preemption: str = ""

    @property
    def plugins(self) -> frozenset[str]:
        """Who refused: what the queue asks when it decides which event could help."""
        if self.of_pod is not None:
            return frozenset({self.of_pod.plugin})
        return frozenset(r.plugin for refusals, _ in self.by_node.groups() for r in refusals)

    def counts(self) -> Counter[str]:
        """How many nodes gave each reason; a node may give several."""
        found: Counter[str] = Counter()
        for refusals, nodes in self.by_node.groups():
            for refusal in refusals:
                found[refusal.text] += nodes
        return found

    def sentence(self) -> str:
        """The message of the FailedScheduling event, in upstream's wording and order."""
        if self.of_pod is not None:
            said = f"0/{self.nodes} nodes are available: {self.of_pod.text}."
        elif self.nodes == 0:
            return "no nodes available to schedule pods"
        else:
            said = sentence_of(self.nodes, self.counts())
        return f"{said} preemption: {self.preemption}" if self.preemption else said


def sentence_of(nodes: int, counts: Mapping[str, int]) -> str:
    """`0/5 nodes are available: 1 …, 4 ….`: upstream sorts the parts as strings."""
    parts = sorted(f"{count} {text}" for text, count in counts.items())
    return f"0/{nodes} nodes are available: {', '.join(parts)}."
