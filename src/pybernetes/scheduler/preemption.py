"""DefaultPreemption: which pods of lower priority would have to go so that a pod fits.

Pure: it plays removals through on the columns and puts everything back. A node is a candidate if
its refusal is one that removing pods could change. On each candidate all pods of lower priority
are taken away; if the pod fits then, as many as possible are put back, first those whose removal
would violate a disruption budget, then the most important ones. What is left are the victims.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.scheduler.framework import ALL_SLOTS, Follows
from pybernetes.scheduler.reasons import Diagnosis, sentence_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from datetime import datetime

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.api.types.policy_v1 import PodDisruptionBudget
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.scheduler.columns import PlacedPod
    from pybernetes.scheduler.framework import Cycle, Profile

NOT_HELPFUL = "Preemption is not helpful for scheduling"
TERMINATING = "not eligible due to a terminating pod on the nominated node."
NO_VICTIMS = "No preemption victims found for incoming pod"
# Upstream looks at a tenth of the nodes, and at 100 at least.
MIN_CANDIDATES = 100
CANDIDATE_SHARE = 10


@dataclass(frozen=True, slots=True)
class Budget:
    """A disruption budget as preemption sees it."""

    namespace: str
    selector: Selector
    allowed: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node and the pods that would have to leave it."""

    node: str
    victims: tuple[Pod, ...]
    violations: int


@dataclass(frozen=True, slots=True)
class PreemptionPlan:
    """What preemption would do; without a candidate, `message` says why nothing."""

    candidate: Candidate | None
    message: str = ""
    # Somebody is leaving for this pod already: it only has to wait.
    waits: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)


def plan_preemption(
    profile: Profile,
    cycle: Cycle,
    diagnosis: Diagnosis,
    budgets: Sequence[Budget],
    *,
    promised: str = "",
    leaving: Set[str] = frozenset(),
) -> PreemptionPlan:
    """The best node to make room on, or why there is none.

    `promised` is the node somebody leaves for this pod already, `leaving` the uids of pods that
    were told to go and may not show it yet.
    """
    pod = cycle.pod
    if pod.spec.preemption_policy == "Never":
        return PreemptionPlan(None, "not eligible due to preemptionPolicy=Never.")
    if promised and _somebody_leaves(cycle, promised, leaving):
        return PreemptionPlan(None, TERMINATING, waits=True)
    possible = [
        name
        for refusals, _ in diagnosis.by_node.groups()
        if all(refusal.resolvable for refusal in refusals)
        for name in diagnosis.by_node.where(refusals)
    ]
    counts: dict[str, int] = {}
    if hopeless := len(diagnosis.by_node) - len(possible):
        counts[NOT_HELPFUL] = hopeless
    lowest = cycle.columns.lowest_priority
    if lowest is None or lowest >= (pod.spec.priority or 0):
        # Nobody anywhere is less important: no need to look at each node.
        if possible:
            counts[NO_VICTIMS] = len(possible)
        return PreemptionPlan(None, sentence_of(diagnosis.nodes, counts), counts=counts)
    limit = max(MIN_CANDIDATES, len(possible) // CANDIDATE_SHARE)
    candidates: list[Candidate] = []
    fit = _Fit(profile, cycle)
    for name in possible:
        found = _victims_on(fit, cycle, name, budgets)
        if found is None:
            counts[NO_VICTIMS] = counts.get(NO_VICTIMS, 0) + 1
            continue
        candidates.append(found)
        if len(candidates) >= limit:
            break
    if not candidates:
        return PreemptionPlan(None, sentence_of(diagnosis.nodes, counts), counts=counts)
    return PreemptionPlan(min(candidates, key=_cost))


def budgets_of(
    budgets: Sequence[PodDisruptionBudget], selector_of: Callable[[object], Selector]
) -> list[Budget]:
    return [
        Budget(
            namespace=pdb.metadata.namespace,
            selector=selector_of(pdb.spec.selector),
            allowed=pdb.status.disruptions_allowed,
        )
        for pdb in budgets
    ]


def _somebody_leaves(cycle: Cycle, node: str, leaving: Set[str]) -> bool:
    columns = cycle.columns
    slot = columns.slot_of.get(node)
    if slot is None:
        return False
    priority = cycle.pod.spec.priority or 0
    return any(
        (placed.leaving or placed.pod.metadata.uid in leaving)
        and (placed.pod.spec.priority or 0) < priority
        for placed in columns.pods_on(slot)
    )


class _Fit:
    """Asks the filters again and again about single nodes while pods come and go.

    What depends on nodes alone is asked once, what depends on the pods of a node for that node.
    """

    def __init__(self, profile: Profile, cycle: Cycle) -> None:
        self._cycle = cycle
        self._plugins = [p for p in profile.filters if p.follows is not Follows.NODES]
        self._nodes_pass = cycle.columns.alive.copy()
        for plugin in profile.filters:
            if plugin.follows is Follows.NODES and (verdict := plugin.filter(cycle)) is not None:
                self._nodes_pass &= verdict.passes

    def fits(self, slot: int) -> bool:
        if not self._nodes_pass[slot]:
            return False
        cycle = self._cycle
        for plugin in self._plugins:
            single = plugin.follows is Follows.SLOT
            cycle.window = slice(slot, slot + 1) if single else ALL_SLOTS
            try:
                verdict = plugin.filter(cycle)
            finally:
                cycle.window = ALL_SLOTS
            if verdict is not None and not verdict.passes[0 if single else slot]:
                return False
        return True


def _victims_on(fit: _Fit, cycle: Cycle, node: str, budgets: Sequence[Budget]) -> Candidate | None:
    columns = cycle.columns
    slot = columns.slot_of[node]
    priority = cycle.pod.spec.priority or 0
    lower = [p for p in columns.pods_on(slot) if (p.pod.spec.priority or 0) < priority]
    if not lower:
        return None
    # The most important first: they are put back first.
    lower.sort(key=lambda p: (-(p.pod.spec.priority or 0), _started(p.pod)))
    for placed in lower:
        columns.remove_pod(placed.pod.metadata.uid)
    victims: list[PlacedPod] = []
    violations = 0
    try:
        if not fit.fits(slot):
            return None
        violating, harmless = _by_budget(lower, budgets)
        for group, violates in ((violating, 1), (harmless, 0)):
            for placed in group:
                columns.add_pod(placed.pod, placed.features, node)
                if not fit.fits(slot):
                    columns.remove_pod(placed.pod.metadata.uid)
                    victims.append(placed)
                    violations += violates
    finally:
        for placed in lower:
            columns.add_pod(placed.pod, placed.features, node)
    if not victims:
        return None
    return Candidate(node, tuple(placed.pod for placed in victims), violations)


def _by_budget(
    pods: Sequence[PlacedPod], budgets: Sequence[Budget]
) -> tuple[list[PlacedPod], list[PlacedPod]]:
    """Those whose removal would break a budget, and the others; order kept."""
    left = [budget.allowed for budget in budgets]
    violating: list[PlacedPod] = []
    harmless: list[PlacedPod] = []
    for placed in pods:
        broken = False
        for index, budget in enumerate(budgets):
            here = budget.namespace == placed.features.namespace
            if here and budget.selector.matches(placed.features.labels):
                left[index] -= 1
                broken |= left[index] < 0
        (violating if broken else harmless).append(placed)
    return violating, harmless


def _cost(candidate: Candidate) -> tuple[int, int, int, int, float]:
    """Upstream's order: budgets, the most important victim, their sum, their number, their age."""
    priorities = [pod.spec.priority or 0 for pod in candidate.victims]
    highest = max(priorities)
    # Among equals the node whose most important victim started last.
    youngest = min(_started(p) for p in candidate.victims if (p.spec.priority or 0) == highest)
    return (candidate.violations, highest, sum(priorities), len(priorities), -youngest)


def _started(pod: Pod) -> float:
    started: datetime | None = pod.status.start_time or pod.metadata.creation_timestamp
    return started.timestamp() if started else 0.0
