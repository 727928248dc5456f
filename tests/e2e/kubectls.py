"""The kubectl of each version that this machine has, or that Debian gives it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

VERSIONS = ("1.20", *(f"1.{minor}" for minor in range(27, 34)))
DEBIAN = "1.20"
# Kept between runs; holds what apt downloaded and nothing else.
CACHE = Path("/var/cache/pybernetes-tests")


@functools.cache
def default_kubectl() -> str | None:
    """The newest one: what a user who installs one today would have.

    P8S_TEST_KUBECTL=1.20 chooses another, to see what a machine that has only that would see.
    """
    if chosen := os.environ.get("P8S_TEST_KUBECTL"):
        return kubectl_of(chosen)
    for version in reversed(VERSIONS):
        if (path := kubectl_of(version)) is not None:
            return path
    return shutil.which("kubectl")


@functools.cache
def kubectl_of(version: str) -> str | None:
    """Its path; None where there is none."""
    found = shutil.which("kubectl")
    if found is not None:
        # Several versions lie beside each other where the Google Cloud SDK is installed.
        beside = Path(found).resolve().parent / f"kubectl.{version}"
        if beside.exists():
            return str(beside)
        if version_of(found) == version:
            return found
    return _from_debian() if version == DEBIAN else None


@functools.cache
def version_of(path: str) -> str:
    said = subprocess.run(
        [path, "version", "--client"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    match = re.search(r"v(1\.\d+)\.\d+", said)
    return match[1] if match else ""


def _from_debian() -> str | None:
    """Debian's package, unpacked and not installed: it would get in the way of a newer one."""
    kubectl = CACHE / "kubernetes-client/usr/bin/kubectl"
    if kubectl.exists():
        return str(kubectl)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return None
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "download", "-q", "kubernetes-client"],
            cwd=CACHE, capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        package = next(CACHE.glob("kubernetes-client_*.deb"))
        subprocess.run(
            ["dpkg", "-x", package.name, "kubernetes-client"], cwd=CACHE, check=True, timeout=60
        )
        package.unlink()
    except (OSError, StopIteration, subprocess.SubprocessError):
        return None
    return str(kubectl) if kubectl.exists() else None
