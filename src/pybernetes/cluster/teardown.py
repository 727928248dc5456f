"""`p8s down`: stop the processes of a cluster and remove what they made on this machine.

Works from what the data directory says, whatever state a crash left: every step finds out what is
there, and finds nothing when it is called again. Nothing that this cluster did not make is touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import nullcontext, suppress
from random import Random
from typing import TYPE_CHECKING

from pybernetes.cluster import isolation, nodesettings, process
from pybernetes.cluster.config import LONELY_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.nodesettings import NodeSettings


def take_down(config: ClusterConfig, *, purge: bool = False) -> Iterator[str]:
    """Do it, saying what was done; `purge` deletes the cluster's objects as well."""
    nodes = nodesettings.all_nodes(config)
    for node in nodes:
        if process.stop(node.pid_file):
            yield f"stopped node {node.name}"
    if process.stop(config.pid_file):
        yield "stopped the server"
    for node in nodes:
        remove_node(node, keep_images=not purge)
        yield f"removed the containers and the network of node {node.name}"
    if config.isolated_nodes and isolation.find(isolation_name(config)) is not None:
        isolation.remove(isolation_name(config))
        yield "removed the network namespaces"
    if purge:
        shutil.rmtree(config.directory)
        yield f"deleted {config.directory}"


def take_down_agent(node: NodeSettings, *, purge: bool = False) -> Iterator[str]:
    """The same for a machine that only joined a cluster."""
    if process.stop(node.pid_file):
        yield f"stopped node {node.name}"
    remove_node(node, keep_images=not purge)
    yield f"removed the containers and the network of node {node.name}"
    if purge:
        yield f"deleted {node.directory}"


def remove_node(node: NodeSettings, *, keep_images: bool = False) -> None:
    """Containers, mounts, processes, cgroups; rules, links and routes; the node's directory.

    With `keep_images` the store of images stays in it, and so do the files that say who the node
    is: the next start finds both.
    """
    from pybernetes.kubelet.runtime import containerd_removal, linux
    from pybernetes.network import podnetwork
    from pybernetes.network.program import NetworkError, run_ip
    from pybernetes.network.proxy.rules import remove_rules

    # Without its namespace there is no network of the node left to remove.
    is_there = bool(node.namespace) and (isolation.NAMESPACES / node.namespace).exists()
    with isolation.in_namespace(node.namespace) if is_there else nullcontext():
        asyncio.run(
            containerd_removal.remove_all_traces(
                node.containerd(),
                random=Random(0),
                cgroup_parents=(node.cgroup_parent,),
                keep_images=keep_images,
            )
        )
        if is_there or not node.namespace:
            podnetwork.remove_all_traces(node.pod_network())
            if node.address == LONELY_ADDRESS:
                run_ip([f"address delete {LONELY_ADDRESS}/32 dev lo"], force=True)
            # Without nft there cannot be any rules of ours.
            with suppress(NetworkError):
                remove_rules(node.service_proxy().rules.table)
    linux.unmount_below(node.kubelet_directory)
    if not keep_images:
        shutil.rmtree(node.directory, ignore_errors=True)
        return
    for path in node.directory.iterdir():
        if path.is_dir() and path != node.containerd().directory:
            shutil.rmtree(path, ignore_errors=True)


def isolation_name(config: ClusterConfig) -> str:
    """The name of the cluster's namespaces: of its data directory, so that two never share one."""
    return hashlib.sha256(config.data_dir.encode()).hexdigest()[:8]
