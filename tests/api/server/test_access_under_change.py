"""What is kept up incrementally is what a look at everything would find, after any changes.

Real: the whole server in memory. The changes are random; the seed is printed on failure.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.core_v1 import (
    EnvFromSource,
    Pod,
    SecretEnvSource,
    Service,
    ServicePort,
    ServiceSpec,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.rbac_v1 import Role, RoleBinding, RoleRef, Subject
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apiserver.authz.node import NodeGraph
from pybernetes.apiserver.authz.rbac import Rbac
from pybernetes.apiserver.bootstrap.rule import can
from pybernetes.apiserver.hooks import Access
from pybernetes.apiserver.services import ServiceAddresses
from pybernetes.testing import builders
from tests.api.server.access import running

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.controlplane import ControlPlane

CHANGES = 150
NETWORK = IPv4Network("10.96.0.0/27")


def some_pod(random: Random, name: str) -> Pod:
    container = builders.container("c")
    names = random.sample(["s0", "s1", "s2"], k=random.randrange(3))
    sources = tuple(EnvFromSource(secret_ref=SecretEnvSource(name=name)) for name in names)
    node = random.choice(["", "n0", "n1"])
    return builders.pod(name, node=node, containers=[replace(container, env_from=sources)])


async def test_the_graph_of_nodes(clock: Clock, random: Random) -> None:
    async with running(clock, random) as plane:
        graph = NodeGraph(plane.server.catalog)
        graph.refers("n0", "secrets", "default", "s0")  # from here on it follows
        for _ in range(CHANGES):
            name = f"p{random.randrange(8)}"
            try:
                if random.random() < 0.6:
                    await plane.admin.create(some_pod(random, name))
                else:
                    await plane.admin.delete(Pod, name, "default", grace_seconds=0)
            except StatusError:
                continue
            graph.check_invariants()
        fresh = NodeGraph(plane.server.catalog)
        for node in ("n0", "n1"):
            for secret in ("s0", "s1", "s2"):
                wanted = fresh.refers(node, "secrets", "default", secret)
                assert graph.refers(node, "secrets", "default", secret) is wanted


def some_service(random: Random, name: str) -> Service:
    kind = random.choice(["ClusterIP", "NodePort", "NodePort", "LoadBalancer"])
    ports = tuple(
        ServicePort(
            name=f"p{n}",
            port=80 + n,
            node_port=random.choice([None, 30000, 30001]) if kind != "ClusterIP" else None,
        )
        for n in range(random.randrange(1, 3))
    )
    address = random.choice(["", "", "10.96.0.9", "None"])
    if kind != "ClusterIP" and address == "None":
        address = ""
    return Service(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec=ServiceSpec(type=kind, ports=ports, cluster_ip=address),
    )


async def change_service(plane: ControlPlane, random: Random) -> None:
    name, dice = f"s{random.randrange(12)}", random.random()
    try:
        if dice < 0.5:
            await plane.admin.create(some_service(random, name), dry_run=random.random() < 0.1)
        elif dice < 0.75:
            present = await plane.admin.get(Service, name, "default")
            wished = some_service(random, name).spec
            wished = replace(wished, cluster_ip="", cluster_ips=())
            await plane.admin.update(replace(present, spec=wished))
        else:
            await plane.admin.delete(Service, name, "default")
    except StatusError:
        return


async def test_addresses_and_ports(clock: Clock, random: Random) -> None:
    async with running(clock, random, service_network=NETWORK) as plane:
        for _ in range(CHANGES):
            await asyncio.gather(*(change_service(plane, random) for _ in range(3)))
        services = (await plane.admin.list(Service)).items
        addresses = [s.spec.cluster_ip for s in services if s.spec.cluster_ip not in ("", "None")]
        assert len(addresses) == len(set(addresses))
        ports = [
            (p.node_port, s.metadata.name) for s in services for p in s.spec.ports if p.node_port
        ] + [
            (s.spec.health_check_node_port, s.metadata.name)
            for s in services
            if s.spec.health_check_node_port
        ]
        owners = dict(ports)
        assert all(owners[number] == name for number, name in ports)
        # Everything else is free again: the plugin knows no more than what is stored.
        plugin = addresses_of(plane)
        assert not plugin.addresses.reserved
        assert not plugin.ports.reserved
        fresh = ServiceAddresses(plane.server.catalog, random, network=NETWORK)
        fresh._fill()
        assert plugin.addresses._owners == fresh.addresses._owners
        assert plugin.ports._owners == fresh.ports._owners


def addresses_of(plane: ControlPlane) -> ServiceAddresses:
    for method in plane.server.backend.admission._reserving:  # type: ignore[attr-defined]  # its chain
        if isinstance(method.__self__, ServiceAddresses):
            return method.__self__
    raise AssertionError("no addresses")


async def test_decisions(clock: Clock, random: Random) -> None:
    verbs, namespaces = ("get", "list", "create"), ("default", "kube-system")
    people = [UserInfo(f"u{n}", (f"g{n % 2}", "system:authenticated")) for n in range(3)]
    async with running(clock, random) as plane:
        kept = plane.server.plugins.authorizer
        for _ in range(CHANGES):
            namespace, name = random.choice(namespaces), f"r{random.randrange(3)}"
            metadata = ObjectMeta(name=name, namespace=namespace)
            dice = random.random()
            try:
                if dice < 0.3:
                    rule = can(random.choice(verbs), random.choice(["pods", "secrets"]))
                    await plane.admin.create(Role(metadata=metadata, rules=(rule,)))
                elif dice < 0.6:
                    subjects = (Subject(kind="Group", name=f"g{random.randrange(2)}"),)
                    reference = RoleRef(kind="Role", name=f"r{random.randrange(3)}")
                    await plane.admin.create(
                        RoleBinding(metadata=metadata, role_ref=reference, subjects=subjects)
                    )
                else:
                    await plane.admin.delete(random.choice([Role, RoleBinding]), name, namespace)
            except StatusError:
                continue
            fresh = Rbac(plane.server.catalog)
            for user in people:
                for verb in verbs:
                    access = Access(user, verb, namespace=namespace, resource="pods")
                    decision = await kept.authorize(access)
                    assert decision.allowed is fresh.decide(access).allowed
