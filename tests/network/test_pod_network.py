"""The pod network: routes and configuration as plans, then for real in an isolated cluster.

Real: namespaces of `cluster/isolation.py`, CNI plugins, routes, packet rules. Fake: nobody; Nodes
are values, and the CNI plugins are run by the test instead of containerd.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.core_v1 import (
    Container,
    ContainerPort,
    Node,
    NodeAddress,
    NodeSpec,
    NodeStatus,
    Pod,
    PodSpec,
    PodStatus,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.cluster import isolation
from pybernetes.cluster.isolation import (
    Existing,
    IsolatedCluster,
    IsolatedNode,
    IsolationError,
    in_namespace,
)
from pybernetes.network import cni, podnetwork
from pybernetes.network.cni import CniConfig
from pybernetes.network.hostports import HostPort, plan_host_ports, update_script
from pybernetes.network.podnetwork import PodNetworkConfig
from pybernetes.network.program import NetworkError, run_nft
from pybernetes.network.routes import (
    Ground,
    Peer,
    describe,
    peers_of,
    plan_forwarding,
    plan_routes,
    plan_tunnel,
)
from tests.network.lab import Servers, ask, needs_root, output

if TYPE_CHECKING:
    from collections.abc import Iterator

PODS, SERVICES = IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16")
GROUND = Ground(IPv4Address("198.18.0.10"), PODS, SERVICES)
PLUGINS = Path("/usr/lib/cni")


def node(name: str, address: str = "", pods: str = "") -> Node:
    return Node(
        metadata=ObjectMeta(name=name, resource_version="1"),
        spec=NodeSpec(pod_cidr=pods),
        status=NodeStatus(
            addresses=(NodeAddress(type="InternalIP", address=address),) if address else ()
        ),
    )


PEER = Peer("b", IPv4Address("198.18.0.11"), IPv4Network("10.244.1.0/24"))
# As `ip -json` lists what plan_routes makes.
LISTED: list[dict[str, Any]] = [
    {"type": "unreachable", "dst": "10.244.0.0/16", "dev": "lo", "metric": 9999},
    {"dst": "10.96.0.0/16", "dev": "lo", "prefsrc": "198.18.0.10", "metrics": [{"mtu": 1500}]},
    {"dst": "10.244.1.0/24", "gateway": "198.18.0.11", "dev": "eth0"},
]


def test_peers_are_the_other_nodes_that_have_all_it_takes() -> None:
    nodes = [
        node("b", "198.18.0.11", "10.244.1.0/24"),
        node("a", "198.18.0.10", "10.244.0.0/24"),
        node("no-address", "", "10.244.2.0/24"),
        node("no-pods", "198.18.0.13"),
        node("nonsense", "198.18.0.14", "10.244.1.1/24"),
    ]
    assert peers_of(nodes, "a") == [PEER]


def test_the_leak_routes_come_first_and_need_no_node() -> None:
    assert plan_routes(GROUND, (), []) == [
        "route replace unreachable 10.244.0.0/16 metric 9999 proto 80",
        "route replace 10.96.0.0/16 dev lo src 198.18.0.10 mtu 1500 proto 80",
    ]


def test_right_routes_stay_and_others_of_ours_go() -> None:
    assert plan_routes(GROUND, [PEER], LISTED) == []
    gone = [*LISTED, {"dst": "10.244.9.0/24", "gateway": "198.18.0.19", "dev": "eth0"}]
    assert plan_routes(GROUND, [PEER], gone) == ["route delete 10.244.9.0/24 proto 80"]
    moved = Peer("b", IPv4Address("198.18.0.12"), PEER.pods)
    assert plan_routes(GROUND, [moved], LISTED) == [
        "route replace 10.244.1.0/24 via 198.18.0.12 proto 80"
    ]
    stranger = Peer("c", IPv4Address("198.18.0.12"), IPv4Network("192.168.0.0/24"))
    assert plan_routes(GROUND, [PEER, stranger], LISTED) == []


def test_a_single_address_is_listed_without_its_prefix() -> None:
    assert describe({"dst": "10.1.2.3", "dev": "x"})[0] == "10.1.2.3/32"


def test_the_tunnel_needs_nothing_but_the_nodes_addresses() -> None:
    ground = Ground(GROUND.address, PODS, SERVICES, mtu=1500, vxlan=True)
    lines = plan_tunnel(ground, IPv4Network("10.244.0.0/24"), [PEER], ())
    assert lines == [
        "link add p8s-vxlan address 0e:50:c6:12:00:0a mtu 1450 type vxlan id 80 dstport 8472"
        " local 198.18.0.10 nolearning",
        "address replace 10.244.0.0/32 dev p8s-vxlan",
        "link set p8s-vxlan up",
        "neighbour replace 10.244.1.0 lladdr 0e:50:c6:12:00:0b dev p8s-vxlan nud permanent",
    ]
    assert plan_forwarding([PEER], [{"mac": "0e:50:c6:12:00:0c", "dst": "198.18.0.12"}]) == [
        "fdb delete 0e:50:c6:12:00:0c dev p8s-vxlan dst 198.18.0.12",
        "fdb replace 0e:50:c6:12:00:0b dev p8s-vxlan dst 198.18.0.11 self permanent",
    ]
    assert plan_forwarding([PEER], [{"mac": PEER.tunnel_mac, "dst": str(PEER.address)}]) == []


def test_the_configuration_is_written_once_and_whole(tmp_path: Path) -> None:
    config = CniConfig(tmp_path / "net.d", tmp_path / "leases", mtu=1450)
    assert cni.write_config(config, IPv4Network("10.244.3.0/24"))
    assert not cni.write_config(config, IPv4Network("10.244.3.0/24"))
    written = json.loads((tmp_path / "net.d" / cni.FILE_NAME).read_text())
    (bridge,) = written["plugins"]
    assert bridge["bridge"] == "p8s0"
    assert bridge["hairpinMode"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert [path.name for path in (tmp_path / "net.d").iterdir()] == [cni.FILE_NAME]
    flat = cni.conflist(CniConfig(tmp_path, tmp_path, bridge=False), IPv4Network("10.244.3.0/24"))
    assert [plugin["type"] for plugin in flat["plugins"]] == ["ptp"]
    cni.remove_config(config)
    cni.remove_config(config)
    assert not (tmp_path / "leases").exists()


def pod_with(*ports: ContainerPort, name: str = "a", phase: str = "Running", **spec: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(name=name, namespace="default", resource_version="1"),
        spec=PodSpec(containers=(Container(name="c", ports=ports),), **spec),
        status=PodStatus(phase=phase, pod_ip="10.244.0.9"),
    )


def test_host_ports_lead_to_their_pods() -> None:
    web = ContainerPort(container_port=8080, host_port=80, protocol="TCP")
    one = ContainerPort(
        container_port=53, host_port=5353, protocol="UDP", host_ip="198.18.0.10"
    )  # fmt: skip
    none = ContainerPort(container_port=9)
    plan = plan_host_ports(
        [
            pod_with(web, one, none),
            pod_with(web, name="b", host_network=True),
            pod_with(web, name="c", phase="Failed"),
        ]
    )
    assert plan == {
        HostPort("", "tcp", 80): ("10.244.0.9", 8080),
        HostPort("198.18.0.10", "udp", 5353): ("10.244.0.9", 53),
    }
    assert update_script("t", plan).splitlines()[3:] == [
        "add element ip t host-ports { tcp . 80 : 10.244.0.9 . 8080 }",
        "add element ip t host-ports-at { 198.18.0.10 . udp . 5353 : 10.244.0.9 . 53 }",
        "add element ip t host-port-pods { 10.244.0.9 . 10.244.0.9 }",
    ]
    assert not podnetwork.has_host_ports(pod_with(none))
    assert podnetwork.has_host_ports(pod_with(web))


# Isolation, as a plan


def test_the_caller_gets_a_veth_and_an_address_and_nothing_else() -> None:
    wanted = isolation.layout("demo", 2, IPv4Network("198.18.7.0/24"))
    here, hub, *nodes = isolation.plan_isolation(wanted, Existing())
    assert here.namespace == ""
    assert here.lines == (
        "netns add p8s-demo-hub",
        "netns add p8s-demo-node-0",
        "netns add p8s-demo-node-1",
        f"link add {wanted.interface} type veth peer name uplink netns p8s-demo-hub",
        f"address add 198.18.7.1/24 dev {wanted.interface}",
        f"link set {wanted.interface} addrgenmode none up",
    )
    assert hub.namespace == "p8s-demo-hub"
    assert [step.namespace for step in nodes] == ["p8s-demo-node-0", "p8s-demo-node-1"]
    assert not any("route" in line for step in (here, hub, *nodes) for line in step.lines)
    assert len(wanted.interface) <= 15


def test_what_exists_is_left_alone() -> None:
    wanted = isolation.layout("demo", 1, IPv4Network("198.18.7.0/24"))
    everything = Existing(
        frozenset({"p8s-demo-hub", "p8s-demo-node-0"}),
        {"": frozenset({wanted.interface}), "p8s-demo-hub": frozenset({"hub", "port-0"})},
        {"": frozenset({"198.18.7.1/24"}), "p8s-demo-node-0": frozenset({"198.18.7.10/24"})},
    )
    for step in isolation.plan_isolation(wanted, everything):
        assert not any({"add", "delete"} & set(line.split()) for line in step.lines)


def test_a_network_in_use_is_not_taken() -> None:
    first = isolation.choose_subnet("demo", [IPv4Network("0.0.0.0/0")])
    assert isolation.choose_subnet("demo", []) == first
    assert not isolation.choose_subnet("demo", [first]).overlaps(first)
    with pytest.raises(IsolationError, match="remove one"):
        isolation.choose_subnet("demo", [isolation.RANGE])


@pytest.mark.parametrize("name", ["", "Upper", "a b", "-a", "x" * 40, "../etc"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(IsolationError, match="lower case"):
        isolation.layout(name, 1, IPv4Network("198.18.7.0/24"))


# For real

NAME = f"test-{os.getpid()}"


@pytest.fixture
def cluster() -> Iterator[IsolatedCluster]:
    try:
        yield isolation.create(NAME, 2)
    finally:
        isolation.remove(NAME)


def routes_here() -> list[str]:
    return sorted(output("ip", "-4", "route", "show", "table", "all").splitlines())


@needs_root
@pytest.mark.e2e
@pytest.mark.slow
def test_an_isolated_cluster_is_reachable_and_cannot_leave() -> None:
    before = routes_here()
    try:
        made = isolation.create(NAME, 2)
        new = [line for line in routes_here() if line not in before]
        assert sorted(line.split()[0] for line in new) == sorted(
            [str(made.subnet), "local", "broadcast"]
        ), "one link route, and what the kernel adds to an address"
        assert isolation.create(NAME, 2) == made, "making it again changes nothing"
        assert isolation.create(NAME, 1) == made, "asking for fewer takes none away"
        assert isolation.find(NAME) == made
        assert NAME in isolation.list_clusters()
        for inside in made.nodes:
            routes = output("ip", "-n", inside.namespace, "route")
            assert [line.split()[0] for line in routes.splitlines()] == [str(made.subnet)]
        with Servers() as servers:
            servers.add(made.nodes[1].namespace, "second", 6443)
            for client in (None, made.nodes[0].namespace):
                with in_namespace(client) if client else contextlib.nullcontext():
                    answer = ask_here(str(made.nodes[1].address), 6443)
                assert answer.startswith("second from ")
        done = subprocess.run(
            made.nodes[0].command(["ip", "-brief", "link"]), capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert "eth0" in done.stdout
        assert len(isolation.create(NAME, 3).nodes) == 3, "nodes can be added"
    finally:
        assert isolation.remove(NAME) == []
    assert routes_here() == before
    assert isolation.find(NAME) is None
    assert isolation.remove(NAME) == []


def ask_here(address: str, number: int) -> str:
    import socket

    with socket.create_connection((address, number), timeout=2) as one:
        return one.recv(100).decode()


def config_of(inside: IsolatedNode, base: Path, backend: str = "routes") -> PodNetworkConfig:
    return PodNetworkConfig(
        node_name=f"node-{inside.index}",
        node_address=str(inside.address),
        pod_cidr=str(PODS),
        service_cidr=str(SERVICES),
        dns_address="10.96.0.10",
        cni_conf_dir=base / str(inside.index) / "net.d",
        state_dir=base / str(inside.index) / "state",
        backend=backend,
    )


@contextlib.contextmanager
def pod_on(inside: IsolatedNode, config: PodNetworkConfig, name: str) -> Iterator[tuple[str, str]]:
    """A pod's namespace and address, made by the CNI plugins as containerd would."""
    namespace = f"{NAME}-{name}"
    output("ip", "netns", "add", namespace)
    try:
        yield namespace, _plugin("ADD", inside, config, namespace)
        _plugin("DEL", inside, config, namespace)
    finally:
        output("ip", "netns", "delete", namespace)


def _plugin(verb: str, inside: IsolatedNode, config: PodNetworkConfig, namespace: str) -> str:
    written = json.loads((config.cni_conf_dir / cni.FILE_NAME).read_text())
    plugin = {**written["plugins"][0], "cniVersion": "1.0.0", "name": "p8s"}
    done = subprocess.run(
        inside.command([str(PLUGINS / plugin["type"])]),
        input=json.dumps(plugin),
        env={
            **os.environ,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": namespace,
            "CNI_NETNS": f"/run/netns/{namespace}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["ips"][0]["address"].split("/")[0]) if verb == "ADD" else ""


def snapshot(inside: IsolatedNode) -> str:
    ip = ("ip", "-n", inside.namespace)
    rules = output("ip", "netns", "exec", inside.namespace, "nft", "list", "ruleset")
    return "\n".join(
        [
            output(*ip, "-brief", "address"),
            output(*ip, "route", "show", "table", "all"),
            rules,
            output("ip", "netns", "exec", inside.namespace, "cat", "/proc/sys/net/ipv4/ip_forward"),
        ]
    )


@needs_root
@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.skipif(not (PLUGINS / "bridge").exists(), reason="needs Debian's CNI plugins")
@pytest.mark.parametrize("backend", ["routes", "vxlan"])
def test_pods_of_two_nodes_reach_each_other_under_their_own_addresses(
    cluster: IsolatedCluster, tmp_path: Path, backend: str
) -> None:
    before = [snapshot(inside) for inside in cluster.nodes]
    configs = [config_of(inside, tmp_path, backend) for inside in cluster.nodes]
    nodes = [
        node(f"node-{n.index}", str(n.address), f"10.244.{n.index}.0/24") for n in cluster.nodes
    ]
    # Twice: what is there already must be no obstacle.
    for _ in range(2):
        for inside, config in zip(cluster.nodes, configs, strict=True):
            with in_namespace(inside.namespace):
                podnetwork.prepare(config)
                own = IPv4Network(nodes[inside.index].spec.pod_cidr)
                podnetwork.carry_out(config, own, peers_of(nodes, config.node_name))
    with Servers() as servers, contextlib.ExitStack() as stack:
        pods = [
            stack.enter_context(pod_on(inside, config, f"pod{inside.index}"))
            for inside, config in zip(cluster.nodes, configs, strict=True)
        ]
        for namespace, address in pods:
            servers.add(namespace, address)
        (first, here), (_, there) = pods
        assert here.startswith("10.244.0.")
        assert there.startswith("10.244.1.")
        assert ask(first, there, 8080) == f"{there} from {here}"
        # To the world outside the cluster a pod is its node: the host sees the node's address.
        servers.add(cluster.nodes[1].namespace, "node", 9090)
        assert ask(first, str(cluster.nodes[1].address), 9090) == (
            f"node from {cluster.nodes[0].address}"
        )
        # A host port leads to the pod, for others and for the pod itself.
        ports = {
            HostPort("", "tcp", 8081): (there, 8080),
            HostPort(str(cluster.nodes[1].address), "udp", 8082): (there, 8080),
        }
        with in_namespace(cluster.nodes[1].namespace):
            run_nft(update_script("p8s-pods", ports))
        outside = str(cluster.nodes[1].address)
        for client in (first, pods[1][0], cluster.nodes[0].namespace, cluster.nodes[1].namespace):
            assert ask(client, outside, 8081).startswith(f"{there} from ")
            assert ask(client, outside, 8082, udp=True).startswith(f"{there} from ")
        # Ranges that nobody owns end here, at once.
        for stray in ("10.244.77.1", "10.96.7.7"):
            with pytest.raises(OSError, match=r"unreachable|No route|refused|timed out"):
                ask(first, stray, 80)
        with in_namespace(cluster.nodes[0].namespace):
            assert podnetwork.has_address("10.96.0.10")
    for inside, config in zip(cluster.nodes, configs, strict=True):
        with in_namespace(inside.namespace):
            for _ in range(2):
                podnetwork.remove_all_traces(config)
    assert [snapshot(inside) for inside in cluster.nodes] == before
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(NetworkError, match="choose routes or vxlan"):
        podnetwork.prepare(
            PodNetworkConfig("n", "127.0.0.1", str(PODS), str(SERVICES), "", Path(), Path(), "x")
        )
