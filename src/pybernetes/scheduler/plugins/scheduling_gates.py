"""SchedulingGates: a pod with gates is not tried before the last one is removed (KEP-3521)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.scheduler.reasons import Refusal

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod


class SchedulingGates:
    name = "SchedulingGates"

    def pre_enqueue(self, pod: Pod) -> Refusal | None:
        gates = [gate.name for gate in pod.spec.scheduling_gates]
        if not gates:
            return None
        text = f"waiting for scheduling gates: [{' '.join(gates)}]"
        return Refusal(self.name, "Gated", text, details={"gates": ",".join(gates)})
