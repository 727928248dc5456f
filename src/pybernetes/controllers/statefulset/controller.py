"""The stateful set controller's loop: one look, the steps that are due, then the status.

Watches stateful sets, their pods, revisions and claims; writes pods, claims, revisions and status.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from pybernetes.aio.slowstart import slow_start
from pybernetes.api.types.apps_v1 import ControllerRevision, StatefulSet
from pybernetes.api.types.core_v1 import PersistentVolumeClaim, Pod
from pybernetes.apimachinery.errors import AlreadyExists, NotFound, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import (
    NORMAL,
    WARNING,
    Expectations,
    keys_of,
    mapped,
    owner_keys_of,
)
from pybernetes.controllers.history import (
    History,
    bring_up_to_date,
    clean_up,
    superfluous,
    template_of,
)
from pybernetes.controllers.podcontrol import (
    candidates_of,
    claim,
    is_namespace_going,
    orphan_keys_of,
    unless_namespace_goes,
)
from pybernetes.controllers.replicaset import next_available
from pybernetes.controllers.statefulset.identity import (
    claims_of,
    is_stale,
    new_pod,
    ordinal_of,
    pod_name,
    revision_of,
    with_identity,
    with_owner,
)
from pybernetes.controllers.statefulset.plan import (
    Look,
    Plan,
    look_at,
    plan_pods,
    revision_for,
    status_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from pybernetes.apimachinery.selector import Selector
    from pybernetes.controllers.context import ControllerContext

HASH_LABEL = "controller.kubernetes.io/hash"


class StatefulSetController:
    name = "statefulset-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for(self.name)
        self._sets = context.caches.of(StatefulSet)
        self._pods = context.caches.of(Pod)
        self._revisions = context.caches.of(ControllerRevision)
        self._claims = context.caches.of(PersistentVolumeClaim)
        self._expectations = Expectations()
        self._expectations.follow(self._pods, StatefulSet)
        self.sources = (
            keys_of(self._sets),
            owner_keys_of(self._pods, StatefulSet),
            owner_keys_of(self._revisions, StatefulSet),
            orphan_keys_of(self._pods, self._sets, lambda owner: selector_of(owner.spec.selector)),
            mapped(self._claims, self._waiting_for),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        return await unless_namespace_goes(self._look(key))

    async def _look(self, key: Key) -> timedelta | None:
        stateful_set = self._sets.get(key)
        if stateful_set is None:
            self._expectations.forget(key)
            return None
        if not self._expectations.met(key):
            return self._expectations.expires_in(key)
        selector = selector_of(stateful_set.spec.selector)
        pods = await self._claim_pods(stateful_set, selector)
        known: Sequence[ControllerRevision] = await claim(
            self._client,
            stateful_set,
            selector,
            candidates_of(self._revisions, stateful_set, selector),
        )
        history, collisions = await bring_up_to_date(
            self._client,
            stateful_set,
            known,
            collisions=stateful_set.status.collision_count,
            labels=stateful_set.spec.template.metadata.labels,
            hash_label=HASH_LABEL,
        )
        update = history.present.metadata.name
        current = history.named(stateful_set.status.current_revision) or history.present
        look = look_at(
            stateful_set,
            pods,
            current=current.metadata.name,
            update=update,
            now=self._clock.now(),
        )
        failure = None
        if stateful_set.metadata.deletion_timestamp is None:
            await self._keep_retention(look)
            failure = await self._carry_out(key, look, history, plan_pods(look))
        status = status_of(look, collisions=collisions)
        if status != stateful_set.status:
            changed = msgspec.structs.replace(stateful_set, status=status)
            await self._client.update_status(changed)
        in_use = {status.current_revision, update, *(revision_of(pod) for pod in pods)}
        limit = stateful_set.spec.revision_history_limit
        await clean_up(self._client, superfluous(history, in_use, limit))
        if failure is not None:
            raise failure
        return next_available(pods, stateful_set.spec.min_ready_seconds or 0, look.now)

    async def _claim_pods(self, stateful_set: StatefulSet, selector: Selector) -> list[Pod]:
        """Only pods with a name that the set gives can be its own."""
        candidates = [
            pod
            for pod in candidates_of(self._pods, stateful_set, selector)
            if ordinal_of(stateful_set, pod.metadata.name) is not None
        ]
        return await claim(self._client, stateful_set, selector, candidates)

    # --- steps ------------------------------------------------------------------------------------

    async def _carry_out(
        self, key: Key, look: Look, history: History, plan: Plan
    ) -> StatusError | None:
        """The first refusal, after which no further step was begun."""
        stateful_set = look.stateful_set
        try:
            for pod in plan.repair:
                await self._client.update(with_identity(stateful_set, pod))
            for pod in look.pods.values():
                # A claim that somebody deleted keeps its pod from starting.
                ordinal = ordinal_of(stateful_set, pod.metadata.name)
                if pod.status.phase == "Pending" and ordinal is not None:
                    await self._create_claims(stateful_set, ordinal)
            await slow_start(
                [partial(self._create, key, look, history, ordinal) for ordinal in plan.create]
            )
            await slow_start([partial(self._delete, key, look, pod) for pod in plan.delete])
        except StatusError as error:
            return None if is_namespace_going(error) else error
        return None

    async def _create(self, key: Key, look: Look, history: History, ordinal: int) -> None:
        stateful_set = look.stateful_set
        name = pod_name(stateful_set, ordinal)
        if self._has_stale_claim(stateful_set, ordinal, name):
            # The end of the claim brings us back here.
            return
        revision = history.named(revision_for(look, ordinal)) or history.present
        template = stateful_set.spec.template
        if revision is not history.present:
            template = template_of(revision)
        pod = new_pod(stateful_set, template, ordinal, revision.metadata.name)
        try:
            await self._create_claims(stateful_set, ordinal)
            with self._expectations.creation(key):
                await self._client.create(pod)
        except AlreadyExists:
            # Ours and not yet seen, or a stranger's: tried again until the name is free.
            raise
        except StatusError as error:
            if not is_namespace_going(error):
                self._say_pod(stateful_set, "create", name, error)
            raise
        self._say_pod(stateful_set, "create", name)

    async def _create_claims(self, stateful_set: StatefulSet, ordinal: int) -> None:
        name = pod_name(stateful_set, ordinal)
        for wanted in claims_of(stateful_set, ordinal):
            if Key(wanted.metadata.namespace, wanted.metadata.name) in self._claims:
                continue
            about = f"Claim {wanted.metadata.name} Pod {name} in StatefulSet"
            said = f"create {about} {stateful_set.metadata.name}"
            try:
                await self._client.create(wanted)
            except AlreadyExists:
                continue
            except StatusError as error:
                failed = f"{said} failed error: {error.message}"
                self._recorder.record(stateful_set, WARNING, "FailedCreate", failed)
                raise
            self._recorder.record(stateful_set, NORMAL, "SuccessfulCreate", f"{said} success")

    async def _delete(self, key: Key, look: Look, pod: Pod) -> None:
        stateful_set, name = look.stateful_set, pod.metadata.name
        where = f"{stateful_set.metadata.namespace}/{stateful_set.metadata.name}"
        if pod.status.phase == "Failed":
            said = f"StatefulSet {where} is recreating failed Pod {name}"
            self._recorder.record(stateful_set, WARNING, "RecreatingFailedPod", said)
        elif pod.status.phase == "Succeeded":
            said = f"StatefulSet {where} is recreating terminated Pod {name}"
            self._recorder.record(stateful_set, NORMAL, "RecreatingTerminatedPod", said)
        try:
            with self._expectations.deletion(key, pod):
                await self._client.delete(pod)
        except NotFound:
            return
        except StatusError as error:
            self._say_pod(stateful_set, "delete", name, error)
            raise
        self._say_pod(stateful_set, "delete", name)

    async def _keep_retention(self, look: Look) -> None:
        """Give each claim the owner whose end shall be its own, before the pod can go."""
        stateful_set = look.stateful_set
        for ordinal, pod in look.pods.items():
            for wanted in claims_of(stateful_set, ordinal):
                found = self._claims.get(Key(wanted.metadata.namespace, wanted.metadata.name))
                if found is None or is_stale(found, pod.metadata.name, pod.metadata.uid):
                    continue
                changed = with_owner(stateful_set, pod, found)
                if changed is not found:
                    await self._client.update(changed)

    # --- what it asks -----------------------------------------------------------------------------

    def _has_stale_claim(self, stateful_set: StatefulSet, ordinal: int, name: str) -> bool:
        for wanted in claims_of(stateful_set, ordinal):
            found = self._claims.get(Key(wanted.metadata.namespace, wanted.metadata.name))
            if found is not None and is_stale(found, name, ""):
                return True
        return False

    def _waiting_for(self, claim: PersistentVolumeClaim) -> list[Key]:
        """A claim that goes with its pod: when it is gone, the pod's successor can come."""
        found = []
        for reference in claim.metadata.owner_references:
            name, _, number = reference.name.rpartition("-")
            if reference.kind == "Pod" and number.isdecimal():
                found.append(Key(claim.metadata.namespace, name))
        return found

    def _say_pod(
        self, stateful_set: StatefulSet, verb: str, name: str, error: StatusError | None = None
    ) -> None:
        about = f"{verb} Pod {name} in StatefulSet {stateful_set.metadata.name}"
        if error is None:
            reason, said = f"Successful{verb.capitalize()}", f"{about} successful"
            self._recorder.record(stateful_set, NORMAL, reason, said)
        else:
            reason, said = f"Failed{verb.capitalize()}", f"{about} failed error: {error.message}"
            self._recorder.record(stateful_set, WARNING, reason, said)
