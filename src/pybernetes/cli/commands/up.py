"""`p8s up`: what a newcomer types. Checks the machine, starts the server, waits, says what is next."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from pybernetes.cli import CommandError
from pybernetes.cli.options import add_cluster_settings, config_of
from pybernetes.cluster import config as cluster_config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.progress import Step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_cluster_settings(parser)


def run(options: argparse.Namespace) -> int:
    from pybernetes.cluster import preflight, process

    config = config_of(options)
    pid = process.running_pid(config.pid_file)
    if pid is not None:
        _refuse_other_settings(config)
        print(f"the cluster in {config.directory} is running already (pid {pid})")
        _say_what_next(config)
        return 0
    if found := preflight.problems(config, preflight.look_at(config)):
        raise CommandError(
            "\n  ".join(["this machine is not ready:", *(p.sentence for p in found)])
        )
    started = time.monotonic()
    if config.isolated_nodes:
        _start_isolated(config)
    else:
        cluster_config.save(config)
        _start_server(config)
    print(f"ready after {time.monotonic() - started:.1f} s")
    _say_what_next(config)
    return 0


def _start_server(config: ClusterConfig, prefix: Sequence[str] = ()) -> None:
    from pybernetes.cluster import process

    arguments = ["server", f"--data-dir={config.data_dir}"]
    progress = process.start(arguments, config.log_file, prefix=prefix)
    _follow(progress, f"p8s logs --data-dir {config.directory}")


def _start_isolated(config: ClusterConfig) -> None:
    """The namespaces, the server in the first, an agent in each of the others."""
    from pybernetes.cluster import process
    from pybernetes.cluster.isolated import further_nodes, make_namespaces
    from pybernetes.network.program import NetworkError

    try:
        config, lab = make_namespaces(config)
    except NetworkError as error:
        raise CommandError(str(error)) from error
    cluster_config.save(config)
    _start_server(config, lab.nodes[0].command([]))
    running = []
    # All at once: each waits for its own containerd most of the time.
    for node, settings in zip(lab.nodes[1:], further_nodes(config, lab), strict=True):
        arguments = ["agent", f"--data-dir={settings.data_dir}"]
        reading = process.start(arguments, settings.log_file, prefix=node.command([]))
        running.append((reading, settings.log_file))
    for reading, log_file in running:
        _follow(reading, f"tail {log_file}")


def _refuse_other_settings(config: ClusterConfig) -> None:
    kept = cluster_config.load(config.directory)
    if kept is not None and kept != config:
        raise CommandError(
            f"the cluster in {config.directory} runs with other settings;"
            " stop it first with: p8s down"
        )


def _follow(progress: int, story: str) -> None:
    """Show each step as it ends; raise if the process dies before it is ready."""
    from pybernetes.cluster.progress import read_steps

    failed: Step | None = None
    for step in read_steps(progress):
        if step.kind == "ready":
            return
        if step.kind == "failed":
            failed = step
        _show(step)
    reason = f"{failed.name}: {failed.message}" if failed else "it ended during its start"
    raise CommandError(f"{reason}\n  the whole story: {story}")


def _show(step: Step) -> None:
    live = sys.stdout.isatty()
    if step.kind == "begin":
        if live:
            print(f"  … {step.name}", end="", flush=True)
        return
    start = "\r\033[K" if live else ""
    marks = {"done": "✓", "failed": "✗", "note": "!"}
    text = step.message if step.kind == "note" else f"{step.name:<38} {step.seconds:6.2f} s"
    print(f"{start}  {marks[step.kind]} {text}", flush=True)


def _say_what_next(config: ClusterConfig) -> None:
    known = os.environ.get("KUBECONFIG") == str(config.kubeconfig)
    print("\nnext:")
    if not known:
        print(f"  export KUBECONFIG={config.kubeconfig}")
    print("  kubectl get pods -A")
    print("  kubectl get nodes")
    print(f"  p8s down{_data_dir_flag(config)}      # when you have had enough")


def _data_dir_flag(config: ClusterConfig) -> str:
    usual = cluster_config.default_data_dir().resolve() == config.directory
    return "" if usual else f" --data-dir {config.directory}"
