"""What one look at a stateful set says should be done, and what its status says. Pure.

With OrderedReady one thing is done at a time: pod n is made when all below it are available, and
removed when all above it are gone. With Parallel all that is missing or too much is dealt with at
once. A rolling update replaces pods from the highest number down, never more than `maxUnavailable`
at a time, and leaves those below `partition` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import (
    is_available,
    is_finished,
    is_ready,
    is_terminating,
)
from pybernetes.api.types.apps_v1 import StatefulSetStatus
from pybernetes.apimachinery.intstr import scaled
from pybernetes.controllers.statefulset.identity import (
    first_ordinal,
    ordinal_of,
    ordinals_of,
    revision_of,
    wished,
    with_identity,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.api.types.apps_v1 import StatefulSet
    from pybernetes.api.types.core_v1 import Pod


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    # Ordinals.
    create: tuple[int, ...] = ()
    delete: tuple[Pod, ...] = ()
    # Pods whose identity has to be written on them again.
    repair: tuple[Pod, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.delete or self.repair)


@dataclass(frozen=True, slots=True)
class Look:
    """A stateful set and its pods at one moment."""

    stateful_set: StatefulSet
    # By ordinal; there can be only one pod of a name.
    pods: dict[int, Pod]
    # Names of the revisions pods are moved from and to.
    current: str
    update: str
    now: datetime

    def is_healthy(self, pod: Pod) -> bool:
        """Counts as doing its work."""
        seconds = self.stateful_set.spec.min_ready_seconds or 0
        return (
            pod.status.phase == "Running"
            and not is_terminating(pod)
            and is_available(pod, seconds, self.now)
        )


def look_at(
    stateful_set: StatefulSet, pods: Sequence[Pod], *, current: str, update: str, now: datetime
) -> Look:
    numbered = {}
    for pod in pods:
        ordinal = ordinal_of(stateful_set, pod.metadata.name)
        if ordinal is not None:
            numbered[ordinal] = pod
    return Look(stateful_set, numbered, current, update, now)


def plan_pods(look: Look) -> Plan:
    """What to do next; nothing while something that must come first is under way."""
    ordered = look.stateful_set.spec.pod_management_policy != "Parallel"
    plan = _plan_wanted(look, one_at_a_time=ordered)
    if ordered and (plan.create or plan.delete or not _all_healthy(look)):
        return plan
    condemned = _plan_condemned(look, one_at_a_time=ordered)
    if ordered and (condemned or _condemned(look)):
        return Plan(delete=condemned, repair=plan.repair)
    taken = {pod.metadata.uid for pod in plan.delete}
    rolled = tuple(pod for pod in plan_update(look) if pod.metadata.uid not in taken)
    return Plan(plan.create, (*plan.delete, *condemned, *rolled), plan.repair)


def _plan_wanted(look: Look, *, one_at_a_time: bool) -> Plan:
    """Make what is missing, remove what has ended (so that it is made anew), mend identities."""
    create: list[int] = []
    delete: list[Pod] = []
    repair: list[Pod] = []
    for ordinal in ordinals_of(look.stateful_set):
        pod = look.pods.get(ordinal)
        if pod is None:
            create.append(ordinal)
        elif is_terminating(pod):
            pass
        elif is_finished(pod):
            delete.append(pod)
        elif with_identity(look.stateful_set, pod) is not pod:
            repair.append(pod)
        if one_at_a_time and (pod is None or not look.is_healthy(pod)):
            break
    return Plan(tuple(create), tuple(delete), tuple(repair))


def _all_healthy(look: Look) -> bool:
    """Every pod there should be is there and does its work."""
    found = [look.pods.get(ordinal) for ordinal in ordinals_of(look.stateful_set)]
    return all(pod is not None and look.is_healthy(pod) for pod in found)


def _condemned(look: Look) -> list[Pod]:
    """Pods whose number is out of range, highest first."""
    wanted = ordinals_of(look.stateful_set)
    return [look.pods[n] for n in sorted(look.pods, reverse=True) if n not in wanted]


def _plan_condemned(look: Look, *, one_at_a_time: bool) -> tuple[Pod, ...]:
    condemned = _condemned(look)
    if not one_at_a_time:
        return tuple(pod for pod in condemned if not is_terminating(pod))
    unhealthy = [pod for pod in condemned if not look.is_healthy(pod)]
    for pod in condemned:
        if is_terminating(pod):
            return ()
        # A pod that came into being and is not ready yet is waited for, unless it is the only
        # one that ails: waiting for that would be for ever.
        if look.is_healthy(pod) or pod is unhealthy[-1]:
            return (pod,)
        return ()
    return ()


def plan_update(look: Look) -> tuple[Pod, ...]:
    """The pods to remove now so that they come back from the new template."""
    strategy = look.stateful_set.spec.update_strategy
    if strategy.type == "OnDelete":
        return ()
    lowest = first_ordinal(look.stateful_set) + _partition(look.stateful_set)
    wanted = ordinals_of(look.stateful_set)
    healthy = {n for n in wanted if (pod := look.pods.get(n)) and look.is_healthy(pod)}
    allowed = max_unavailable(look.stateful_set)
    unavailable = len(wanted) - len(healthy)
    met = 0
    chosen: list[Pod] = []
    for ordinal in reversed(wanted):
        if ordinal < lowest or met >= allowed:
            break
        pod = look.pods.get(ordinal)
        is_old = pod is not None and revision_of(pod) != look.update
        if ordinal not in healthy:
            # It is down already: replacing an old one costs nothing, a new one is waited for.
            met += 1
            if pod is not None and is_old and not is_terminating(pod):
                chosen.append(pod)
        elif pod is not None and is_old and unavailable < allowed:
            met += 1
            unavailable += 1
            chosen.append(pod)
    return tuple(chosen)


def max_unavailable(stateful_set: StatefulSet) -> int:
    """At least one, or nothing could move."""
    rolling = stateful_set.spec.update_strategy.rolling_update
    given = rolling.max_unavailable if rolling else None
    if given is None:
        return 1
    return max(scaled(given, wished(stateful_set), round_up=False), 1)


def revision_for(look: Look, ordinal: int) -> str:
    """Which revision a pod that has to be made now is made from."""
    strategy = look.stateful_set.spec.update_strategy
    if strategy.type == "OnDelete":
        return look.update
    below = ordinal < first_ordinal(look.stateful_set) + _partition(look.stateful_set)
    return look.current if below else look.update


def _partition(stateful_set: StatefulSet) -> int:
    rolling = stateful_set.spec.update_strategy.rolling_update
    return (rolling.partition or 0) if rolling else 0


def status_of(look: Look, *, collisions: int) -> StatefulSetStatus:
    """What is there; a rolling update that has reached every pod makes its revision current."""
    stateful_set = look.stateful_set
    running = [p for p in look.pods.values() if p.status.phase == "Running" and is_ready(p)]
    living = [p for p in look.pods.values() if not is_terminating(p)]
    updated = sum(revision_of(p) == look.update for p in living)
    current = sum(revision_of(p) == look.current for p in living)
    complete = stateful_set.spec.update_strategy.type != "OnDelete" and updated == len(
        look.pods
    ) == len(running) == wished(stateful_set)
    return StatefulSetStatus(
        observed_generation=stateful_set.metadata.generation or 0,
        replicas=len(look.pods),
        ready_replicas=len(running),
        available_replicas=sum(look.is_healthy(p) for p in living),
        current_replicas=updated if complete else current,
        updated_replicas=updated,
        current_revision=look.update if complete else look.current,
        update_revision=look.update,
        collision_count=collisions,
        conditions=stateful_set.status.conditions,
    )
