"""What a deployment's status says, and whether it progresses. Pure; reasons are upstream's."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    condition_of,
    with_condition,
    without_condition,
)
from pybernetes.api.types.apps_v1 import DeploymentCondition, DeploymentStatus
from pybernetes.controllers.deployment.plan import available, bounds_of, total_size, wished

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet
    from pybernetes.apimachinery.errors import StatusError
    from pybernetes.controllers.deployment.revisions import Sets

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"

NEW_AVAILABLE = "NewReplicaSetAvailable"
NEW_CREATED = "NewReplicaSetCreated"
FOUND_NEW = "FoundNewReplicaSet"
UPDATED = "ReplicaSetUpdated"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"
CREATE_ERROR = "ReplicaSetCreateError"
# What "no deadline" is in the API.
NO_DEADLINE = 2147483647

Conditions = tuple[DeploymentCondition, ...]


def condition(
    type_: str, status: str, reason: str, message: str, now: datetime
) -> DeploymentCondition:
    moment = now.replace(microsecond=0)
    return DeploymentCondition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        last_update_time=moment,
        last_transition_time=moment,
    )


def with_changed(conditions: Conditions, new: DeploymentCondition) -> Conditions:
    """Set a condition; one with the same status and reason stays as it is, times included."""
    known = condition_of(conditions, new.type)
    if known is not None and known.status == new.status and known.reason == new.reason:
        return conditions
    return with_condition(conditions, new)


def counted_status(deployment: Deployment, sets: Sets, now: datetime) -> DeploymentStatus:
    """The numbers, and whether enough is available."""
    status = deployment.status
    there = available(sets.all)
    # While a deployment is scaled down, more than it wants may be available.
    missing = max(total_size(sets.all) - there, 0)
    enough = wished(deployment) - bounds_of(deployment).unavailable
    if there >= enough:
        verdict = condition(
            AVAILABLE, TRUE, "MinimumReplicasAvailable", "Deployment has minimum availability.", now
        )
    else:
        verdict = condition(
            AVAILABLE,
            FALSE,
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation or 0,
        replicas=sum(rs.status.replicas for rs in sets.all),
        updated_replicas=sets.new.status.replicas if sets.new else 0,
        ready_replicas=sum(rs.status.ready_replicas for rs in sets.all),
        available_replicas=there,
        unavailable_replicas=missing,
        terminating_replicas=sum(rs.status.terminating_replicas or 0 for rs in sets.all),
        collision_count=status.collision_count,
        conditions=with_changed(status.conditions, verdict),
    )


def progressed_status(
    deployment: Deployment, sets: Sets, now: datetime, *, created: bool = False
) -> DeploymentStatus:
    """The numbers, and how the rollout goes; `created` if the new replica set was just made."""
    status = counted_status(deployment, sets, now)
    conditions = status.conditions
    known = condition_of(conditions, PROGRESSING)
    settled = (
        status.replicas == status.updated_replicas
        and known is not None
        and known.reason == NEW_AVAILABLE
    )
    if not has_deadline(deployment):
        conditions = without_condition(conditions, PROGRESSING)
    elif not settled:
        conditions = _progress(deployment, sets, status, known, now, created=created)
    failure = _replica_failure(sets.all)
    if failure is not None:
        conditions = with_changed(conditions, failure)
    else:
        conditions = without_condition(conditions, REPLICA_FAILURE)
    return msgspec.structs.replace(status, conditions=conditions)


def has_deadline(deployment: Deployment) -> bool:
    deadline = deployment.spec.progress_deadline_seconds
    return deadline is not None and deadline != NO_DEADLINE


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """All pods are of the new template and available, and no old one is left."""
    replicas = wished(deployment)
    return (
        status.updated_replicas == replicas
        and status.replicas == replicas
        and status.available_replicas == replicas
        and status.observed_generation >= (deployment.metadata.generation or 0)
    )


def is_timed_out(deployment: Deployment, status: DeploymentStatus, now: datetime) -> bool:
    """No progress for longer than the deadline allows."""
    left = until_deadline(deployment, status, now)
    known = condition_of(status.conditions, PROGRESSING)
    if known is not None and known.reason == TIMED_OUT:
        return True
    return left is not None and left <= timedelta(0)


def until_deadline(
    deployment: Deployment, status: DeploymentStatus, now: datetime
) -> timedelta | None:
    """How long the rollout may still make no progress; None if nothing is expected of it."""
    known = condition_of(status.conditions, PROGRESSING)
    if known is None or not has_deadline(deployment) or deployment.spec.paused:
        return None
    if known.reason in (NEW_AVAILABLE, TIMED_OUT) or known.last_update_time is None:
        return None
    deadline = timedelta(seconds=deployment.spec.progress_deadline_seconds or 0)
    return known.last_update_time + deadline - now


def paused_conditions(deployment: Deployment, now: datetime) -> Conditions | None:
    """The conditions with pausing or resuming noted; None if they say so already."""
    conditions = deployment.status.conditions
    if not has_deadline(deployment):
        return None
    known = condition_of(conditions, PROGRESSING)
    if known is not None and known.reason == TIMED_OUT:
        # A deadline that passed stays on record.
        return None
    noted = known is not None and known.reason == PAUSED
    if deployment.spec.paused and not noted:
        return with_condition(
            conditions, condition(PROGRESSING, UNKNOWN, PAUSED, "Deployment is paused", now)
        )
    if not deployment.spec.paused and noted:
        return with_condition(
            conditions, condition(PROGRESSING, UNKNOWN, RESUMED, "Deployment is resumed", now)
        )
    return None


def refused_conditions(
    deployment: Deployment, name: str, error: StatusError, now: datetime
) -> Conditions:
    """The conditions with the refusal of a new replica set noted."""
    conditions = deployment.status.conditions
    if not has_deadline(deployment):
        return conditions
    message = f'Failed to create new replica set "{name}": {error.message}'
    return with_changed(conditions, condition(PROGRESSING, FALSE, CREATE_ERROR, message, now))


def _progress(
    deployment: Deployment,
    sets: Sets,
    status: DeploymentStatus,
    known: DeploymentCondition | None,
    now: datetime,
    *,
    created: bool,
) -> Conditions:
    name = sets.new.metadata.name if sets.new else None
    about = f'ReplicaSet "{name}"' if name else f'Deployment "{deployment.metadata.name}"'
    if is_complete(deployment, status):
        said = condition(
            PROGRESSING, TRUE, NEW_AVAILABLE, f"{about} has successfully progressed.", now
        )
        return with_condition(status.conditions, said)
    if created and name:
        said = condition(PROGRESSING, TRUE, NEW_CREATED, f'Created new replica set "{name}"', now)
        return with_condition(status.conditions, said)
    if _is_moving(deployment.status, status):
        said = condition(PROGRESSING, TRUE, UPDATED, f"{about} is progressing.", now)
        return with_condition(status.conditions, said)
    if known is None and name:
        said = condition(PROGRESSING, TRUE, FOUND_NEW, f'Found new replica set "{name}"', now)
        return with_condition(status.conditions, said)
    if is_timed_out(deployment, status, now):
        said = condition(PROGRESSING, FALSE, TIMED_OUT, f"{about} has timed out progressing.", now)
        return with_changed(status.conditions, said)
    return status.conditions


def _is_moving(before: DeploymentStatus, now: DeploymentStatus) -> bool:
    """More new pods, fewer old ones, more ready or available ones than there were."""
    return (
        now.updated_replicas > before.updated_replicas
        or now.replicas - now.updated_replicas < before.replicas - before.updated_replicas
        or now.ready_replicas > before.ready_replicas
        or now.available_replicas > before.available_replicas
    )


def _replica_failure(replica_sets: Sequence[ReplicaSet]) -> DeploymentCondition | None:
    """The newest replica set's word on why it cannot make pods."""
    for rs in reversed(replica_sets):
        found = condition_of(rs.status.conditions, REPLICA_FAILURE)
        if found is not None:
            return DeploymentCondition(
                type=REPLICA_FAILURE,
                status=found.status,
                reason=found.reason,
                message=found.message,
                last_update_time=found.last_transition_time,
                last_transition_time=found.last_transition_time,
            )
    return None
