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

    from pybernetes.cluster.config import ClusterConfig


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

    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None:
        raise CommandError(f"there is no cluster in {directory}; start one with: p8s up")
    try:
        if options.action == "load":
            return _load(config, options.archive, load_archive)
        found = asyncio.run(list_images(config))
    except ContainerRuntimeError as error:
        raise CommandError(str(error)) from error
    for node, images in found.items():
        for image in images:
            print(f"{node}\t{image}")
    return 0


def _load(config: ClusterConfig, archive: Path, load_archive) -> int:  # type: ignore[no-untyped-def]  # imported lazily
    if not archive.is_file():
        raise CommandError(f"{archive} is not a file")
    nodes = asyncio.run(load_archive(config, archive))
    print(f"loaded {archive.name} onto {', '.join(nodes)}")
    return 0
