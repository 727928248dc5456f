"""`p8s server`: control plane and node agent in the foreground, until a signal ends it."""

from __future__ import annotations

import argparse

from pybernetes.cli.options import add_cluster_settings, config_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster_settings(parser)
    # The pipe of `p8s up`; see cluster.progress.
    parser.add_argument("--progress-fd", type=int, default=None, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster import config as cluster_config
    from pybernetes.cluster.progress import Progress
    from pybernetes.cluster.server import serve_until_signalled

    config = config_of(options)
    cluster_config.save(config)
    return serve_until_signalled(config, Progress(options.progress_fd))
