"""The scheduler's loop: collect what changed, decide once per batch, bind without waiting.

Watches pods, nodes, namespaces, services, workload controllers and disruption budgets; writes
bindings, the PodScheduled condition, nominations and events. Rules:

- a pod is *assumed* on its node the moment it is chosen: the columns hold it before the API does,
  so that the next decision counts with it; a binding that fails takes it back;
- every pod that could not be placed keeps its `Diagnosis`: the event, the condition and `explain`
  say the same;
- the loop sleeps until a watch or a known moment wakes it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.types.core_v1 import (
    Binding,
    Namespace,
    Node,
    ObjectReference,
    Pod,
    PodCondition,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.policy_v1 import PodDisruptionBudget
from pybernetes.apimachinery.errors import Conflict, NotFound, StatusError
from pybernetes.apimachinery.meta import key_of
from pybernetes.apimachinery.selector import selector_of
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.client import PatchType
from pybernetes.scheduler.columns import NodeColumns
from pybernetes.scheduler.config import SchedulerConfig, default_config
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Profile, Sweep
from pybernetes.scheduler.preemption import Candidate, budgets_of, plan_preemption
from pybernetes.scheduler.queue import Event, QueuedPod, SchedulingQueue
from pybernetes.scheduler.reasons import Diagnosis
from pybernetes.scheduler.siblings import Siblings

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Caches, Client, EventRecorder

log = logging.getLogger(__name__)

# Pods decided between two looks at the other tasks of the process.
BATCH = 256
# Bindings on their way to the API at once.
BINDINGS_AT_ONCE = 64
FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a pod waits, for whoever asks."""

    diagnosis: Diagnosis | None
    attempts: int
    gate: str = ""


class Scheduler:
    """All profiles of one process share one queue and one set of columns."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        clock: Clock,
        random: Random,
        recorder: EventRecorder,
        config: SchedulerConfig | None = None,
    ) -> None:
        self._client, self._clock, self._random = client, clock, random
        self._recorder = recorder
        self._config = config or default_config()
        self._pods, self._nodes = caches.of(Pod), caches.of(Node)
        self._namespaces = caches.of(Namespace)
        self._budgets = caches.of(PodDisruptionBudget)
        self._siblings = Siblings(caches)
        self._caches = caches
        self.columns = NodeColumns()
        self.queue = SchedulingQueue()
        self._wake = asyncio.Event()
        # uid → node of pods that were chosen and whose binding is not in the cache yet.
        self._assumed: dict[str, str] = {}
        # uid → (node, priority) of pods that wait for their victims to leave.
        self._nominated: dict[str, tuple[str, int]] = {}
        self._free_bindings = asyncio.Semaphore(BINDINGS_AT_ONCE)

    async def run(self) -> None:
        """Schedule until cancelled."""
        await self._caches.wait_synced()
        unsubscribe = [
            self._namespaces.subscribe(self._namespace_changed),
            self._nodes.subscribe(self._node_changed),
            self._pods.subscribe(self._pod_changed),
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._wait()
                    self.queue.wake(self._loop_time())
                    while batch := self.queue.take(BATCH):
                        self._schedule(batch, tasks)
                        await asyncio.sleep(0)
        finally:
            for end in unsubscribe:
                end()

    def explain(self, uid: str) -> Explanation | None:
        """What is known about a pod that waits; None if it does not."""
        queued = self.queue.get(uid)
        if queued is None:
            return None
        gate = queued.gate.text if queued.gate else ""
        return Explanation(queued.diagnosis, queued.attempts, gate)

    async def _wait(self) -> None:
        """Until something is to be tried."""
        while not self.queue.has_active:
            moment = self.queue.next_wake()
            self._wake.clear()
            try:
                async with asyncio.timeout_at(moment):
                    await self._wake.wait()
            except TimeoutError:
                return

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    # --- what changed -----------------------------------------------------------------------------

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.columns.remove_node(old.metadata.name)
            return
        self.columns.set_node(new)
        if old is None:
            self._happened(Event.NODE_ADDED)
        elif _matters(old, new):
            self._happened(Event.NODE_CHANGED)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        known = new or old
        assert known is not None
        self.columns.namespace_changed(
            known.metadata.name, new.metadata.labels if new is not None else None
        )
        self._happened(Event.NAMESPACE_CHANGED)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        uid = pod.metadata.uid
        if new is None or new.status.phase in FINISHED:
            self._forget(uid)
            if pod.spec.node_name or uid in self.columns.pods:
                self.columns.remove_pod(uid)
                self._happened(Event.POD_DELETED)
            return
        if new.spec.node_name:
            fresh = uid not in self.columns.pods
            self._forget(uid)
            self.columns.add_pod(new, features_of(new), new.spec.node_name)
            if fresh:
                self._happened(Event.POD_ADDED)
            elif old is not None and old.metadata.labels != new.metadata.labels:
                self._happened(Event.POD_CHANGED)
        elif uid not in self._assumed:
            self._enqueue(old, new)

    def _enqueue(self, old: Pod | None, new: Pod) -> None:
        profile = self._config.profile(new.spec.scheduler_name)
        if profile is None:
            return
        if new.metadata.deletion_timestamp is not None:
            self.queue.remove(new.metadata.uid)
            return
        # Our own condition and nomination come back as changes: they are no reason to try again.
        if old is not None and old.spec == new.spec and old.metadata.labels == new.metadata.labels:
            if (queued := self.queue.get(new.metadata.uid)) is not None:
                queued.pod = new
            return
        queued = QueuedPod(new, features_of(new), added_at=self._loop_time())
        for plugin in profile.pre_enqueue:
            if (gate := plugin.pre_enqueue(new)) is not None:
                queued.gate = gate
                break
        self.queue.add(queued)
        self._wake.set()

    def _forget(self, uid: str) -> None:
        self._assumed.pop(uid, None)
        self._nominated.pop(uid, None)
        self.queue.remove(uid)

    def _happened(self, event: Event) -> None:
        self.queue.happened(event, self._loop_time())
        self._wake.set()

    # --- deciding ---------------------------------------------------------------------------------

    def _schedule(self, batch: list[QueuedPod], tasks: asyncio.TaskGroup) -> None:
        """Place pods of one shape; what does not fit is diagnosed once for all of them."""
        profile = self._config.profile(batch[0].pod.spec.scheduler_name)
        assert profile is not None
        reserved = self._reserve_nominated(batch[0])
        try:
            cycle = self._cycle(batch[0])
            sweep = Sweep(profile, cycle)
            diagnosis: Diagnosis | None = None
            for queued in batch:
                slot = sweep.choose(self._random) if diagnosis is None else None
                if slot is not None:
                    node = self.columns.names[slot]
                    self._assume(queued, node)
                    sweep.placed(slot)
                    tasks.create_task(self._bind(queued, node), name=f"bind/{key_of(queued.pod)}")
                    continue
                if diagnosis is None:
                    diagnosis = Diagnosis(self.columns.count, sweep.refusals())
                self._refuse(queued, profile, cycle, diagnosis, tasks)
        finally:
            for uid in reserved:
                self.columns.remove_pod(uid)

    def _cycle(self, queued: QueuedPod) -> Cycle:
        return Cycle(
            pod=queued.pod,
            features=queued.features,
            columns=self.columns,
            siblings=self._siblings.selector_of(queued.pod),
        )

    def _reserve_nominated(self, queued: QueuedPod) -> list[str]:
        """Count pods that were promised room, unless they are less important than this one."""
        reserved = []
        for uid, (node, priority) in self._nominated.items():
            waiting = self.queue.get(uid)
            if waiting is None or uid == queued.uid or priority < queued.priority:
                continue
            self.columns.add_pod(waiting.pod, waiting.features, node)
            reserved.append(uid)
        return reserved

    def _assume(self, queued: QueuedPod, node: str) -> None:
        uid = queued.uid
        self._assumed[uid] = node
        self._nominated.pop(uid, None)
        self.columns.add_pod(queued.pod, queued.features, node)

    def _refuse(
        self,
        queued: QueuedPod,
        profile: Profile,
        cycle: Cycle,
        diagnosis: Diagnosis,
        tasks: asyncio.TaskGroup,
    ) -> None:
        candidate: Candidate | None = None
        if profile.preempts and diagnosis.by_node:
            budgets = budgets_of(self._budgets.list(), selector_of)
            of_this = Cycle(queued.pod, queued.features, self.columns, cycle.siblings)
            plan = plan_preemption(profile, of_this, diagnosis, budgets)
            candidate = plan.candidate
            diagnosis = replace(diagnosis, preemption=plan.message)
        self.queue.failed(queued.uid, self._loop_time(), diagnosis)
        if candidate is not None:
            self._nominated[queued.uid] = (candidate.node, queued.priority)
        tasks.create_task(
            self._report(queued.pod, diagnosis, candidate), name=f"report/{key_of(queued.pod)}"
        )

    # --- writing ----------------------------------------------------------------------------------

    async def _bind(self, queued: QueuedPod, node: str) -> None:
        pod = queued.pod
        name, namespace = pod.metadata.name, pod.metadata.namespace
        binding = Binding(
            metadata=ObjectMeta(name=name, namespace=namespace, uid=pod.metadata.uid),
            target=ObjectReference(kind="Node", name=node),
        )
        try:
            async with self._free_bindings:
                await self._client.create_subresource(Pod, name, namespace, "binding", binding)
        except NotFound:
            self._take_back(queued, None)
            self.queue.remove(queued.uid)
        except StatusError as error:
            self._take_back(queued, error)
        else:
            self.queue.done(queued.uid)
            said = f"Successfully assigned {namespace}/{name} to {node}"
            self._recorder.record(pod, "Normal", "Scheduled", said, action="Binding")

    def _take_back(self, queued: QueuedPod, error: StatusError | None) -> None:
        """The binding failed: the pod takes nothing on that node."""
        if self._assumed.pop(queued.uid, None) is None:
            return
        self.columns.remove_pod(queued.uid)
        if error is None:
            return
        if not isinstance(error, Conflict):
            log.warning("binding failed, will retry", extra={"pod": str(key_of(queued.pod))})
        self.queue.failed(queued.uid, self._loop_time(), None)
        self._wake.set()

    async def _report(self, pod: Pod, diagnosis: Diagnosis, candidate: Candidate | None) -> None:
        """Condition, nomination and event; and make room if somebody has to leave."""
        message = diagnosis.sentence()
        self._recorder.record(pod, "Warning", "FailedScheduling", message, action="Scheduling")
        try:
            if candidate is not None:
                await self._make_room(pod, candidate)
            await self._mark_unschedulable(pod, message, candidate.node if candidate else "")
        except NotFound:
            return
        except StatusError as error:
            log.warning(
                "could not write why a pod waits",
                extra={"pod": str(key_of(pod)), "error": str(error)},
            )

    async def _mark_unschedulable(self, pod: Pod, message: str, node: str) -> None:
        condition = PodCondition(
            type="PodScheduled",
            status="False",
            reason="Unschedulable",
            message=message,
            last_transition_time=self._clock.now().replace(microsecond=0),
            observed_generation=pod.metadata.generation or 0,
        )
        known = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
        if known is not None and known.status == "False":
            condition = msgspec.structs.replace(
                condition, last_transition_time=known.last_transition_time
            )
        if known == condition and pod.status.nominated_node_name == node:
            return
        status: dict[str, object] = {"conditions": [_condition_patch(condition)]}
        if node or pod.status.nominated_node_name:
            status["nominatedNodeName"] = node or None
        await self._client.patch(
            Pod,
            pod.metadata.name,
            pod.metadata.namespace,
            patch={"metadata": {"uid": pod.metadata.uid}, "status": status},
            type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _make_room(self, pod: Pod, candidate: Candidate) -> None:
        for victim in candidate.victims:
            said = f"Preempted by pod {pod.metadata.uid} on node {candidate.node}"
            disruption = PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="PreemptionByScheduler",
                message=f"{pod.spec.scheduler_name}: preempting to accommodate a higher priority pod",
                last_transition_time=self._clock.now().replace(microsecond=0),
            )
            try:
                await self._client.patch(
                    Pod,
                    victim.metadata.name,
                    victim.metadata.namespace,
                    patch={"status": {"conditions": [_condition_patch(disruption)]}},
                    type=PatchType.STRATEGIC,
                    subresource="status",
                )
                await self._client.delete(victim)
            except NotFound:
                continue
            self._recorder.record(
                victim, "Normal", "Preempted", said, action="Preempting", related=pod
            )


async def run_scheduler(
    client: Client,
    caches: Caches,
    clock: Clock,
    random: Random,
    *,
    recorder: EventRecorder,
    config: SchedulerConfig | None = None,
) -> None:
    """Schedule until cancelled."""
    await Scheduler(client, caches, clock, random, recorder, config).run()


def _matters(old: Node, new: Node) -> bool:
    """Whether the change could make room; heartbeats of a condition do not."""
    return (
        old.spec != new.spec
        or old.metadata.labels != new.metadata.labels
        or old.status.allocatable != new.status.allocatable
        or [(c.type, c.status) for c in old.status.conditions]
        != [(c.type, c.status) for c in new.status.conditions]
    )


def _condition_patch(condition: PodCondition) -> dict[str, object]:
    patch: dict[str, object] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    }
    if condition.last_transition_time is not None:
        patch["lastTransitionTime"] = format_time(condition.last_transition_time)
    if condition.observed_generation:
        patch["observedGeneration"] = condition.observed_generation
    return patch
