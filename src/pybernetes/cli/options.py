"""Options that several subcommands share, and how they become a ClusterConfig."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.cluster import config as cluster_config
from pybernetes.cluster.config import ClusterConfig

if TYPE_CHECKING:
    import argparse

# Flags of `up` and `server` that are fields of ClusterConfig: flag, field, help.
_SETTINGS = (
    ("--bind-address", "bind_address", "address the API server listens on"),
    ("--advertise-address", "advertise_address", "address at which nodes and pods reach it"),
    ("--node-name", "node_name", "name of this machine's node (default: the host name)"),
    ("--service-cidr", "service_cidr", "range of Service addresses"),
    ("--pod-cidr", "pod_cidr", "range of pod addresses"),
    ("--cluster-domain", "cluster_domain", "DNS domain of the cluster"),
    ("--runtime-socket", "runtime_socket", "CRI socket to use instead of our own containerd"),
    ("--feature-gates", "feature_gates", "Kubernetes feature gates, as Name=true,…"),
)
_NUMBERS = (
    ("--port", "port", "port of the API server"),
    ("--kubelet-port", "kubelet_port", "port of the node agent's HTTPS server"),
)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=None,
        help="where the cluster's state lives"
        " (default: /var/lib/pybernetes as root, else ~/.local/share/pybernetes)",
    )


def add_cluster_settings(parser: argparse.ArgumentParser) -> None:
    """What may be said about a new cluster; what is not said stays as it was, or the default."""
    add_data_dir(parser)
    for flag, field, text in _SETTINGS:
        parser.add_argument(flag, dest=field, default=None, metavar="VALUE", help=text)
    for flag, field, text in _NUMBERS:
        parser.add_argument(flag, dest=field, type=int, default=None, metavar="N", help=text)
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="simulated nodes instead of containers; needs no root",
    )
    parser.add_argument(
        "--isolated",
        action="store_true",
        help="put the whole cluster into network namespaces without a route out",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=None,
        metavar="N",
        help="number of nodes, with --simulate or --isolated (default: 1)",
    )
    for part in cluster_config.PARTS:
        parser.add_argument(
            f"--disable-{part}",
            dest="disabled",
            action="append_const",
            const=part,
            help=f"leave out the {part}",
        )
    parser.add_argument(
        "--node-label",
        dest="node_labels",
        action="append",
        default=None,
        metavar="KEY=VALUE",
        help="label of this machine's node; may be given several times",
    )
    parser.add_argument(
        "--log-level",
        dest="log_level",
        choices=("debug", "info", "warning", "error"),
        default=None,
        help="how much the server writes into its log",
    )


def data_dir_of(options: argparse.Namespace) -> Path:
    chosen: Path | None = options.data_dir
    return (chosen or cluster_config.default_data_dir()).resolve()


def config_of(options: argparse.Namespace) -> ClusterConfig:
    """The cluster kept in the data directory, with what the flags change; checked."""
    directory = data_dir_of(options)
    kept = cluster_config.load(directory) or ClusterConfig(data_dir=str(directory))
    said: dict[str, object] = {}
    for _, field, _ in (*_SETTINGS, *_NUMBERS, ("", "log_level", "")):
        if (value := getattr(options, field, None)) is not None:
            said[field] = value
    for field in ("disabled", "node_labels"):
        if (values := getattr(options, field, None)) is not None:
            said[field] = tuple(values)
    said |= _nodes(options, kept)
    config = _with(kept, said)
    config.check()
    return config


def _nodes(options: argparse.Namespace, kept: ClusterConfig) -> dict[str, object]:
    if options.nodes is not None and options.nodes < 0:
        raise cluster_config.ConfigError(f"--nodes {options.nodes}: there cannot be less than none")
    if options.simulate and options.isolated:
        raise cluster_config.ConfigError(
            "--simulate and --isolated exclude each other: simulated nodes have no network"
        )
    if options.simulate:
        return {"simulated_nodes": 1 if options.nodes is None else options.nodes}
    if options.isolated:
        return {"isolated_nodes": max(1, options.nodes or 1)}
    if options.nodes is None:
        return {}
    if kept.simulated_nodes is not None:
        return {"simulated_nodes": options.nodes}
    if kept.isolated_nodes:
        return {"isolated_nodes": max(1, options.nodes)}
    raise cluster_config.ConfigError(
        "--nodes goes with --simulate or --isolated; further real machines join with p8s agent"
    )


def _with(config: ClusterConfig, changes: dict[str, object]) -> ClusterConfig:
    import msgspec

    return msgspec.structs.replace(config, **changes)
