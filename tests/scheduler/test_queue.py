"""The queue: who is tried next, who waits for what. Pure; the test brings the time."""

from __future__ import annotations

import msgspec

from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.queue import Event, QueuedPod, SchedulingQueue
from pybernetes.scheduler.reasons import Diagnosis, Refusal, refused_nodes
from pybernetes.testing.builders import pod

NO_ROOM = Diagnosis(
    1, refused_nodes({"n": (Refusal("NodeResourcesFit", "x", "Insufficient cpu"),)})
)
TAINTED = Diagnosis(1, refused_nodes({"n": (Refusal("TaintToleration", "x", "tainted"),)}))


def queued(name: str, *, at: float = 0.0, cpu: str = "1", priority: int | None = None) -> QueuedPod:
    made = pod(name, requests={"cpu": cpu}, priority=priority)
    return QueuedPod(made, features_of(made), added_at=at)


def names(taken: list[QueuedPod]) -> list[str]:
    return [one.pod.metadata.name for one in taken]


def queue_of(*pods: QueuedPod) -> SchedulingQueue:
    queue = SchedulingQueue()
    for one in pods:
        queue.add(one)
    return queue


def test_importance_goes_before_age() -> None:
    queue = queue_of(queued("old"), queued("young", at=1), queued("vip", at=2, priority=100))
    assert names(queue.take(1)) == ["vip"]
    assert names(queue.take(1)) == ["old"]
    queue.check_invariants()


def test_like_pods_are_taken_together_and_others_stay_in_order() -> None:
    queue = queue_of(
        queued("a"), queued("big", at=1, cpu="2"), queued("b", at=2), queued("big2", at=3, cpu="2")
    )
    assert names(queue.take(10)) == ["a", "b"]
    assert names(queue.take(10)) == ["big", "big2"]
    assert queue.take(10) == []


def test_a_pod_without_room_waits_for_room() -> None:
    queue = queue_of(queued("p"))
    (taken,) = queue.take(1)
    queue.failed(taken.uid, 0.0, NO_ROOM)
    queue.happened(Event.NAMESPACE_CHANGED, 5.0)
    assert not queue.has_active, "a namespace makes no room"
    queue.happened(Event.POD_DELETED, 5.0)
    assert names(queue.take(1)) == ["p"]


def test_a_tainted_out_pod_does_not_wait_for_room() -> None:
    queue = queue_of(queued("p"))
    (taken,) = queue.take(1)
    queue.failed(taken.uid, 0.0, TAINTED)
    queue.happened(Event.POD_DELETED, 5.0)
    assert not queue.has_active
    queue.happened(Event.NODE_CHANGED, 5.0)
    assert queue.has_active


def test_events_while_a_pod_is_tried_are_not_lost() -> None:
    queue = queue_of(queued("p"))
    (taken,) = queue.take(1)
    queue.happened(Event.NODE_ADDED, 0.5)
    queue.failed(taken.uid, 1.0, NO_ROOM)
    assert queue.next_wake() == 2.0, "it backs off instead of waiting for another node"


def test_back_off_doubles_from_one_second_to_ten() -> None:
    queue = queue_of(queued("p"))
    waits = []
    now = 0.0
    for _ in range(6):
        (taken,) = queue.take(1)
        queue.failed(taken.uid, now, None)
        moment = queue.next_wake()
        assert moment is not None
        waits.append(moment - now)
        now = moment
        queue.wake(now)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_after_five_minutes_it_is_tried_anyway() -> None:
    queue = queue_of(queued("p"))
    (taken,) = queue.take(1)
    queue.failed(taken.uid, 10.0, NO_ROOM)
    assert queue.next_wake() == 310.0
    queue.wake(310.0)
    assert queue.has_active


def test_a_gated_pod_waits_for_its_own_change() -> None:
    gated = queued("p")
    gated.gate = Refusal("SchedulingGates", "Gated", "waiting")
    queue = queue_of(gated)
    queue.happened(Event.NODE_ADDED, 1.0)
    assert not queue.has_active
    queue.add(QueuedPod(gated.pod, gated.features, added_at=5.0))
    assert queue.has_active
    queue.check_invariants()


def test_a_removed_pod_is_nowhere() -> None:
    queue = queue_of(queued("a"), queued("b", cpu="2"))
    (taken,) = queue.take(1)
    queue.remove(taken.uid)
    queue.failed(taken.uid, 1.0, NO_ROOM)
    assert names(queue.waiting()) == ["b"]
    queue.check_invariants()


def test_a_pod_that_changed_is_not_taken_for_what_it_was() -> None:
    pods = [queued(f"p{n}") for n in range(3)]
    queue = queue_of(*pods)
    other = msgspec.structs.replace(pods[1].pod, spec=queued("x", cpu="2").pod.spec)
    queue.add(QueuedPod(other, features_of(other), added_at=0.0))
    assert names(queue.take(10)) == ["p0", "p2"]
    assert names(queue.take(10)) == ["p1"]
    queue.check_invariants()


def test_what_a_pod_caused_itself_does_not_help_it() -> None:
    queue = queue_of(queued("p"))
    (taken,) = queue.take(1)
    queue.happened(Event.POD_DELETED, 1.0, cause=taken.uid)
    queue.failed(taken.uid, 1.0, NO_ROOM)
    assert queue.statistics().unschedulable == 1
