"""`p8s token`: make a token with which another machine joins, and say what to type there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.cli import CommandError
from pybernetes.cli.options import add_data_dir, data_dir_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument(
        "--ttl-hours", type=float, default=24, metavar="N", help="how long it is good (default 24)"
    )


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster.tokens import make_token

    directory = data_dir_of(options)
    config = cluster_config.load(directory)
    if config is None or not config.kubeconfig.exists():
        raise CommandError(f"there is no cluster in {directory}; start one with: p8s up")
    if options.ttl_hours <= 0:
        raise CommandError("--ttl-hours must be more than 0")
    made = asyncio.run(make_token(config, ttl_hours=options.ttl_hours))
    print("on the machine that is to join, as root:\n")
    print(
        f"  p8s agent --server {made.server} --token {made.token} \\\n    --ca-hash {made.ca_hash}\n"
    )
    print(f"the token is good for {options.ttl_hours:g} hours")
    return 0
