"""The probes of one pod: a task for each that has something to find out now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.kubelet import pod_events
from pybernetes.kubelet.checks import Target
from pybernetes.kubelet.pod_state import (
    PodStage,
    ProbeKind,
    Stage,
    probe_in,
    spec_of,
)
from pybernetes.kubelet.probes import run_probe

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Set as AbstractSet

    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.worker import PodWorker

# What is asked of a container that has started.
_AFTER_START = (ProbeKind.READINESS, ProbeKind.LIVENESS)


class ProbeSet:
    """Begins and ends probes as the pod's state asks for them."""

    def __init__(self, context: NodeContext, worker: PodWorker, adopted: AbstractSet[str]) -> None:
        """`adopted`: ids of containers that ran before we came; their probes need not all begin
        at once."""
        self._context = context
        self._worker = worker
        self._adopted = adopted
        # Running probes, by container, kind and container id.
        self._tasks: dict[tuple[str, ProbeKind, str], asyncio.Task[None]] = {}

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def sync(self) -> None:
        """A task for each probe that has something to find out now."""
        wanted = self._wanted()
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
        for key in wanted:
            if key not in self._tasks:
                self._begin(*key)

    def _wanted(self) -> set[tuple[str, ProbeKind, str]]:
        found: set[tuple[str, ProbeKind, str]] = set()
        for record in self._worker.state.containers.values():
            spec = spec_of(self._worker.state.pod, record.name)
            if record.latest is None or spec is None:
                continue
            kinds: tuple[ProbeKind, ...] = ()
            if record.stage is Stage.RUNNING and not record.started:
                kinds = (ProbeKind.STARTUP,)
            elif record.stage is Stage.RUNNING:
                stopping = self._worker.state.stage is PodStage.STOPPING
                kinds = (ProbeKind.READINESS,) if stopping else _AFTER_START
            elif record.stage is Stage.STOPPING and record.started:
                kinds = (ProbeKind.READINESS,)
            found |= {
                (record.name, kind, record.latest.id)
                for kind in kinds
                if probe_in(spec, kind) is not None
            }
        return found

    def _begin(self, name: str, kind: ProbeKind, id_: str) -> None:
        pod, context = self._worker.state.pod, self._context
        spec = spec_of(pod, name)
        assert spec is not None
        probe = probe_in(spec, kind)
        assert probe is not None
        self._tasks[name, kind, id_] = self._worker.create_task(
            run_probe(
                kind,
                probe,
                Target(context.runtime, spec, id_, self._worker.address),
                context.random,
                decided=lambda success: self._worker.post(
                    pod_events.Verdict(name, kind, id_, success)
                ),
                say=lambda type_, reason, text: context.say(pod, type_, reason, text, name),
                spread=id_ in self._adopted,
            ),
            name=f"{pod.metadata.name} {kind.value} probe of {name}",
        )
