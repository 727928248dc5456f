"""Each plugin on a few nodes: which pass, and what is said about the others. All pure."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from pybernetes.api.types.core_v1 import (
    Affinity,
    ContainerImage,
    ContainerPort,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
    PreferredSchedulingTerm,
    TopologySpreadConstraint,
    WeightedPodAffinityTerm,
)
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.apimachinery.selector import equality_selector
from pybernetes.scheduler.config import SchedulerConfigError, load_config
from pybernetes.testing.builders import container, node, pod, taint, toleration
from tests.scheduler.placing import (
    columns_of,
    default_profile,
    diagnose,
    feasible,
    place,
    sweep_for,
)

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"


def zoned(name: str, zone: str, **fields: Any) -> Node:
    return node(name, labels={ZONE: zone}, **fields)


def term(app: str, key: str = HOSTNAME) -> PodAffinityTerm:
    return PodAffinityTerm(
        label_selector=LabelSelector(match_labels={"app": app}), topology_key=key
    )


def near(app: str, key: str = HOSTNAME) -> Affinity:
    return Affinity(
        pod_affinity=PodAffinity(
            required_during_scheduling_ignored_during_execution=(term(app, key),)
        )
    )


def away_from(app: str, key: str = HOSTNAME) -> Affinity:
    return Affinity(
        pod_anti_affinity=PodAntiAffinity(
            required_during_scheduling_ignored_during_execution=(term(app, key),)
        )
    )


def spread(app: str, *, skew: int = 1, key: str = ZONE, **fields: Any) -> TopologySpreadConstraint:
    return TopologySpreadConstraint(
        max_skew=skew,
        topology_key=key,
        when_unsatisfiable="DoNotSchedule",
        label_selector=LabelSelector(match_labels={"app": app}),
        **fields,
    )


def on_nodes(operator: str, key: str, *values: str) -> Affinity:
    requirement = NodeSelectorRequirement(key=key, operator=operator, values=values)
    required = NodeSelector(
        node_selector_terms=(NodeSelectorTerm(match_expressions=(requirement,)),)
    )
    return Affinity(
        node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=required)
    )


WITH_PORT = [container(ports=(ContainerPort(container_port=80, host_port=8080),))]


@pytest.mark.parametrize(
    ("wanted", "nodes", "there", "passing", "sentence"),
    [
        pytest.param(
            pod(requests={"cpu": "2"}),
            [node("small", cpu="1"), node("large", cpu="4")],
            [],
            {"large"},
            "0/2 nodes are available: 1 Insufficient cpu.",
            id="a node has to be large enough",
        ),
        pytest.param(
            pod(requests={"cpu": "1", "memory": "1Gi"}),
            [node("full", cpu="2", memory="1Gi")],
            [pod("other", node="full", requests={"cpu": "1500m", "memory": "1Gi"})],
            set(),
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
            id="every resource that lacks is named",
        ),
        pytest.param(
            pod(),
            [node("full", pods="1")],
            [pod("other", node="full")],
            set(),
            "0/1 nodes are available: 1 Too many pods.",
            id="pods are a resource too",
        ),
        pytest.param(
            pod(requests={"example.com/gpu": "1"}),
            [node("plain"), node("gpu", resources={"example.com/gpu": "1"})],
            [],
            {"gpu"},
            "0/2 nodes are available: 1 Insufficient example.com/gpu.",
            id="extended resources",
        ),
        pytest.param(
            pod(node_selector={"disk": "ssd"}),
            [node("hdd"), node("ssd", labels={"disk": "ssd"})],
            [],
            {"ssd"},
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            id="node selector",
        ),
        pytest.param(
            pod(affinity=on_nodes("Gt", "cores", "8")),
            [node("few", labels={"cores": "4"}), node("many", labels={"cores": "16"})],
            [],
            {"many"},
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            id="numeric node affinity",
        ),
        pytest.param(
            pod(),
            [node("tainted", taints=[taint("dedicated", "gpu")]), node("free")],
            [],
            {"free"},
            "0/2 nodes are available: 1 node(s) had untolerated taint {dedicated: gpu}.",
            id="a taint repels",
        ),
        pytest.param(
            pod(tolerations=(toleration("dedicated", "gpu", "NoSchedule"),)),
            [node("tainted", taints=[taint("dedicated", "gpu")])],
            [],
            {"tainted"},
            "0/1 nodes are available: .",
            id="a toleration lets through",
        ),
        pytest.param(
            pod(),
            [node("cordoned", unschedulable=True), node("free")],
            [],
            {"free"},
            "0/2 nodes are available: 1 node(s) were unschedulable.",
            id="cordoned",
        ),
        pytest.param(
            pod(node="b"),
            [node("a"), node("b")],
            [],
            {"b"},
            "0/2 nodes are available: 1 node(s) didn't match the requested node name.",
            id="a pod that names its node",
        ),
        pytest.param(
            pod(containers=WITH_PORT),
            [node("taken"), node("free")],
            [pod("other", node="taken", containers=WITH_PORT)],
            {"free"},
            "0/2 nodes are available:"
            " 1 node(s) didn't have free ports for the requested pod ports.",
            id="a host port is taken once",
        ),
        pytest.param(
            pod(labels={"app": "web"}, affinity=away_from("web")),
            [node("a"), node("b")],
            [pod("other", node="a", labels={"app": "web"})],
            {"b"},
            "0/2 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
            id="away from its like",
        ),
        pytest.param(
            pod(labels={"app": "quiet"}),
            [node("a"), node("b")],
            [pod("other", node="a", labels={"app": "web"}, affinity=away_from("quiet"))],
            {"b"},
            "0/2 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
            id="pods that are there have their say",
        ),
        pytest.param(
            pod(affinity=near("db", ZONE)),
            [zoned("a", "1"), zoned("b", "1"), zoned("c", "2")],
            [pod("db", node="a", labels={"app": "db"})],
            {"a", "b"},
            "0/3 nodes are available: 1 node(s) didn't match pod affinity rules.",
            id="near another pod, in the same zone",
        ),
        pytest.param(
            pod(labels={"app": "group"}, affinity=near("group")),
            [node("a"), node("b")],
            [],
            {"a", "b"},
            "0/2 nodes are available: .",
            id="the first of a group may go anywhere",
        ),
        pytest.param(
            pod("new", "other", labels={"app": "web"}, affinity=away_from("web")),
            [node("a")],
            [pod("there", node="a", labels={"app": "web"})],
            {"a"},
            "0/1 nodes are available: .",
            id="terms speak of the pod's own namespace",
        ),
        pytest.param(
            pod(labels={"app": "web"}, topology_spread_constraints=(spread("web"),)),
            [zoned("a", "1"), zoned("b", "2"), node("nowhere")],
            [pod("other", node="a", labels={"app": "web"})],
            {"b"},
            "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints,"
            " 1 node(s) didn't match pod topology spread constraints (missing required label).",
            id="spread over zones",
        ),
        pytest.param(
            pod(
                labels={"app": "web"},
                topology_spread_constraints=(spread("web", min_domains=3),),
            ),
            [zoned("a", "1"), zoned("b", "2")],
            [
                pod("one", node="a", labels={"app": "web"}),
                pod("two", node="b", labels={"app": "web"}),
            ],
            set(),
            "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints.",
            id="fewer domains than asked for count as an empty one",
        ),
    ],
)
def test_filter(
    wanted: Pod, nodes: list[Node], there: list[Pod], passing: set[str], sentence: str
) -> None:
    columns = columns_of(nodes, there)
    assert feasible(wanted, columns) == passing
    assert diagnose(wanted, columns).sentence() == sentence
    columns.check_invariants()


def test_without_nodes_upstream_says_it_in_other_words() -> None:
    assert diagnose(pod(), columns_of([])).sentence() == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("wanted", "nodes", "there", "chosen"),
    [
        pytest.param(
            pod(requests={"cpu": "1", "memory": "1Gi"}),
            [node("busy"), node("idle")],
            [pod("other", node="busy", requests={"cpu": "2", "memory": "4Gi"})],
            "idle",
            id="the emptier node",
        ),
        pytest.param(
            pod(),
            [node("disliked", taints=[taint("slow", effect="PreferNoSchedule")]), node("fine")],
            [],
            "fine",
            id="preferably no taint",
        ),
        pytest.param(
            pod(
                affinity=Affinity(
                    node_affinity=NodeAffinity(
                        preferred_during_scheduling_ignored_during_execution=(
                            PreferredSchedulingTerm(
                                weight=10,
                                preference=NodeSelectorTerm(
                                    match_expressions=(
                                        NodeSelectorRequirement(
                                            key="disk", operator="In", values=("ssd",)
                                        ),
                                    )
                                ),
                            ),
                        )
                    )
                )
            ),
            [node("hdd"), node("ssd", labels={"disk": "ssd"})],
            [],
            "ssd",
            id="preferred node affinity",
        ),
        pytest.param(
            pod(
                affinity=Affinity(
                    pod_affinity=PodAffinity(
                        preferred_during_scheduling_ignored_during_execution=(
                            WeightedPodAffinityTerm(weight=100, pod_affinity_term=term("db")),
                        )
                    )
                )
            ),
            [node("with-db"), node("without")],
            [pod("db", node="with-db", labels={"app": "db"})],
            "with-db",
            id="preferred pod affinity",
        ),
    ],
)
def test_score(wanted: Pod, nodes: list[Node], there: list[Pod], chosen: str) -> None:
    assert place(wanted, columns_of(nodes, there)) == chosen


def test_an_image_that_is_there_counts() -> None:
    import msgspec

    has_it = node("has-it")
    image = ContainerImage(names=("registry.test/app:1",), size_bytes=900 * 1024 * 1024)
    status = msgspec.structs.replace(has_it.status, images=(image,))
    nodes = [node("other"), msgspec.structs.replace(has_it, status=status)]
    assert place(pod(), columns_of(nodes)) == "has-it"


def test_siblings_are_spread_without_being_asked() -> None:
    there = [pod(f"web-{n}", node="a", labels={"app": "web"}) for n in range(3)]
    columns = columns_of([node("a"), node("b", cpu="3500m", memory="7Gi")], there)
    siblings = equality_selector({"app": "web"})
    assert place(pod(labels={"app": "web"}), columns, siblings=siblings) == "b"


def test_a_pod_pinned_by_name_is_looked_up_and_not_searched() -> None:
    field = NodeSelectorRequirement(key="metadata.name", operator="In", values=("b",))
    pinned = Affinity(
        node_affinity=NodeAffinity(
            required_during_scheduling_ignored_during_execution=NodeSelector(
                node_selector_terms=(NodeSelectorTerm(match_fields=(field,)),)
            )
        )
    )
    columns = columns_of([node("a"), node("b")])
    assert feasible(pod(affinity=pinned), columns) == {"b"}
    assert columns.statistics()["derived"] == 1, "only the taints made a column"


def test_only_what_removing_pods_can_change_is_resolvable() -> None:
    columns = columns_of([node("a", cpu="1")], [pod("there", node="a", requests={"cpu": "1"})])
    (fits_if_empty,) = diagnose(pod(requests={"cpu": "1"}), columns).by_node["a"]
    (never_fits,) = diagnose(pod(requests={"cpu": "2"}), columns).by_node["a"]
    assert fits_if_empty.resolvable
    assert not never_fits.resolvable
    assert never_fits.details == {"resource": "cpu", "requested": "2000"}


def test_profiles_come_from_a_configuration() -> None:
    config = load_config(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "profiles": [
                {
                    "schedulerName": "packer",
                    "plugins": {
                        "score": {
                            "disabled": [{"name": "*"}],
                            "enabled": [{"name": "NodeResourcesFit", "weight": 5}],
                        }
                    },
                    "pluginConfig": [
                        {
                            "name": "NodeResourcesFit",
                            "args": {"scoringStrategy": {"type": "MostAllocated"}},
                        }
                    ],
                }
            ],
        }
    )
    (profile,) = config.profiles
    assert [(plugin.name, weight) for plugin, weight in profile.scores] == [("NodeResourcesFit", 5)]
    columns = columns_of(
        [node("busy"), node("idle")],
        [pod("other", node="busy", requests={"cpu": "1", "memory": "1Gi"})],
    )
    slot = sweep_for(pod(requests={"cpu": "1"}), columns, profile=profile).choose(Random(1))
    assert slot is not None
    assert columns.names[slot] == "busy"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param({"apiVersion": "v1"}, "apiVersion: 'v1' is not known", id="another API"),
        pytest.param(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "profiles": [{"plugins": {"filter": {"enabled": [{"name": "Typo"}]}}}],
            },
            "there is no plugin 'Typo'",
            id="a plugin nobody has",
        ),
        pytest.param(
            {"apiVersion": "kubescheduler.config.k8s.io/v1", "profiles": [{}, {}]},
            "Duplicate value: 'default-scheduler'",
            id="two of one name",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(SchedulerConfigError, match=message):
        load_config(document)


def test_the_default_profile_has_upstreams_plugins_and_weights() -> None:
    profile = default_profile()
    assert {plugin.name: weight for plugin, weight in profile.scores} == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "NodeResourcesFit": 1,
        "PodTopologySpread": 2,
        "InterPodAffinity": 2,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }
