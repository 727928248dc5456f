"""The columns of `kubectl get pods`: one word for the state of many containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.conditions import condition_of, has_condition
from pybernetes.api.core.podresources import is_sidecar
from pybernetes.api.resource import AGE, Column
from pybernetes.apimachinery.timestamp import duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.api.types.core_v1 import ContainerStateTerminated, ContainerStatus, Pod

_READY, _INITIALIZED, _SCHEDULED = "Ready", "Initialized", "PodScheduled"


def ready_text(pod: Pod) -> str:
    """Ready containers of all that keep running: 1/2."""
    sidecars = _sidecar_names(pod)
    total = len(pod.spec.containers) + len(sidecars)
    ready = sum(
        1
        for status in pod.status.container_statuses
        if status.ready and status.state.running is not None
    )
    ready += sum(
        1
        for status in pod.status.init_container_statuses
        if status.name in sidecars and status.ready and status.started
    )
    return f"{ready}/{total}"


def status_text(pod: Pod) -> str:
    """The phase, or the reason that says most about why the pod is not simply running."""
    status = pod.status
    reason = status.reason or status.phase
    scheduled = condition_of(status.conditions, _SCHEDULED)
    if scheduled is not None and scheduled.reason == "SchedulingGated":
        reason = "SchedulingGated"
    initializing = _initializing_text(pod)
    if initializing is None or has_condition(status.conditions, _INITIALIZED):
        reason = _containers_text(pod, initializing or reason)
    else:
        reason = initializing
    if pod.metadata.deletion_timestamp is not None:
        if status.reason == "NodeLost":
            return "Unknown"
        if status.phase not in ("Failed", "Succeeded"):
            return "Terminating"
    return reason


def _initializing_text(pod: Pod) -> str | None:
    """What the first unfinished init container is at; None if all have done their part."""
    sidecars = _sidecar_names(pod)
    for index, status in enumerate(pod.status.init_container_statuses):
        state = status.state
        if state.terminated is not None and state.terminated.exit_code == 0:
            continue
        if status.name in sidecars and status.started:
            continue
        if state.terminated is not None:
            return "Init:" + _ended_text(state.terminated)
        if state.waiting is not None and state.waiting.reason not in ("", "PodInitializing"):
            return f"Init:{state.waiting.reason}"
        return f"Init:{index}/{len(pod.spec.init_containers)}"
    return None


def _ended_text(terminated: ContainerStateTerminated) -> str:
    if terminated.reason:
        return terminated.reason
    if terminated.signal:
        return f"Signal:{terminated.signal}"
    return f"ExitCode:{terminated.exit_code}"


def _containers_text(pod: Pod, reason: str) -> str:
    running = False
    # A failed container says more than its completed neighbours.
    failed = ""
    for status in reversed(pod.status.container_statuses):
        state = status.state
        if state.waiting is not None and state.waiting.reason:
            reason = state.waiting.reason
        elif state.terminated is not None:
            reason = _ended_text(state.terminated)
            if state.terminated.exit_code != 0:
                failed = reason
        elif status.ready and state.running is not None:
            running = True
    if reason != "Completed":
        return reason
    if running:
        return "Running" if has_condition(pod.status.conditions, _READY) else "NotReady"
    return failed or reason


def restarts_text(pod: Pod, now: datetime) -> str:
    """How often containers were restarted, and how long ago the last time was."""
    sidecars = _sidecar_names(pod)
    beside = [s for s in pod.status.init_container_statuses if s.name in sidecars]
    initialized = _initializing_text(pod) is None or has_condition(
        pod.status.conditions, _INITIALIZED
    )
    if initialized:
        counted: Sequence[ContainerStatus] = [*beside, *pod.status.container_statuses]
    else:
        # Until the containers run, it is the init containers that restart.
        counted = pod.status.init_container_statuses
    restarts = sum(status.restart_count for status in counted)
    ends = [
        status.last_state.terminated.finished_at
        for status in counted
        if status.last_state.terminated is not None
        and status.last_state.terminated.finished_at is not None
    ]
    if restarts and ends:
        return f"{restarts} ({duration_text(now - max(ends))} ago)"
    return str(restarts)


def _sidecar_names(pod: Pod) -> set[str]:
    return {c.name for c in pod.spec.init_containers if is_sidecar(c)}


def _ip(pod: Pod) -> str | None:
    return pod.status.pod_ips[0].ip if pod.status.pod_ips else None


def _readiness_gates(pod: Pod) -> str | None:
    gates = pod.spec.readiness_gates
    if not gates:
        return None
    passed = sum(has_condition(pod.status.conditions, gate.condition_type) for gate in gates)
    return f"{passed}/{len(gates)}"


POD_COLUMNS: tuple[Column[Pod], ...] = (
    Column("Ready", ready_text),
    Column("Status", status_text),
    Column("Restarts", cell_at=restarts_text),
    AGE,
    Column("IP", _ip, wide=True),
    Column("Node", lambda pod: pod.spec.node_name or None, wide=True),
    Column("Nominated Node", lambda pod: pod.status.nominated_node_name or None, wide=True),
    Column("Readiness Gates", _readiness_gates, wide=True),
)
