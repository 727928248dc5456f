"""The daemon set controller's loop: one look, the steps that are due, then the status.

Watches daemon sets, their pods and revisions, and nodes; writes pods, revisions and status.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pybernetes.aio.backoff import Backoff
from pybernetes.aio.slowstart import slow_start
from pybernetes.api.types.apps_v1 import ControllerRevision, DaemonSet
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import (
    NORMAL,
    WARNING,
    Expectations,
    changes_of,
    keys_of,
    owner_keys_of,
)
from pybernetes.controllers.daemonset.placement import new_pod, target_of
from pybernetes.controllers.daemonset.plan import (
    Look,
    Plan,
    look_at,
    plan_nodes,
    plan_update,
    status_of,
)
from pybernetes.controllers.history import (
    REVISION_LABEL,
    bring_up_to_date,
    clean_up,
    superfluous,
)
from pybernetes.controllers.podcontrol import (
    PodControl,
    candidates_of,
    claim,
    is_namespace_going,
    orphan_keys_of,
    unless_namespace_goes,
)
from pybernetes.controllers.replicaset import next_available

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.apimachinery.meta import Key
    from pybernetes.controllers.context import ControllerContext

# Pods created or deleted by one look at most, as upstream.
BURST = 250
# A pod that fails on its node at once must not be replaced as fast as it fails.
FAILED_PODS = Backoff(initial=timedelta(seconds=1), maximum=timedelta(minutes=15))


class DaemonSetController:
    name = "daemon-set-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for(self.name)
        self._control = PodControl(self._client, self._recorder)
        self._sets = context.caches.of(DaemonSet)
        self._pods = context.caches.of(Pod)
        self._nodes = context.caches.of(Node)
        self._revisions = context.caches.of(ControllerRevision)
        self._expectations = Expectations()
        self._expectations.follow(self._pods, DaemonSet)
        # How often pods failed in a row and when last, by owner's uid and node; entries of owners
        # that are gone are dropped with them.
        self._failures: dict[tuple[str, str], tuple[int, datetime]] = {}
        self.sources = (
            keys_of(self._sets),
            owner_keys_of(self._pods, DaemonSet),
            owner_keys_of(self._revisions, DaemonSet),
            orphan_keys_of(self._pods, self._sets, lambda owner: selector_of(owner.spec.selector)),
            changes_of(self._nodes, self._touched_by),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        return await unless_namespace_goes(self._look(key))

    async def _look(self, key: Key) -> timedelta | None:
        daemon_set = self._sets.get(key)
        if daemon_set is None:
            self._expectations.forget(key)
            living = {owner.metadata.uid for owner in self._sets}
            self._failures = {k: v for k, v in self._failures.items() if k[0] in living}
            return None
        selector = selector_of(daemon_set.spec.selector)
        if selector.empty:
            said = "This daemon set is selecting all pods. A non-empty selector is required."
            self._recorder.record(daemon_set, WARNING, "SelectingAll", said)
            return None
        if daemon_set.metadata.deletion_timestamp is not None:
            return None
        pods: list[Pod] = await claim(
            self._client, daemon_set, selector, candidates_of(self._pods, daemon_set, selector)
        )
        known: Sequence[ControllerRevision] = await claim(
            self._client,
            daemon_set,
            selector,
            candidates_of(self._revisions, daemon_set, selector),
        )
        history, collisions = await bring_up_to_date(
            self._client,
            daemon_set,
            known,
            collisions=daemon_set.status.collision_count,
            labels=daemon_set.spec.template.metadata.labels,
            hash_label=REVISION_LABEL,
        )
        revision = history.present.metadata.labels.get(REVISION_LABEL, "")
        look = look_at(daemon_set, pods, self._nodes, revision=revision, now=self._clock.now())
        failure, again = None, self._expectations.expires_in(key)
        if self._expectations.met(key):
            failure, again = await self._carry_out(key, look)
        status = status_of(look, collisions=collisions)
        if status != daemon_set.status:
            await self._client.update_status(msgspec.structs.replace(daemon_set, status=status))
        hashes = {pod.metadata.labels.get(REVISION_LABEL) for pod in pods}
        in_use = {
            old.metadata.name
            for old in history.others
            if old.metadata.labels.get(REVISION_LABEL) in hashes
        }
        limit = daemon_set.spec.revision_history_limit
        await clean_up(self._client, superfluous(history, in_use, limit))
        if failure is not None:
            raise failure
        ready = next_available(pods, daemon_set.spec.min_ready_seconds or 0, look.now)
        return min((wait for wait in (again, ready) if wait is not None), default=None)

    # --- steps ------------------------------------------------------------------------------------

    async def _carry_out(self, key: Key, look: Look) -> tuple[StatusError | None, timedelta | None]:
        """The first refusal, and when a failed pod may be replaced."""
        plan, again = self._without_backing_off(look, plan_nodes(look))
        if not plan:
            # An update goes on from a state that is right.
            plan = plan_update(look)

        async def create(node: str) -> None:
            with self._expectations.creation(key):
                pod = new_pod(look.daemon_set, node, look.revision)
                await self._control.create(look.daemon_set, pod)

        async def delete(pod: Pod) -> None:
            with self._expectations.deletion(key, pod):
                await self._control.delete(look.daemon_set, pod)

        try:
            await slow_start([partial(create, node) for node in plan.create[:BURST]])
            await slow_start([partial(delete, pod) for pod in plan.delete[:BURST]], initial=BURST)
        except StatusError as error:
            return (None if is_namespace_going(error) else error), None
        return None, again

    def _without_backing_off(self, look: Look, plan: Plan) -> tuple[Plan, timedelta | None]:
        """The plan without failed pods whose node has to wait, and how long the first waits."""
        delete: list[Pod] = []
        waits: list[timedelta] = []
        daemon_set = look.daemon_set
        for pod in plan.delete:
            name, node = pod.metadata.name, target_of(pod)
            about = f"daemon pod {daemon_set.metadata.namespace}/{name} on node {node}"
            if pod.status.phase == "Failed" and look.verdicts[node].may_stay:
                wait = self._back_off(daemon_set, node, look.now)
                if wait > timedelta(0):
                    waits.append(wait)
                    continue
                said = f"Found failed {about}, will try to kill it"
                self._recorder.record(daemon_set, WARNING, "FailedDaemonPod", said)
            elif pod.status.phase == "Succeeded":
                said = f"Found succeeded {about}, will try to delete it"
                self._recorder.record(daemon_set, NORMAL, "SucceededDaemonPod", said)
            delete.append(pod)
        return Plan(plan.create, tuple(delete)), min(waits, default=None)

    def _back_off(self, owner: DaemonSet, node: str, now: datetime) -> timedelta:
        """How long a failed pod of that node still has to stay; nothing if it may go now."""
        key = (owner.metadata.uid, node)
        count, last = self._failures.get(key, (0, now))
        since = now - last
        if count and since < FAILED_PODS.delay(count - 1):
            return FAILED_PODS.delay(count - 1) - since
        if since > 2 * FAILED_PODS.maximum:
            count = 0
        self._failures[key] = (count + 1, now)
        return timedelta(0)

    # --- what it asks -----------------------------------------------------------------------------

    def _touched_by(self, old: Node | None, new: Node | None) -> list[Key]:
        """Daemon sets for which a change of a node makes a difference; not its heartbeats."""
        if old is not None and new is not None and _placing(old) == _placing(new):
            return []
        return [self._sets.kind.key_of(daemon_set) for daemon_set in self._sets]


def _placing(node: Node) -> tuple[object, ...]:
    """What decides which pods a node takes."""
    return (node.metadata.labels, node.spec.taints)
