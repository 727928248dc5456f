"""What the silence and the conditions of a node mean for its status and its taints. Pure.

A condition makes a taint with the effect NoSchedule at once: no new pods. Only a node that is not
ready or not heard of gets one with NoExecute as well, which makes its pods leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import FALSE, TRUE, UNKNOWN, condition_of
from pybernetes.api.core.nodestate import READY
from pybernetes.api.core.taints import (
    NO_EXECUTE,
    NO_SCHEDULE,
    NOT_READY,
    UNREACHABLE,
    UNSCHEDULABLE,
)
from pybernetes.api.types.core_v1 import NodeCondition, Taint

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Node, NodeStatus

# What becomes Unknown when a node is not heard of.
WATCHED_CONDITIONS = (READY, "MemoryPressure", "DiskPressure", "PIDPressure")

# Condition and status, and the taint that keeps new pods away.
_NO_SCHEDULE = {
    (READY, FALSE): NOT_READY,
    (READY, UNKNOWN): UNREACHABLE,
    ("MemoryPressure", TRUE): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", TRUE): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", TRUE): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", TRUE): "node.kubernetes.io/network-unavailable",
}
_OURS = frozenset(
    [
        *((key, NO_SCHEDULE) for key in _NO_SCHEDULE.values()),
        (UNSCHEDULABLE, NO_SCHEDULE),
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
    ]
)
_EMPTYING = {FALSE: NOT_READY, UNKNOWN: UNREACHABLE}


@dataclass(frozen=True, slots=True)
class TaintPlan:
    """The taints a node should have."""

    taints: tuple[Taint, ...]
    # This would begin to empty the node, for which the zone must give leave. Then `gently` is
    # what to do without it.
    begins_emptying: bool = False
    gently: tuple[Taint, ...] = ()


def readiness_of(node: Node) -> str:
    """True, False or Unknown; a node that never said anything is Unknown."""
    condition = condition_of(node.status.conditions, READY)
    return UNKNOWN if condition is None else condition.status


def has_spoken(node: Node) -> bool:
    return condition_of(node.status.conditions, READY) is not None


def silent_status(node: Node, now: datetime) -> NodeStatus:
    """The status of a node that was not heard of for too long; the same if it says so already."""
    now = now.replace(microsecond=0)
    conditions = list(node.status.conditions)
    for type_ in WATCHED_CONDITIONS:
        known = condition_of(conditions, type_)
        if known is None:
            conditions.append(
                NodeCondition(
                    type=type_,
                    status=UNKNOWN,
                    reason="NodeStatusNeverUpdated",
                    message="Kubelet never posted node status.",
                    last_heartbeat_time=node.metadata.creation_timestamp,
                    last_transition_time=now,
                )
            )
        elif known.status != UNKNOWN:
            conditions[conditions.index(known)] = msgspec.structs.replace(
                known,
                status=UNKNOWN,
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
                last_transition_time=now,
            )
    return msgspec.structs.replace(node.status, conditions=tuple(conditions))


def plan_taints(node: Node, now: datetime, *, may_empty: bool = True) -> TaintPlan:
    """`may_empty=False` while the whole cluster seems to be down: then it is probably us."""
    wanted = {(key, NO_SCHEDULE) for key in _avoided(node)}
    present = {(taint.key, taint.effect) for taint in node.spec.taints}
    # A node that has not spoken yet gets its time to start; nothing is on it either.
    leaving = _EMPTYING.get(readiness_of(node)) if has_spoken(node) else None
    if leaving is None or not may_empty:
        return TaintPlan(_with(node, wanted, now))
    gently = _with(node, wanted, now)
    begins = not present & {(key, NO_EXECUTE) for key in _EMPTYING.values()}
    return TaintPlan(_with(node, wanted | {(leaving, NO_EXECUTE)}, now), begins, gently)


def _avoided(node: Node) -> list[str]:
    found = [
        key
        for condition in node.status.conditions
        if (key := _NO_SCHEDULE.get((condition.type, condition.status))) is not None
    ]
    if not has_spoken(node):
        # Taken in by admission, and kept until the node speaks.
        found.append(NOT_READY)
    if node.spec.unschedulable:
        found.append(UNSCHEDULABLE)
    return found


def _with(node: Node, wanted: set[tuple[str, str]], now: datetime) -> tuple[Taint, ...]:
    """The node's taints with ours as wanted; what is there already keeps its place and time."""
    kept, missing = [], set(wanted)
    for taint in node.spec.taints:
        place = (taint.key, taint.effect)
        if place not in _OURS or place in missing:
            kept.append(taint)
            missing.discard(place)
    added = [
        Taint(key=key, effect=effect, time_added=now.replace(microsecond=0))
        for key, effect in sorted(missing)
    ]
    return (*kept, *added)
