"""scheduling.k8s.io: priority classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.scheduling_v1 import PriorityClass
from pybernetes.api.validation import validate_immutable, validate_one_of
from pybernetes.apimachinery.fielderror import FieldError, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_PREFIX = "system-"
# What every cluster has, and the only classes that may use the prefix (KEP: pod priority).
SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
HIGHEST_USER_PRIORITY = 1_000_000_000
_POLICIES = ("PreemptLowerPriority", "Never")


def default_priority_class(new: PriorityClass) -> PriorityClass:
    if new.preemption_policy:
        return new
    return msgspec.structs.replace(new, preemption_policy="PreemptLowerPriority")


def validate_priority_class(new: PriorityClass, old: PriorityClass | None) -> Iterator[FieldError]:
    name = new.metadata.name
    if old is not None:
        if new.value != old.value:
            yield Path("value").forbidden("may not be changed in an update.")
        yield from validate_immutable(
            new.preemption_policy, old.preemption_policy, Path("preemptionPolicy")
        )
        return
    if name.startswith(SYSTEM_PREFIX):
        if SYSTEM_CLASSES.get(name) != new.value or new.global_default:
            yield Path("metadata").name.forbidden(
                "priority class names with 'system-' prefix are reserved for system use only."
                f" error: {_not_a_system_class(new)}"
            )
    elif new.value > HIGHEST_USER_PRIORITY:
        yield Path("value").forbidden(
            f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        )
    yield from validate_one_of(new.preemption_policy, _POLICIES, Path("preemptionPolicy"))


def _not_a_system_class(new: PriorityClass) -> str:
    name = new.metadata.name
    if name not in SYSTEM_CLASSES:
        return f"{name} is not a known system priority class"
    if SYSTEM_CLASSES[name] != new.value:
        return f"value of {name} PriorityClass must be {SYSTEM_CLASSES[name]}"
    return f"globalDefault of {name} PriorityClass must be false"


PRIORITY_CLASSES = Resource(
    group="scheduling.k8s.io",
    version="v1",
    kind=PriorityClass,
    plural="priorityclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_priority_class,
        validate=validate_priority_class,
        generation_follows=("value",),
    ),
    columns=(
        Column("Value", lambda c: c.value, type="integer"),
        Column("Global-Default", lambda c: bool(c.global_default), type="boolean"),
        AGE,
        Column("PreemptionPolicy", lambda c: c.preemption_policy),
    ),
)

SCHEDULING_RESOURCES = (PRIORITY_CLASSES,)
