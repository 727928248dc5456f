"""`p8s logs`: the server's own log, the last lines or following it as it grows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from pybernetes.cli import CommandError
from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    parser.add_argument(
        "--tail", type=int, default=100, metavar="N", help="lines to show, -1 for all (default 100)"
    )


def run(options: argparse.Namespace) -> int:
    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None or not config.log_file.exists():
        raise CommandError(f"there is no log in {directory}; start a cluster with: p8s up")
    lines = "+1" if options.tail < 0 else str(options.tail)
    # tail(1) follows a file by inotify; there is nothing to gain from writing that again.
    follow = ["--follow"] if options.follow else []
    return subprocess.run(
        ["tail", f"--lines={lines}", *follow, str(config.log_file)], check=False
    ).returncode
