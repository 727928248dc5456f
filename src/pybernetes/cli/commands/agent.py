"""`p8s agent`: run a node in the foreground; with --server and --token it joins that cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from pybernetes.cli import CommandError
from pybernetes.cluster import config as cluster_config

DEFAULT_DIRECTORY = Path("/var/lib/pybernetes-agent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DIRECTORY,
        help=f"where the node keeps its state (default: {DEFAULT_DIRECTORY})",
    )
    parser.add_argument("--server", default="", metavar="URL", help="the API server to join")
    parser.add_argument("--token", default="", help="what `p8s token` printed there")
    parser.add_argument(
        "--ca-hash",
        default="",
        metavar="HASH",
        help="public key hash of that cluster's CA, sha256:…, also printed by `p8s token`",
    )
    parser.add_argument("--node-name", default="", help="default: the host name")
    parser.add_argument("--address", default="", help="address at which the node is reached")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    # The pipe of `p8s up`; see cluster.progress.
    parser.add_argument("--progress-fd", type=int, default=None, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster import nodesettings
    from pybernetes.cluster.agent import serve_until_signalled
    from pybernetes.cluster.progress import Progress
    from pybernetes.cluster.server import set_up_logging

    set_up_logging(options.log_level)
    progress = Progress(options.progress_fd)
    directory = options.data_dir.resolve()
    settings = nodesettings.load(directory)
    if settings is None or not settings.kubeconfig.exists():
        if not options.server or not options.token:
            raise CommandError(
                f"{directory} belongs to no cluster yet: give --server and --token,"
                " which `p8s token` prints on the server's machine"
            )
        from pybernetes.cluster.joining import join

        with progress.step(f"join {options.server}"):
            settings = join(
                directory,
                server=options.server,
                token=options.token,
                ca_hash=options.ca_hash,
                name=options.node_name or cluster_config.default_node_name(),
                address=options.address or cluster_config.local_address(),
            )
    return serve_until_signalled(settings, progress)
