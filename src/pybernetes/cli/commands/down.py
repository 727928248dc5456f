"""`p8s down`: stop the cluster of a data directory and remove what it started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument(
        "--purge",
        action="store_true",
        help="also delete the data directory: every object of the cluster is lost",
    )


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster import nodesettings
    from pybernetes.cluster.teardown import take_down, take_down_agent

    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None and (node := nodesettings.load(directory)) is not None:
        for line in take_down_agent(node, purge=options.purge):
            print(line)
        return 0
    if config is None:
        print(f"there is no cluster in {directory}; nothing to do")
        return 0
    for line in take_down(config, purge=options.purge):
        print(line)
    if not options.purge:
        print(f"kept the cluster's objects in {directory}; p8s up brings them back")
    return 0
