"""What one pod does next: a state, what happened, and from both the next state and what to do.

`pod_step(state, event, now)` is pure and is the whole decision; `worker.PodWorker` carries the
actions out and brings their outcomes back as events.

Theory of operation. A pod goes through stages:

    PREPARING   its volumes are being made
    SANDBOXING  its sandbox (network, cgroup) is being started
    RUNNING     containers are started, watched and restarted
    RESETTING   its sandbox died: what is left is killed, then back to SANDBOXING
    STOPPING    its containers are asked to end: deleted, too long active, or simply done
    CLOSING     none runs any more; the sandbox is being stopped
    FINISHED    its status is final; dead containers are kept for their logs
    REMOVING    its object is deleted: volumes, containers and the object itself are removed
    GONE        nothing is left of it

and each container of it through its own, see `Stage`. Both tables below say which event moves which
stage; an event that has no line is late news about something already decided, and changes nothing.
After every event `pod_plan.advance` looks at the whole state and starts what can be started: order
between init containers, sidecars and main containers lives there and nowhere else.

Rules: from STOPPING on, no container starts. FINISHED, REMOVING and GONE are never left backwards.
An action that was asked for is not asked for again until its outcome came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import is_finished
from pybernetes.kubelet.pod_events import (
    Action,
    Changed,
    Condemned,
    ContainerEvent,
    Event,
    Exited,
    Forgotten,
    HookDone,
    HookFailed,
    ImageFailed,
    ImageReady,
    ObjectsChanged,
    PodEvent,
    Removed,
    RunPostStart,
    SandboxFailed,
    SandboxLost,
    SandboxReady,
    SandboxStopped,
    Say,
    StartContainer,
    Started,
    StartFailed,
    Tick,
    Verdict,
    VolumesFailed,
    VolumesReady,
)
from pybernetes.kubelet.pod_moves import (
    crash_message,
    restarted,
    retry_later,
    stop_container,
    stop_pod,
    with_record,
)
from pybernetes.kubelet.pod_plan import (
    advance,
    next_wake,
)
from pybernetes.kubelet.pod_state import (
    CONFIG_ERROR,
    CRASH_LOOP,
    ERR_IMAGE_PULL,
    POST_START_ERROR,
    WORKING,
    ContainerRecord,
    End,
    EndCause,
    Incarnation,
    PodStage,
    PodState,
    ProbeKind,
    Stage,
    grace_of,
    has_probe,
    probe_of,
    spec_of,
    with_ephemeral,
)
from pybernetes.kubelet.restart import (
    backoff_over,
    wants_restart,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


# How long the reason of a failure is shown before the back-off's own name takes its place.
SHOW_FAILURE = timedelta(seconds=2)
# Upstream tries again so often when a container cannot even be described (a Secret is missing).
CONFIG_RETRY = timedelta(seconds=10)
FIRST_PULL_DELAY, LAST_PULL_DELAY = timedelta(seconds=10), timedelta(minutes=5)
# What a pod whose object is gone from one moment to the next is given.
LEAST_GRACE = timedelta(seconds=1)


# --- the tables -----------------------------------------------------------------------------------

# Where outcomes lead a pod. What starts a stage's own action is in `pod_plan.advance`.
POD_TABLE: Mapping[tuple[PodStage, type[PodEvent]], PodStage] = {
    (PodStage.PREPARING, VolumesReady): PodStage.SANDBOXING,
    (PodStage.PREPARING, VolumesFailed): PodStage.PREPARING,
    (PodStage.SANDBOXING, SandboxReady): PodStage.RUNNING,
    (PodStage.SANDBOXING, SandboxFailed): PodStage.SANDBOXING,
    # Deleted while the sandbox was being made: it has to be stopped first.
    (PodStage.STOPPING, SandboxReady): PodStage.STOPPING,
    (PodStage.STOPPING, SandboxFailed): PodStage.STOPPING,
    # Adopted with a sandbox that died meanwhile; its containers report their own ends.
    (PodStage.PREPARING, SandboxLost): PodStage.PREPARING,
    (PodStage.RUNNING, SandboxLost): PodStage.RESETTING,
    (PodStage.RESETTING, SandboxStopped): PodStage.SANDBOXING,
    (PodStage.CLOSING, SandboxStopped): PodStage.FINISHED,
    (PodStage.REMOVING, Removed): PodStage.GONE,
}

# Where events lead a container; where an end leads is `_ended`'s decision.
CONTAINER_TABLE: Mapping[tuple[Stage, type[ContainerEvent]], Stage] = {
    (Stage.PULLING, ImageReady): Stage.STARTING,
    (Stage.PULLING, ImageFailed): Stage.RETRYING,
    (Stage.STARTING, Started): Stage.RUNNING,
    (Stage.STARTING, StartFailed): Stage.RETRYING,
    (Stage.STARTING, Exited): Stage.STARTING,
    (Stage.POST_START, HookDone): Stage.RUNNING,
    (Stage.POST_START, HookFailed): Stage.STOPPING,
    (Stage.POST_START, Verdict): Stage.POST_START,
    (Stage.POST_START, Exited): Stage.DONE,
    (Stage.RUNNING, Verdict): Stage.RUNNING,
    (Stage.RUNNING, Exited): Stage.DONE,
    (Stage.STOPPING, Verdict): Stage.STOPPING,
    (Stage.STOPPING, Exited): Stage.DONE,
}


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of `pod_step`. `wake_at`: send a Tick then, at the latest."""

    state: PodState
    actions: tuple[Action, ...]
    wake_at: datetime | None


def pod_step(state: PodState, event: Event | None, now: datetime) -> Step:
    """Take in what happened and say what to do. None: nothing happened, begin."""
    actions: list[Action] = []
    if isinstance(event, PodEvent):
        state = _take_pod_event(state, event, now, actions)
    elif event is not None:
        state = _take_container_event(state, event, now, actions)
    before = None
    while state is not before:
        before = state
        state = advance(state, now, actions)
    return Step(state, tuple(actions), next_wake(state))


# --- pod events -----------------------------------------------------------------------------------


def _take_pod_event(
    state: PodState, event: PodEvent, now: datetime, actions: list[Action]
) -> PodState:
    match event:
        case Changed(pod):
            state = replace(state, pod=pod, containers=with_ephemeral(pod, state.containers))
            if pod.metadata.deletion_timestamp is not None:
                state = stop_pod(state, End(EndCause.DELETED), grace_of(pod), now, actions)
            elif is_finished(pod) and state.stage in WORKING:
                # Somebody else has declared it over; final is final.
                state = stop_pod(state, End(EndCause.COMPLETED), grace_of(pod), now, actions)
            return state
        case Forgotten():
            state = replace(state, forgotten=True)
            grace = max(LEAST_GRACE, grace_of(state.pod))
            return stop_pod(state, End(EndCause.DELETED), grace, now, actions)
        case Condemned(reason, message, grace_or_none):
            if state.stage not in WORKING:
                return state
            own = grace_of(state.pod) if grace_or_none is None else grace_or_none
            return stop_pod(state, End(EndCause.FAILED, reason, message), own, now, actions)
        case ObjectsChanged():
            return _try_at_once(state, now)
        case Tick():
            return state
    stage = POD_TABLE.get((state.stage, type(event)))
    if stage is None:
        return state
    if isinstance(event, SandboxLost):
        # Not the outcome of anything we did, and perhaps about one that was replaced.
        if event.id != state.sandbox_id:
            return state
        return replace(state, stage=stage, sandbox_ready=False, initialized=False)
    return _outcome(replace(state, stage=stage, busy=False), event, now, actions)


def _try_at_once(state: PodState, now: datetime) -> PodState:
    """End the waits for what was missing."""
    if state.stage is PodStage.PREPARING and state.resume_at is not None:
        return replace(state, resume_at=now)
    records = {
        name: replace(record, resume_at=now)
        if record.stage is Stage.RETRYING and record.waiting[0] == CONFIG_ERROR
        else record
        for name, record in state.containers.items()
    }
    return replace(state, containers=records)


def _outcome(state: PodState, event: PodEvent, now: datetime, actions: list[Action]) -> PodState:
    """What an outcome says beyond the stage it leads to."""
    match event:
        case VolumesReady():
            state = replace(state, failures=0, resume_at=None)
            # Adopted: the sandbox has been there all the time.
            return replace(state, stage=PodStage.RUNNING) if state.sandbox_ready else state
        case VolumesFailed():
            return retry_later(state, now)
        case SandboxReady(id_, ips):
            return replace(
                state,
                sandbox_id=id_,
                sandbox_ready=True,
                sandbox_attempt=state.sandbox_attempt + 1,
                ips=ips,
                failures=0,
                resume_at=None,
            )
        case SandboxFailed(message):
            actions.append(Say("Warning", "FailedCreatePodSandBox", message))
            return retry_later(replace(state, sandbox_attempt=state.sandbox_attempt + 1), now)
        case SandboxStopped():
            return replace(state, sandbox_ready=False, ips=state.ips if state.stage.is_over else ())
    return state


# --- container events -----------------------------------------------------------------------------


def _take_container_event(
    state: PodState, event: ContainerEvent, now: datetime, actions: list[Action]
) -> PodState:
    record = state.containers.get(event.container)
    if record is None:
        return state
    stage = CONTAINER_TABLE.get((record.stage, type(event)))
    if stage is None:
        return state
    match event:
        case ImageReady():
            record = replace(record, stage=stage, waiting=("", ""), pull_delay=None)
            actions.append(StartContainer(record.name, record.attempt))
        case ImageFailed(_, reason, message):
            record = _pull_failed(replace(record, stage=stage), reason, message, now)
        case Started(_, incarnation):
            return _started(state, replace(record, stage=stage), incarnation, now, actions)
        case StartFailed():
            return _start_failed(state, replace(record, stage=stage), event, now, actions)
        case HookDone():
            record = replace(record, stage=stage, started=not has_probe(state, record, "startup"))
        case HookFailed(_, message):
            actions.append(
                Say("Warning", "FailedPostStartHook", "PostStartHook failed", record.name)
            )
            record = stop_container(
                state, replace(record, waiting=(POST_START_ERROR, message)), "", now, actions
            )
        case Verdict():
            record = _judged(state, record, event, now, actions)
        case Exited(_, incarnation):
            if record.stage is Stage.STARTING:
                if incarnation.attempt == record.attempt:
                    record = replace(record, early_end=incarnation)
            elif record.latest is None or record.latest.id != incarnation.id:
                return state
            else:
                return _ended(state, record, incarnation, now, actions)
    return with_record(state, record)


def _pull_failed(
    record: ContainerRecord, reason: str, message: str, now: datetime
) -> ContainerRecord:
    delay = record.pull_delay
    delay = FIRST_PULL_DELAY if delay is None else min(delay * 2, LAST_PULL_DELAY)
    return replace(
        record,
        waiting=(reason, message),
        pull_delay=delay,
        resume_at=now + delay,
        # "Never pull" and a name that is none do not get better by waiting: no back-off to show.
        announce_at=now + SHOW_FAILURE if reason in _PULL_REASONS else None,
    )


_PULL_REASONS = frozenset({ERR_IMAGE_PULL, "RegistryUnavailable", "SignatureValidationFailed"})


def _started(
    state: PodState,
    record: ContainerRecord,
    incarnation: Incarnation,
    now: datetime,
    actions: list[Action],
) -> PodState:
    spec = spec_of(state.pod, record.name)
    hook = spec is not None and spec.lifecycle is not None and spec.lifecycle.post_start is not None
    record = replace(
        record,
        stage=Stage.POST_START if hook else Stage.RUNNING,
        latest=incarnation,
        before=record.latest or record.before,
        attempt=incarnation.attempt + 1,
        waiting=("", ""),
        started=not hook and not has_probe(state, record, "startup"),
        ready=not has_probe(state, record, "readiness"),
        early_end=None,
    )
    early = state.containers[record.name].early_end
    if incarnation.ended or (early is not None and early.id == incarnation.id):
        return _ended(state, record, early or incarnation, now, actions)
    if hook and state.stage is not PodStage.STOPPING:
        actions.append(RunPostStart(record.name, incarnation.id))
    return with_record(state, record)


def _start_failed(
    state: PodState,
    record: ContainerRecord,
    event: StartFailed,
    now: datetime,
    actions: list[Action],
) -> PodState:
    actions.append(Say("Warning", "Failed", f"Error: {event.message}", record.name))
    record = replace(record, waiting=(event.reason, event.message), early_end=None)
    if event.incarnation is not None:
        dead = event.incarnation
        record = replace(
            record,
            latest=dead,
            before=record.latest or record.before,
            attempt=dead.attempt + 1,
        )
        state = _ended(state, record, dead, now, actions)
        record = state.containers[record.name]
        if record.stage is Stage.BACKING_OFF:
            record = replace(
                record,
                waiting=(event.reason, event.message),
                announce_at=now + SHOW_FAILURE,
            )
        return with_record(state, record)
    if state.stage is PodStage.STOPPING:
        return with_record(state, replace(record, stage=Stage.DONE))
    return with_record(state, replace(record, resume_at=now + CONFIG_RETRY))


def _judged(
    state: PodState,
    record: ContainerRecord,
    verdict: Verdict,
    now: datetime,
    actions: list[Action],
) -> ContainerRecord:
    if record.latest is None or record.latest.id != verdict.id:
        return record
    if verdict.kind is ProbeKind.READINESS:
        return replace(record, ready=verdict.success)
    if verdict.success:
        return replace(record, started=True) if verdict.kind is ProbeKind.STARTUP else record
    if record.stage is not Stage.RUNNING:
        return record
    probe = probe_of(state.pod, record.name, verdict.kind)
    message = (
        f"Container {record.name} failed {verdict.kind.value.lower()} probe, will be restarted"
    )
    seconds = probe.termination_grace_period_seconds if probe is not None else None
    grace = None if seconds is None else timedelta(seconds=seconds)
    return stop_container(state, record, message, now, actions, grace=grace)


def _ended(
    state: PodState,
    record: ContainerRecord,
    incarnation: Incarnation,
    now: datetime,
    actions: list[Action],
) -> PodState:
    """A container has ended: again, later or never?"""
    record = replace(
        record, latest=incarnation, started=False, ready=False, resume_at=None, announce_at=None
    )
    again = state.stage in WORKING and wants_restart(
        state.pod, spec_of(state.pod, record.name), record.sort.value, incarnation.exit_code
    )
    if not again:
        return with_record(state, replace(record, stage=Stage.DONE, waiting=("", "")))
    finished = incarnation.finished_at or now
    resume_at = backoff_over(record.delay, record.delayed_since, finished)
    if resume_at is None or resume_at <= now or state.stage is PodStage.RESETTING:
        return with_record(state, restarted(replace(record, stage=Stage.HELD), now))
    assert record.delay is not None
    pod = state.pod.metadata
    whole = f"{pod.name}_{pod.namespace}({pod.uid})"
    actions.append(
        Say(
            "Warning",
            "BackOff",
            f"Back-off restarting failed container {record.name} in pod {whole}",
            record.name,
        )
    )
    return with_record(
        state,
        replace(
            record,
            stage=Stage.BACKING_OFF,
            resume_at=resume_at,
            waiting=(CRASH_LOOP, crash_message(state.pod, record)),
        ),
    )
