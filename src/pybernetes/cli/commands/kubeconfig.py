"""`p8s kubeconfig`: the administrator's kubeconfig, or the path where it lies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pybernetes.cli import CommandError
from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--path", action="store_true", help="print only where the file lies")


def run(options: argparse.Namespace) -> int:
    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None or not config.kubeconfig.exists():
        raise CommandError(f"there is no cluster in {directory}; start one with: p8s up")
    if options.path:
        print(config.kubeconfig)
    else:
        sys.stdout.write(config.kubeconfig.read_text())
    return 0
