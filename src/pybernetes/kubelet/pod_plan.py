"""What can be done for a pod now: the order between its containers, timers that are over, the end.

`advance` makes one move; `pod_step` repeats it until there is none.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.kubelet.pod_events import (
    Action,
    PrepareVolumes,
    PullImage,
    Remove,
    RunSandbox,
    Say,
    StopSandbox,
)
from pybernetes.kubelet.pod_moves import (
    crash_message,
    restarted,
    stop_container,
    stop_pod,
    with_record,
)
from pybernetes.kubelet.pod_state import (
    CRASH_LOOP,
    PULL_BACKOFF,
    WORKING,
    ContainerRecord,
    End,
    EndCause,
    PodStage,
    PodState,
    Sort,
    Stage,
    deadline_of,
    grace_of,
    spec_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod

DEADLINE_REASON = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


def advance(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """One move; the same object if there is none."""
    deadline = deadline_of(state)
    if state.stage in WORKING and deadline is not None and now >= deadline:
        end = End(EndCause.FAILED, DEADLINE_REASON, DEADLINE_MESSAGE)
        actions.append(Say("Normal", DEADLINE_REASON, DEADLINE_MESSAGE))
        return stop_pod(state, end, grace_of(state.pod), now, actions)
    match state.stage:
        case PodStage.PREPARING:
            return _begin(state, PrepareVolumes(), now, actions)
        case PodStage.SANDBOXING:
            if not _anything_to_run(state):
                return replace(state, stage=PodStage.STOPPING, end=End(EndCause.COMPLETED))
            return _begin(state, RunSandbox(state.sandbox_attempt), now, actions)
        case PodStage.RUNNING:
            return _run_containers(_due(state, now, actions), now, actions)
        case PodStage.RESETTING:
            return _reset(state, now, actions)
        case PodStage.STOPPING:
            return _stop_containers(state, now, actions)
        case PodStage.FINISHED if state.is_removable:
            actions.append(Remove(delete_object=not state.forgotten))
            return replace(state, stage=PodStage.REMOVING, busy=True)
    return state


def _begin(state: PodState, action: Action, now: datetime, actions: list[Action]) -> PodState:
    if state.busy or (state.resume_at is not None and state.resume_at > now):
        return state
    actions.append(action)
    return replace(state, busy=True, resume_at=None)


def _due(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """Back-offs that are over, and failures that have been shown long enough."""
    for record in state.containers.values():
        if record.resume_at is not None and record.resume_at <= now:
            if record.stage is Stage.BACKING_OFF:
                record = restarted(record, now)
            return with_record(
                state, replace(record, stage=Stage.HELD, resume_at=None, announce_at=None)
            )
        if record.announce_at is not None and record.announce_at <= now:
            return with_record(state, _announced(state.pod, record, actions))
    return state


def _announced(pod: Pod, record: ContainerRecord, actions: list[Action]) -> ContainerRecord:
    if record.stage is Stage.BACKING_OFF:
        return replace(record, announce_at=None, waiting=(CRASH_LOOP, crash_message(pod, record)))
    spec = spec_of(pod, record.name)
    image = spec.image if spec is not None else ""
    reason, message = record.waiting
    text = f'Back-off pulling image "{image}"'
    actions.append(Say("Normal", "BackOff", text, record.name))
    actions.append(Say("Warning", "Failed", f"Error: {PULL_BACKOFF}", record.name))
    return replace(record, announce_at=None, waiting=(PULL_BACKOFF, f"{text}: {reason}: {message}"))


def _run_containers(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """Start whose turn it is: init containers one by one, then all the others."""
    if _is_complete(state):
        return stop_pod(state, End(EndCause.COMPLETED), grace_of(state.pod), now, actions)
    for record in state.containers.values():
        if record.sort is Sort.EPHEMERAL:
            if record.stage is Stage.HELD:
                return _pull(state, record, actions)
            continue
        if record.sort is Sort.MAIN:
            if not state.initialized:
                state = replace(state, initialized=True)
            if record.stage is Stage.HELD:
                return _pull(state, record, actions)
            continue
        if record.stage is Stage.HELD and not (record.sort is Sort.INIT and state.initialized):
            return _pull(state, record, actions)
        passed = record.started if record.sort is Sort.SIDECAR else record.stage is Stage.DONE
        if not passed and not state.initialized:
            return state
    return state


def _pull(state: PodState, record: ContainerRecord, actions: list[Action]) -> PodState:
    actions.append(PullImage(record.name))
    return with_record(state, replace(record, stage=Stage.PULLING))


def _is_complete(state: PodState) -> bool:
    """Every main container is done, or an init container has failed for good."""
    records = state.containers.values()
    if any(_failed_init(record) for record in records):
        return not any(r.is_alive for r in records if r.sort is Sort.MAIN)
    return all(r.stage is Stage.DONE for r in records if r.sort is Sort.MAIN)


def _failed_init(record: ContainerRecord) -> bool:
    return (
        record.sort is Sort.INIT
        and record.stage is Stage.DONE
        and record.latest is not None
        and record.latest.exit_code != 0
    )


def _anything_to_run(state: PodState) -> bool:
    return any(
        record.stage is not Stage.DONE
        for record in state.containers.values()
        if record.sort is Sort.MAIN
    )


def _reset(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """The sandbox is dead: end what still runs in it, then start over."""
    for record in state.containers.values():
        if record.stage in (Stage.RUNNING, Stage.POST_START):
            return with_record(
                state,
                stop_container(
                    state,
                    record,
                    f"Stopping container {record.name}",
                    now,
                    actions,
                    grace=timedelta(0),
                    pre_stop=False,
                ),
            )
    if state.busy or any(record.is_alive for record in state.containers.values()):
        return state
    actions.append(Say("Normal", "SandboxChanged", _SANDBOX_CHANGED))
    actions.append(StopSandbox(state.sandbox_id))
    records = {
        name: _after_reset(state.pod, record, now) for name, record in state.containers.items()
    }
    return replace(state, busy=True, containers=records)


_SANDBOX_CHANGED = "Pod sandbox changed, it will be killed and re-created."


def _after_reset(pod: Pod, record: ContainerRecord, now: datetime) -> ContainerRecord:
    """In a new sandbox init containers run again, and all that is not done for good."""
    if record.stage is Stage.DONE and not (record.sort is Sort.INIT and not _failed_init(record)):
        return record
    return replace(record, stage=Stage.HELD, resume_at=None, announce_at=None, waiting=("", ""))


def _stop_containers(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """Main containers together, then sidecars one by one in reverse; then the sandbox."""
    records = list(state.containers.values())
    others = [record for record in records if record.sort is not Sort.SIDECAR]
    for record in others:
        if record.stage in (Stage.RUNNING, Stage.POST_START):
            return with_record(state, stop_container(state, record, "", now, actions))
    if any(record.is_alive for record in others):
        return state
    for record in reversed(records):
        if record.stage in (Stage.RUNNING, Stage.POST_START):
            return with_record(state, stop_container(state, record, "", now, actions))
        if record.is_alive:
            return state
    if state.busy:
        return state
    actions.append(StopSandbox(state.sandbox_id))
    return replace(
        state,
        stage=PodStage.CLOSING,
        busy=True,
        containers={
            name: replace(record, stage=Stage.DONE) for name, record in state.containers.items()
        },
    )


def next_wake(state: PodState) -> datetime | None:
    moments: list[datetime] = []
    if state.stage in WORKING and (deadline := deadline_of(state)) is not None:
        moments.append(deadline)
    if state.stage in (PodStage.PREPARING, PodStage.SANDBOXING) and not state.busy:
        moments += [state.resume_at] if state.resume_at is not None else []
    if state.stage is PodStage.RUNNING:
        for record in state.containers.values():
            moments += [m for m in (record.resume_at, record.announce_at) if m is not None]
    return min(moments, default=None)
