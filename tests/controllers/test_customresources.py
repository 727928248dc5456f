"""Custom resources and the controllers that must see them. The cluster is real; it has no nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.core_v1 import ConfigMap, Namespace
from pybernetes.api.types.meta_v1 import OwnerReference
from pybernetes.client import dynamic_kind
from pybernetes.testing.builders import metadata, namespace
from tests.controllers.extra import names

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=0)

WIDGETS = dynamic_kind("example.com", "v1", "widgets", kind="Widget")
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def widget(name: str, namespace: str = "default", *owners: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": list(owners)},
    }


async def widgets(cluster: Cluster, namespace: str = "default") -> list[str]:
    found = (await cluster.client.list(WIDGETS, namespace)).items
    return [each["metadata"]["name"] for each in found]


async def test_custom_resources_own_and_are_owned(cluster: Cluster) -> None:
    await cluster.apply(DEFINITION)
    await cluster.run_for(seconds=5)
    (root,) = await cluster.apply(ConfigMap(metadata=metadata("root")))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "root", "uid": root.metadata.uid}
    (middle,) = await cluster.apply(widget("middle", "default", reference))
    owner = OwnerReference(
        api_version="example.com/v1", kind="Widget", name="middle", uid=middle["metadata"]["uid"]
    )
    await cluster.apply(ConfigMap(metadata=metadata("leaf", owner_references=(owner,))))
    await cluster.run_for(seconds=10)
    assert await widgets(cluster) == ["middle"]
    assert "leaf" in await names(cluster, ConfigMap, "default")
    await cluster.client.delete(root)
    await cluster.run_for(seconds=10)
    assert await widgets(cluster) == []
    assert await names(cluster, ConfigMap, "default") == ["kube-root-ca.crt"]


async def test_a_custom_resource_goes_in_the_foreground(cluster: Cluster) -> None:
    await cluster.apply(DEFINITION)
    await cluster.run_for(seconds=5)
    (owner,) = await cluster.apply(widget("owner"))
    reference = OwnerReference(
        api_version="example.com/v1",
        kind="Widget",
        name="owner",
        uid=owner["metadata"]["uid"],
        block_owner_deletion=True,
    )
    held = metadata("held", owner_references=(reference,), finalizers=("test.io/hold",))
    await cluster.apply(ConfigMap(metadata=held))
    await cluster.client.delete(WIDGETS, "owner", "default", propagation="Foreground")
    await cluster.run_for(seconds=5)
    assert await widgets(cluster) == ["owner"]
    await cluster.client.patch(
        ConfigMap, "held", "default", patch={"metadata": {"finalizers": None}}
    )
    await cluster.run_for(seconds=5)
    assert await widgets(cluster) == []


async def test_namespaces_take_custom_resources_along(cluster: Cluster) -> None:
    await cluster.apply(DEFINITION, namespace("team"))
    await cluster.run_for(seconds=5)
    await cluster.apply(widget("w", "team"))
    await cluster.client.delete(Namespace, "team")
    await cluster.run_for(seconds=20)
    assert "team" not in await names(cluster, Namespace)
    assert await widgets(cluster, "team") == []


async def test_a_kind_that_goes_is_no_longer_followed(cluster: Cluster) -> None:
    await cluster.apply(DEFINITION)
    await cluster.run_for(seconds=5)
    await cluster.apply(widget("w"))
    await cluster.run_for(seconds=5)
    assert cluster.plane.caches.known("example.com", "widgets") is not None
    definitions = dynamic_kind(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        kind="CustomResourceDefinition",
        namespaced=False,
    )
    await cluster.client.delete(definitions, "widgets.example.com")
    await cluster.run_for(minutes=2)
    assert cluster.plane.caches.known("example.com", "widgets") is None
