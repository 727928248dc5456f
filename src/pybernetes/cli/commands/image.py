"""`p8s image`: bring images onto the nodes of this machine, for clusters that pull from nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.cli import CommandError
from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse

    from pybernetes.cluster.nodesettings import NodeSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    load = actions.add_parser("load", help="load an archive made by docker save, podman save, …")
    load.add_argument("archive", type=Path, help="the tar file")
    listing = actions.add_parser("ls", help="list the images of each node")
    for action in (load, listing):
        add_data_dir(action)


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster.images import list_images, load_archive
    from pybernetes.kubelet.runtime.interface import ContainerRuntimeError

    nodes = _nodes_of(data_dir_of(options))
    try:
        if options.action == "load":
            if not options.archive.is_file():
                raise CommandError(f"{options.archive} is not a file")
            names = asyncio.run(load_archive(nodes, options.archive))
            print(f"loaded {options.archive.name} onto {', '.join(names)}")
            return 0
        found = asyncio.run(list_images(nodes))
    except ContainerRuntimeError as error:
        raise CommandError(str(error)) from error
    for node, images in found.items():
        for image in images:
            print(f"{node}\t{image}")
    return 0


def _nodes_of(directory: Path) -> list[NodeSettings]:
    """The real nodes of a cluster, or the one of a machine that joined another's."""
    from pybernetes.cluster import nodesettings

    config = cluster_config.load(directory)
    if config is not None:
        return nodesettings.all_nodes(config)
    if (joined := nodesettings.load(directory)) is not None:
        return [joined]
    raise CommandError(f"there is no cluster in {directory}; start one with: p8s up")
