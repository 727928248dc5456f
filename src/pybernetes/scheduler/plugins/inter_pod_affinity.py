"""InterPodAffinity: pods that want to be near other pods, or far from them.

All counts come from the columns: pods that a term selects, added up per value of the term's
topology label. Placed pods have their say too: a required anti-affinity term of theirs keeps the
new pod away, a preferred one and a required affinity term count as a preference
(hardPodAffinityWeight).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pybernetes.scheduler.framework import MAX_SCORE, Cycle, Follows, Verdict
from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pybernetes.scheduler.features import PodTerm
    from pybernetes.scheduler.framework import Bools, Floats

    Ints = NDArray[np.int64]

_AFFINITY = (
    Refusal(
        "InterPodAffinity", "Affinity", "node(s) didn't match pod affinity rules", resolvable=False
    ),
)
_ANTI_AFFINITY = (
    Refusal(
        "InterPodAffinity",
        "AntiAffinity",
        "node(s) didn't match pod anti-affinity rules",
        resolvable=True,
    ),
)
_EXISTING = (
    Refusal(
        "InterPodAffinity",
        "ExistingAntiAffinity",
        "node(s) didn't satisfy existing pods anti-affinity rules",
        resolvable=True,
    ),
)


class InterPodAffinity:
    name = "InterPodAffinity"
    follows = Follows.CLUSTER

    def __init__(self, hard_weight: int = 1) -> None:
        self._hard_weight = hard_weight

    def filter(self, cycle: Cycle) -> Verdict | None:
        near, far = cycle.features.required_affinity, cycle.features.required_anti_affinity
        carried = cycle.columns.carried["anti"]
        if not near and not far and not carried:
            return None
        near_enough = self._near_enough(cycle, near)
        far_enough = self._far_enough(cycle, far)
        welcome = self._welcome(cycle)

        # Upstream's order: affinity, anti-affinity, the anti-affinity of others.
        def why(slot: int) -> tuple[Refusal, ...]:
            if not near_enough[slot]:
                return _AFFINITY
            return _ANTI_AFFINITY if not far_enough[slot] else _EXISTING

        return Verdict(near_enough & far_enough & welcome, why)

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        columns, features = cycle.columns, cycle.features
        raw = np.zeros(columns.capacity, dtype=np.int64)
        said = False
        for terms, sign in (
            (features.preferred_affinity, 1),
            (features.preferred_anti_affinity, -1),
        ):
            for term in terms:
                raw += sign * term.weight * _per_slot(cycle, term, _counts(cycle, term))
                said = True
        own = _labels_of(cycle)
        for kind, sign in (("preferred", 1), ("preferred_anti", -1), ("required", 0)):
            for counter in columns.carried[kind].values():
                weight = sign * counter.term.weight if sign else self._hard_weight
                if weight and counter.term.matches(features.namespace, features.labels, own):
                    raw += weight * _per_slot(cycle, counter.term, counter.counts)
                    said = True
        if not said:
            return None
        among = raw[feasible]
        if among.size == 0 or among.max() == among.min():
            return None
        span = among.max() - among.min()
        scores: Floats = np.floor((raw - among.min()) * MAX_SCORE / span)
        return scores

    def _near_enough(self, cycle: Cycle, terms: tuple[PodTerm, ...]) -> Bools:
        columns = cycle.columns
        passes = np.ones(columns.capacity, dtype=np.bool_)
        if not terms:
            return passes
        # A pod counts only if it matches every term (upstream: all of them at once).
        counts = columns.pods_matching(
            "all:" + "&".join(term.key for term in terms),
            lambda namespace, labels: all(
                t.matches(namespace, labels, columns.namespace_labels.get(namespace, {}))
                for t in terms
            ),
        )
        has_labels = passes.copy()
        nowhere = True
        for term in terms:
            has_labels &= columns.topology(term.topology_key).codes() > 0
            found = _per_slot(cycle, term, counts)
            nowhere &= not found.any()
            passes &= found > 0
        if nowhere and self._matches_itself(cycle, terms):
            # The first of a group that wants to be together may go anywhere.
            return has_labels
        return passes & has_labels

    def _far_enough(self, cycle: Cycle, terms: tuple[PodTerm, ...]) -> Bools:
        passes = np.ones(cycle.columns.capacity, dtype=np.bool_)
        for term in terms:
            passes &= _per_slot(cycle, term, _counts(cycle, term)) == 0
        return passes

    def _welcome(self, cycle: Cycle) -> Bools:
        features = cycle.features
        passes = np.ones(cycle.columns.capacity, dtype=np.bool_)
        own = _labels_of(cycle)
        for counter in cycle.columns.carried["anti"].values():
            if counter.term.matches(features.namespace, features.labels, own):
                passes &= _per_slot(cycle, counter.term, counter.counts) == 0
        return passes

    @staticmethod
    def _matches_itself(cycle: Cycle, terms: tuple[PodTerm, ...]) -> bool:
        features, own = cycle.features, _labels_of(cycle)
        return all(t.matches(features.namespace, features.labels, own) for t in terms)


def _labels_of(cycle: Cycle) -> Mapping[str, str]:
    """The labels of the pod's namespace."""
    return cycle.columns.namespace_labels.get(cycle.features.namespace, {})


def _counts(cycle: Cycle, term: PodTerm) -> Ints:
    columns = cycle.columns
    return columns.pods_matching(
        f"term:{term.key}",
        lambda namespace, labels: term.matches(
            namespace, labels, columns.namespace_labels.get(namespace, {})
        ),
    )


def _per_slot(cycle: Cycle, term: PodTerm, counts: Ints) -> Ints:
    """For each slot, the pods in its topology domain; 0 where the node lacks the label."""
    topology = cycle.columns.topology(term.topology_key)
    per_value = topology.per_value(counts)
    per_value[0] = 0
    found: Ints = per_value[topology.codes()]
    return found
