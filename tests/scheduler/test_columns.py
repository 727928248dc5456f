"""Columns kept by small changes equal columns counted from scratch; a node is never over-committed."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api.types.core_v1 import Affinity, PodAffinityTerm, PodAntiAffinity
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.scheduler.features import features_of
from pybernetes.scheduler.framework import Cycle, Sweep
from pybernetes.testing.builders import node, pod
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
