"""Filters that look at the node alone: NodeName, NodeUnschedulable, TaintToleration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pybernetes.api import codec
from pybernetes.api.core.taints import NO_EXECUTE, NO_SCHEDULE, tolerates, untolerated
from pybernetes.api.types.core_v1 import Taint
from pybernetes.scheduler.framework import Cycle, Follows, Verdict, normalised
from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.core_v1 import Node, Toleration
    from pybernetes.scheduler.framework import Bools, Floats

UNSCHEDULABLE_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class NodeName:
    """A pod that names its node goes there or nowhere."""

    name = "NodeName"
    follows = Follows.NODES

    _WHY = (Refusal("NodeName", "OtherNode", "node(s) didn't match the requested node name"),)

    def filter(self, cycle: Cycle) -> Verdict | None:
        wanted = cycle.pod.spec.node_name
        if not wanted:
            return None
        passes = np.zeros(cycle.columns.capacity, dtype=np.bool_)
        if (slot := cycle.columns.slot_of.get(wanted)) is not None:
            passes[slot] = True
        return Verdict(passes, lambda slot: self._WHY)


class NodeUnschedulable:
    """A cordoned node takes only pods that tolerate the taint a cordon stands for."""

    name = "NodeUnschedulable"
    follows = Follows.NODES

    _WHY = (Refusal("NodeUnschedulable", "Cordoned", "node(s) were unschedulable"),)

    def filter(self, cycle: Cycle) -> Verdict | None:
        if not cycle.columns.unschedulable.any():
            return None
        if tolerates(cycle.pod.spec.tolerations, UNSCHEDULABLE_TAINT):
            return None
        return Verdict(~cycle.columns.unschedulable, lambda slot: self._WHY)


class TaintToleration:
    """Taints repel pods that do not tolerate them: NoSchedule and NoExecute by force,
    PreferNoSchedule by preference."""

    name = "TaintToleration"
    follows = Follows.NODES

    def filter(self, cycle: Cycle) -> Verdict | None:
        tolerations = cycle.pod.spec.tolerations
        repelling = cycle.columns.derived(
            ("TaintToleration.filter", codec.encode(tolerations)),
            lambda node: 0 if first_untolerated(node, tolerations) is None else 1,
        )
        if not repelling.any():
            return None

        def why(slot: int) -> tuple[Refusal, ...]:
            node = cycle.columns.nodes[slot]
            taint = first_untolerated(node, tolerations) if node else None
            assert taint is not None
            text = f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
            details = {"key": taint.key, "value": taint.value, "effect": taint.effect}
            return (Refusal(self.name, "UntoleratedTaint", text, details=details),)

        return Verdict(repelling == 0, why)

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        tolerations = [
            t for t in cycle.pod.spec.tolerations if t.effect in ("", "PreferNoSchedule")
        ]
        disliked = cycle.columns.derived(
            ("TaintToleration.score", codec.encode(tolerations)),
            lambda node: sum(
                taint.effect == "PreferNoSchedule" and not tolerates(tolerations, taint)
                for taint in node.spec.taints
            ),
        )
        if not disliked.any():
            return None
        return normalised(disliked.astype(np.float64), feasible, reverse=True)


def first_untolerated(node: Node, tolerations: Sequence[Toleration]) -> Taint | None:
    return untolerated(tolerations, node.spec.taints, (NO_SCHEDULE, NO_EXECUTE))
