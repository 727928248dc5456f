"""What is missing of a default role or binding, once an administrator may have changed it.

Pure. Each function takes what is stored and what the policy says, and gives the object to
write, or None if there is nothing to do. Nothing that somebody added is taken away, and an
object annotated `autoupdate: "false"` is left alone.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.api.types.rbac_v1 import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    Subject,
)
from pybernetes.apiserver.authz.rules import compacted, missing
from pybernetes.apiserver.bootstrap.policy import AUTO_UPDATE

Selectors = tuple[LabelSelector, ...]

R = TypeVar("R", Role, ClusterRole)
B = TypeVar("B", RoleBinding, ClusterRoleBinding)
Object = TypeVar("Object", Role, ClusterRole, RoleBinding, ClusterRoleBinding)


def reconciled_role(stored: R, wanted: R) -> R | None:
    if _is_protected(stored):
        return None
    result = _with_metadata(stored, wanted)
    rule = getattr(wanted, "aggregation_rule", None)
    if rule is not None:
        # Its rules are gathered, by a controller; only what is gathered matters here.
        present: AggregationRule | None = getattr(stored, "aggregation_rule", None)
        selectors: Selectors = () if present is None else present.cluster_role_selectors
        absent: Selectors = tuple(s for s in rule.cluster_role_selectors if s not in selectors)
        if absent:
            rule = replace(rule, cluster_role_selectors=(*selectors, *absent))
            result = replace(result, aggregation_rule=rule)
    elif stored.rules != wanted.rules:
        lacking: list[PolicyRule] = missing(stored.rules, wanted.rules)
        if lacking:
            result = replace(result, rules=(*stored.rules, *compacted(lacking)))
    return None if result is stored else result


def reconciled_binding(stored: B, wanted: B) -> B | None:
    """A binding to another role is another binding: the caller sees that by `role_ref`."""
    if _is_protected(stored):
        return None
    result = _with_metadata(stored, wanted)
    if stored.role_ref != wanted.role_ref:
        return replace(result, role_ref=wanted.role_ref, subjects=wanted.subjects)
    lacking: tuple[Subject, ...] = tuple(s for s in wanted.subjects if s not in stored.subjects)
    if lacking:
        result = replace(result, subjects=(*stored.subjects, *lacking))
    return None if result is stored else result


def _is_protected(stored: Role | ClusterRole | RoleBinding | ClusterRoleBinding) -> bool:
    return stored.metadata.annotations.get(AUTO_UPDATE) == "false"


def _with_metadata(stored: Object, wanted: Object) -> Object:
    """With the labels and annotations of the policy; the very same object if it has them."""
    metadata, more = stored.metadata, wanted.metadata
    if more.labels.items() <= metadata.labels.items() and (
        more.annotations.items() <= metadata.annotations.items()
    ):
        return stored
    return replace(
        stored,
        metadata=replace(
            metadata,
            labels={**metadata.labels, **more.labels},
            annotations={**metadata.annotations, **more.annotations},
        ),
    )
