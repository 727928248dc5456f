"""Pods from their binding to their end. Real: kubelet and API server; fake: the containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybernetes.kubelet import Kubelet
    from tests.kubelet.conftest import Node


async def test_a_bound_pod_runs(node: Node, kubelet: Kubelet) -> None:
    await node.create()
    pod = await node.get()
    assert pod.status.phase == "Running"
    assert pod.status.pod_ip
    (status,) = pod.status.container_statuses
    assert status.ready


async def test_a_deleted_pod_goes(node: Node, kubelet: Kubelet) -> None:
    pod = await node.create()
    await node.get()
    await node.client.delete(pod)
    assert await node.is_gone()
    assert not await node.runtime.list_sandboxes()
