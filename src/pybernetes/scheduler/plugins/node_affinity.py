"""NodeAffinity: the node selector and node affinity of a pod, required and preferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pybernetes.api import codec
from pybernetes.api.core.nodeselector import (
    matches_node_selector,
    matches_term,
    may_be_on,
    required_selector,
)
from pybernetes.scheduler.framework import Cycle, Follows, Verdict, normalised
from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import NodeSelector
    from pybernetes.scheduler.framework import Bools, Floats


class NodeAffinity:
    """Pods choose nodes by labels.

    `added` is a selector every pod of the profile has to satisfy as well
    (NodeAffinityArgs.addedAffinity).
    """

    name = "NodeAffinity"
    follows = Follows.NODES

    _OTHER_LABELS = (
        Refusal("NodeAffinity", "OtherLabels", "node(s) didn't match Pod's node affinity/selector"),
    )
    _NOT_ADDED = (
        Refusal(
            "NodeAffinity",
            "EnforcedAffinity",
            "node(s) didn't match scheduler-enforced node affinity",
        ),
    )

    def __init__(self, added: NodeSelector | None = None) -> None:
        self._added = added

    def filter(self, cycle: Cycle) -> Verdict | None:
        required = required_selector(cycle.pod)
        selector = cycle.pod.spec.node_selector
        enforced = self._enforced(cycle)
        if required is None and not selector:
            return None if enforced is None else Verdict(enforced, lambda slot: self._NOT_ADDED)
        passes = _passes(cycle, required)
        if enforced is None:
            return Verdict(passes, lambda slot: self._OTHER_LABELS)
        return Verdict(
            passes & enforced,
            lambda slot: self._OTHER_LABELS if enforced[slot] else self._NOT_ADDED,
        )

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        affinity = cycle.pod.spec.affinity
        terms = affinity.node_affinity if affinity else None
        preferred = terms.preferred_during_scheduling_ignored_during_execution if terms else ()
        if not preferred:
            return None
        weights = cycle.columns.derived(
            ("NodeAffinity.score", codec.encode(preferred)),
            lambda node: sum(p.weight for p in preferred if matches_term(p.preference, node)),
        )
        return normalised(weights.astype(np.float64), feasible)

    def _enforced(self, cycle: Cycle) -> Bools | None:
        added = self._added
        if added is None:
            return None
        key = ("NodeAffinity.added", codec.encode(added))
        enforced: Bools = (
            cycle.columns.derived(key, lambda n: int(matches_node_selector(added, n))) == 1
        )
        return enforced


def _passes(cycle: Cycle, required: NodeSelector | None) -> Bools:
    pod = cycle.pod
    named = _named_nodes(required)
    if named is None:
        key = ("NodeAffinity.filter", codec.encode((pod.spec.node_selector, required)))
        matching: Bools = cycle.columns.derived(key, lambda n: int(may_be_on(pod, n))) == 1
        return matching
    # A daemon set pins each pod to one node by name: a column per pod would be a waste.
    passes = np.zeros(cycle.columns.capacity, dtype=np.bool_)
    for name in named:
        slot = cycle.columns.slot_of.get(name)
        node = cycle.columns.nodes[slot] if slot is not None else None
        if slot is not None and node is not None:
            passes[slot] = may_be_on(pod, node)
    return passes


def _named_nodes(required: NodeSelector | None) -> set[str] | None:
    """The only nodes that can match, if every term names its nodes."""
    if required is None or not required.node_selector_terms:
        return None
    names: set[str] = set()
    for term in required.node_selector_terms:
        fields = [f for f in term.match_fields if f.key == "metadata.name" and f.operator == "In"]
        if not fields:
            return None
        names.update(*(f.values for f in fields))
    return names
