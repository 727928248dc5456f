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
After every event `_advance` looks at the whole state and starts what can be started: order between
init containers, sidecars and main containers lives there and nowhere else.

Rules: from STOPPING on, no container starts. FINISHED, REMOVING and GONE are never left backwards.
An action that was asked for is not asked for again until its outcome came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from pybernetes.kubelet.restart import (
    FIRST_DELAY,
    backoff_over,
    delay_text,
    next_delay,
    wants_restart,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pybernetes.api.types.core_v1 import (
        Container,
        ContainerStatus,
        EphemeralContainer,
        Pod,
        Probe,
    )

    AnyContainer: TypeAlias = Container | EphemeralContainer

# How long the reason of a failure is shown before the back-off's own name takes its place.
SHOW_FAILURE = timedelta(seconds=2)
# Upstream tries again so often when a container cannot even be described (a Secret is missing).
CONFIG_RETRY = timedelta(seconds=10)
# Volumes and sandboxes: doubling from the first to the last.
FIRST_RETRY = timedelta(milliseconds=500)
LAST_RETRY = timedelta(minutes=2)
FIRST_PULL_DELAY, LAST_PULL_DELAY = timedelta(seconds=10), timedelta(minutes=5)

DEFAULT_GRACE = timedelta(seconds=30)
# What a pod whose object is gone from one moment to the next is given.
LEAST_GRACE = timedelta(seconds=1)

DEADLINE_REASON = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"

CRASH_LOOP = "CrashLoopBackOff"
PULL_BACKOFF = "ImagePullBackOff"
ERR_IMAGE_PULL = "ErrImagePull"
CONFIG_ERROR = "CreateContainerConfigError"
RUN_ERROR = "RunContainerError"
POST_START_ERROR = "PostStartHookError"
STATUS_UNKNOWN = "ContainerStatusUnknown"


class PodStage(Enum):
    PREPARING = "preparing"
    SANDBOXING = "sandboxing"
    RUNNING = "running"
    RESETTING = "resetting"
    STOPPING = "stopping"
    CLOSING = "closing"
    FINISHED = "finished"
    REMOVING = "removing"
    GONE = "gone"

    @property
    def is_over(self) -> bool:
        """No container runs, and none ever will."""
        return self in _OVER


class Sort(Enum):
    """Which list of the pod's spec a container is in, and how it behaves."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"


class Stage(Enum):
    """Where a container is."""

    HELD = "held"
    """Will start when its turn comes."""
    PULLING = "pulling"
    STARTING = "starting"
    RETRYING = "retrying"
    """Could not be pulled or described; is tried again at `resume_at`."""
    POST_START = "poststart"
    """Runs; its postStart hook is not through."""
    RUNNING = "running"
    STOPPING = "stopping"
    BACKING_OFF = "backingoff"
    """Ended; is started again at `resume_at`."""
    DONE = "done"
    """Never runs (again)."""


_OVER = frozenset({PodStage.CLOSING, PodStage.FINISHED, PodStage.REMOVING, PodStage.GONE})
_WORKING = frozenset(
    {PodStage.PREPARING, PodStage.SANDBOXING, PodStage.RUNNING, PodStage.RESETTING}
)
ALIVE = frozenset({Stage.STARTING, Stage.POST_START, Stage.RUNNING, Stage.STOPPING})


class EndCause(Enum):
    """Why a pod is being stopped."""

    DELETED = "deleted"
    COMPLETED = "completed"
    FAILED = "failed"
    """By the kubelet: deadline, eviction, refusal. `End.reason` says which."""


# --- state ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One container of the runtime: a container of the pod is a row of these."""

    id: str
    attempt: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What is known of one container of the pod."""

    name: str
    sort: Sort
    stage: Stage = Stage.HELD
    latest: Incarnation | None = None
    before: Incarnation | None = None
    """The one before `latest`."""
    attempt: int = 0
    """The number of the next start."""
    waiting: tuple[str, str] = ("", "")
    """Reason and message shown while it does not run; empty: the usual one."""
    resume_at: datetime | None = None
    announce_at: datetime | None = None
    """When `waiting` turns from the failure's reason into the back-off's."""
    delay: timedelta | None = None
    """Of the crash loop; None before the first restart."""
    delayed_since: datetime | None = None
    """When `delay` was last raised: at the last restart."""
    pull_delay: timedelta | None = None
    started: bool = False
    """Runs, and its startup probe has succeeded (if it has one)."""
    ready: bool = False
    early_end: Incarnation | None = None
    """It ended before we heard that it started."""

    @property
    def is_alive(self) -> bool:
        return self.stage in ALIVE


@dataclass(frozen=True, slots=True)
class End:
    cause: EndCause
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodState:
    pod: Pod
    started_at: datetime
    stage: PodStage = PodStage.PREPARING
    # By name, in the order init, main, ephemeral.
    containers: Mapping[str, ContainerRecord] = field(default_factory=dict)
    sandbox_id: str = ""
    sandbox_ready: bool = False
    sandbox_attempt: int = 0
    """The number of the next one."""
    ips: tuple[str, ...] = ()
    initialized: bool = False
    """All init containers of this sandbox have done their part."""
    busy: bool = False
    """The action of this stage (volumes, sandbox, removal) is on its way."""
    failures: int = 0
    resume_at: datetime | None = None
    end: End | None = None
    kill_at: datetime | None = None
    """When the grace of a stopping pod is over."""
    forgotten: bool = False
    """Its object is gone from the API."""
    remembered: Mapping[str, ContainerStatus] = field(default_factory=dict)
    """Of a pod that came to its end before we came: what the API knew of its containers then."""

    @property
    def is_removable(self) -> bool:
        return self.forgotten or self.pod.metadata.deletion_timestamp is not None


# --- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changed:
    """A newer version of the object."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The object is gone from the API."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """The kubelet itself ends the pod (eviction, shutdown, refusal)."""

    reason: str
    message: str
    grace: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ObjectsChanged:
    """A ConfigMap or Secret the pod refers to appeared or changed: what failed may work now."""


@dataclass(frozen=True, slots=True)
class VolumesReady:
    pass


@dataclass(frozen=True, slots=True)
class VolumesFailed:
    message: str


@dataclass(frozen=True, slots=True)
class SandboxReady:
    id: str
    ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    message: str


@dataclass(frozen=True, slots=True)
class SandboxLost:
    id: str


@dataclass(frozen=True, slots=True)
class SandboxStopped:
    pass


@dataclass(frozen=True, slots=True)
class Removed:
    pass


@dataclass(frozen=True, slots=True)
class ImageReady:
    container: str


@dataclass(frozen=True, slots=True)
class ImageFailed:
    """`reason` is ErrImagePull, ErrImageNeverPull, InvalidImageName, RegistryUnavailable …"""

    container: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """The runtime started it; it may have ended already."""

    container: str
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It never ran. With an incarnation, the runtime keeps a dead one of it."""

    container: str
    reason: str
    message: str
    incarnation: Incarnation | None = None


@dataclass(frozen=True, slots=True)
class HookDone:
    """The postStart hook is through."""

    container: str


@dataclass(frozen=True, slots=True)
class HookFailed:
    container: str
    message: str


@dataclass(frozen=True, slots=True)
class Exited:
    container: str
    incarnation: Incarnation


class ProbeKind(Enum):
    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe has made up its mind about the incarnation with that id."""

    container: str
    kind: ProbeKind
    id: str
    success: bool


ContainerEvent: TypeAlias = (
    ImageReady | ImageFailed | Started | StartFailed | HookDone | HookFailed | Exited | Verdict
)
PodEvent: TypeAlias = (
    Changed
    | Forgotten
    | Condemned
    | ObjectsChanged
    | Tick
    | VolumesReady
    | VolumesFailed
    | SandboxReady
    | SandboxFailed
    | SandboxLost
    | SandboxStopped
    | Removed
)
Event: TypeAlias = PodEvent | ContainerEvent


# --- actions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    pass


@dataclass(frozen=True, slots=True)
class RunSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Stop it. Without an id there is none, and the outcome is the same."""

    id: str


@dataclass(frozen=True, slots=True)
class PullImage:
    container: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunPostStart:
    container: str
    id: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop hook, then stop within the grace. Asked again, the new grace counts."""

    container: str
    id: str
    grace: timedelta
    message: str
    pre_stop: bool = True


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give up what is on its way for the pod's start: volumes and pulls."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Everything: volumes, containers, sandboxes; the object, unless it is gone already."""

    delete_object: bool


@dataclass(frozen=True, slots=True)
class Say:
    """An event about the pod or one of its containers."""

    type: str
    reason: str
    message: str
    container: str = ""


Action: TypeAlias = (
    PrepareVolumes
    | RunSandbox
    | StopSandbox
    | PullImage
    | StartContainer
    | RunPostStart
    | StopContainer
    | Abandon
    | Remove
    | Say
)


# --- the tables -----------------------------------------------------------------------------------

# Where outcomes lead a pod. What starts a stage's own action is in `_advance`.
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
        state = _advance(state, now, actions)
    return Step(state, tuple(actions), _wake_at(state))


# --- pod events -----------------------------------------------------------------------------------


def _take_pod_event(
    state: PodState, event: PodEvent, now: datetime, actions: list[Action]
) -> PodState:
    match event:
        case Changed(pod):
            state = replace(state, pod=pod, containers=_with_ephemeral(pod, state.containers))
            if pod.metadata.deletion_timestamp is not None:
                state = _stop(state, End(EndCause.DELETED), grace_of(pod), now, actions)
            return state
        case Forgotten():
            state = replace(state, forgotten=True)
            grace = max(LEAST_GRACE, grace_of(state.pod))
            return _stop(state, End(EndCause.DELETED), grace, now, actions)
        case Condemned(reason, message, grace_or_none):
            if state.stage not in _WORKING:
                return state
            own = grace_of(state.pod) if grace_or_none is None else grace_or_none
            return _stop(state, End(EndCause.FAILED, reason, message), own, now, actions)
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
            return _retry_later(state, now)
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
            return _retry_later(replace(state, sandbox_attempt=state.sandbox_attempt + 1), now)
        case SandboxStopped():
            return replace(state, sandbox_ready=False, ips=state.ips if state.stage.is_over else ())
    return state


def _retry_later(state: PodState, now: datetime) -> PodState:
    delay = min(FIRST_RETRY * 2 ** min(state.failures, 16), LAST_RETRY)
    return replace(state, failures=state.failures + 1, resume_at=now + delay)


def _stop(
    state: PodState, end: End, grace: timedelta, now: datetime, actions: list[Action]
) -> PodState:
    """Ask the pod to end. Asked again, only an earlier end counts."""
    kill_at = now + grace
    if state.stage in _WORKING:
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
            record = replace(record, stage=stage, started=not _has_probe(state, record, "startup"))
        case HookFailed(_, message):
            actions.append(
                Say("Warning", "FailedPostStartHook", "PostStartHook failed", record.name)
            )
            record = _stop_container(
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
    return _with(state, record)


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
        started=not hook and not _has_probe(state, record, "startup"),
        ready=not _has_probe(state, record, "readiness"),
        early_end=None,
    )
    early = state.containers[record.name].early_end
    if incarnation.ended or (early is not None and early.id == incarnation.id):
        return _ended(state, record, early or incarnation, now, actions)
    if hook and state.stage is not PodStage.STOPPING:
        actions.append(RunPostStart(record.name, incarnation.id))
    return _with(state, record)


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
        return _with(state, record)
    if state.stage is PodStage.STOPPING:
        return _with(state, replace(record, stage=Stage.DONE))
    return _with(state, replace(record, resume_at=now + CONFIG_RETRY))


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
    return _stop_container(state, record, message, now, actions, grace=grace)


def _stop_container(
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
    again = state.stage in _WORKING and wants_restart(
        state.pod, spec_of(state.pod, record.name), record.sort.value, incarnation.exit_code
    )
    if not again:
        return _with(state, replace(record, stage=Stage.DONE, waiting=("", "")))
    finished = incarnation.finished_at or now
    resume_at = backoff_over(record.delay, record.delayed_since, finished)
    if resume_at is None or resume_at <= now or state.stage is PodStage.RESETTING:
        return _with(state, _restarted(replace(record, stage=Stage.HELD), now))
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
    return _with(
        state,
        replace(
            record,
            stage=Stage.BACKING_OFF,
            resume_at=resume_at,
            waiting=(CRASH_LOOP, _crash_message(state.pod, record)),
        ),
    )


def _crash_message(pod: Pod, record: ContainerRecord) -> str:
    delay = delay_text(record.delay or FIRST_DELAY)
    meta = pod.metadata
    whole = f"{meta.name}_{meta.namespace}({meta.uid})"
    return f"back-off {delay} restarting failed container={record.name} pod={whole}"


def _restarted(record: ContainerRecord, now: datetime) -> ContainerRecord:
    """Raise the delay for the next time, as the restart it counts from is now."""
    finished = record.latest.finished_at if record.latest is not None else None
    delay = next_delay(record.delay, record.delayed_since, finished or now)
    return replace(record, delay=delay, delayed_since=now, resume_at=None, waiting=("", ""))


# --- what can be done now -------------------------------------------------------------------------


def _advance(state: PodState, now: datetime, actions: list[Action]) -> PodState:
    """One move; the same object if there is none."""
    deadline = deadline_of(state)
    if state.stage in _WORKING and deadline is not None and now >= deadline:
        end = End(EndCause.FAILED, DEADLINE_REASON, DEADLINE_MESSAGE)
        actions.append(Say("Normal", DEADLINE_REASON, DEADLINE_MESSAGE))
        return _stop(state, end, grace_of(state.pod), now, actions)
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
                record = _restarted(record, now)
            return _with(state, replace(record, stage=Stage.HELD, resume_at=None, announce_at=None))
        if record.announce_at is not None and record.announce_at <= now:
            return _with(state, _announced(state.pod, record, actions))
    return state


def _announced(pod: Pod, record: ContainerRecord, actions: list[Action]) -> ContainerRecord:
    if record.stage is Stage.BACKING_OFF:
        return replace(record, announce_at=None, waiting=(CRASH_LOOP, _crash_message(pod, record)))
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
        return _stop(state, End(EndCause.COMPLETED), grace_of(state.pod), now, actions)
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
    return _with(state, replace(record, stage=Stage.PULLING))


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
            return _with(
                state,
                _stop_container(
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
            return _with(state, _stop_container(state, record, "", now, actions))
    if any(record.is_alive for record in others):
        return state
    for record in reversed(records):
        if record.stage in (Stage.RUNNING, Stage.POST_START):
            return _with(state, _stop_container(state, record, "", now, actions))
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


def _wake_at(state: PodState) -> datetime | None:
    moments: list[datetime] = []
    if state.stage in _WORKING and (deadline := deadline_of(state)) is not None:
        moments.append(deadline)
    if state.stage in (PodStage.PREPARING, PodStage.SANDBOXING) and not state.busy:
        moments += [state.resume_at] if state.resume_at is not None else []
    if state.stage is PodStage.RUNNING:
        for record in state.containers.values():
            moments += [m for m in (record.resume_at, record.announce_at) if m is not None]
    return min(moments, default=None)


# --- what the object says -------------------------------------------------------------------------


def new_state(pod: Pod, now: datetime) -> PodState:
    """A pod of which nothing exists yet."""
    return PodState(
        pod=pod,
        started_at=pod.status.start_time or now.replace(microsecond=0),
        containers={record.name: record for record in _records_of(pod)},
    )


def _records_of(pod: Pod) -> Iterable[ContainerRecord]:
    for init in pod.spec.init_containers:
        sort = Sort.SIDECAR if init.restart_policy == "Always" else Sort.INIT
        yield ContainerRecord(init.name, sort)
    for container in pod.spec.containers:
        yield ContainerRecord(container.name, Sort.MAIN)
    for ephemeral in pod.spec.ephemeral_containers:
        yield ContainerRecord(ephemeral.name, Sort.EPHEMERAL)


def _with_ephemeral(
    pod: Pod, records: Mapping[str, ContainerRecord]
) -> Mapping[str, ContainerRecord]:
    """Ephemeral containers are the only ones that can be added to a pod."""
    new = [c.name for c in pod.spec.ephemeral_containers if c.name not in records]
    if not new:
        return records
    return {**records, **{name: ContainerRecord(name, Sort.EPHEMERAL) for name in new}}


def containers_of(pod: Pod) -> list[AnyContainer]:
    """Of every sort, in the order they start."""
    return [*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers]


def spec_of(pod: Pod, name: str) -> AnyContainer | None:
    return next((spec for spec in containers_of(pod) if spec.name == name), None)


def probe_of(pod: Pod, name: str, kind: ProbeKind) -> Probe | None:
    spec = spec_of(pod, name)
    return None if spec is None else probe_in(spec, kind)


def probe_in(spec: AnyContainer, kind: ProbeKind) -> Probe | None:
    if kind is ProbeKind.STARTUP:
        return spec.startup_probe
    return spec.readiness_probe if kind is ProbeKind.READINESS else spec.liveness_probe


def _has_probe(state: PodState, record: ContainerRecord, kind: str) -> bool:
    which = ProbeKind.STARTUP if kind == "startup" else ProbeKind.READINESS
    return probe_of(state.pod, record.name, which) is not None


def grace_of(pod: Pod) -> timedelta:
    """How long the pod may take to end: what the deletion says, else what the pod says."""
    meta = pod.metadata
    if meta.deletion_timestamp is not None and meta.deletion_grace_period_seconds is not None:
        return timedelta(seconds=meta.deletion_grace_period_seconds)
    seconds = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE if seconds is None else timedelta(seconds=seconds)


def deadline_of(state: PodState) -> datetime | None:
    seconds = state.pod.spec.active_deadline_seconds
    return None if seconds is None else state.started_at + timedelta(seconds=seconds)


def _with(state: PodState, record: ContainerRecord) -> PodState:
    if state.containers[record.name] is record:
        return state
    return replace(state, containers={**state.containers, record.name: record})


def check_state(state: PodState) -> None:
    """What is true of every state, whatever happened before."""
    alive = [r.name for r in state.containers.values() if r.is_alive]
    assert not (state.stage.is_over and alive), f"{alive} run in a pod that is over"
    assert state.stage is not PodStage.RUNNING or state.sandbox_ready, "running without a sandbox"
    assert (state.end is None) == (state.stage in _WORKING), "an end without an end"
    for record in state.containers.values():
        if record.stage in (Stage.POST_START, Stage.RUNNING, Stage.STOPPING):
            assert record.latest is not None, f"{record.name} runs, but which?"
            assert not record.latest.ended, f"{record.name} runs and has ended"
        assert record.is_alive or not record.ready, f"{record.name} is ready and does not run"
