"""Changes of a pod's state that several decisions make: stopping, restarting, waiting."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.kubelet.pod_events import (
    Abandon,
    Action,
    StopContainer,
)
from pybernetes.kubelet.pod_state import (
    WORKING,
    ContainerRecord,
    End,
    EndCause,
    PodStage,
    PodState,
    Stage,
    grace_of,
)
from pybernetes.kubelet.restart import (
    FIRST_DELAY,
    delay_text,
    next_delay,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod

# Volumes and sandboxes: doubling from the first to the last.
FIRST_RETRY = timedelta(milliseconds=500)
LAST_RETRY = timedelta(minutes=2)


def with_record(state: PodState, record: ContainerRecord) -> PodState:
    if state.containers[record.name] is record:
        return state
    return replace(state, containers={**state.containers, record.name: record})


def retry_later(state: PodState, now: datetime) -> PodState:
    delay = min(FIRST_RETRY * 2 ** min(state.failures, 16), LAST_RETRY)
    return replace(state, failures=state.failures + 1, resume_at=now + delay)


def stop_pod(
    state: PodState, end: End, grace: timedelta, now: datetime, actions: list[Action]
) -> PodState:
    """Ask the pod to end. Asked again, only an earlier end counts."""
    kill_at = now + grace
    if state.stage in WORKING:
        actions.append(Abandon())
        # A sandbox that is being made is waited for, volumes are not.
        busy = state.busy and state.stage is PodStage.SANDBOXING
        return replace(
            state,
            stage=PodStage.STOPPING,
            end=end,
            kill_at=kill_at,
            busy=busy,
            containers={
                name: record
                if record.is_alive
                else replace(record, stage=Stage.DONE, resume_at=None, announce_at=None)
                for name, record in state.containers.items()
            },
        )
    if state.stage is not PodStage.STOPPING:
        return state
    if state.end is None or state.end.cause is EndCause.COMPLETED:
        state = replace(state, end=end)
    if state.kill_at is not None and kill_at >= state.kill_at:
        return state
    for record in state.containers.values():
        if record.stage is Stage.STOPPING and record.latest is not None:
            actions.append(StopContainer(record.name, record.latest.id, grace, "", pre_stop=False))
    return replace(state, kill_at=kill_at)


def stop_container(
    state: PodState,
    record: ContainerRecord,
    message: str,
    now: datetime,
    actions: list[Action],
    *,
    grace: timedelta | None = None,
    pre_stop: bool = True,
) -> ContainerRecord:
    assert record.latest is not None
    if grace is None:
        grace = grace_of(state.pod) if state.kill_at is None else state.kill_at - now
    actions.append(
        StopContainer(
            record.name,
            record.latest.id,
            max(grace, timedelta(0)),
            message or f"Stopping container {record.name}",
            pre_stop=pre_stop,
        )
    )
    return replace(record, stage=Stage.STOPPING)


def restarted(record: ContainerRecord, now: datetime) -> ContainerRecord:
    """Raise the delay for the next time, as the restart it counts from is now."""
    finished = record.latest.finished_at if record.latest is not None else None
    delay = next_delay(record.delay, record.delayed_since, finished or now)
    return replace(record, delay=delay, delayed_since=now, resume_at=None, waiting=("", ""))


def crash_message(pod: Pod, record: ContainerRecord) -> str:
    delay = delay_text(record.delay or FIRST_DELAY)
    meta = pod.metadata
    whole = f"{meta.name}_{meta.namespace}({meta.uid})"
    return f"back-off {delay} restarting failed container={record.name} pod={whole}"
