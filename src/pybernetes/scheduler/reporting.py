"""What the scheduler writes about pods it could not place: condition, nomination, event.

The victims of preemption are marked and deleted here too, one after the other, before the
nomination is written: whoever sees `nominatedNodeName` may count on room being made.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.types.core_v1 import Pod, PodCondition
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.apimachinery.meta import key_of
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.client import PatchType
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.client import Client, EventRecorder
    from pybernetes.scheduler.preemption import Candidate

log = logging.getLogger(__name__)

UNSCHEDULABLE = "Unschedulable"


@dataclass(frozen=True, slots=True)
class Reporter:
    client: Client
    clock: Clock
    recorder: EventRecorder

    async def refused(
        self, pod: Pod, message: str, candidate: Candidate | None, *, nominated: str
    ) -> None:
        """Say why; make room if somebody has to leave. `nominated` is the node promised, if any."""
        self.recorder.record(pod, "Warning", "FailedScheduling", message, action="Scheduling")
        try:
            if candidate is not None:
                await self._make_room(pod, candidate)
            await self._mark(pod, UNSCHEDULABLE, message, nominated)
        except NotFound:
            return
        except (StatusError, WireError) as error:
            log.warning(
                "could not write why a pod waits",
                extra={"pod": str(key_of(pod)), "error": str(error)},
            )

    async def _mark(self, pod: Pod, reason: str, message: str, node: str) -> None:
        condition = PodCondition(
            type="PodScheduled",
            status="False",
            reason=reason,
            message=message,
            last_transition_time=self.clock.now().replace(microsecond=0),
            observed_generation=pod.metadata.generation or 0,
        )
        known = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
        if known is not None and known.status == "False":
            condition = msgspec.structs.replace(
                condition, last_transition_time=known.last_transition_time
            )
        if known == condition and pod.status.nominated_node_name == node:
            return
        status: dict[str, object] = {"conditions": [_condition_patch(condition)]}
        if node or pod.status.nominated_node_name:
            status["nominatedNodeName"] = node or None
        await self.client.patch(
            Pod,
            pod.metadata.name,
            pod.metadata.namespace,
            patch={"metadata": {"uid": pod.metadata.uid}, "status": status},
            type=PatchType.STRATEGIC,
            subresource="status",
        )

    async def _make_room(self, pod: Pod, candidate: Candidate) -> None:
        for victim in candidate.victims:
            said = f"Preempted by pod {pod.metadata.uid} on node {candidate.node}"
            disruption = PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="PreemptionByScheduler",
                message=f"{pod.spec.scheduler_name}: preempting to accommodate a higher priority pod",
                last_transition_time=self.clock.now().replace(microsecond=0),
            )
            try:
                await self.client.patch(
                    Pod,
                    victim.metadata.name,
                    victim.metadata.namespace,
                    patch={"status": {"conditions": [_condition_patch(disruption)]}},
                    type=PatchType.STRATEGIC,
                    subresource="status",
                )
                await self.client.delete(victim)
            except NotFound:
                continue
            self.recorder.record(
                victim, "Normal", "Preempted", said, action="Preempting", related=pod
            )


def _condition_patch(condition: PodCondition) -> dict[str, object]:
    patch: dict[str, object] = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
    }
    if condition.last_transition_time is not None:
        patch["lastTransitionTime"] = format_time(condition.last_transition_time)
    if condition.observed_generation:
        patch["observedGeneration"] = condition.observed_generation
    return patch
