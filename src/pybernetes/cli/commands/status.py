"""`p8s status`: what runs of a cluster, and what is wrong with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse

    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.health import Health

# The exit code says it too, for scripts.
HEALTHY, UNHEALTHY, ABSENT = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster import process

    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None:
        print(f"there is no cluster in {directory}; start one with: p8s up")
        return ABSENT
    pid = process.running_pid(config.pid_file)
    if pid is None:
        print(f"the cluster in {directory} is stopped; start it with: p8s up")
        return ABSENT
    return show(config, pid)


def show(config: ClusterConfig, pid: int) -> int:
    """Ask the cluster and print; the exit code."""
    from pybernetes.cluster.health import look_at, used_memory

    print(f"server    running, pid {pid}, {used_memory(pid) / 1e6:.0f} MB")
    print(f"data      {config.directory}")
    print(f"config    {config.kubeconfig}")
    health: Health = asyncio.run(look_at(config.kubeconfig))
    if health.error:
        print(f"API       not answering: {health.error}")
        return UNHEALTHY
    print(f"API       {health.server}, {health.version}")
    print(f"nodes     {health.ready_nodes} of {health.nodes} ready")
    print(f"pods      {health.running_pods} of {health.pods} running")
    for problem in health.problems:
        print(f"  ! {problem}")
    return UNHEALTHY if health.problems else HEALTHY
