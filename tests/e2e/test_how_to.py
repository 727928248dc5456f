"""Every shell block of docs/how-to does what the page says: it is run here, as it stands."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.e2e.lab import Lab

PAGES = Path(__file__).parents[2] / "docs/how-to"
# What somebody who reads the page already has: a cluster, or nothing but the program.
WITH_A_CLUSTER = ("deploy-without-a-registry", "find-out-what-is-wrong")
FROM_NOTHING = ("try-it-without-root", "several-nodes-on-one-machine")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_page_is_run() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {*WITH_A_CLUSTER, *FROM_NOTHING}


@pytest.mark.parametrize("page", WITH_A_CLUSTER)
def test_with_a_cluster(cluster: Lab, ns: str, image_archives: list[Path], page: str) -> None:
    cluster.needs("1.27")
    cluster.kubectl("config", "set-context", "--current", f"--namespace={ns}")
    try:
        said = follow(cluster, page, image_archives)
    finally:
        cluster.kubectl("config", "set-context", "--current", "--namespace=")
    assert said


@pytest.mark.parametrize("page", FROM_NOTHING)
def test_from_nothing(
    labs: Callable[[], AbstractContextManager[Lab]], image_archives: list[Path], page: str
) -> None:
    with labs() as lab:
        follow(lab, page, image_archives)
        assert not lab.data_dir.exists()


def follow(lab: Lab, page: str, image_archives: list[Path]) -> str:
    """Type in what the page says, into one shell that ends at the first error."""
    place = lab.directory / "typing"
    programs = lab.directory / "typing-bin"
    for directory in (place, programs):
        directory.mkdir(exist_ok=True)
    archive = place / "image.tar"
    archive.unlink(missing_ok=True)
    archive.symlink_to(image_archives[0])
    # The page says `p8s` and `kubectl`; which ones, and whose data directory, is said here.
    write(programs / "kubectl", f'exec {lab.kubectl_path} "$@"')
    write(programs / "p8s", f'exec {sys.executable} -m pybernetes "$@" --data-dir={lab.data_dir}')
    blocks = _BLOCK.findall((PAGES / f"{page}.md").read_text())
    assert blocks
    script = "set -eux\n" + "\n".join(blocks)
    path = f"{programs}:{os.environ['PATH']}"
    return lab.run("sh", "-c", script, env={"PATH": path}, cwd=place, timeout=180).out


def write(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
