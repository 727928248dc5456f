"""What a scheduler plugin is, and how the enabled ones decide together.

Extension points carry upstream's names, as methods: a plugin takes part in those it has. PreScore,
NormalizeScore and the removals that PreFilter plays through have no method of their own: a score
sees all nodes at once, and preemption changes the columns that filters look at. A filter or a score looks at *all* nodes at once: it gets
a `Cycle` (one pod shape, the columns) and gives a column back. Refusals stay data: a filter's
`Verdict` can say for any slot why it was refused.

A sweep places pods of one shape one after the other. After each placement only what depends on
placed pods is worked out again: plugins with `follows = Follows.SLOT` for the one slot that
changed, plugins with `follows = Follows.CLUSTER` for all.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pybernetes.scheduler.reasons import RefusedNodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from numpy.typing import NDArray

    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.client import Client
    from pybernetes.scheduler.columns import NodeColumns
    from pybernetes.scheduler.features import PodFeatures
    from pybernetes.scheduler.reasons import Refusal

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

MAX_SCORE = 100
ALL_SLOTS = slice(None)


class Follows(Enum):
    """What a plugin's column depends on, besides the nodes themselves."""

    NODES = "nodes"
    """Nothing else: the column holds for the whole sweep."""
    SLOT = "slot"
    """The pods of the same node."""
    CLUSTER = "cluster"
    """Pods anywhere."""


@dataclass(slots=True)
class Cycle:
    """One look at the cluster for pods of one shape."""

    pod: Pod
    features: PodFeatures
    columns: NodeColumns
    # The selector that names the pod's siblings, for default spreading; None if it has none.
    siblings: Selector | None = None
    # The slots a plugin that follows single slots is asked about: all, or one that changed.
    window: slice = field(default_factory=lambda: ALL_SLOTS)


@dataclass(slots=True)
class Verdict:
    """A filter's column: which slots pass, and why the others do not."""

    passes: Bools
    why: Callable[[int], tuple[Refusal, ...]]


class PreEnqueuePlugin(Protocol):
    name: str

    def pre_enqueue(self, pod: Pod) -> Refusal | None:
        """A reason not even to try; the pod waits until it changes."""


class FilterPlugin(Protocol):
    """A plugin that follows single slots answers for `cycle.window`, the others for all slots."""

    name: str
    follows: Follows

    def filter(self, cycle: Cycle) -> Verdict | None:
        """Which nodes could run the pod; None if the plugin has no say about it."""


class PreFilterPlugin(Protocol):
    name: str

    def pre_filter(self, cycle: Cycle) -> Refusal | None:
        """A reason that holds whatever the node."""


class ReservePlugin(Protocol):
    name: str

    def reserve(self, pod: Pod, node: str) -> Refusal | None:
        """The pod is to go there: set aside what it needs, or refuse."""

    def unreserve(self, pod: Pod, node: str) -> None:
        """It does not go there after all. Called for every plugin, whoever refused; never fails."""


class PermitPlugin(Protocol):
    name: str

    async def permit(self, pod: Pod, node: str) -> Refusal | None:
        """May wait as long as it likes; the pod holds its place meanwhile."""


class PreBindPlugin(Protocol):
    name: str

    async def pre_bind(self, pod: Pod, node: str) -> Refusal | None:
        """What has to be done before the pod may start there."""


class BindPlugin(Protocol):
    name: str

    async def bind(self, client: Client, pod: Pod, node: str) -> bool:
        """Tell the API; False: another plugin shall. Raises StatusError."""


class PostBindPlugin(Protocol):
    name: str

    def post_bind(self, pod: Pod, node: str) -> None:
        """The pod is bound."""


class ScorePlugin(Protocol):
    name: str
    follows: Follows

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        """0 to MAX_SCORE per slot, normalised over the feasible ones; None: all the same."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A scheduler by name: the enabled plugins in order, and the weights of the scores."""

    scheduler_name: str
    pre_enqueue: tuple[PreEnqueuePlugin, ...]
    filters: tuple[FilterPlugin, ...]
    scores: tuple[tuple[ScorePlugin, int], ...]
    # PostFilter: whether pods of lower priority may be removed for one that fits nowhere.
    preempts: bool = True
    pre_filter: tuple[PreFilterPlugin, ...] = ()
    reserve: tuple[ReservePlugin, ...] = ()
    permit: tuple[PermitPlugin, ...] = ()
    pre_bind: tuple[PreBindPlugin, ...] = ()
    # The first that does it has done it.
    bind: tuple[BindPlugin, ...] = ()
    post_bind: tuple[PostBindPlugin, ...] = ()


class Sweep:
    """Places pods of one shape, one after the other; see the module."""

    def __init__(self, profile: Profile, cycle: Cycle) -> None:
        self._profile = profile
        self._cycle = cycle
        self._verdicts: list[tuple[FilterPlugin, Verdict]] = []
        for plugin in profile.filters:
            if (verdict := plugin.filter(cycle)) is not None:
                self._verdicts.append((plugin, verdict))
        self._feasible: Bools = self._all_pass()
        # Weighted score columns by plugin name, and their sum over the plugins.
        self._scores: dict[str, Floats] = {}
        self._total: Floats | None = None

    @property
    def feasible(self) -> Bools:
        return self._feasible

    def choose(self, random: Random) -> int | None:
        """The best slot; among equals one by chance, so that equals share the load."""
        if self._total is None:
            if not self._feasible.any():
                return None
            self._score_all()
            assert self._total is not None
        # Infeasible slots hold -inf.
        best = float(self._total.max(initial=-np.inf))
        if best == -np.inf:
            return None
        equals = np.flatnonzero(self._total == best)
        return int(equals[0] if len(equals) == 1 else equals[random.randrange(len(equals))])

    def placed(self, slot: int) -> None:
        """The columns now hold a pod of this shape on the slot: bring the sweep up to date."""
        was_feasible = self._feasible[slot]
        follows_all = self._refilter(slot)
        if self._total is None:
            return
        changed = False
        for plugin, weight in self._profile.scores:
            # What is normalised over the feasible nodes may change when one stops being feasible.
            if plugin.follows is Follows.CLUSTER or (was_feasible and not self._feasible[slot]):
                column = plugin.score(self._cycle, self._feasible)
                if column is not None:
                    self._scores[plugin.name] = column * weight
                    changed = True
                elif self._scores.pop(plugin.name, None) is not None:
                    changed = True
            elif plugin.follows is Follows.SLOT and plugin.name in self._scores:
                with self._only(slot):
                    column = plugin.score(self._cycle, self._feasible)
                if column is not None:
                    self._scores[plugin.name][slot] = column[0] * weight
        if changed or follows_all:
            self._add_up()
        elif self._feasible[slot]:
            self._total[slot] = sum(column[slot] for column in self._scores.values())
        else:
            self._total[slot] = -np.inf

    def _refilter(self, slot: int) -> bool:
        """Filter again what depends on pods; whether slots beyond this one may have changed."""
        follows_all = False
        for index, (plugin, verdict) in enumerate(self._verdicts):
            if plugin.follows is Follows.SLOT:
                with self._only(slot):
                    here = plugin.filter(self._cycle)
                if here is not None:
                    verdict.passes[slot] = here.passes[0]
            elif plugin.follows is Follows.CLUSTER:
                follows_all = True
                self._verdicts[index] = (plugin, plugin.filter(self._cycle) or verdict)
        if follows_all:
            self._feasible = self._all_pass()
        else:
            self._feasible[slot] = all(verdict.passes[slot] for _, verdict in self._verdicts)
        return follows_all

    @contextmanager
    def _only(self, slot: int) -> Iterator[None]:
        self._cycle.window = slice(slot, slot + 1)
        try:
            yield
        finally:
            self._cycle.window = ALL_SLOTS

    def refusals(self) -> RefusedNodes:
        """Why each node that exists was refused: the first filter's reasons, as upstream."""
        columns = self._cycle.columns
        left = columns.alive & ~self._feasible
        refused = RefusedNodes(columns.names_by_slot())
        for _, verdict in self._verdicts:
            for slot in np.flatnonzero(left & ~verdict.passes).tolist():
                refused.add(slot, verdict.why(slot))
            left &= verdict.passes
        return refused

    def _all_pass(self) -> Bools:
        passes = self._cycle.columns.alive.copy()
        for _, verdict in self._verdicts:
            passes &= verdict.passes
        return passes

    def _score_all(self) -> None:
        for plugin, weight in self._profile.scores:
            column = plugin.score(self._cycle, self._feasible)
            if column is not None:
                self._scores[plugin.name] = column * weight
        self._add_up()

    def _add_up(self) -> None:
        total = np.zeros(self._cycle.columns.capacity, dtype=np.float64)
        for column in self._scores.values():
            total += column
        total[~self._feasible] = -np.inf
        self._total = total


def normalised(raw: Floats, feasible: Bools, *, reverse: bool = False) -> Floats:
    """Scaled so that the highest feasible value is MAX_SCORE; `reverse` makes it the lowest."""
    highest = float(raw[feasible].max(initial=0.0))
    if highest == 0:
        return np.full(len(raw), float(MAX_SCORE) if reverse else 0.0)
    scaled = np.floor(raw * MAX_SCORE / highest)
    return MAX_SCORE - scaled if reverse else scaled


def pass_all_but(capacity: int, slots: Sequence[int] | set[int]) -> Bools:
    passes = np.ones(capacity, dtype=np.bool_)
    passes[list(slots)] = False
    return passes
