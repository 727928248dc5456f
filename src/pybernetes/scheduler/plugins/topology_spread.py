"""PodTopologySpread: pods spread evenly over zones, nodes or whatever a label names (KEP-895).

Required constraints filter: placing the pod must not raise the skew between a domain and the
emptiest one above maxSkew. The others score. A pod without constraints is spread by default over
nodes and zones, together with its siblings (the pods of its Service or owner).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pybernetes.api.core.nodeselector import may_be_on
from pybernetes.scheduler.features import SpreadConstraint
from pybernetes.scheduler.framework import MAX_SCORE, Cycle, Follows, Verdict
from pybernetes.scheduler.plugins.nodes import first_untolerated
from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pybernetes.apimachinery.selector import Selector
    from pybernetes.scheduler.framework import Bools, Floats

    Ints = NDArray[np.int64]

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

_TEXT = "node(s) didn't match pod topology spread constraints"
_SKEWED = (Refusal("PodTopologySpread", "Skew", _TEXT, resolvable=True),)
_NO_LABEL = (Refusal("PodTopologySpread", "MissingLabel", f"{_TEXT} (missing required label)"),)


@dataclass(slots=True)
class _Domains:
    """Matching pods per domain of one constraint, over the nodes that count for it."""

    per_slot: Ints
    has_label: Bools
    # The fewest in any domain, and how many domains there are.
    fewest: int
    number: int


class PodTopologySpread:
    name = "PodTopologySpread"
    follows = Follows.CLUSTER

    def __init__(self, *, spread_by_default: bool = True) -> None:
        self._spread_by_default = spread_by_default

    def filter(self, cycle: Cycle) -> Verdict | None:
        constraints = [c for c in cycle.features.spread if c.required]
        if not constraints:
            return None
        capacity = cycle.columns.capacity
        labelled = np.ones(capacity, dtype=np.bool_)
        for constraint in constraints:
            labelled &= cycle.columns.topology(constraint.topology_key).codes() > 0
        even = np.ones(capacity, dtype=np.bool_)
        for constraint in constraints:
            domains = _domains(cycle, constraint, labelled)
            own = int(constraint.selector.matches(cycle.features.labels))
            least = 0 if domains.number < constraint.min_domains else domains.fewest
            even &= domains.per_slot + own - least <= constraint.max_skew
        return Verdict(labelled & even, lambda slot: _SKEWED if labelled[slot] else _NO_LABEL)

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        constraints = [c for c in cycle.features.spread if not c.required]
        by_default = not cycle.features.spread and self._spread_by_default
        if by_default and cycle.siblings is not None and not cycle.siblings.empty:
            constraints = default_constraints(cycle.siblings)
        if not constraints:
            return None
        labelled = np.ones(cycle.columns.capacity, dtype=np.bool_)
        if not by_default:
            for constraint in constraints:
                labelled &= cycle.columns.topology(constraint.topology_key).codes() > 0
        counted = feasible & labelled
        raw = np.zeros(cycle.columns.capacity, dtype=np.float64)
        for constraint in constraints:
            raw += _cost(cycle, constraint, counted)
        raw = np.rint(raw)
        among = raw[counted]
        if among.size == 0:
            return None
        highest, lowest = float(among.max()), float(among.min())
        if highest == 0:
            scores = np.full(len(raw), float(MAX_SCORE))
        else:
            scores = np.floor(MAX_SCORE * (highest + lowest - raw) / highest)
        scores[~labelled] = 0
        return scores


def default_constraints(siblings: Selector) -> list[SpreadConstraint]:
    """Upstream's system defaults: at most 3 apart between nodes, 5 between zones."""
    return [
        SpreadConstraint(
            key=repr(siblings),
            topology_key=key,
            max_skew=skew,
            required=False,
            selector=siblings,
            min_domains=1,
            honor_affinity=True,
            honor_taints=False,
        )
        for key, skew in ((HOSTNAME, 3), (ZONE, 5))
    ]


def _domains(cycle: Cycle, constraint: SpreadConstraint, labelled: Bools) -> _Domains:
    columns = cycle.columns
    eligible = columns.alive & labelled & _eligible(cycle, constraint)
    topology = columns.topology(constraint.topology_key)
    codes = topology.codes()
    counts = columns.pods_named(cycle.features.namespace, constraint.selector)
    per_value = np.bincount(
        codes[eligible], weights=counts[eligible], minlength=topology.size
    ).astype(np.int64)
    present = np.unique(codes[eligible])
    present = present[present > 0]
    fewest = int(per_value[present].min()) if present.size else 0
    return _Domains(per_value[codes], codes > 0, fewest, int(present.size))


def _eligible(cycle: Cycle, constraint: SpreadConstraint) -> Bools:
    """Nodes whose pods count: those the pod could choose, as the policies say (KEP-3094)."""
    columns, pod = cycle.columns, cycle.pod
    eligible = np.ones(columns.capacity, dtype=np.bool_)
    affinity = pod.spec.affinity
    if constraint.honor_affinity and (
        pod.spec.node_selector or (affinity and affinity.node_affinity)
    ):
        key = ("PodTopologySpread.affinity", cycle.features.shape)
        eligible &= columns.derived(key, lambda n: int(may_be_on(pod, n))) == 1
    if constraint.honor_taints:
        key = ("PodTopologySpread.taints", cycle.features.shape)
        tolerations = pod.spec.tolerations
        tolerated = columns.derived(key, lambda n: int(first_untolerated(n, tolerations) is None))
        eligible &= tolerated == 1
    return eligible


def _cost(cycle: Cycle, constraint: SpreadConstraint, counted: Bools) -> Floats:
    """Pods already in the node's domain, weighted so that few large domains count like many."""
    columns = cycle.columns
    topology = columns.topology(constraint.topology_key)
    codes = topology.codes()
    counts = columns.pods_named(cycle.features.namespace, constraint.selector)
    if constraint.topology_key == HOSTNAME:
        per_slot, size = counts, int(counted.sum())
    else:
        per_value = np.bincount(
            codes[columns.alive], weights=counts[columns.alive], minlength=topology.size
        )
        per_value[0] = 0
        per_slot, size = per_value[codes], len(np.unique(codes[counted & (codes > 0)]))
    cost = per_slot * math.log(size + 2) + (constraint.max_skew - 1)
    return np.where(codes > 0, cost, 0.0).astype(np.float64)
