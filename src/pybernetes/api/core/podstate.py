"""What components ask about a pod's life: is it active, ready, available, how old is its readiness."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.api.conditions import TRUE, condition_of, has_condition

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import ContainerStatus, Pod, PodCondition

SUCCEEDED = "Succeeded"
FAILED = "Failed"
READY = "Ready"


def is_finished(pod: Pod) -> bool:
    """Its containers have ended for good."""
    return pod.status.phase in (SUCCEEDED, FAILED)


def is_terminating(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def is_active(pod: Pod) -> bool:
    """Neither finished nor on its way out: what controllers count."""
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Pod) -> bool:
    return has_condition(pod.status.conditions, READY)


def ready_since(pod: Pod) -> datetime | None:
    """Since when it is ready; None if it is not."""
    condition: PodCondition | None = condition_of(pod.status.conditions, READY)
    if condition is None or condition.status != TRUE:
        return None
    return condition.last_transition_time


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for at least `min_ready_seconds`."""
    return is_ready(pod) and until_available(pod, min_ready_seconds, now) == timedelta(0)


def until_available(pod: Pod, min_ready_seconds: int, now: datetime) -> timedelta | None:
    """How long a ready pod still has to stay so; None if it is not ready."""
    if not is_ready(pod):
        return None
    since = ready_since(pod)
    if min_ready_seconds == 0 or since is None:
        return timedelta(0)
    return max(since + timedelta(seconds=min_ready_seconds) - now, timedelta(0))


def status_of_container(pod: Pod, name: str) -> ContainerStatus | None:
    """The status of a container of any sort."""
    status = pod.status
    for found in (
        *status.container_statuses,
        *status.init_container_statuses,
        *status.ephemeral_container_statuses,
    ):
        if found.name == name:
            return found
    return None
