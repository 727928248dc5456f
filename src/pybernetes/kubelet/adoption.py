"""The state of a pod whose sandbox or containers are there already: after a restart of ours. Pure.

Nothing that runs is started again. Of each container the newest incarnation counts and the one
before it is remembered; what the runtime has forgotten is taken from the pod's status.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pybernetes.api.core.podstate import is_finished, status_of_container
from pybernetes.kubelet.pod_state import (
    ContainerRecord,
    End,
    EndCause,
    Incarnation,
    PodStage,
    PodState,
    ProbeKind,
    Sort,
    Stage,
    grace_of,
    new_state,
    probe_of,
    spec_of,
)
from pybernetes.kubelet.restart import wants_restart
from pybernetes.kubelet.runtime.interface import ContainerState, SandboxState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.kubelet.runtime.interface import ContainerStatus, SandboxStatus


@dataclass(frozen=True, slots=True)
class Found:
    """What the runtime has of one pod."""

    sandboxes: Sequence[SandboxStatus] = ()
    containers: Sequence[ContainerStatus] = ()


NOTHING = Found()


def incarnation_of(status: ContainerStatus) -> Incarnation:
    return Incarnation(
        id=status.id,
        attempt=status.attempt,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        reason=status.reason,
        message=status.message,
        image=status.image if not status.image.startswith("sha256:") else "",
        image_ref=status.image_ref,
        ended=status.state is ContainerState.EXITED,
    )


def adopted(pod: Pod, found: Found, now: datetime) -> PodState:
    state = new_state(pod, now)
    sandbox = max(found.sandboxes, key=lambda s: s.attempt, default=None)
    ready = sandbox is not None and sandbox.state is SandboxState.READY
    records = {
        record.name: _adopted_record(pod, record, found.containers)
        for record in state.containers.values()
    }
    mains = [r for r in records.values() if r.sort is Sort.MAIN]
    state = replace(
        state,
        containers=records,
        sandbox_id=sandbox.id if sandbox else "",
        sandbox_ready=ready,
        sandbox_attempt=sandbox.attempt + 1 if sandbox else 0,
        ips=sandbox.ips if sandbox and ready else (),
        initialized=ready and any(r.latest is not None for r in mains),
    )
    if not is_finished(pod):
        return state
    # It came to its end before; what still runs of it is on its way out.
    alive = any(record.is_alive for record in records.values())
    return replace(
        state,
        stage=PodStage.STOPPING if alive or ready else PodStage.FINISHED,
        end=End(EndCause.COMPLETED),
        kill_at=now + grace_of(pod),
        ips=tuple(ip.ip for ip in pod.status.pod_ips),
        remembered={
            name: status
            for name in records
            if (status := status_of_container(pod, name)) is not None
        },
        containers={
            name: record if record.is_alive else replace(record, stage=Stage.DONE)
            for name, record in records.items()
        },
    )


def _adopted_record(
    pod: Pod, record: ContainerRecord, containers: Iterable[ContainerStatus]
) -> ContainerRecord:
    known = status_of_container(pod, record.name)
    restarts = known.restart_count if known is not None else 0
    mine = sorted((c for c in containers if c.name == record.name), key=lambda c: c.attempt)
    # Created and never started: we died in between. It is not worth keeping.
    mine = [c for c in mine if c.state is not ContainerState.CREATED]
    if not mine:
        had_run = known is not None and (
            known.container_id or known.last_state.terminated is not None
        )
        return replace(record, attempt=restarts + 1 if had_run else 0)
    latest = incarnation_of(mine[-1])
    record = replace(
        record,
        latest=latest,
        before=incarnation_of(mine[-2]) if len(mine) > 1 else None,
        attempt=max(latest.attempt, restarts) + 1,
    )
    if not latest.ended:
        same = known is not None and known.container_id.endswith(f"//{latest.id}")
        has_startup = probe_of(pod, record.name, ProbeKind.STARTUP) is not None
        has_readiness = probe_of(pod, record.name, ProbeKind.READINESS) is not None
        return replace(
            record,
            stage=Stage.RUNNING,
            started=not has_startup or bool(same and known and known.started),
            # What was ready stays so until its probe says otherwise: a restart of ours must not
            # take a pod out of its Services.
            ready=not has_readiness or bool(same and known and known.ready),
        )
    again = wants_restart(pod, spec_of(pod, record.name), record.sort.value, latest.exit_code)
    return replace(record, stage=Stage.HELD if again else Stage.DONE)
