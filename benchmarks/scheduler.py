"""What scheduling costs with 5,000 nodes: CPU per pod, alone and through the whole control plane.

    python -m benchmarks.scheduler       prints one JSON object

`alone` is the decision with everything kept up for the next one, without queue and API; `queue`
what an event costs while 10,000 pods wait; `end_to_end` creating pods, deciding, binding, events
and the watches behind them, all in this process on a store in memory. Microseconds of CPU, and
pods per second of CPU.
"""

from __future__ import annotations

import asyncio
import json
import time
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.aio.clock import SystemClock
from pybernetes.api.types.core_v1 import (
    Affinity,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
    ServiceAccount,
    TopologySpreadConstraint,
)
from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.cluster.controlplane import ControlPlane, ControlPlaneOptions, control_plane
from pybernetes.scheduler.columns import NodeColumns
from pybernetes.scheduler.config import default_config
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Sweep
from pybernetes.scheduler.preemption import plan_preemption
from pybernetes.scheduler.queue import Event, QueuedPod, SchedulingQueue
from pybernetes.scheduler.reasons import Diagnosis, Refusal, refused_nodes
from pybernetes.storage import MemoryStore
from pybernetes.testing import builders

if TYPE_CHECKING:
    from collections.abc import Iterable

NODES = 5_000
ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
PROFILE = default_config().profiles[0]


def nodes() -> list[Any]:
    return [
        builders.node(f"n{i}", cpu="16", memory="64Gi", labels={ZONE: f"z{i % 3}"})
        for i in range(NODES)
    ]


def empty_columns() -> NodeColumns:
    columns = NodeColumns()
    for node in nodes():
        columns.set_node(node)
    return columns


def wanted(name: str, *, app: str = "web", **fields: Any) -> Pod:
    requests = {"cpu": "100m", "memory": "100Mi"}
    return builders.pod(name, labels={"app": app}, requests=requests, **fields)


def term(app: str, topology: str) -> PodAffinityTerm:
    selector = LabelSelector(match_labels={"app": app})
    return PodAffinityTerm(label_selector=selector, topology_key=topology)


def figures(seconds: float, pods: int) -> dict[str, Any]:
    return {"us": round(seconds / pods * 1e6, 1), "pods_per_second": round(pods / seconds)}


def in_sweeps(pods: list[Pod], *, batch: int) -> dict[str, Any]:
    """Place pods, `batch` of one shape at a time, as the loop does."""
    columns, random = empty_columns(), Random(1)
    features = [features_of(pod) for pod in pods]
    start = time.process_time()
    for first in range(0, len(pods), batch):
        sweep = Sweep(PROFILE, Cycle(pods[first], features[first], columns))
        for pod, known in zip(
            pods[first : first + batch], features[first : first + batch], strict=True
        ):
            slot = sweep.choose(random)
            assert slot is not None
            columns.add_pod(pod, known, columns.names[slot])
            sweep.placed(slot)
    seconds = time.process_time() - start
    columns.check_invariants()
    return figures(seconds, len(pods))


def measure_alone() -> dict[str, Any]:
    far = Affinity(
        pod_anti_affinity=PodAntiAffinity(
            required_during_scheduling_ignored_during_execution=(term("far", HOSTNAME),)
        )
    )
    near = Affinity(
        pod_affinity=PodAffinity(
            required_during_scheduling_ignored_during_execution=(term("near", ZONE),)
        )
    )
    spread = TopologySpreadConstraint(
        max_skew=1,
        topology_key=ZONE,
        when_unsatisfiable="DoNotSchedule",
        label_selector=LabelSelector(match_labels={"app": "spread"}),
    )
    pods = [wanted(f"p{i}") for i in range(10_000)]
    start = time.process_time()
    for pod in pods:
        features_of(pod)
    look = round((time.process_time() - start) / len(pods) * 1e6, 1)
    return {
        "features_us": look,
        "alike": in_sweeps(pods, batch=64),
        "unlike": in_sweeps([wanted(f"p{i}", app=f"a{i % 997}") for i in range(1_000)], batch=1),
        "required_anti_affinity": in_sweeps(
            [wanted(f"p{i}", app="far", affinity=far) for i in range(1_000)], batch=64
        ),
        "required_affinity": in_sweeps(
            [wanted(f"p{i}", app="near", affinity=near) for i in range(1_000)], batch=64
        ),
        "required_spreading": in_sweeps(
            [
                wanted(f"p{i}", app="spread", topology_spread_constraints=(spread,))
                for i in range(1_000)
            ],
            batch=64,
        ),
        **measure_refusals(),
    }


def measure_refusals() -> dict[str, Any]:
    """A full cluster: to say why a pod fits nowhere, and whose place it could have."""
    columns = empty_columns()
    for number in range(4 * NODES):
        pod = builders.pod(f"low-{number}", requests={"cpu": "4"}, priority=1)
        columns.add_pod(pod, features_of(pod), f"n{number % NODES}")
    pod = builders.pod("high", requests={"cpu": "4"}, priority=10)
    cycle = Cycle(pod, features_of(pod), columns)
    start = time.process_time()
    for _ in range(20):
        diagnosis = Diagnosis(columns.count, Sweep(PROFILE, cycle).refusals())
        diagnosis.sentence()
    middle = time.process_time()
    for _ in range(5):
        plan = plan_preemption(PROFILE, cycle, diagnosis, ())
    end = time.process_time()
    assert plan.candidate is not None
    return {
        "say_why_not_ms": round((middle - start) / 20 * 1e3, 2),
        "plan_preemption_ms": round((end - middle) / 5 * 1e3, 2),
    }


def measure_queue() -> dict[str, Any]:
    waiting, events = 10_000, 1_000
    queue = SchedulingQueue()
    tainted = Refusal("TaintToleration", "UntoleratedTaint", "node(s) had untolerated taint {k: }")
    diagnosis = Diagnosis(1, refused_nodes({"n": (tainted,)}))
    for number in range(waiting):
        pod = wanted(f"p{number}", app=f"a{number}")
        queue.add(QueuedPod(pod, features_of(pod), 0.0))
    start = time.process_time()
    while batch := queue.take(64):
        for queued in batch:
            queue.failed(queued.uid, 1.0, diagnosis)
    tried = time.process_time()
    for _ in range(events):
        queue.happened(Event.POD_DELETED, 2.0)
        queue.wake(2.0)
        queue.next_wake()
    told = time.process_time()
    queue.happened(Event.NODE_ADDED, 3.0)
    end = time.process_time()
    return {
        "take_and_fail_us": round((tried - start) / waiting * 1e6, 2),
        "event_that_helps_nobody_us": round((told - tried) / events * 1e6, 2),
        "event_that_helps_us_per_pod": round((end - told) / waiting * 1e6, 2),
    }


async def fill(plane: ControlPlane, made: Iterable[Any]) -> None:
    await plane.admin.create(
        ServiceAccount(metadata=ObjectMeta(name="default", namespace="default"))
    )
    for node in made:
        known = await plane.admin.create(node)
        known = await plane.admin.update_status(replace(known, status=node.status))
        # New nodes are tainted as not ready until a controller has seen them.
        await plane.admin.update(replace(known, spec=replace(known.spec, taints=())))


async def measure_end_to_end(pods: int = 5_000) -> dict[str, Any]:
    clock = SystemClock()
    options = ControlPlaneOptions(controllers=False)
    store = MemoryStore(clock=clock)
    async with control_plane(store, clock=clock, random=Random(1), options=options) as plane:
        await fill(plane, nodes())
        bound: set[str] = set()
        finished = asyncio.Event()

        def seen(old: Pod | None, new: Pod | None) -> None:
            if new is not None and new.spec.node_name:
                bound.add(new.metadata.uid)
                if len(bound) == pods:
                    finished.set()

        cache = plane.caches.of(Pod)
        await cache.wait_synced()
        cache.subscribe(seen)
        start = time.process_time()
        for number in range(pods):
            await plane.admin.create(wanted(f"p{number}"))
        created = time.process_time()
        async with asyncio.timeout(300):
            await finished.wait()
        end = time.process_time()
    return {
        "create_us": round((created - start) / pods * 1e6, 1),
        "decide_and_bind": figures(end - created, pods),
        "all": figures(end - start, pods),
    }


def main() -> None:
    results = {
        "alone": measure_alone(),
        "queue": measure_queue(),
        "end_to_end": asyncio.run(measure_end_to_end()),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
