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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Namespace, Node, Pod
from pybernetes.api.types.policy_v1 import PodDisruptionBudget
from pybernetes.apimachinery.selector import selector_of
from pybernetes.scheduler.binding import Binder, Outcome
from pybernetes.scheduler.columns import NodeColumns
from pybernetes.scheduler.config import SchedulerConfig, default_config
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Profile, Sweep
from pybernetes.scheduler.preemption import Candidate, PreemptionPlan, budgets_of, plan_preemption
from pybernetes.scheduler.queue import MAX_UNSCHEDULABLE_SECONDS, Event, QueuedPod, SchedulingQueue
from pybernetes.scheduler.reasons import Diagnosis, refused_nodes
from pybernetes.scheduler.reporting import Reporter
from pybernetes.scheduler.siblings import Siblings

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Caches, Client, EventRecorder

# Pods decided between two looks at the other tasks of the process.
BATCH = 64
# How soon the same is said again about a pod that was tried again in vain. Thousands of pods that
# wait for one place would otherwise each write an event whenever somebody leaves.
REPEAT_SECONDS = MAX_UNSCHEDULABLE_SECONDS / 2
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
        self._random = random
        self._binder = Binder(client, recorder)
        self._reporter = Reporter(client, clock, recorder)
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
        # Pods that are being told to leave.
        self._evicted: set[str] = set()

    async def run(self) -> None:
        """Schedule until cancelled."""
        await self._caches.wait_synced()
        unsubscribe = [
            self._siblings.follow(),
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
            self._happened(Event.NODE_DELETED)
            return
        self.columns.set_node(new)
        if old is None:
            self._happened(Event.NODE_ADDED)
        elif _node_matters(old, new):
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
            held = uid in self.columns.pods or uid in self._nominated
            self._forget(uid)
            self.columns.remove_pod(uid)
            if held:
                self._happened(Event.POD_DELETED)
            return
        if new.spec.node_name:
            self._forget(uid)
            self.columns.add_pod(new, features_of(new), new.spec.node_name)
            # Also what we bound ourselves: pods that want to be near it may go now.
            if old is None or not old.spec.node_name:
                self._happened(Event.POD_ADDED)
            elif _pod_matters(old, new):
                self._happened(Event.POD_CHANGED)
        # Bound already, and this is what the pod was before.
        elif uid not in self._assumed or self.queue.get(uid) is not None:
            self._enqueue(old, new)

    def _enqueue(self, old: Pod | None, new: Pod) -> None:
        profile = self._config.profile(new.spec.scheduler_name)
        if profile is None:
            return
        if new.metadata.deletion_timestamp is not None:
            self._nominated.pop(new.metadata.uid, None)
            self.queue.remove(new.metadata.uid)
            return
        # Our own condition and nomination come back as changes: they are no reason to try again.
        if old is not None and old.spec == new.spec and old.metadata.labels == new.metadata.labels:
            if (queued := self.queue.get(new.metadata.uid)) is not None:
                queued.pod = new
            return
        if new.status.nominated_node_name and new.metadata.uid not in self._nominated:
            promise = (new.status.nominated_node_name, new.spec.priority or 0)
            self._nominated[new.metadata.uid] = promise
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

    def _happened(self, event: Event, *, cause: str = "") -> None:
        self.queue.happened(event, self._loop_time(), cause=cause)
        self._wake.set()

    # --- deciding ---------------------------------------------------------------------------------

    def _schedule(self, batch: list[QueuedPod], tasks: asyncio.TaskGroup) -> None:
        """Place pods of one shape; what does not fit is diagnosed once for all of them."""
        if len(batch) > 1 and any(queued.uid in self._nominated for queued in batch):
            # Each counts with the room that is promised to the others, not with its own.
            for queued in batch:
                self._schedule([queued], tasks)
            return
        profile = self._config.profile(batch[0].pod.spec.scheduler_name)
        assert profile is not None
        reserved = self._reserve_nominated(batch[0])
        left: list[QueuedPod] = []
        try:
            left = self._sweep(profile, batch, tasks)
        finally:
            for uid in reserved:
                self.columns.remove_pod(uid)
        for queued in left:
            self._schedule([queued], tasks)

    def _sweep(
        self, profile: Profile, batch: list[QueuedPod], tasks: asyncio.TaskGroup
    ) -> list[QueuedPod]:
        """Gives back the pods that have to be looked at again, because room was promised."""
        cycle = self._cycle(batch[0])
        for plugin in profile.pre_filter:
            if (refusal := plugin.pre_filter(cycle)) is not None:
                hopeless = Diagnosis(self.columns.count, of_pod=refusal)
                for queued in batch:
                    self._refuse(queued, hopeless, PreemptionPlan(None), tasks)
                return []
        sweep = Sweep(profile, cycle)
        diagnosis: Diagnosis | None = None
        plan = PreemptionPlan(None)
        for index, queued in enumerate(batch):
            slot = self._choose(sweep, queued) if diagnosis is None else None
            if slot is not None:
                self._place(queued, profile, slot, tasks)
                sweep.placed(slot)
                continue
            if diagnosis is None:
                diagnosis = Diagnosis(self.columns.count, sweep.refusals())
                plan = self._plan_preemption(profile, cycle, queued, diagnosis)
                diagnosis = replace(diagnosis, preemption=plan.message)
            self._refuse(queued, diagnosis, plan, tasks)
            if plan.candidate is not None:
                return batch[index + 1 :]
        return []

    def _choose(self, sweep: Sweep, queued: QueuedPod) -> int | None:
        """The node that was promised, if it can be; else the best."""
        if (promise := self._nominated.get(queued.uid)) is not None:
            slot = self.columns.slot_of.get(promise[0])
            if slot is not None and sweep.feasible[slot]:
                return slot
        return sweep.choose(self._random)

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

    def _place(
        self, queued: QueuedPod, profile: Profile, slot: int, tasks: asyncio.TaskGroup
    ) -> None:
        """Assume the pod on the node and bind it beside the loop."""
        uid, node = queued.uid, self.columns.names[slot]
        self._assumed[uid] = node
        self._nominated.pop(uid, None)
        self.columns.add_pod(queued.pod, queued.features, node)
        for plugin in profile.reserve:
            if (refusal := plugin.reserve(queued.pod, node)) is not None:
                for each in profile.reserve:
                    each.unreserve(queued.pod, node)
                refused = self._take_back(queued, node, Outcome(refusal=refusal))
                if refused is not None:
                    tasks.create_task(self._report(queued.pod, refused, None, ""))
                return
        tasks.create_task(
            self._bind(queued, profile, node), name=f"bind/{queued.pod.metadata.name}"
        )

    def _plan_preemption(
        self, profile: Profile, cycle: Cycle, queued: QueuedPod, diagnosis: Diagnosis
    ) -> PreemptionPlan:
        if not profile.preempts or not diagnosis.by_node:
            return PreemptionPlan(None)
        promised, _ = self._nominated.get(queued.uid, ("", 0))
        budgets = budgets_of(self._budgets.list(), selector_of)
        return plan_preemption(
            profile, cycle, diagnosis, budgets, promised=promised, leaving=self._evicted
        )

    def _refuse(
        self,
        queued: QueuedPod,
        diagnosis: Diagnosis,
        plan: PreemptionPlan,
        tasks: asyncio.TaskGroup,
    ) -> None:
        candidate = plan.candidate
        self.queue.failed(queued.uid, self._loop_time(), diagnosis)
        if candidate is not None:
            self._nominated[queued.uid] = (candidate.node, queued.priority)
            self._evicted.update(victim.metadata.uid for victim in candidate.victims)
        elif not plan.waits:
            self._nominated.pop(queued.uid, None)
        nominated, _ = self._nominated.get(queued.uid, ("", 0))
        message, now = diagnosis.sentence(), self._loop_time()
        known = queued.said == message and nominated == queued.pod.status.nominated_node_name
        if candidate is None and known and now - queued.said_at < REPEAT_SECONDS:
            return
        queued.said, queued.said_at = message, now
        tasks.create_task(
            self._report(queued.pod, diagnosis, candidate, nominated),
            name=f"report/{queued.pod.metadata.name}",
        )

    # --- writing ----------------------------------------------------------------------------------

    async def _report(
        self, pod: Pod, diagnosis: Diagnosis, candidate: Candidate | None, nominated: str
    ) -> None:
        await self._reporter.refused(pod, diagnosis.sentence(), candidate, nominated=nominated)
        if candidate is not None:
            # From here on the watch shows who leaves.
            self._evicted.difference_update(v.metadata.uid for v in candidate.victims)

    async def _bind(self, queued: QueuedPod, profile: Profile, node: str) -> None:
        outcome = await self._binder.bind(profile, queued.pod, node)
        if outcome.bound:
            self.queue.remove(queued.uid)
            return
        for plugin in profile.reserve:
            plugin.unreserve(queued.pod, node)
        if (refused := self._take_back(queued, node, outcome)) is not None:
            await self._report(queued.pod, refused, None, "")

    def _take_back(self, queued: QueuedPod, node: str, outcome: Outcome) -> Diagnosis | None:
        """The pod takes nothing on that node after all; the diagnosis, if a plugin said no."""
        uid = queued.uid
        # The watch may have shown the pod bound, or gone, before the answer came.
        if self._assumed.pop(uid, None) is None:
            return None
        self.columns.remove_pod(uid)
        self._happened(Event.POD_DELETED, cause=uid)
        diagnosis = None
        if outcome.gone:
            self.queue.remove(uid)
        else:
            if outcome.refusal is not None:
                # Upstream speaks of the one node that was chosen.
                diagnosis = Diagnosis(1, refused_nodes({node: (outcome.refusal,)}))
            self.queue.failed(uid, self._loop_time(), diagnosis)
        self._wake.set()
        return diagnosis


def _pod_matters(old: Pod, new: Pod) -> bool:
    """Whether the change could make room for another pod, or make it welcome."""
    return (
        old.metadata.labels != new.metadata.labels
        or (old.spec is not new.spec and old.spec.containers != new.spec.containers)
        or (old.metadata.deletion_timestamp is None) != (new.metadata.deletion_timestamp is None)
    )


def _node_matters(old: Node, new: Node) -> bool:
    """Whether the change could make room; heartbeats of a condition do not."""
    return (
        old.spec != new.spec
        or old.metadata.labels != new.metadata.labels
        or old.status.allocatable != new.status.allocatable
        or [(c.type, c.status) for c in old.status.conditions]
        != [(c.type, c.status) for c in new.status.conditions]
    )
