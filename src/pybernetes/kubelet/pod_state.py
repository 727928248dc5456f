"""What is known of a pod on this node: its stage, its containers, and what its object says of them.

Values only; the pod machine changes them, the pod's status is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

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

DEFAULT_GRACE = timedelta(seconds=30)

# Reasons that containers wait with or ended for.
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
WORKING = frozenset({PodStage.PREPARING, PodStage.SANDBOXING, PodStage.RUNNING, PodStage.RESETTING})
ALIVE = frozenset({Stage.STARTING, Stage.POST_START, Stage.RUNNING, Stage.STOPPING})


class EndCause(Enum):
    """Why a pod is being stopped."""

    DELETED = "deleted"
    COMPLETED = "completed"
    FAILED = "failed"
    """By the kubelet: deadline, eviction, refusal. `End.reason` says which."""


class ProbeKind(Enum):
    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


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


# --- what the object says -------------------------------------------------------------------------


def new_state(pod: Pod, now: datetime) -> PodState:
    """A pod of which nothing exists yet."""
    return PodState(
        pod=pod,
        started_at=pod.status.start_time or now.replace(microsecond=0),
        containers={record.name: record for record in records_of(pod)},
    )


def records_of(pod: Pod) -> Iterable[ContainerRecord]:
    for init in pod.spec.init_containers:
        sort = Sort.SIDECAR if init.restart_policy == "Always" else Sort.INIT
        yield ContainerRecord(init.name, sort)
    for container in pod.spec.containers:
        yield ContainerRecord(container.name, Sort.MAIN)
    for ephemeral in pod.spec.ephemeral_containers:
        yield ContainerRecord(ephemeral.name, Sort.EPHEMERAL)


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


def check_state(state: PodState) -> None:
    """What is true of every state, whatever happened before."""
    alive = [r.name for r in state.containers.values() if r.is_alive]
    assert not (state.stage.is_over and alive), f"{alive} run in a pod that is over"
    assert state.stage is not PodStage.RUNNING or state.sandbox_ready, "running without a sandbox"
    assert (state.end is None) == (state.stage in WORKING), "an end without an end"
    for record in state.containers.values():
        if record.stage in (Stage.POST_START, Stage.RUNNING, Stage.STOPPING):
            assert record.latest is not None, f"{record.name} runs, but which?"
            assert not record.latest.ended, f"{record.name} runs and has ended"
        assert record.is_alive or not record.ready, f"{record.name} is ready and does not run"


def has_probe(state: PodState, record: ContainerRecord, kind: str) -> bool:
    which = ProbeKind.STARTUP if kind == "startup" else ProbeKind.READINESS
    return probe_of(state.pod, record.name, which) is not None


def with_ephemeral(
    pod: Pod, records: Mapping[str, ContainerRecord]
) -> Mapping[str, ContainerRecord]:
    """Ephemeral containers are the only ones that can be added to a pod."""
    new = [c.name for c in pod.spec.ephemeral_containers if c.name not in records]
    if not new:
        return records
    return {**records, **{name: ContainerRecord(name, Sort.EPHEMERAL) for name in new}}
