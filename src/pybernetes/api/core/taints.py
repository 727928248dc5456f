"""Taints and tolerations: which pods a node repels (field: spec.tolerations)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.api.types.core_v1 import Taint, Toleration

NO_SCHEDULE = "NoSchedule"
PREFER_NO_SCHEDULE = "PreferNoSchedule"
NO_EXECUTE = "NoExecute"

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def tolerates_taint(toleration: Toleration, taint: Taint) -> bool:
    """An empty effect or key stands for all; Exists does not look at the value."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    if toleration.operator in ("Lt", "Gt"):
        return _compares(toleration.operator, taint.value, toleration.value)
    return bool(toleration.key) and toleration.value == taint.value


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    return any(tolerates_taint(toleration, taint) for toleration in tolerations)


def untolerated(
    tolerations: Sequence[Toleration], taints: Iterable[Taint], effects: Sequence[str]
) -> Taint | None:
    """The first taint with one of these effects that none of the tolerations accepts."""
    for taint in taints:
        if taint.effect in effects and not tolerates(tolerations, taint):
            return taint
    return None


def _compares(operator: str, taint_value: str, limit: str) -> bool:
    """Numeric operators (KEP-5471): the taint's value against the toleration's."""
    try:
        value, bound = int(taint_value), int(limit)
    except ValueError:
        return False
    return value < bound if operator == "Lt" else value > bound
