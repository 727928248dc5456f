"""The status a pod's state amounts to: phase, conditions, container statuses, as upstream says them.

Pure: `pod_status(state, known, node, now)` gives the whole status to be written. `known` is the
status as the API has it: conditions that others own are kept, and transition times of what did not
change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.conditions import (
    FALSE,
    TRUE,
    condition_of,
    with_condition,
    without_condition,
)
from pybernetes.api.core.podresources import qos_class
from pybernetes.api.types.core_v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    PodCondition,
    PodIP,
    PodStatus,
    VolumeMountStatus,
)
from pybernetes.kubelet.pod_state import (
    STATUS_UNKNOWN,
    ContainerRecord,
    EndCause,
    PodStage,
    PodState,
    Sort,
    Stage,
    spec_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.kubelet.pod_state import AnyContainer, Incarnation

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"

READY_TO_START = "PodReadyToStartContainers"
INITIALIZED = "Initialized"
READY = "Ready"
CONTAINERS_READY = "ContainersReady"
SCHEDULED = "PodScheduled"

CONTAINER_CREATING, POD_INITIALIZING = "ContainerCreating", "PodInitializing"
LOST_MESSAGE = "The container could not be located when the pod was terminated"
# 128 + SIGKILL: what a container whose end nobody saw is said to have ended with.
LOST_CODE = 137

_RUNS = frozenset({Stage.RUNNING, Stage.STOPPING})


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a pod's status says of its node; `runtime` is the scheme of container ids."""

    addresses: tuple[str, ...] = ()
    runtime: str = "containerd"
    allocatable: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    least_oom_score: int = -1000
    """The lowest the kernel lets us give."""


def pod_status(state: PodState, known: PodStatus, node: NodeFacts, now: datetime) -> PodStatus:
    pod = state.pod
    statuses = {
        record.name: container_status(state, record, known, node)
        for record in state.containers.values()
    }
    phase = phase_of(state, statuses)
    end = state.end if state.end is not None and state.end.cause is EndCause.FAILED else None
    ips = pod_addresses(state, node)
    status = replace(
        known,
        phase=phase,
        # Why it ended is not forgotten by a kubelet that was not there.
        reason=end.reason if end else (known.reason if known.phase == FAILED else ""),
        message=end.message if end else (known.message if known.phase == FAILED else ""),
        host_ip=node.addresses[0] if node.addresses else "",
        host_ips=tuple(HostIP(ip=ip) for ip in node.addresses),
        pod_ip=ips[0] if ips else "",
        pod_ips=tuple(PodIP(ip=ip) for ip in ips),
        start_time=state.started_at,
        qos_class=known.qos_class or qos_class(pod),
        observed_generation=pod.metadata.generation or 0,
        init_container_statuses=_of_sorts(state, statuses, Sort.INIT, Sort.SIDECAR),
        container_statuses=_of_sorts(state, statuses, Sort.MAIN),
        ephemeral_container_statuses=_of_sorts(state, statuses, Sort.EPHEMERAL),
    )
    return replace(status, conditions=_conditions(state, status, now))


def _of_sorts(
    state: PodState, statuses: dict[str, ContainerStatus], *sorts: Sort
) -> tuple[ContainerStatus, ...]:
    return tuple(statuses[r.name] for r in state.containers.values() if r.sort in sorts)


def pod_addresses(state: PodState, node: NodeFacts) -> tuple[str, ...]:
    if state.pod.spec.host_network:
        return node.addresses if state.sandbox_id else ()
    return state.ips


# --- containers -----------------------------------------------------------------------------------


def container_status(
    state: PodState, record: ContainerRecord, known: PodStatus, node: NodeFacts
) -> ContainerStatus:
    spec = spec_of(state.pod, record.name)
    latest = record.latest
    if latest is None and record.name in state.remembered:
        return state.remembered[record.name]
    runs = record.stage in _RUNS and latest is not None and not latest.ended
    current = _state_of(state, record, spec, node)
    last = _last_of(record, current, node)
    if latest is None and last.terminated is None:
        last = _known_last(record, known)
    restarts = latest.attempt if latest is not None else max(record.attempt - 1, 0)
    started = record.started if runs else False
    return ContainerStatus(
        name=record.name,
        state=current,
        last_state=last,
        ready=_is_ready(record, runs=runs),
        restart_count=restarts,
        image=(latest.image if latest else "") or (spec.image if spec else ""),
        image_id=latest.image_ref if latest else "",
        container_id=_full_id(latest, node) if latest else "",
        started=started,
        allocated_resources=dict(spec.resources.requests) if spec else {},
        resources=spec.resources if spec and (runs and _asks(spec)) else None,
        volume_mounts=_mounts_of(spec) if latest and spec else (),
    )


def _asks(spec: AnyContainer) -> bool:
    return bool(spec.resources.requests or spec.resources.limits)


def _is_ready(record: ContainerRecord, *, runs: bool) -> bool:
    """An init container is ready when it has done its work."""
    if record.sort is Sort.INIT:
        return (
            record.stage is Stage.DONE
            and record.latest is not None
            and record.latest.ended
            and record.latest.exit_code == 0
        )
    return runs and record.started and record.ready


def _state_of(
    state: PodState, record: ContainerRecord, spec: AnyContainer | None, node: NodeFacts
) -> ContainerState:
    latest = record.latest
    if latest is not None and not latest.ended and record.stage in _RUNS:
        return ContainerState(running=ContainerStateRunning(started_at=_seconds(latest.started_at)))
    waits = record.stage in (Stage.RETRYING, Stage.BACKING_OFF) and bool(record.waiting[0])
    if latest is not None and latest.ended and not waits:
        return ContainerState(terminated=_terminated(latest, node))
    if latest is not None and not latest.ended and record.stage is Stage.DONE:
        # It was there when we last looked, and nobody saw its end.
        return ContainerState(terminated=_lost())
    if record.stage is Stage.DONE and latest is None and _was_stopped(state, record):
        return ContainerState(terminated=_lost())
    usual = POD_INITIALIZING if state.pod.spec.init_containers else CONTAINER_CREATING
    reason, message = record.waiting if record.waiting[0] else (usual, "")
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _was_stopped(state: PodState, record: ContainerRecord) -> bool:
    """Never ran, and never will: upstream says so once the pod is over and was initialized."""
    if not state.stage.is_over or record.sort is not Sort.MAIN:
        return False
    inits = [r for r in state.containers.values() if r.sort is Sort.INIT]
    return all(r.latest is not None and r.latest.exit_code == 0 for r in inits)


def _last_of(record: ContainerRecord, current: ContainerState, node: NodeFacts) -> ContainerState:
    latest, before = record.latest, record.before
    ended = latest if latest is not None and latest.ended else None
    shown = before if current.terminated is not None or ended is None else ended
    if shown is None or not shown.ended:
        return ContainerState()
    return ContainerState(terminated=_terminated(shown, node))


def _known_last(record: ContainerRecord, known: PodStatus) -> ContainerState:
    """What the API remembers of containers that the runtime has forgotten."""
    statuses = (*known.container_statuses, *known.init_container_statuses)
    old = next((status for status in statuses if status.name == record.name), None)
    if old is None or record.attempt == 0:
        return ContainerState()
    return ContainerState(terminated=old.state.terminated or old.last_state.terminated)


def _terminated(incarnation: Incarnation, node: NodeFacts) -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exit_code=incarnation.exit_code,
        reason=incarnation.reason or ("Completed" if incarnation.exit_code == 0 else "Error"),
        message=incarnation.message,
        started_at=_seconds(incarnation.started_at),
        finished_at=_seconds(incarnation.finished_at),
        container_id=_full_id(incarnation, node),
    )


def _seconds(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)


def _lost() -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exit_code=LOST_CODE, reason=STATUS_UNKNOWN, message=LOST_MESSAGE
    )


def _full_id(incarnation: Incarnation, node: NodeFacts) -> str:
    return f"{node.runtime}://{incarnation.id}" if incarnation.id else ""


def _mounts_of(spec: AnyContainer) -> tuple[VolumeMountStatus, ...]:
    return tuple(
        VolumeMountStatus(
            name=mount.name,
            mount_path=mount.mount_path,
            read_only=True if mount.read_only else None,
            recursive_read_only=(mount.recursive_read_only or "Disabled")
            if mount.read_only
            else "",
        )
        for mount in spec.volume_mounts
    )


# --- phase ----------------------------------------------------------------------------------------


def phase_of(state: PodState, statuses: dict[str, ContainerStatus]) -> str:
    """Where the pod is in its life; once Succeeded or Failed, always so."""
    known = state.pod.status.phase
    if known in (SUCCEEDED, FAILED):
        return known
    phase = _phase_by_containers(state, statuses)
    if state.stage.is_over and phase not in (SUCCEEDED, FAILED):
        # Stopped before it could come to an end of its own.
        return FAILED
    if state.end is not None and state.end.cause is EndCause.FAILED and state.stage.is_over:
        return FAILED
    return phase


def _phase_by_containers(state: PodState, statuses: dict[str, ContainerStatus]) -> str:
    records = list(state.containers.values())
    policy = state.pod.spec.restart_policy or "Always"
    init_pending = init_failed = False
    running = waiting = stopped = succeeded = 0
    for record in records:
        current, last = statuses[record.name].state, statuses[record.name].last_state
        if record.sort is Sort.INIT:
            ended = current.terminated or last.terminated
            if ended is None or current.running is not None:
                init_pending = True
            elif ended.exit_code != 0:
                init_failed = True
        elif record.sort is Sort.SIDECAR:
            if current.running is not None:
                running += 1
            if not (record.started or state.initialized or state.stage.is_over):
                init_pending = True
        elif record.sort is Sort.MAIN:
            if current.running is not None:
                running += 1
            elif current.terminated is not None:
                stopped += 1
                succeeded += current.terminated.exit_code == 0
            elif last.terminated is not None:
                stopped += 1
            else:
                waiting += 1
    if init_failed and (policy == "Never" or state.stage.is_over):
        return FAILED
    if (init_pending or init_failed) and not state.initialized:
        return PENDING
    if waiting:
        return PENDING
    if running:
        return RUNNING
    if not stopped:
        return PENDING
    if state.stage.is_over or policy == "Never":
        return SUCCEEDED if stopped == succeeded else FAILED
    if policy == "OnFailure" and stopped == succeeded:
        return SUCCEEDED
    return RUNNING


# --- conditions -----------------------------------------------------------------------------------


def _conditions(state: PodState, status: PodStatus, now: datetime) -> tuple[PodCondition, ...]:
    moment = now.replace(microsecond=0)
    generation = state.pod.metadata.generation or 0
    inits = status.init_container_statuses
    sidecars = {r.name for r in state.containers.values() if r.sort is Sort.SIDECAR}
    serving = (*(s for s in inits if s.name in sidecars), *status.container_statuses)
    containers_ready = _containers_ready(status.phase, serving)
    wanted = (
        (READY_TO_START, state.sandbox_ready and not state.stage.is_over, "", ""),
        (INITIALIZED, *_initialized(state, status)),
        (READY, *_ready(state.pod, status, containers_ready)),
        (CONTAINERS_READY, *containers_ready),
        (SCHEDULED, True, "", ""),
    )
    conditions = status.conditions
    ours: list[PodCondition] = []
    for type_, true, reason, message in wanted:
        condition = PodCondition(
            type=type_,
            status=TRUE if true else FALSE,
            reason=reason,
            message=message,
            last_transition_time=moment,
            observed_generation=generation,
        )
        conditions = with_condition(conditions, condition)
        ours.append(_found(conditions, type_))
    # Upstream's order: ours first, then what others have added.
    for condition in ours:
        conditions = without_condition(conditions, condition.type)
    return (*ours, *conditions)


def _found(conditions: Sequence[PodCondition], type_: str) -> PodCondition:
    condition = condition_of(conditions, type_)
    assert condition is not None
    return condition


def _listed(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _initialized(state: PodState, status: PodStatus) -> tuple[bool, str, str]:
    records = [r for r in state.containers.values() if r.sort in (Sort.INIT, Sort.SIDECAR)]
    if not records:
        return True, "", ""
    if status.phase == SUCCEEDED:
        return True, "PodCompleted", ""
    by_name = {s.name: s for s in status.init_container_statuses}
    incomplete = []
    for record in records:
        found = by_name[record.name]
        done = bool(found.started) if record.sort is Sort.SIDECAR else found.ready
        if not done and not state.initialized:
            incomplete.append(record.name)
    if incomplete:
        text = f"containers with incomplete status: {_listed(incomplete)}"
        return False, "ContainersNotInitialized", text
    return True, "", ""


def _containers_ready(phase: str, statuses: Sequence[ContainerStatus]) -> tuple[bool, str, str]:
    if phase == SUCCEEDED:
        return False, "PodCompleted", ""
    if phase == FAILED:
        return False, "PodFailed", ""
    unready = [s.name for s in statuses if not s.ready]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: {_listed(unready)}"
    return True, "", ""


def _ready(
    pod: Pod, status: PodStatus, containers_ready: tuple[bool, str, str]
) -> tuple[bool, str, str]:
    if not containers_ready[0]:
        return containers_ready
    missing = []
    for gate in pod.spec.readiness_gates:
        kind = gate.condition_type
        condition = condition_of(status.conditions, kind)
        if condition is None:
            missing.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif condition.status != TRUE:
            missing.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {condition.status}'
            )
    if missing:
        return False, "ReadinessGatesNotReady", ", ".join(missing)
    return True, "", ""


def is_final(state: PodState) -> bool:
    return state.stage in (PodStage.FINISHED, PodStage.REMOVING, PodStage.GONE)
