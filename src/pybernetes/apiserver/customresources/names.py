"""Which names a definition gets: decided by those that others in its group have. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.conditions import FALSE, TRUE, has_condition, with_condition
from pybernetes.api.types.apiextensions_v1 import (
    CustomResourceDefinitionCondition,
    CustomResourceDefinitionNames,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pybernetes.api.types.apiextensions_v1 import (
        CustomResourceDefinition,
        CustomResourceDefinitionStatus,
    )

NAMES_ACCEPTED, ESTABLISHED, TERMINATING = "NamesAccepted", "Established", "Terminating"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def status_with_names(
    definition: CustomResourceDefinition,
    others: Iterable[CustomResourceDefinitionNames],
    now: datetime,
    *,
    reserved: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset()),
) -> CustomResourceDefinitionStatus:
    """The status with accepted names and the two conditions that follow from them.

    `others` are the names that other definitions of the group have; `reserved` are names of resources and of kinds that belong to built-in kinds of the group.
    """
    resources, kinds = set(reserved[0]), set(reserved[1])
    for accepted in others:
        resources |= {accepted.plural, accepted.singular, *accepted.short_names}
        kinds |= {accepted.kind, accepted.list_kind}
    accepted, conflict = _accepted(definition, resources - {""}, kinds - {""})
    status = replace(definition.status, accepted_names=accepted)
    established = has_condition(status.conditions, ESTABLISHED)
    if conflict is None:
        names = _condition(NAMES_ACCEPTED, TRUE, "NoConflicts", "no conflicts found", now)
    else:
        names = _condition(NAMES_ACCEPTED, FALSE, *conflict, now)
    conditions = with_condition(status.conditions, names)
    if conflict is None and not established:
        # Once its names are accepted a definition is served for good, whatever comes later.
        conditions = with_condition(
            conditions,
            _condition(
                ESTABLISHED,
                TRUE,
                "InitialNamesAccepted",
                "the initial names have been accepted",
                now,
            ),
        )
    elif not established:
        conditions = with_condition(
            conditions,
            _condition(ESTABLISHED, FALSE, "NotAccepted", "not all names are accepted", now),
        )
    return replace(status, conditions=conditions)


def _accepted(
    definition: CustomResourceDefinition, resources: set[str], kinds: set[str]
) -> tuple[CustomResourceDefinitionNames, tuple[str, str] | None]:
    """Each name that is free is taken; of those that are not, the old one is kept."""
    wanted, had = definition.spec.names, definition.status.accepted_names
    conflict: tuple[str, str] | None = None
    accepted = had

    def refuse(reason: str, name: str) -> None:
        nonlocal conflict
        conflict = (reason, f'"{name}" is already in use')

    if wanted.plural in resources:
        refuse("PluralConflict", wanted.plural)
    else:
        accepted = replace(accepted, plural=wanted.plural)
    if wanted.singular in resources:
        refuse("SingularConflict", wanted.singular)
    else:
        accepted = replace(accepted, singular=wanted.singular)
    taken = [name for name in wanted.short_names if name in resources]
    if taken:
        refuse("ShortNamesConflict", taken[0])
    else:
        accepted = replace(accepted, short_names=wanted.short_names)
    if wanted.kind in kinds:
        refuse("KindConflict", wanted.kind)
    else:
        accepted = replace(accepted, kind=wanted.kind)
    if wanted.list_kind in kinds:
        refuse("ListKindConflict", wanted.list_kind)
    else:
        accepted = replace(accepted, list_kind=wanted.list_kind)
    return replace(accepted, categories=wanted.categories), conflict


def _condition(
    type_: str, status: str, reason: str, message: str, now: datetime
) -> CustomResourceDefinitionCondition:
    return CustomResourceDefinitionCondition(
        type=type_, status=status, reason=reason, message=message, last_transition_time=now
    )


def terminating(
    definition: CustomResourceDefinition, reason: str, now: datetime
) -> CustomResourceDefinitionStatus:
    """The status while instances are deleted, and when none is left."""
    status, message = _TERMINATION[reason]
    conditions: Sequence[CustomResourceDefinitionCondition] = definition.status.conditions
    new = _condition(TERMINATING, status, reason, message, now)
    return replace(definition.status, conditions=with_condition(conditions, new))


PENDING, IN_PROGRESS, COMPLETED = (
    "InstanceDeletionPending",
    "InstanceDeletionInProgress",
    "InstanceDeletionCompleted",
)
_TERMINATION = {
    PENDING: (
        TRUE,
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    ),
    IN_PROGRESS: (TRUE, "CustomResource deletion is in progress"),
    COMPLETED: (FALSE, "removed all instances"),
}
