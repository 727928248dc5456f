"""The deployment controller's loop: one look, at most one step of a rollout, then the status.

Watches deployments, replica sets and (for Recreate) pods; writes replica sets, deployments'
annotations and status.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.core.podstate import is_finished
from pybernetes.api.ownership import controller_of
from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet
from pybernetes.api.types.core_v1 import Pod
from pybernetes.apimachinery.errors import AlreadyExists, NotFound, StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import NORMAL, WARNING, Expectations, changes_of, keys_of, owner_keys_of
from pybernetes.controllers.deployment.plan import (
    Resize,
    is_rolling,
    is_scaled,
    plan_recreate,
    plan_rolling,
    plan_scale,
    replica_annotations,
    size_of,
    size_of_new,
    total_size,
)
from pybernetes.controllers.deployment.progress import (
    CREATE_ERROR,
    counted_status,
    is_complete,
    paused_conditions,
    progressed_status,
    refused_conditions,
    until_deadline,
)
from pybernetes.controllers.deployment.revisions import (
    REVISION,
    Sets,
    annotations_for,
    new_replica_set,
    next_revision,
    revision_of,
    same_template,
    superfluous,
    tell_apart,
)
from pybernetes.controllers.podcontrol import (
    candidates_of,
    claim,
    is_namespace_going,
    orphan_keys_of,
    unless_namespace_goes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.apps_v1 import DeploymentStatus
    from pybernetes.controllers.context import ControllerContext


# A deadline that is due is looked at after, not at, its moment.
_A_MOMENT = timedelta(seconds=1)


class DeploymentController:
    name = "deployment-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._clock = context.clock
        self._recorder = context.recorder_for(self.name)
        self._deployments = context.caches.of(Deployment)
        self._replica_sets = context.caches.of(ReplicaSet)
        self._pods = context.caches.of(Pod)
        # A replica set that was made and is not in the cache yet must not be made twice.
        self._expectations = Expectations()
        self._expectations.follow(self._replica_sets, Deployment)
        self.sources = (
            keys_of(self._deployments),
            owner_keys_of(self._replica_sets, Deployment),
            changes_of(self._pods, self._recreated_by),
            orphan_keys_of(
                self._replica_sets, self._deployments, lambda d: selector_of(d.spec.selector)
            ),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        return await unless_namespace_goes(self._look(key))

    async def _look(self, key: Key) -> timedelta | None:
        deployment = self._deployments.get(key)
        if deployment is None:
            self._expectations.forget(key)
            return None
        if not self._expectations.met(key):
            return self._expectations.expires_in(key)
        selector = selector_of(deployment.spec.selector)
        if selector.empty:
            said = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.record(deployment, WARNING, "SelectingAll", said)
            return None
        owned: Sequence[ReplicaSet] = await claim(
            self._client,
            deployment,
            selector,
            candidates_of(self._replica_sets, deployment, selector),
        )
        sets = tell_apart(deployment, owned)
        if deployment.metadata.deletion_timestamp is not None:
            await self._write_status(deployment, counted_status(deployment, sets, self._now()))
            return None
        conditions = paused_conditions(deployment, self._now())
        if conditions is not None:
            status = msgspec.structs.replace(deployment.status, conditions=conditions)
            await self._write_status(deployment, status)
            return None
        if deployment.spec.paused or is_scaled(deployment, sets):
            return await self._scale(deployment, sets)
        return await self._roll(key, deployment, sets)

    # --- steps ------------------------------------------------------------------------------------

    async def _scale(self, deployment: Deployment, sets: Sets) -> timedelta | None:
        """Only the number changed: no new replica set is made, also while paused."""
        sets = await self._adopt_annotations(deployment, sets)
        for step in plan_scale(deployment, sets):
            await self._resize(deployment, step)
        if deployment.spec.paused:
            await self._clean_up(deployment, sets)
        written = await self._write_status(
            deployment, counted_status(deployment, sets, self._now())
        )
        await self._number(written, sets)
        return None

    async def _roll(self, key: Key, deployment: Deployment, sets: Sets) -> timedelta | None:
        created = False
        waiting = not is_rolling(deployment) and self._recreate_waits(deployment, sets)
        if sets.new is None and not waiting:
            sets = await self._create_new(key, deployment, sets)
            if sets.new is None:
                return None
            created = True
        elif sets.new is not None:
            sets = await self._adopt_annotations(deployment, sets)
        if is_rolling(deployment):
            steps = plan_rolling(deployment, sets)
        else:
            left = self._old_pods_left(sets)
            steps = plan_recreate(deployment, sets, old_pods_left=left)
        for step in steps:
            await self._resize(deployment, step)
        now = self._now()
        status = progressed_status(deployment, sets, now, created=created)
        if is_complete(deployment, status):
            await self._clean_up(deployment, sets)
        await self._number(await self._write_status(deployment, status), sets)
        left_time = until_deadline(deployment, status, now)
        return None if left_time is None else max(left_time, _A_MOMENT)

    async def _create_new(self, key: Key, deployment: Deployment, sets: Sets) -> Sets:
        revision = next_revision(sets.old)
        replicas = size_of_new(deployment, 0, total_size(sets.old))
        wanted = new_replica_set(deployment, replicas, revision)
        annotations = {**wanted.metadata.annotations, **replica_annotations(deployment)}
        metadata = msgspec.structs.replace(wanted.metadata, annotations=annotations)
        wanted = msgspec.structs.replace(wanted, metadata=metadata)
        try:
            with self._expectations.creation(key):
                made = await self._client.create(wanted)
        except AlreadyExists:
            return await self._after_collision(deployment, sets, wanted)
        except StatusError as error:
            await self._note_refusal(deployment, wanted, error)
            raise
        if replicas:
            self._say_scaled(deployment, made, 0, replicas)
        return Sets(made, sets.old)

    async def _note_refusal(
        self, deployment: Deployment, wanted: ReplicaSet, error: StatusError
    ) -> None:
        if is_namespace_going(error):
            return
        conditions = refused_conditions(deployment, wanted.metadata.name, error, self._now())
        message = f'Failed to create new replica set "{wanted.metadata.name}": {error.message}'
        self._recorder.record(deployment, WARNING, CREATE_ERROR, message)
        status = msgspec.structs.replace(deployment.status, conditions=conditions)
        await self._write_status(deployment, status)

    async def _after_collision(
        self, deployment: Deployment, sets: Sets, wanted: ReplicaSet
    ) -> Sets:
        """The name is taken: by ourselves a moment ago, or by another template with that hash."""
        there = await self._client.get_or_none(
            ReplicaSet, wanted.metadata.name, wanted.metadata.namespace
        )
        if there is not None:
            owner = controller_of(there)
            ours = owner is not None and owner.uid == deployment.metadata.uid
            if ours and same_template(there.spec.template, deployment.spec.template):
                return Sets(there, sets.old)
        status = msgspec.structs.replace(
            deployment.status, collision_count=(deployment.status.collision_count or 0) + 1
        )
        await self._write_status(deployment, status)
        return Sets(None, sets.old)

    async def _adopt_annotations(self, deployment: Deployment, sets: Sets) -> Sets:
        """Bring the new replica set's annotations and minReadySeconds up to date."""
        new = sets.new
        if new is None:
            return sets
        revision = max(next_revision(sets.old), revision_of(new))
        annotations = annotations_for(deployment, new.metadata.annotations, revision)
        seconds = deployment.spec.min_ready_seconds or 0
        if annotations == new.metadata.annotations and (new.spec.min_ready_seconds or 0) == seconds:
            return sets
        patch = {
            "metadata": {
                "resourceVersion": new.metadata.resource_version,
                "annotations": annotations,
            },
            "spec": {"minReadySeconds": seconds},
        }
        name, namespace = new.metadata.name, new.metadata.namespace
        return Sets(await self._client.patch(ReplicaSet, name, namespace, patch=patch), sets.old)

    async def _number(self, deployment: Deployment, sets: Sets) -> None:
        """The deployment carries the revision of its new replica set; last, for it is a write."""
        if sets.new is None or revision_of(deployment) == revision_of(sets.new):
            return
        revision = str(revision_of(sets.new))
        annotations = {**deployment.metadata.annotations, REVISION: revision}
        metadata = msgspec.structs.replace(deployment.metadata, annotations=annotations)
        await self._client.update(msgspec.structs.replace(deployment, metadata=metadata))

    async def _resize(self, deployment: Deployment, step: Resize) -> None:
        rs = step.replica_set
        wanted = replica_annotations(deployment)
        same_size = size_of(rs) == step.replicas
        if same_size and wanted.items() <= rs.metadata.annotations.items():
            return
        # With the version that was looked at: a decision on stale numbers is refused and redone.
        patch = {
            "metadata": {"resourceVersion": rs.metadata.resource_version, "annotations": wanted},
            "spec": {"replicas": step.replicas},
        }
        await self._client.patch(ReplicaSet, rs.metadata.name, rs.metadata.namespace, patch=patch)
        if not same_size:
            self._say_scaled(deployment, rs, size_of(rs), step.replicas)

    async def _clean_up(self, deployment: Deployment, sets: Sets) -> None:
        """Old replica sets that are empty go, but for as many as the history keeps."""
        limit = deployment.spec.revision_history_limit
        if limit is None:
            return
        for rs in superfluous(sets.old, limit):
            try:
                await self._client.delete(rs)
            except NotFound:
                continue

    async def _write_status(self, deployment: Deployment, status: DeploymentStatus) -> Deployment:
        if status == deployment.status:
            return deployment
        return await self._client.update_status(msgspec.structs.replace(deployment, status=status))

    # --- what it asks -----------------------------------------------------------------------------

    def _recreate_waits(self, deployment: Deployment, sets: Sets) -> bool:
        return bool(total_size(sets.old)) or self._old_pods_left(sets)

    def _old_pods_left(self, sets: Sets) -> bool:
        return any(not is_finished(pod) for rs in sets.old for pod in self._pods.owned_by(rs))

    def _recreated_by(self, old: Pod | None, new: Pod | None) -> list[Key]:
        """A Recreate deployment goes on when the last old pod is gone."""
        if old is None or new is not None:
            return []
        owner = controller_of(old)
        if owner is None or owner.kind != "ReplicaSet":
            return []
        rs = self._replica_sets.get(Key(old.metadata.namespace, owner.name))
        parent = controller_of(rs) if rs is not None else None
        if parent is None or parent.kind != "Deployment":
            return []
        key = Key(old.metadata.namespace, parent.name)
        deployment = self._deployments.get(key)
        return [key] if deployment is not None and not is_rolling(deployment) else []

    def _say_scaled(self, deployment: Deployment, rs: ReplicaSet, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        said = f"Scaled {direction} replica set {rs.metadata.name} from {before} to {after}"
        self._recorder.record(deployment, NORMAL, "ScalingReplicaSet", said)

    def _now(self) -> datetime:
        return self._clock.now()
