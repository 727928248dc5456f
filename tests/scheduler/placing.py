"""What the scheduler's tests share: columns from nodes and pods, and one decision on them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pybernetes.scheduler.columns import NodeColumns
from pybernetes.scheduler.config import default_config
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Sweep
from pybernetes.scheduler.reasons import Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.core_v1 import Node, Pod
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.scheduler.framework import Profile


def default_profile() -> Profile:
    return default_config().profiles[0]


def columns_of(nodes: Iterable[Node], pods: Iterable[Pod] = ()) -> NodeColumns:
    columns = NodeColumns()
    for node in nodes:
        columns.set_node(node)
    for pod in pods:
        columns.add_pod(pod, features_of(pod), pod.spec.node_name)
    return columns


def sweep_for(
    pod: Pod,
    columns: NodeColumns,
    *,
    profile: Profile | None = None,
    siblings: Selector | None = None,
) -> Sweep:
    cycle = Cycle(pod=pod, features=features_of(pod), columns=columns, siblings=siblings)
    return Sweep(profile or default_profile(), cycle)


def place(pod: Pod, columns: NodeColumns, *, siblings: Selector | None = None) -> str | None:
    """The node that is chosen; None if there is none."""
    slot = sweep_for(pod, columns, siblings=siblings).choose(Random(1))
    return None if slot is None else columns.names[slot]


def feasible(pod: Pod, columns: NodeColumns) -> set[str]:
    mask = sweep_for(pod, columns).feasible
    return {columns.names[slot] for slot in range(columns.capacity) if mask[slot]}


def diagnose(pod: Pod, columns: NodeColumns) -> Diagnosis:
    return Diagnosis(columns.count, sweep_for(pod, columns).refusals())
