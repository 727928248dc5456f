"""Who owns which fields, and the rules by which that changes.

An update takes what it changed from everybody and owns it. An apply owns exactly what it says:
it may not change what somebody else owns unless it is forced to, and what it said last time and
does not say now goes, if nobody else owns it. Owning the same value together is no conflict.

Rule: claims are never empty, and all values are shared and never changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pybernetes.apimachinery.apply.fieldset import (
    EMPTY,
    LEAF,
    FieldSet,
    difference,
    intersection,
    paths,
    union,
)
from pybernetes.apimachinery.apply.shape import (
    Comparison,
    Shape,
    compare,
    field_set,
    merge,
    with_named_members,
    without,
)

if TYPE_CHECKING:
    from datetime import datetime

Json = Any

APPLY, UPDATE = "Apply", "Update"
# Who owns what was there before anybody kept books, and what too many have updated.
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT_CHANGES = "ancient-changes"
MAX_UPDATERS = 10

# What every object has and nobody owns.
UNOWNED: FieldSet = {
    "f:apiVersion": LEAF,
    "f:kind": LEAF,
    "f:metadata": {
        ".": LEAF,
        **{
            f"f:{name}": LEAF
            for name in (
                "clusterName",
                "creationTimestamp",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        },
    },
}

Relevant = Callable[[FieldSet], FieldSet]


class Manager(NamedTuple):
    """Somebody who owns fields. Appliers are the same whatever version they apply."""

    name: str
    operation: str
    subresource: str = ""
    # Empty for appliers.
    api_version: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    fields: FieldSet
    api_version: str
    time: datetime | None = None


Managed = Mapping[Manager, Claim]


class Clash(NamedTuple):
    """A field that somebody else owns and would not have any more as it is."""

    manager: Manager
    path: str


class OwnersDisagree(Exception):
    """An apply would change what others own."""

    def __init__(self, clashes: Mapping[Manager, FieldSet]) -> None:
        super().__init__("others own these fields")
        self.fields = clashes

    @property
    def clashes(self) -> list[Clash]:
        return [
            Clash(manager, path)
            for manager in sorted(self.fields)
            for path in paths(self.fields[manager])
        ]


def changed_by(
    managed: Managed, comparison: Comparison, manager: Manager, api_version: str, now: datetime
) -> Managed:
    """After an update that changed this."""
    if comparison.is_empty:
        return managed
    added, modified, removed = comparison
    changed = union(added, modified)
    gone = union(changed, removed)
    result = {
        other: replace(claim, fields=fields)
        for other, claim in managed.items()
        if (fields := difference(claim.fields, gone))
    }
    taken = difference(changed, UNOWNED)
    if taken:
        present = result.get(manager)
        fields = taken if present is None else union(present.fields, taken)
        result[manager] = Claim(fields, api_version, now)
    return result


def capped(managed: Managed) -> Managed:
    """With so many updaters that the oldest are only remembered together, per version."""
    updaters = [manager for manager in managed if manager.operation == UPDATE]
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managed
    result = dict(managed)
    updaters.sort(key=lambda manager: (_seconds(managed[manager].time), manager))
    # The first updater met of each version, until a second one makes a bucket of them.
    firsts: dict[str, Manager] = {}
    for manager in updaters:
        if excess <= 0:
            break
        version = manager.api_version
        first = firsts.setdefault(version, manager)
        if first is manager:
            continue
        bucket = Manager(ANCIENT_CHANGES, UPDATE, "", version)
        if bucket not in result:
            result[bucket] = result.pop(first)
        claim = result.pop(manager)
        result[bucket] = Claim(
            union(result[bucket].fields, claim.fields), claim.api_version, claim.time
        )
        excess -= 1
    return result


def _seconds(time: datetime | None) -> float:
    return 0.0 if time is None else time.timestamp()


def apply(
    live: Json,
    config: Json,
    shape: Shape,
    managed: Managed,
    manager: Manager,
    claim: Claim,
    *,
    relevant: Relevant,
    force: bool,
) -> tuple[Json, Managed]:
    """The object with a configuration applied, and its owners.

    `claim` says when and in which version; its fields do not matter. Raises OwnersDisagree and
    DuplicateItem.
    """
    said = relevant(field_set(config, shape))
    merged = merge(live, config, shape)
    last = managed.get(manager)
    result = dict(managed)
    result[manager] = replace(claim, fields=said)
    if last is not None:
        merged = _pruned(merged, shape, result, last.fields)
    comparison = compare(live, merged, shape).filtered(relevant)
    touched = union(comparison.added, comparison.modified)
    clashes: dict[Manager, FieldSet] = {}
    for other, theirs in managed.items():
        if other != manager and (clash := intersection(theirs.fields, touched)):
            clashes[other] = clash
    if clashes and not force:
        raise OwnersDisagree(clashes)
    for other, theirs in managed.items():
        if other == manager:
            continue
        fields = difference(theirs.fields, clashes.get(other, EMPTY))
        fields = difference(fields, comparison.removed)
        if fields:
            result[other] = replace(theirs, fields=fields)
        else:
            del result[other]
    fields = difference(said, UNOWNED)
    if fields:
        result[manager] = replace(claim, fields=fields)
    else:
        del result[manager]
    return merged, result


def _pruned(merged: Json, shape: Shape, managed: Managed, last: FieldSet) -> Json:
    """Without what the applier said last time and nobody says now."""
    last_named = with_named_members(last, shape)
    pruned = without(merged, last_named, shape)
    everything = with_named_members(field_set(merged, shape), shape)
    owned = EMPTY
    for claim in managed.values():
        owned = union(owned, claim.fields)
    # What others own, or this applier now, comes back …
    kept = union(
        with_named_members(field_set(pruned, shape), shape), with_named_members(owned, shape)
    )
    pruned = without(merged, difference(everything, kept), shape)
    # … and what went with its parent although the applier never said it.
    remaining = with_named_members(field_set(pruned, shape), shape)
    return without(merged, intersection(difference(everything, remaining), last_named), shape)
