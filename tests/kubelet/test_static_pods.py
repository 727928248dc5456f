"""Static pods: real files and the real API server; containers are simulated, time is virtual."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import Pod
from pybernetes.kubelet.static import MIRROR, ManifestProblem, static_pod

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubelet.conftest import Node

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: main, image: "registry.test/app:%s"}]
"""


@pytest.fixture
def manifests(node: Node, tmp_path: Path) -> Path:
    node.config = replace(node.config, static_pod_dir=tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: ConfigMap", "not a Pod"),
        ("[1, 2]", "not a Pod"),
        ("kind: Pod\nmetadata: {name: web}", "a pod needs a name and containers"),
        ("kind: Pod\nspec: {containers: 5}", "Expected `array`"),
        ("a: [", "."),
    ],
)
def test_what_is_no_pod(text: str, problem: str) -> None:
    with pytest.raises(ManifestProblem, match=problem):
        static_pod(text.encode(), "file", "node-1")


def test_another_manifest_is_another_pod() -> None:
    one = static_pod((MANIFEST % 1).encode(), "file", "node-1")
    two = static_pod((MANIFEST % 2).encode(), "file", "node-1")
    again = static_pod((MANIFEST % 1).encode(), "file", "node-1")
    assert one.metadata.uid == again.metadata.uid != two.metadata.uid
    assert one.metadata.name == "web-node-1"
    assert one.spec.restart_policy == "Always"


async def test_a_manifest_becomes_a_pod_with_a_mirror(node: Node, manifests: Path) -> None:
    (manifests / "web.yaml").write_text(MANIFEST % 1)
    (manifests / "broken.yaml").write_text("a: [")
    async with node.running():
        await asyncio.sleep(1)
        mirror = await node.get("web-node-1")
        assert MIRROR in mirror.metadata.annotations
        assert mirror.metadata.labels == {"app": "web"}
        assert mirror.status.phase == "Running"
        assert mirror.status.container_statuses[0].ready
        # Somebody deletes it: it is made again, and the container never noticed.
        await node.client.delete(mirror)
        await asyncio.sleep(1)
        again = await node.get("web-node-1")
        assert again.metadata.uid != mirror.metadata.uid
        assert again.status.container_statuses == mirror.status.container_statuses
        assert len(node.runtime.starts("web-node-1")) == 1


async def test_a_changed_manifest_replaces_the_pod(node: Node, manifests: Path) -> None:
    (manifests / "web.yaml").write_text(MANIFEST % 1)
    async with node.running():
        await asyncio.sleep(1)
        (manifests / "web.yaml").write_text(MANIFEST % 2)
        await asyncio.sleep(5)
        mirror = await node.get("web-node-1")
        assert mirror.spec.containers[0].image == "registry.test/app:2"
        assert mirror.status.phase == "Running"
        assert len(await node.runtime.list_sandboxes()) == 1
        (manifests / "web.yaml").unlink()
        await asyncio.sleep(5)
        assert await node.is_gone("web-node-1")
        assert not await node.runtime.list_sandboxes()


async def test_static_pods_outlive_the_kubelet(node: Node, manifests: Path) -> None:
    (manifests / "web.yaml").write_text(MANIFEST % 1)
    async with node.running():
        await asyncio.sleep(1)
        before = await node.get("web-node-1")
    async with node.running():
        await asyncio.sleep(1)
        assert (await node.get("web-node-1")).status == before.status
    assert len(node.runtime.starts("web-node-1")) == 1
    (manifests / "web.yaml").unlink()
    async with node.running():
        await asyncio.sleep(1)
        assert await node.is_gone("web-node-1")
        assert not (await node.client.list(Pod, "default")).items
        await settled()
        assert not await node.runtime.list_sandboxes()
