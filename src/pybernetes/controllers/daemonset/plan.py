"""What one look at a daemon set says should be done, and what its status says. Pure.

First every node is set right by itself: a pod where one belongs, none where none does, one and not
two. Then a rolling update goes on: without surge it removes old pods, never more than
`maxUnavailable` nodes being without a working pod; with surge it adds new pods beside old ones, on
`maxSurge` nodes at a time, and an old pod goes when the new one works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import is_available, is_finished, is_ready, is_terminating
from pybernetes.api.types.apps_v1 import DaemonSetStatus
from pybernetes.apimachinery.intstr import scaled
from pybernetes.controllers.daemonset.placement import Verdict, by_node, verdict_of
from pybernetes.controllers.history import REVISION_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pybernetes.api.types.apps_v1 import DaemonSet
    from pybernetes.api.types.core_v1 import Node, Pod


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    # Names of nodes that get a pod.
    create: tuple[str, ...] = ()
    delete: tuple[Pod, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.delete)


@dataclass(frozen=True, slots=True)
class Look:
    """A daemon set, its pods and the nodes at one moment."""

    daemon_set: DaemonSet
    # By node, oldest pod first; also of nodes that are gone.
    pods: Mapping[str, Sequence[Pod]]
    # By node.
    verdicts: Mapping[str, Verdict]
    # The hash of the present template.
    revision: str
    now: datetime

    def is_available(self, pod: Pod) -> bool:
        seconds = self.daemon_set.spec.min_ready_seconds or 0
        return not is_terminating(pod) and is_available(pod, seconds, self.now)

    def is_updated(self, pod: Pod) -> bool:
        return pod.metadata.labels.get(REVISION_LABEL) == self.revision

    @property
    def wanted(self) -> list[str]:
        """The nodes that should have a pod."""
        return [name for name, verdict in self.verdicts.items() if verdict.should_run]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rolling update may do, in nodes."""

    surge: int
    unavailable: int


def look_at(
    daemon_set: DaemonSet,
    pods: Iterable[Pod],
    nodes: Iterable[Node],
    *,
    revision: str,
    now: datetime,
) -> Look:
    verdicts = {node.metadata.name: verdict_of(daemon_set, node) for node in nodes}
    return Look(daemon_set, by_node(pods), verdicts, revision, now)


def bounds_of(daemon_set: DaemonSet, nodes: int) -> Bounds:
    """Percentages round up; never both 0, or nothing could move."""
    strategy = daemon_set.spec.update_strategy
    rolling = strategy.rolling_update
    if strategy.type == "OnDelete" or rolling is None:
        return Bounds(0, 0 if strategy.type == "OnDelete" else 1)
    surge = scaled(rolling.max_surge or 0, nodes, round_up=True)
    given = 1 if rolling.max_unavailable is None else rolling.max_unavailable
    unavailable = scaled(given, nodes, round_up=True)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, unavailable)


def plan_nodes(look: Look) -> Plan:
    """Set each node right by itself."""
    create: list[str] = []
    delete: list[Pod] = []
    surges = bounds_of(look.daemon_set, len(look.wanted)).surge > 0
    for name, verdict in look.verdicts.items():
        pods = look.pods.get(name, ())
        if verdict.should_run and not pods:
            create.append(name)
        elif verdict.may_stay:
            delete += _surplus(look, pods, surges=surges)
        else:
            delete += [pod for pod in pods if not is_terminating(pod)]
    for name, pods in look.pods.items():
        if name not in look.verdicts:
            # Tied to a node that is gone; one that was bound to it the pod collector removes too.
            delete += [pod for pod in pods if not is_terminating(pod) and not pod.spec.node_name]
    return Plan(tuple(create), tuple(delete))


def _surplus(look: Look, pods: Sequence[Pod], *, surges: bool) -> list[Pod]:
    """Pods that have ended (another will be made), and those there are too many of."""
    living = [pod for pod in pods if not is_terminating(pod)]
    ended = [pod for pod in living if is_finished(pod)]
    running = [pod for pod in living if not is_finished(pod)]
    if not surges:
        return [*ended, *running[1:]]
    new = [pod for pod in running if look.is_updated(pod)]
    old = [pod for pod in running if not look.is_updated(pod)]
    surplus = [*ended, *new[1:], *old[1:]]
    if new and old and (not is_ready(old[0]) or look.is_available(new[0])):
        # The new one took over, or has nothing to wait for.
        surplus.append(old[0])
    return surplus


def plan_update(look: Look) -> Plan:
    """The next step of a rolling update."""
    if look.daemon_set.spec.update_strategy.type == "OnDelete":
        return Plan()
    bounds = bounds_of(look.daemon_set, len(look.wanted))
    if bounds.surge:
        return Plan(create=tuple(_to_surge(look, bounds.surge)))
    return Plan(delete=tuple(_to_replace(look, bounds.unavailable)))


def _to_replace(look: Look, allowed: int) -> list[Pod]:
    """Old pods to remove: all that do not work, and as many that do as are allowed to be missing."""
    unavailable = 0
    broken: list[Pod] = []
    working: list[Pod] = []
    for name in look.wanted:
        pods = look.pods.get(name, ())
        if len(pods) != 1 or not look.is_available(pods[0]):
            unavailable += 1
        if len(pods) != 1 or look.is_updated(pods[0]) or is_terminating(pods[0]):
            # Being set right, being replaced, or done.
            continue
        (working if look.is_available(pods[0]) else broken).append(pods[0])
    return [*broken, *working[: max(allowed - unavailable, 0)]]


def _to_surge(look: Look, allowed: int) -> list[str]:
    """Nodes on which a new pod comes beside the old one."""
    surging = 0
    free: list[str] = []
    working: list[str] = []
    for name in look.wanted:
        pods = [pod for pod in look.pods.get(name, ()) if not is_finished(pod)]
        new = [pod for pod in pods if look.is_updated(pod)]
        old = [pod for pod in pods if not look.is_updated(pod)]
        if new and old:
            surging += 1
        elif len(old) == 1 and not new:
            # An old pod that does not work, or is going, may be overtaken at once.
            (working if look.is_available(old[0]) else free).append(name)
    return [*free, *working[: max(allowed - surging, 0)]]


def status_of(look: Look, *, collisions: int) -> DaemonSetStatus:
    """What there is on the nodes; of several pods of a node the oldest counts."""
    daemon_set = look.daemon_set
    oldest = [look.pods[name][0] for name in look.wanted if look.pods.get(name)]
    desired = len(look.wanted)
    misplaced = sum(
        1 for name, v in look.verdicts.items() if not v.should_run and look.pods.get(name)
    )
    available = sum(look.is_available(pod) for pod in oldest)
    return DaemonSetStatus(
        current_number_scheduled=len(oldest),
        number_misscheduled=misplaced,
        desired_number_scheduled=desired,
        number_ready=sum(is_ready(pod) for pod in oldest),
        observed_generation=daemon_set.metadata.generation or 0,
        updated_number_scheduled=sum(look.is_updated(pod) for pod in oldest),
        number_available=available,
        number_unavailable=desired - available,
        collision_count=collisions,
        conditions=daemon_set.status.conditions,
    )
