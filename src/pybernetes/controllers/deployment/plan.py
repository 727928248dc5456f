"""How large each replica set of a deployment should be: rolling, recreating, scaling. Pure.

The promises of a rolling update: never more than `maxSurge` pods above the wished number, never
more than `maxUnavailable` of them missing. Everything follows from what the replica sets *have*
(spec.replicas, what is available), so it does not matter how often one looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.apimachinery.intstr import scaled
from pybernetes.controllers.deployment.revisions import DESIRED, MAXIMUM, Sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet


@dataclass(frozen=True, slots=True)
class Resize:
    """A replica set and the number of pods it should have."""

    replica_set: ReplicaSet
    replicas: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rolling update may do, in pods."""

    surge: int
    unavailable: int


def wished(deployment: Deployment) -> int:
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def is_rolling(deployment: Deployment) -> bool:
    return deployment.spec.strategy.type != "Recreate"


def bounds_of(deployment: Deployment) -> Bounds:
    """Percentages of surge round up, of unavailable down; never both 0, or nothing could move."""
    if not is_rolling(deployment):
        return Bounds(0, 0)
    replicas = wished(deployment)
    rolling = deployment.spec.strategy.rolling_update
    given_surge = rolling.max_surge if rolling else None
    given_unavailable = rolling.max_unavailable if rolling else None
    surge = scaled("25%" if given_surge is None else given_surge, replicas, round_up=True)
    unavailable = scaled(
        "25%" if given_unavailable is None else given_unavailable, replicas, round_up=False
    )
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, replicas))


def size_of(replica_set: ReplicaSet) -> int:
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def total_size(replica_sets: Iterable[ReplicaSet]) -> int:
    return sum(size_of(rs) for rs in replica_sets)


def available(replica_sets: Iterable[ReplicaSet]) -> int:
    return sum(rs.status.available_replicas for rs in replica_sets)


def staying(rs: ReplicaSet) -> int:
    """Available pods that no earlier step takes away: a status may be older than the size."""
    return min(rs.status.available_replicas, size_of(rs))


def size_of_new(deployment: Deployment, new_size: int, everything: int) -> int:
    """How far the new replica set may grow now; `everything` is the size of all, it included."""
    replicas = wished(deployment)
    if not is_rolling(deployment):
        return replicas
    room = replicas + bounds_of(deployment).surge - everything
    if room <= 0:
        return new_size
    return new_size + min(room, replicas - new_size)


def plan_rolling(deployment: Deployment, sets: Sets) -> list[Resize]:
    """The next step: grow the new one first; only when it cannot grow, shrink the old ones."""
    new = sets.new
    assert new is not None
    size = size_of(new)
    if size > wished(deployment):
        return [Resize(new, wished(deployment))]
    if size < wished(deployment):
        grown = size_of_new(deployment, size, total_size(sets.all))
        if grown != size:
            return [Resize(new, grown)]
    return _shrink_old(deployment, sets, new)


def _shrink_old(deployment: Deployment, sets: Sets, new: ReplicaSet) -> list[Resize]:
    if total_size(sets.old) == 0:
        return []
    minimum = wished(deployment) - bounds_of(deployment).unavailable
    missing_new = size_of(new) - new.status.available_replicas
    may_go = total_size(sets.all) - minimum - missing_new
    if may_go <= 0:
        return []
    sizes = {rs.metadata.uid: size_of(rs) for rs in sets.old}
    _take_broken(sets.old, sizes, may_go)
    _take_available(sets, sizes, minimum)
    return [
        Resize(rs, sizes[rs.metadata.uid])
        for rs in sets.old
        if sizes[rs.metadata.uid] != size_of(rs)
    ]


def _take_broken(old: Sequence[ReplicaSet], sizes: dict[str, int], may_go: int) -> None:
    """Pods that are not available first: taking them costs nobody anything."""
    for rs in old:
        broken = sizes[rs.metadata.uid] - staying(rs)
        taken = min(broken, may_go)
        sizes[rs.metadata.uid] -= taken
        may_go -= taken


def _take_available(sets: Sets, sizes: dict[str, int], minimum: int) -> None:
    may_go = sum(map(staying, sets.all)) - minimum
    for rs in sets.old:
        taken = min(max(may_go, 0), sizes[rs.metadata.uid])
        sizes[rs.metadata.uid] -= taken
        may_go -= taken


def plan_recreate(deployment: Deployment, sets: Sets, *, old_pods_left: bool) -> list[Resize]:
    """All old pods go before the first new one comes."""
    shrink = [Resize(rs, 0) for rs in sets.old if size_of(rs)]
    if shrink or old_pods_left or sets.new is None:
        return shrink
    if size_of(sets.new) != wished(deployment):
        return [Resize(sets.new, wished(deployment))]
    return []


# --- scaling --------------------------------------------------------------------------------------


def is_scaled(deployment: Deployment, sets: Sets) -> bool:
    """Whether the wished number changed since the replica sets were last sized."""
    for rs in sets.all:
        desired = rs.metadata.annotations.get(DESIRED)
        if size_of(rs) and desired is not None and desired != str(wished(deployment)):
            return True
    return False


def plan_scale(deployment: Deployment, sets: Sets) -> list[Resize]:
    """A new number of replicas, in the middle of a rollout spread over all in proportion."""
    replicas = wished(deployment)
    active = [rs for rs in sets.all if size_of(rs)]
    if len(active) <= 1:
        only = active[0] if active else _latest(sets)
        # Also when it has that size already: it is to remember what it was sized for.
        return [Resize(only, replicas)] if only is not None else []
    if _is_saturated(deployment, sets.new):
        return [Resize(rs, 0) for rs in sets.old if size_of(rs)]
    return _in_proportion(deployment, active) if is_rolling(deployment) else []


def replica_annotations(deployment: Deployment) -> dict[str, str]:
    """By which a replica set remembers for which wished number it was sized."""
    surge = bounds_of(deployment).surge
    replicas = wished(deployment)
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + surge)}


def _latest(sets: Sets) -> ReplicaSet | None:
    if sets.new is not None:
        return sets.new
    return sets.old[-1] if sets.old else None


def _is_saturated(deployment: Deployment, new: ReplicaSet | None) -> bool:
    if new is None:
        return False
    replicas = wished(deployment)
    desired = new.metadata.annotations.get(DESIRED)
    return (
        size_of(new) == replicas
        and desired == str(replicas)
        and new.status.available_replicas == replicas
    )


def _in_proportion(deployment: Deployment, active: list[ReplicaSet]) -> list[Resize]:
    replicas = wished(deployment)
    allowed = replicas + bounds_of(deployment).surge if replicas else 0
    to_add = allowed - total_size(active)
    # Growing, the largest and newest gets what is left over; shrinking, the largest and oldest.
    ordered = sorted(active, key=lambda rs: _created(rs), reverse=to_add > 0)
    ordered.sort(key=size_of, reverse=True)
    sizes: list[int] = []
    added = 0
    for rs in ordered:
        share = _share(deployment, rs, to_add, added) if to_add else 0
        sizes.append(size_of(rs) + share)
        added += share
    if ordered and to_add != added:
        sizes[0] = max(sizes[0] + to_add - added, 0)
    return [Resize(rs, size) for rs, size in zip(ordered, sizes, strict=True)]


def _share(deployment: Deployment, rs: ReplicaSet, to_add: int, added: int) -> int:
    fraction = _fraction(deployment, rs)
    if to_add > 0:
        return min(fraction, to_add - added)
    return max(fraction, to_add - added)


def _fraction(deployment: Deployment, rs: ReplicaSet) -> int:
    """By how much the replica set would have to change to keep its share of the deployment."""
    size = size_of(rs)
    if wished(deployment) == 0:
        return -size
    whole = wished(deployment) + bounds_of(deployment).surge
    try:
        before = int(rs.metadata.annotations.get(MAXIMUM, ""))
    except ValueError:
        before = 0
    before = before or deployment.status.replicas
    if before <= 0:
        return 0
    # Half away from zero, as Go rounds.
    return int(size * whole / before + 0.5) - size


def _created(rs: ReplicaSet) -> float:
    created = rs.metadata.creation_timestamp
    return created.timestamp() if created else 0.0
