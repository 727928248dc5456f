"""Disruption: how many pods of a budget may be missing on purpose, at this moment.

Watches budgets, pods and what controls pods; writes poddisruptionbudgets/status, which the API
server asks before it lets an eviction through. Rule: a pod that the API server let go is counted
as gone at once (status.disruptedPods), until its deletion is seen or two minutes have passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.conditions import FALSE, TRUE, condition_of, with_condition
from pybernetes.api.core.podstate import is_finished, is_ready, is_terminating
from pybernetes.api.ownership import controller_of
from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet, StatefulSet
from pybernetes.api.types.autoscaling_v1 import Scale
from pybernetes.api.types.core_v1 import Pod, ReplicationController
from pybernetes.api.types.meta_v1 import Condition
from pybernetes.api.types.policy_v1 import PodDisruptionBudget, PodDisruptionBudgetStatus
from pybernetes.apimachinery.errors import MethodNotSupported, NotFound, StatusError
from pybernetes.apimachinery.intstr import scaled
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import NORMAL, WARNING, changes_of, keys_of
from pybernetes.controllers.nodepods import DISRUPTION_TARGET, mark_condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pybernetes.api.types.meta_v1 import OwnerReference
    from pybernetes.client import Cache
    from pybernetes.controllers.context import ControllerContext

# How long a pod that was let go may take to be seen deleted.
DELETION_TIMEOUT = timedelta(minutes=2)
DISRUPTION_ALLOWED = "DisruptionAllowed"


class UncountableError(Exception):
    """It cannot be told how many pods there should be."""


@dataclass(frozen=True, slots=True)
class Target:
    """How many pods there should be, and how many of them must be healthy."""

    expected: int
    healthy: int


def target_of(budget: PodDisruptionBudget, present: int, scale: int) -> Target:
    """`present` pods match; what controls them wants `scale`, which a percentage is taken of."""
    spec = budget.spec
    if spec.max_unavailable is not None:
        unavailable = scaled(spec.max_unavailable, scale, round_up=True)
        return Target(scale, max(scale - unavailable, 0))
    if isinstance(spec.min_available, str):
        return Target(scale, scaled(spec.min_available, scale, round_up=True))
    return Target(present, spec.min_available or 0)


def needs_scale(budget: PodDisruptionBudget) -> bool:
    return budget.spec.max_unavailable is not None or isinstance(budget.spec.min_available, str)


def still_disrupted(
    known: Mapping[str, datetime | None], pods: Sequence[Pod], now: datetime
) -> dict[str, datetime | None]:
    """Of the pods that were let go, those whose deletion is still to come."""
    there = {pod.metadata.name for pod in pods if not is_terminating(pod)}
    return {
        name: moment
        for name, moment in known.items()
        if name in there and moment is not None and moment + DELETION_TIMEOUT >= now
    }


def status_of(
    budget: PodDisruptionBudget, pods: Sequence[Pod], target: Target, now: datetime
) -> PodDisruptionBudgetStatus:
    disrupted = still_disrupted(budget.status.disrupted_pods, pods, now)
    healthy = sum(
        is_ready(pod)
        for pod in pods
        if not is_terminating(pod) and pod.metadata.name not in disrupted
    )
    allowed = max(healthy - target.healthy, 0) if target.expected > 0 else 0
    return PodDisruptionBudgetStatus(
        observed_generation=budget.metadata.generation,
        disrupted_pods=disrupted,
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=target.healthy,
        expected_pods=target.expected,
        conditions=_with_verdict(budget, allowed, now),
    )


def failed_status(
    budget: PodDisruptionBudget, why: str, now: datetime
) -> PodDisruptionBudgetStatus:
    """Nobody may go as long as it cannot be told how many may."""
    condition = _condition(budget, FALSE, "SyncFailed", why, now)
    return msgspec.structs.replace(
        budget.status,
        observed_generation=budget.metadata.generation,
        disruptions_allowed=0,
        conditions=with_condition(budget.status.conditions, condition),
    )


def _with_verdict(
    budget: PodDisruptionBudget, allowed: int, now: datetime
) -> tuple[Condition, ...]:
    status, reason = (TRUE, "SufficientPods") if allowed > 0 else (FALSE, "InsufficientPods")
    return with_condition(budget.status.conditions, _condition(budget, status, reason, "", now))


def _condition(
    budget: PodDisruptionBudget, status: str, reason: str, message: str, now: datetime
) -> Condition:
    return Condition(
        type=DISRUPTION_ALLOWED,
        status=status,
        reason=reason,
        message=message,
        observed_generation=budget.metadata.generation,
        last_transition_time=now.replace(microsecond=0),
    )


class DisruptionController:
    name = "disruption-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for("controllermanager")
        caches = context.caches
        self._budgets = caches.of(PodDisruptionBudget)
        self._pods = caches.of(Pod)
        # Who says how many pods there should be, by kind; others are asked for their scale.
        self._owners: dict[str, Cache[Any]] = {
            kind.__name__: caches.of(kind)
            for kind in (ReplicaSet, Deployment, StatefulSet, ReplicationController)
        }
        self.sources = (
            keys_of(self._budgets),
            changes_of(self._pods, self._budgets_of),
            # A change of theirs is a change of pods soon; they only have to be known.
            *(changes_of(cache, lambda old, new: ()) for cache in self._owners.values()),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        budget = self._budgets.get(key)
        if budget is None:
            return None
        now = self._clock.now()
        pods = self._pods.list(key.namespace, selector_of(budget.spec.selector))
        if not pods:
            self._recorder.record(budget, NORMAL, "NoPods", "No matching pods found")
        try:
            status = status_of(budget, pods, await self._target(budget, pods), now)
        except UncountableError as error:
            said = f"Failed to calculate the number of expected pods: {error}"
            self._recorder.record(budget, WARNING, "CalculateExpectedPodCountFailed", said)
            status = failed_status(budget, str(error), now)
        self._report_the_stubborn(budget, pods, now)
        if status != budget.status:
            await self._client.update_status(msgspec.structs.replace(budget, status=status))
        ends = [at + DELETION_TIMEOUT for at in status.disrupted_pods.values() if at is not None]
        # A moment later, so that the time is over then.
        return min(ends) - now + timedelta(seconds=1) if ends else None

    def _report_the_stubborn(
        self, budget: PodDisruptionBudget, pods: Sequence[Pod], now: datetime
    ) -> None:
        for pod in pods:
            moment = budget.status.disrupted_pods.get(pod.metadata.name)
            if moment is None or is_terminating(pod) or moment + DELETION_TIMEOUT >= now:
                continue
            said = f"Pod was expected by PDB {key_of(budget)} to be deleted but it wasn't"
            self._recorder.record(pod, WARNING, "NotDeleted", said)

    async def _target(self, budget: PodDisruptionBudget, pods: Sequence[Pod]) -> Target:
        scale = await self._scale(budget, pods) if needs_scale(budget) else 0
        try:
            return target_of(budget, len(pods), scale)
        except ValueError as error:
            raise UncountableError(str(error)) from error

    async def _scale(self, budget: PodDisruptionBudget, pods: Sequence[Pod]) -> int:
        """The pods that all controllers of these pods want, together."""
        wanted: dict[str, int] = {}
        unmanaged: list[str] = []
        for pod in pods:
            owner = controller_of(pod)
            if owner is None:
                unmanaged.append(pod.metadata.name)
            elif owner.uid not in wanted:
                uid, replicas = await self._replicas(pod.metadata.namespace, owner)
                wanted[owner.uid] = 0
                wanted[uid] = replicas
        if unmanaged:
            said = (
                "Pods selected by this PodDisruptionBudget (selector: "
                f"{selector_of(budget.spec.selector)}) were found to be unmanaged. As a result, "
                "the status of the PDB cannot be calculated correctly, which may result in "
                "undefined behavior. To account for these pods please set "
                '".spec.minAvailable" field of the PDB to an integer value.'
            )
            self._recorder.record(budget, WARNING, "UnmanagedPods", said)
        return sum(wanted.values())

    async def _replicas(self, namespace: str, owner: OwnerReference) -> tuple[str, int]:
        """Uid and wanted size of what controls; of a ReplicaSet, the Deployment's above it."""
        cache = self._owners.get(owner.kind)
        if cache is None or cache.kind.group != owner.api_version.rpartition("/")[0]:
            return owner.uid, await self._asked_scale(namespace, owner)
        found = cache.get(Key(namespace, owner.name))
        if found is None or found.metadata.uid != owner.uid:
            return owner.uid, 0
        above = controller_of(found)
        if above is not None and above.kind == "Deployment":
            deployment = self._owners["Deployment"].get(Key(namespace, above.name))
            if deployment is not None and deployment.metadata.uid == above.uid:
                return above.uid, deployment.spec.replicas or 0
        return owner.uid, found.spec.replicas or 0

    async def _asked_scale(self, namespace: str, owner: OwnerReference) -> int:
        group, _, version = owner.api_version.rpartition("/")
        try:
            kind = await self._client.discover(group, version, owner.kind)
            scale = await self._client.get_subresource(kind, owner.name, namespace, "scale", Scale)
        except (LookupError, NotFound, MethodNotSupported) as error:
            raise UncountableError(
                f"{owner.kind.lower()}s.{group} does not implement the scale subresource"
            ) from error
        except StatusError as error:
            raise UncountableError(error.message) from error
        return scale.spec.replicas or 0

    def _budgets_of(self, old: Pod | None, new: Pod | None) -> Iterable[Key]:
        """The budgets that select the pod, if it changed in a way they count."""
        if old is not None and new is not None and _facts(old) == _facts(new):
            return ()
        found: dict[Key, None] = {}
        for pod in (old, new):
            for budget in () if pod is None else self._budgets.list(pod.metadata.namespace):
                if pod and selector_of(budget.spec.selector).matches(pod.metadata.labels):
                    found[key_of(budget)] = None
        return found


def _facts(pod: Pod) -> tuple[object, ...]:
    """All of a pod that a budget is counted from."""
    return (
        pod.metadata.labels,
        pod.metadata.uid,
        pod.metadata.owner_references,
        is_terminating(pod),
        is_ready(pod),
    )


class StaleDisruptionController:
    """A pod that was said to be about to go and did not: the condition is taken back."""

    name = "stale-pod-disruption-controller"
    account = "disruption-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._clock = context.clock
        self._pods = context.caches.of(Pod)
        self.sources = (changes_of(self._pods, self._marked),)

    async def reconcile(self, key: Key) -> timedelta | None:
        pod = self._pods.get(key)
        since = None if pod is None else marked_since(pod)
        if pod is None or since is None:
            return None
        left = since + DELETION_TIMEOUT - self._clock.now()
        if left > timedelta(0):
            return left
        condition = {"type": DISRUPTION_TARGET, "status": FALSE, "reason": "", "message": ""}
        await mark_condition(self._client, pod, condition, self._clock.now())
        return None

    @staticmethod
    def _marked(old: Pod | None, new: Pod | None) -> Iterable[Key]:
        return (key_of(new),) if new is not None and marked_since(new) else ()


def marked_since(pod: Pod) -> datetime | None:
    """Since when a pod that runs on has been said to be about to go."""
    if is_terminating(pod) or is_finished(pod):
        return None
    condition = condition_of(pod.status.conditions, DISRUPTION_TARGET)
    if condition is None or condition.status != TRUE:
        return None
    return condition.last_transition_time
