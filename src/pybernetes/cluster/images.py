"""Images on the nodes of this machine: loaded from archives, listed."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.containerd import import_archive
from pybernetes.kubelet.runtime.containerd_config import Layout
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pybernetes.cluster.nodesettings import NodeSettings


async def load_archive(nodes: Sequence[NodeSettings], archive: Path) -> list[str]:
    """Load an archive on each of these nodes; their names. Raises ContainerRuntimeError."""
    if not nodes:
        raise ContainerRuntimeError(
            "no node of this machine runs real containers; simulated ones have every image"
        )
    for node in nodes:
        await import_archive(archive, socket_of(node))
    return [node.name for node in nodes]


async def list_images(nodes: Sequence[NodeSettings]) -> dict[str, list[str]]:
    """The names of the images of each node."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        runtime = CriRuntime(socket_of(node), random=Random(0))
        try:
            images = await runtime.list_images()
        finally:
            runtime.close()
        found[node.name] = sorted(name for image in images for name in image.repo_tags)
    return found


def socket_of(node: NodeSettings) -> str:
    return node.runtime_socket or str(Layout(node.containerd().directory).socket)
