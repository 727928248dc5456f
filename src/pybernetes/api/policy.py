"""policy: disruption budgets, which say how many pods of a group may be missing on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.policy_v1 import PodDisruptionBudget
from pybernetes.api.validation import (
    validate_count_or_percent,
    validate_label_selector,
    validate_not_above_hundred_percent,
)
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


def validate_budget(
    new: PodDisruptionBudget, old: PodDisruptionBudget | None
) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if spec.min_available is not None and spec.max_unavailable is not None:
        yield path.invalid(spec, "minAvailable and maxUnavailable cannot be both set")
    for value, here in (
        (spec.min_available, path.minAvailable),
        (spec.max_unavailable, path.maxUnavailable),
    ):
        yield from validate_count_or_percent(value, here)
        yield from validate_not_above_hundred_percent(value, here)
    yield from validate_label_selector(spec.selector, path.selector)
    policy = spec.unhealthy_pod_eviction_policy
    if policy and policy not in _EVICTION_POLICIES:
        yield path.unhealthyPodEvictionPolicy.not_supported(policy, _EVICTION_POLICIES)


def _or_not_applicable(value: int | str | None) -> str:
    return "N/A" if value is None else str(value)


POD_DISRUPTION_BUDGETS = Resource(
    group="policy",
    version="v1",
    kind=PodDisruptionBudget,
    plural="poddisruptionbudgets",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_budget),
    subresources=(Status(),),
    columns=(
        Column("Min Available", lambda b: _or_not_applicable(b.spec.min_available)),
        Column("Max Unavailable", lambda b: _or_not_applicable(b.spec.max_unavailable)),
        Column("Allowed Disruptions", lambda b: b.status.disruptions_allowed, type="integer"),
        AGE,
    ),
)

POLICY_RESOURCES = (POD_DISRUPTION_BUDGETS,)
