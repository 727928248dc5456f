"""Columns kept by small changes equal columns counted from scratch; a node is never over-committed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.core_v1 import (
    Affinity,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
    TopologySpreadConstraint,
)
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Sweep
from pybernetes.testing.builders import EPOCH, node, pod
from tests.scheduler.placing import columns_of, default_profile, sweep_for

ANTI = Affinity(
    pod_anti_affinity=PodAntiAffinity(
        required_during_scheduling_ignored_during_execution=(
            PodAffinityTerm(
                label_selector=LabelSelector(match_labels={"app": "a"}),
                topology_key="kubernetes.io/hostname",
            ),
        )
    )
)

PODS = st.builds(
    lambda n, app, cpu, far: pod(
        f"p{n}",
        labels={"app": app},
        requests={"cpu": f"{cpu}m"},
        affinity=ANTI if far else None,
    ),
    st.integers(0, 1000),
    st.sampled_from("abc"),
    st.integers(50, 900),
    st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(pods=st.lists(PODS, max_size=40), seed=st.integers(0, 1 << 16))
def test_random_lives_of_pods_keep_the_columns_right(pods: list[object], seed: int) -> None:
    random = Random(seed)
    columns = columns_of(node(f"n{i}", cpu="2", pods="6") for i in range(4))
    placed = []
    for wanted in pods:
        slot = sweep_for(wanted, columns).choose(random)  # type: ignore[arg-type]  # built above
        if slot is not None:
            columns.add_pod(wanted, features_of(wanted), columns.names[slot])  # type: ignore[arg-type]  # built above
            placed.append(wanted)
        if placed and random.random() < 0.3:
            gone = placed.pop(random.randrange(len(placed)))
            columns.remove_pod(gone.metadata.uid)  # type: ignore[attr-defined]  # built above
        if random.random() < 0.1:
            name = f"n{random.randrange(4)}"
            columns.remove_node(name)
            columns.set_node(node(name, cpu="2", pods="6"))
        columns.check_invariants()
        for resource, used in columns.used.items():
            assert (used <= columns.allocatable[resource])[columns.alive].all(), resource
    on_a_node: dict[str, list[str]] = {}
    for known in columns.pods.values():
        if known.features.labels["app"] == "a" and known.features.required_anti_affinity:
            on_a_node.setdefault(columns.names[known.slot], []).append(known.pod.metadata.name)
    assert all(len(names) == 1 for names in on_a_node.values()), "anti-affinity was broken"


def test_a_sweep_decides_like_single_decisions() -> None:
    """What a sweep brings up to date by halves equals what is worked out anew."""
    pods = [pod(f"p{n}", requests={"cpu": "300m", "memory": "100Mi"}) for n in range(40)]
    nodes = [node(f"n{i}", cpu=f"{1 + i % 3}", memory="2Gi") for i in range(9)]
    swept, single = columns_of(nodes), columns_of(nodes)
    sweep = Sweep(default_profile(), Cycle(pods[0], features_of(pods[0]), swept))
    one, other = Random(7), Random(7)
    for wanted in pods:
        slot = sweep.choose(one)
        again = sweep_for(wanted, single).choose(other)
        assert slot == again
        if slot is None:
            break
        swept.add_pod(wanted, features_of(wanted), swept.names[slot])
        single.add_pod(wanted, features_of(wanted), single.names[slot])
        sweep.placed(slot)


def test_columns_grow_with_the_cluster() -> None:
    columns = columns_of(node(f"n{i}") for i in range(200))
    assert columns.count == 200
    counts = columns.pods_matching("all", lambda namespace, labels: True)
    columns.add_pod(pod("p"), features_of(pod("p")), "n150")
    columns.check_invariants()
    assert counts is not None


def test_a_pod_on_a_node_that_left_is_not_lost() -> None:
    there = pod("p", node="n0", requests={"cpu": "1"})
    columns = columns_of([node("n0", cpu="1")], [there])
    columns.remove_node("n0")
    columns.set_node(node("n0", cpu="1"))
    columns.check_invariants()
    assert sweep_for(pod(requests={"cpu": "1"}), columns).choose(Random(1)) is None
    columns.remove_pod(there.metadata.uid)
    assert sweep_for(pod(requests={"cpu": "1"}), columns).choose(Random(1)) is not None


ZONE = "topology.kubernetes.io/zone"
NEAR_B = Affinity(
    pod_affinity=PodAffinity(
        required_during_scheduling_ignored_during_execution=(
            PodAffinityTerm(
                label_selector=LabelSelector(match_labels={"app": "b"}), topology_key=ZONE
            ),
        )
    )
)
SPREAD = TopologySpreadConstraint(
    max_skew=1,
    topology_key=ZONE,
    when_unsatisfiable="DoNotSchedule",
    label_selector=LabelSelector(match_labels={"app": "s"}),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(st.tuples(st.sampled_from("abns"), st.integers(1, 6)), max_size=12),
    seed=st.integers(0, 1 << 16),
)
def test_required_rules_hold_in_every_sweep(batches: list[tuple[str, int]], seed: int) -> None:
    """Sweeps of several shapes after each other; the rules are checked over the pods themselves."""
    random = Random(seed)
    columns = columns_of(
        node(f"n{i}", cpu="2", pods="5", labels={ZONE: f"z{i % 3}"}) for i in range(6)
    )
    zones = {f"n{i}": f"z{i % 3}" for i in range(6)}
    # (app, zone, node) of every pod placed so far.
    placed: list[tuple[str, str, str]] = []
    for number, (app, count) in enumerate(batches):
        pods = [
            pod(
                f"p{number}-{i}",
                labels={"app": app},
                requests={"cpu": "300m"},
                affinity={"a": ANTI, "n": NEAR_B}.get(app),
                topology_spread_constraints=(SPREAD,) if app == "s" else (),
            )
            for i in range(count)
        ]
        sweep = sweep_for(pods[0], columns)
        for each in pods:
            slot = sweep.choose(random)
            if slot is None:
                break
            where = columns.names[slot]
            if app == "n":
                assert any(p[0] == "b" and p[1] == zones[where] for p in placed)
            if app == "a":
                assert not any(p[0] == "a" and p[2] == where for p in placed)
            placed.append((app, zones[where], where))
            if app == "s":
                per_zone = [sum(p[:2] == ("s", z) for p in placed) for z in ("z0", "z1", "z2")]
                assert max(per_zone) - min(per_zone) <= 1
            columns.add_pod(each, features_of(each), where)
            sweep.placed(slot)
        columns.check_invariants()
        assert (columns.used["pods"] <= columns.allocatable["pods"]).all()


def test_names_of_nodes_that_left_are_forgotten() -> None:
    columns = columns_of([])
    hosts = columns.topology("kubernetes.io/hostname")
    for number in range(1000):
        columns.set_node(node(f"n{number}"))
        assert hosts.codes()[columns.slot_of[f"n{number}"]] > 0
        columns.remove_node(f"n{number - 3}")
    assert hosts.size < 200
    alive = hosts.codes()[columns.alive]
    assert len(set(alive.tolist())) == columns.count == 3


def test_counts_follow_the_labels_of_namespaces() -> None:
    columns = columns_of([node("n0")], [pod("p", "team", node="n0")])

    def count() -> int:
        return int(
            columns.pods_matching(
                "of a",
                lambda namespace, labels: columns.namespace_labels.get(namespace) == {"team": "a"},
            ).sum()
        )

    assert count() == 0
    columns.namespace_changed("team", {"team": "a"})
    assert count() == 1
    columns.namespace_changed("new", {"team": "a"})
    assert count() == 1
    columns.add_pod(pod("q", "new"), features_of(pod("q", "new")), "n0")
    assert count() == 2
    columns.namespace_changed("team", None)
    assert count() == 1
    columns.check_invariants()


def test_pods_that_leave_are_not_spread_from() -> None:
    there = pod("p", node="n0", labels={"app": "s"}, meta={"deletion_timestamp": EPOCH})
    columns = columns_of(
        [node("n0", labels={ZONE: "z0"}), node("n1", labels={ZONE: "z1"})], [there]
    )
    wanted = pod("q", labels={"app": "s"}, topology_spread_constraints=(SPREAD,))
    assert sweep_for(wanted, columns).feasible.sum() == 2
    columns.check_invariants()
