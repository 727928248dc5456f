"""One real cluster for the session; a Kubernetes namespace of its own for each test."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import archives
from tests.e2e.kubectls import default_kubectl, kubectl_of
from tests.e2e.lab import Lab, make_lab, remove_lab
from tests.kubelet.runtime.realcontainers import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

HERE = Path(__file__).parent
_numbers = itertools.count()


def why_not_here() -> str:
    if reason := why_not():
        return reason
    for program, package in (("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    if default_kubectl() is None:
        return "kubectl is not installed, and apt has none to download (kubernetes-client)"
    if subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode:
        return "this kernel has no network namespaces"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    if not ours:
        return
    for item in ours:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips what cannot run here, with the reason."""
    if reason := why_not_here():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def labs(machine: None) -> Callable[[], AbstractContextManager[Lab]]:
    """Makes labs: `with labs() as lab` is a namespace in which nothing runs yet."""

    @contextmanager
    def make() -> Iterator[Lab]:
        directory = Path(tempfile.mkdtemp(prefix="p8s-e2e-"))
        kubectl = default_kubectl()
        assert kubectl is not None
        lab = make_lab(directory, f"p8se2e-{os.getpid()}-{next(_numbers)}", kubectl=kubectl)
        try:
            yield lab
        finally:
            remove_lab(lab)

    return make


@pytest.fixture(scope="session")
def image_archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("images")
    for name, content in archives().items():
        (directory / name).write_bytes(content)
    return sorted(directory.iterdir())


@pytest.fixture(scope="session")
def cluster(
    labs: Callable[[], AbstractContextManager[Lab]], image_archives: list[Path]
) -> Iterator[Lab]:
    """The cluster most tests share. Whoever breaks things takes one of their own."""
    with labs() as lab:
        lab.p8s("up")
        for path in image_archives:
            lab.p8s("image", "load", str(path))
        yield lab


@pytest.fixture
def ns(cluster: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A Kubernetes namespace that is deleted afterwards, nobody waiting for it."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = f"{name}-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    # Pods are refused until the controller has made the account they run as.
    cluster.wait_for("serviceaccount/default", holds=lambda _: True, namespace=name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl_version(request: pytest.FixtureRequest, cluster: Lab) -> Iterator[str]:
    """For parametrized tests: the cluster's kubectl is of this version while the test runs."""
    path = kubectl_of(request.param)
    if path is None:
        pytest.skip(f"there is no kubectl {request.param} here")
    usual = cluster.kubectl_path
    cluster.kubectl_path = path
    yield request.param
    cluster.kubectl_path = usual
