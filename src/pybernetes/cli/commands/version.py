"""`p8s version`: ours, and the Kubernetes API level it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes import __version__

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    del options
    print(f"p8s {__version__} (Kubernetes API v1.37)")
    return 0
