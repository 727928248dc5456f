"""Pods waiting for a node: ready to be tried, backing off, or waiting for the world to change.

A pod is in exactly one place (see `check_invariants`):

- *active*: tried next, highest priority first, then the one that waits longest;
- *backing off*: tried again at a known moment (1 s after the first failure, doubling to 10 s);
- *unschedulable*: tried again when something happens that could help the plugins that refused it,
  or after five minutes as a safety net;
- *gated*: not tried before it changes (PreEnqueue);
- *in flight*: taken by `take`, not given back yet.

Events that arrive while a pod is in flight may be the very ones that would have helped: they are
remembered and count when the pod comes back. Times are the event loop's seconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.scheduler.features import PodFeatures
    from pybernetes.scheduler.reasons import Diagnosis, Refusal

INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 10.0
# How long a pod waits at most for an event that helps (upstream's
# DefaultPodMaxInUnschedulablePodsDuration).
MAX_UNSCHEDULABLE_SECONDS = 300.0
CHANGED = -1


class Event(Enum):
    """What happened in the cluster, as far as it can make a pod schedulable."""

    NODE_ADDED = "NodeAdd"
    NODE_CHANGED = "NodeUpdate"
    NODE_DELETED = "NodeDelete"
    POD_ADDED = "AssignedPodAdd"
    POD_CHANGED = "AssignedPodUpdate"
    POD_DELETED = "AssignedPodDelete"
    NAMESPACE_CHANGED = "NamespaceUpdate"


_ROOM = frozenset({Event.NODE_ADDED, Event.NODE_CHANGED, Event.POD_DELETED, Event.POD_CHANGED})
_NODES = frozenset({Event.NODE_ADDED, Event.NODE_CHANGED})
_ANYTHING = frozenset(Event)

# Which events could change a plugin's verdict (upstream: EventsToRegister).
HELPED_BY: dict[str, frozenset[Event]] = {
    "NodeName": frozenset({Event.NODE_ADDED}),
    "NodeUnschedulable": _NODES,
    "TaintToleration": _NODES,
    "NodeAffinity": _NODES,
    "NodePorts": _ROOM,
    "NodeResourcesFit": _ROOM,
    "PodTopologySpread": _ANYTHING,
    "InterPodAffinity": _ANYTHING,
    "SchedulingGates": frozenset(),
}


@dataclass(slots=True)
class QueuedPod:
    """A pod without a node, and what has been tried for it."""

    pod: Pod
    features: PodFeatures
    added_at: float
    attempts: int = 0
    diagnosis: Diagnosis | None = None
    gate: Refusal | None = None
    # What was last said about it, and when; nothing yet: "".
    said: str = ""
    said_at: float = 0.0

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def priority(self) -> int:
        return self.pod.spec.priority or 0

    @property
    def backoff_seconds(self) -> float:
        doublings = max(0, self.attempts - 1)
        return min(MAX_BACKOFF_SECONDS, INITIAL_BACKOFF_SECONDS * 2.0**doublings)


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    active: int
    backing_off: int
    unschedulable: int
    gated: int
    in_flight: int


@dataclass(slots=True)
class SchedulingQueue:
    """See the module. Pure: whoever calls brings the time."""

    # Every pod that waits, by uid, wherever it is.
    _pods: dict[str, QueuedPod] = field(default_factory=dict)
    # (-priority, added_at, tie) → uid; entries of pods that left are skipped when they surface.
    _active: list[tuple[int, float, int, str]] = field(default_factory=list)
    _active_uids: set[str] = field(default_factory=set)
    # (moment, tie, uid), the earliest first; stale entries are skipped likewise.
    _backoff: list[tuple[float, int, str]] = field(default_factory=list)
    _backoff_until: dict[str, float] = field(default_factory=dict)
    # Active pods again by priority and shape, for `take`: uids, in the order they came;
    # those that left are skipped when they surface.
    _alike: dict[tuple[int, Hashable], deque[str]] = field(default_factory=dict)
    # Plugins that refused → uid → moment at which it came here, the earliest first. Pods refused by
    # the same plugins wait for the same events: an event that helps nobody costs nothing per pod.
    _unschedulable: dict[frozenset[str], dict[str, float]] = field(default_factory=dict)
    _gated: set[str] = field(default_factory=set)
    # uid → how many events there had been when it was taken; CHANGED: the pod itself changed since.
    _in_flight: dict[str, int] = field(default_factory=dict)
    # How many events there have been, and which number the latest of each kind had.
    _events: int = 0
    _latest: dict[Event, int] = field(default_factory=dict)
    _ties: count[int] = field(default_factory=count)

    def add(self, queued: QueuedPod) -> None:
        """A new pod, or one that changed in a way that matters: tried as soon as possible."""
        known = self._pods.get(queued.uid)
        if known is not None:
            queued.attempts, queued.added_at = known.attempts, known.added_at
            queued.diagnosis = known.diagnosis
            queued.said, queued.said_at = known.said, known.said_at
            if queued.uid in self._in_flight:
                known.pod, known.features = queued.pod, queued.features
                self._in_flight[queued.uid] = CHANGED
                return
            self._leave(queued.uid)
        self._pods[queued.uid] = queued
        if queued.gate is not None:
            self._gated.add(queued.uid)
        else:
            self._activate(queued)

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid)

    def remove(self, uid: str) -> None:
        """The pod was bound or is gone."""
        if self._pods.pop(uid, None) is not None:
            self._leave(uid)
            self._in_flight.pop(uid, None)

    def take(self, limit: int) -> list[QueuedPod]:
        """The next pod, with those of the same shape and priority behind it, at most `limit`.

        They are in flight until `remove` or `failed` is called for each.
        """
        first = self._pop_active()
        if first is None:
            return []
        taken = [first]
        group = (first.priority, first.features.shape)
        alike = self._alike.get(group, deque())
        while alike and len(taken) < limit:
            uid = alike.popleft()
            queued = self._pods.get(uid)
            if uid not in self._active_uids or queued is None:
                continue
            # A pod that changed in the meantime is named here for what it was.
            if (queued.priority, queued.features.shape) == group:
                self._active_uids.discard(uid)
                taken.append(queued)
        if not alike:
            self._alike.pop(group, None)
        for queued in taken:
            queued.attempts += 1
            self._in_flight[queued.uid] = self._events
        return taken

    def failed(self, uid: str, now: float, diagnosis: Diagnosis | None) -> None:
        """No node for it, or binding failed (`diagnosis` None): when is it tried again?"""
        taken_at = self._in_flight.pop(uid, CHANGED)
        queued = self._pods.get(uid)
        if queued is None:
            return
        queued.diagnosis = diagnosis
        if (
            diagnosis is None
            or taken_at == CHANGED
            or any(_helps(e, diagnosis.plugins) for e, at in self._latest.items() if at > taken_at)
        ):
            self._back_off(queued, now)
        else:
            self._unschedulable.setdefault(diagnosis.plugins, {})[uid] = now

    def happened(self, event: Event, now: float, *, cause: str = "") -> None:
        """Move the pods that the event could help; not the one in flight that caused it."""
        if self._in_flight.get(cause) == self._events:
            self._in_flight[cause] += 1
        self._events += 1
        self._latest[event] = self._events
        for plugins in [each for each in self._unschedulable if _helps(event, each)]:
            for uid, since in self._unschedulable.pop(plugins).items():
                queued = self._pods[uid]
                if since + queued.backoff_seconds <= now:
                    self._activate(queued)
                else:
                    self._back_off(queued, since)

    def wake(self, now: float) -> None:
        """Bring back what has backed off or waited for long enough."""
        while self._backoff and self._backoff[0][0] <= now:
            moment, _, uid = heapq.heappop(self._backoff)
            if self._backoff_until.get(uid) == moment:
                del self._backoff_until[uid]
                self._activate(self._pods[uid])
        for plugins, waiting in list(self._unschedulable.items()):
            due = []
            for uid, since in waiting.items():
                if since + MAX_UNSCHEDULABLE_SECONDS > now:
                    break
                due.append(uid)
            for uid in due:
                del waiting[uid]
                self._activate(self._pods[uid])
            if not waiting:
                del self._unschedulable[plugins]

    def next_wake(self) -> float | None:
        """When `wake` has something to do next."""
        while self._backoff and self._backoff_until.get(self._backoff[0][2]) != self._backoff[0][0]:
            heapq.heappop(self._backoff)
        moments = [self._backoff[0][0]] if self._backoff else []
        moments += [
            next(iter(waiting.values())) + MAX_UNSCHEDULABLE_SECONDS
            for waiting in self._unschedulable.values()
        ]
        return min(moments, default=None)

    @property
    def has_active(self) -> bool:
        return bool(self._active_uids)

    def waiting(self) -> list[QueuedPod]:
        return list(self._pods.values())

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(
            active=len(self._active_uids),
            backing_off=len(self._backoff_until),
            unschedulable=sum(map(len, self._unschedulable.values())),
            gated=len(self._gated),
            in_flight=len(self._in_flight),
        )

    def check_invariants(self) -> None:
        places = (
            self._active_uids,
            set(self._backoff_until),
            {uid for waiting in self._unschedulable.values() for uid in waiting},
            self._gated,
            set(self._in_flight),
        )
        for uid in self._pods:
            where = sum(uid in place for place in places)
            assert where == 1, f"pod {uid} is in {where} places"
        for place in places:
            assert place <= self._pods.keys(), "a place holds a pod that does not wait"

    def _activate(self, queued: QueuedPod) -> None:
        self._active_uids.add(queued.uid)
        entry = (-queued.priority, queued.added_at, next(self._ties), queued.uid)
        heapq.heappush(self._active, entry)
        group = (queued.priority, queued.features.shape)
        self._alike.setdefault(group, deque()).append(queued.uid)

    def _back_off(self, queued: QueuedPod, since: float) -> None:
        moment = since + queued.backoff_seconds
        self._backoff_until[queued.uid] = moment
        heapq.heappush(self._backoff, (moment, next(self._ties), queued.uid))

    def _pop_active(self) -> QueuedPod | None:
        while self._active:
            _, _, _, uid = heapq.heappop(self._active)
            if uid in self._active_uids:
                self._active_uids.discard(uid)
                return self._pods[uid]
        # Whoever left before it was taken is still named here.
        self._alike.clear()
        return None

    def _leave(self, uid: str) -> None:
        self._active_uids.discard(uid)
        self._backoff_until.pop(uid, None)
        for plugins, waiting in self._unschedulable.items():
            if waiting.pop(uid, None) is not None:
                if not waiting:
                    del self._unschedulable[plugins]
                break
        self._gated.discard(uid)


def _helps(event: Event, plugins: frozenset[str]) -> bool:
    # Without nodes nobody refused, and only a node helps.
    if not plugins:
        return event in _NODES
    return any(event in HELPED_BY.get(plugin, _ANYTHING) for plugin in plugins)
