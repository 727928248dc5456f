"""Who would have to leave. Pure; the columns are as before afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pybernetes.apimachinery.selector import equality_selector
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle
from pybernetes.scheduler.preemption import Budget, PreemptionPlan, plan_preemption
from pybernetes.testing.builders import node, pod, taint
from tests.scheduler.placing import columns_of, default_profile, diagnose

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Node, Pod


def plan(
    wanted: Pod, nodes: list[Node], there: list[Pod], budgets: tuple[Budget, ...] = ()
) -> PreemptionPlan:
    columns = columns_of(nodes, there)
    cycle = Cycle(wanted, features_of(wanted), columns)
    made = plan_preemption(default_profile(), cycle, diagnose(wanted, columns), budgets)
    columns.check_invariants()
    assert len(columns.pods) == len(there)
    return made


def occupant(name: str, on: str, priority: int, cpu: str = "1", **fields: object) -> Pod:
    return pod(name, node=on, priority=priority, requests={"cpu": cpu}, **fields)  # type: ignore[arg-type]  # passed on


VIP = pod("vip", priority=100, requests={"cpu": "1"})


@pytest.mark.parametrize(
    ("nodes", "there", "chosen", "victims"),
    [
        pytest.param(
            [node("a", cpu="1")],
            [occupant("low", "a", 0)],
            "a",
            ["low"],
            id="less important goes",
        ),
        pytest.param(
            [node("a", cpu="1"), node("b", cpu="1")],
            [occupant("mid", "a", 50), occupant("low", "b", 0)],
            "b",
            ["low"],
            id="where the least important is",
        ),
        pytest.param(
            [node("a", cpu="2"), node("b", cpu="1")],
            [occupant("x", "a", 0, "1500m"), occupant("y", "a", 5, "500m"), occupant("z", "b", 10)],
            "a",
            ["x"],
            id="no more than needed",
        ),
    ],
)
def test_victims(nodes: list[Node], there: list[Pod], chosen: str, victims: list[str]) -> None:
    found = plan(VIP, nodes, there).candidate
    assert found is not None
    assert found.node == chosen
    assert [victim.metadata.name for victim in found.victims] == victims


def test_a_budget_decides_between_equals() -> None:
    guarded = occupant("guarded", "a", 0, labels={"app": "db"})
    budget = Budget("default", equality_selector({"app": "db"}), allowed=0)
    nodes = [node("a", cpu="1"), node("b", cpu="1")]
    found = plan(VIP, nodes, [guarded, occupant("free", "b", 0)], (budget,)).candidate
    assert found is not None
    assert found.node == "b"


def test_equals_are_left_alone_and_it_says_so() -> None:
    made = plan(VIP, [node("a", cpu="1")], [occupant("equal", "a", 100)])
    assert made.candidate is None
    assert made.message == (
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_where_it_cannot_help_it_says_so() -> None:
    made = plan(VIP, [node("a", taints=[taint("k")])], [])
    assert made.candidate is None
    assert made.message == "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
