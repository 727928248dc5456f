"""ReplicaSet and ReplicationController: keep as many pods as spec.replicas asks for.

Watches the owners and their pods; writes pods and the owners' status.
Rule: pods are counted from the cache, so nothing is created or deleted until the cache has shown
the effect of our own last writes (see client.Expectations).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from pybernetes.aio.slowstart import slow_start
from pybernetes.api.conditions import TRUE, condition_of, with_condition, without_condition
from pybernetes.api.core.podstate import (
    is_active,
    is_available,
    is_ready,
    is_terminating,
    ready_since,
    until_available,
)
from pybernetes.api.types.apps_v1 import ReplicaSet, ReplicaSetCondition, ReplicaSetStatus
from pybernetes.api.types.core_v1 import (
    Pod,
    PodTemplateSpec,
    ReplicationController,
    ReplicationControllerCondition,
    ReplicationControllerStatus,
)
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.selector import equality_selector, selector_of
from pybernetes.client import Expectations, keys_of, owner_keys_of
from pybernetes.controllers.podcontrol import (
    PodControl,
    candidates_of,
    claim,
    is_namespace_going,
    orphan_keys_of,
    pod_from_template,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from pybernetes.apimachinery.meta import Key
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.client import Cache, Source
    from pybernetes.controllers.context import ControllerContext

# Upstream's burst: pods created or deleted by one look at most.
BURST = 500
REPLICA_FAILURE = "ReplicaFailure"
# Users may say which pods are cheap to delete (KEP-2255).
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

T = TypeVar("T", ReplicaSet, ReplicationController)


@dataclass(frozen=True, slots=True)
class ReplicaPlan:
    """What one look at the world says should be done."""

    create: int = 0
    delete: tuple[Pod, ...] = ()


def plan_replicas(
    replicas: int, pods: Sequence[Pod], *, neighbours: Sequence[Pod] = (), burst: int = BURST
) -> ReplicaPlan:
    """`neighbours` are active pods of the same application, for telling crowded nodes."""
    active = [pod for pod in pods if is_active(pod)]
    missing = replicas - len(active)
    if missing >= 0:
        return ReplicaPlan(create=min(missing, burst))
    crowd = Counter(pod.spec.node_name for pod in neighbours or active)
    least_useful_first = sorted(active, key=lambda pod: deletion_rank(pod, crowd))
    return ReplicaPlan(delete=tuple(least_useful_first[: min(-missing, burst)]))


def deletion_rank(pod: Pod, crowd: Counter[str]) -> tuple[Any, ...]:
    """Sorts the pod to delete first to the front, by upstream's seven criteria in order."""
    phases = {"Pending": 0, "Unknown": 1, "Running": 2}
    ready = is_ready(pod)
    since = ready_since(pod)
    restarts = max((s.restart_count for s in pod.status.container_statuses), default=0)
    created = pod.metadata.creation_timestamp
    return (
        bool(pod.spec.node_name),
        phases.get(pod.status.phase, 0),
        ready,
        _deletion_cost(pod),
        -crowd[pod.spec.node_name],
        -since.timestamp() if ready and since else 0.0,
        -restarts,
        -created.timestamp() if created else 0.0,
    )


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class _Counts:
    """What the status says, whichever kind it is of."""

    replicas: int
    fully_labeled: int
    ready: int
    available: int
    terminating: int


def count_pods(
    pods: Sequence[Pod], template: PodTemplateSpec | None, min_ready_seconds: int, now: datetime
) -> _Counts:
    active = [pod for pod in pods if is_active(pod)]
    labels = template.metadata.labels if template else {}
    return _Counts(
        replicas=len(active),
        fully_labeled=sum(labels.items() <= pod.metadata.labels.items() for pod in active),
        ready=sum(is_ready(pod) for pod in active),
        available=sum(is_available(pod, min_ready_seconds, now) for pod in active),
        terminating=sum(is_terminating(pod) for pod in pods),
    )


class _ReplicaController(Generic[T]):
    """The engine; what differs between the two kinds is in the methods a subclass gives."""

    name: str
    kind: type[T]

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._control = PodControl(self._client, context.recorder_for(self.name))
        self._owners: Cache[T] = context.caches.of(self.kind)
        self._pods = context.caches.of(Pod)
        self._expectations = Expectations()
        self._expectations.follow(self._pods, self.kind)
        self.sources: tuple[Source, ...] = (
            keys_of(self._owners),
            owner_keys_of(self._pods, self.kind),
            orphan_keys_of(self._pods, self._owners, self.selector),
        )

    def selector(self, owner: T) -> Selector:
        raise TypeError

    def status(self, owner: T, counts: _Counts, error: StatusError | None) -> Any:
        raise TypeError

    async def reconcile(self, key: Key) -> timedelta | None:
        owner = self._owners.get(key)
        if owner is None:
            self._expectations.forget(key)
            return None
        selector = self.selector(owner)
        pods = await claim(
            self._client, owner, selector, candidates_of(self._pods, owner, selector)
        )
        failure: StatusError | None = None
        met = self._expectations.met(key)
        if met and owner.metadata.deletion_timestamp is None:
            failure = await self._carry_out(key, owner, pods)
        now = self._clock.now()
        template = owner.spec.template
        counts = count_pods(pods, template, owner.spec.min_ready_seconds or 0, now)
        status = self.status(owner, counts, failure)
        if status != owner.status:
            await self._client.update_status(msgspec.structs.replace(owner, status=status))
        if failure is not None:
            raise failure
        if not met:
            return self._expectations.expires_in(key)
        return next_available(pods, owner.spec.min_ready_seconds or 0, now)

    async def _carry_out(self, key: Key, owner: T, pods: Sequence[Pod]) -> StatusError | None:
        """Create and delete; the first refusal, after which nothing more was tried."""
        plan = plan_replicas(
            owner.spec.replicas or 0, pods, neighbours=self._neighbours(owner, pods)
        )
        template = owner.spec.template

        async def create() -> None:
            assert template is not None
            with self._expectations.creation(key):
                await self._control.create(owner, pod_from_template(template, owner))

        async def delete(pod: Pod) -> None:
            with self._expectations.deletion(key, pod):
                await self._control.delete(owner, pod)

        try:
            # In doubling batches: a refused quota costs one request, not five hundred.
            await slow_start([create] * plan.create)
            await slow_start([partial(delete, pod) for pod in plan.delete], initial=BURST)
        except StatusError as error:
            return None if is_namespace_going(error) else error
        return None

    def _neighbours(self, owner: T, pods: Sequence[Pod]) -> Sequence[Pod]:
        """Active pods of everything the owner's own controller has: a deployment's pods."""
        return [pod for pod in pods if is_active(pod)]


class ReplicaSetController(_ReplicaController[ReplicaSet]):
    name = "replicaset-controller"
    kind = ReplicaSet

    def selector(self, owner: ReplicaSet) -> Selector:
        return selector_of(owner.spec.selector)

    def status(
        self, owner: ReplicaSet, counts: _Counts, error: StatusError | None
    ) -> ReplicaSetStatus:
        conditions = owner.status.conditions
        if error is None:
            conditions = without_condition(conditions, REPLICA_FAILURE)
        elif condition_of(conditions, REPLICA_FAILURE) is None:
            # Once: the refusals name pods that never came to be, and no two are alike.
            failed = ReplicaSetCondition(
                type=REPLICA_FAILURE,
                status=TRUE,
                reason=_failure_reason(owner.spec.replicas or 0, counts),
                message=error.message,
                last_transition_time=self._clock.now().replace(microsecond=0),
            )
            conditions = with_condition(conditions, failed)
        return ReplicaSetStatus(
            replicas=counts.replicas,
            fully_labeled_replicas=counts.fully_labeled,
            ready_replicas=counts.ready,
            available_replicas=counts.available,
            terminating_replicas=counts.terminating,
            observed_generation=owner.metadata.generation or 0,
            conditions=conditions,
        )

    def _neighbours(self, owner: ReplicaSet, pods: Sequence[Pod]) -> Sequence[Pod]:
        parents = {r.uid for r in owner.metadata.owner_references if r.controller}
        if not parents:
            return super()._neighbours(owner, pods)
        family = [
            sibling
            for sibling in self._owners.list(owner.metadata.namespace)
            if parents & {r.uid for r in sibling.metadata.owner_references if r.controller}
        ]
        return [pod for rs in family for pod in self._pods.owned_by(rs) if is_active(pod)]


class ReplicationControllerController(_ReplicaController[ReplicationController]):
    name = "replication-controller"
    kind = ReplicationController

    def selector(self, owner: ReplicationController) -> Selector:
        return equality_selector(owner.spec.selector)

    def status(
        self, owner: ReplicationController, counts: _Counts, error: StatusError | None
    ) -> ReplicationControllerStatus:
        conditions = owner.status.conditions
        if error is None:
            conditions = without_condition(conditions, REPLICA_FAILURE)
        elif condition_of(conditions, REPLICA_FAILURE) is None:
            # Once: the refusals name pods that never came to be, and no two are alike.
            failed = ReplicationControllerCondition(
                type=REPLICA_FAILURE,
                status=TRUE,
                reason=_failure_reason(owner.spec.replicas or 0, counts),
                message=error.message,
                last_transition_time=self._clock.now().replace(microsecond=0),
            )
            conditions = with_condition(conditions, failed)
        return ReplicationControllerStatus(
            replicas=counts.replicas,
            fully_labeled_replicas=counts.fully_labeled,
            ready_replicas=counts.ready,
            available_replicas=counts.available,
            observed_generation=owner.metadata.generation or 0,
            conditions=conditions,
        )


def next_available(pods: Sequence[Pod], min_ready_seconds: int, now: datetime) -> timedelta | None:
    """When the next ready pod has been ready for long enough."""
    waits = [
        wait
        for pod in pods
        if is_active(pod) and (wait := until_available(pod, min_ready_seconds, now))
    ]
    return min(waits, default=None)


def _failure_reason(wanted: int, counts: _Counts) -> str:
    return "FailedCreate" if counts.replicas < wanted else "FailedDelete"
