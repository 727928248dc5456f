"""Why a node was refused, as data first and as upstream's sentence second.

A filter gives, for each node it refuses, a `Refusal`. `Diagnosis` counts them over all nodes; the
event, the pod's condition and `Scheduler.explain` all read the same record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What happened to a pod that no node could take."""

    nodes: int
    # Refusals of each node that was refused by a filter, by node name.
    by_node: Mapping[str, tuple[Refusal, ...]] = field(default_factory=dict)
    # Said about the pod as a whole, before any node was looked at.
    of_pod: Refusal | None = None
    # What preemption found, for the second sentence.
    preemption: str = ""

    @property
    def plugins(self) -> frozenset[str]:
        """Who refused: what the queue asks when it decides which event could help."""
        if self.of_pod is not None:
            return frozenset({self.of_pod.plugin})
        return frozenset(r.plugin for refusals in self.by_node.values() for r in refusals)

    def counts(self) -> Counter[str]:
        """How many nodes gave each reason; a node may give several."""
        return Counter(r.text for refusals in self.by_node.values() for r in refusals)

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
