"""The p8s command: one module per subcommand, no business rules.

A subcommand's module is imported only when it is called, so that `p8s kubeconfig` does not pay for
an API server. Every error a user can cause ends as one sentence on stderr and exit code 1; wrong
usage ends with exit code 2, as argparse has it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

from pybernetes import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

# Subcommands in the order a newcomer meets them, with the line `p8s --help` shows.
COMMANDS: dict[str, str] = {
    "up": "start a cluster on this machine",
    "down": "stop it and remove what it started",
    "status": "show what runs, and what is wrong",
    "kubeconfig": "print the kubeconfig, for kubectl",
    "logs": "show the server's log",
    "image": "bring container images onto the nodes, without a registry",
    "server": "run control plane and node agent in the foreground",
    "agent": "run a node that joins another machine's cluster",
    "token": "make a token with which a node can join",
    "version": "print the version",
}


class CommandError(Exception):
    """What went wrong, in one sentence for the person at the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(given)
    options = parser.parse_args(given)
    if options.command is None:
        parser.print_help()
        return 0
    from pybernetes.cluster.config import ConfigError
    from pybernetes.cluster.process import AlreadyRunning

    try:
        code = options.run(options)
        # Flushed here, so that a closed pipe is met below and not in the interpreter's exit.
        sys.stdout.flush()
        return int(code)
    except (CommandError, ConfigError, AlreadyRunning) as error:
        print(f"p8s {options.command}: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(
            f"p8s {options.command}: no permission for {error.filename}; run this with sudo",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p8s",
        description="pybernetes: Kubernetes in Python, with real containers.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    parser.add_argument("--version", action="version", version=f"p8s {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    called = next((word for word in given if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == called:
            module = importlib.import_module(f"pybernetes.cli.commands.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser
