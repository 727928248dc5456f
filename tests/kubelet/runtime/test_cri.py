"""The contract of runtimes, kept by containerd through CRI, and what only a real one can show.

Real: containerd, runc, CNI, busybox containers; all in a network namespace without a way out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pybernetes.testing.runtime_contract import (
    Pod,
    RuntimeContract,
    sandbox_spec,
)
from tests.kubelet.runtime.realcontainers import make_place, remove_place, why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pybernetes.kubelet.runtime.containerd import Containerd
    from pybernetes.kubelet.runtime.cri import CriRuntime
    from tests.kubelet.runtime.realcontainers import Place

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.realtime,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = make_place()
    try:
        yield place
    finally:
        remove_place(place)


@pytest.fixture
async def both(place: Place) -> AsyncIterator[tuple[Containerd, CriRuntime]]:
    async with place.containerd() as both:
        yield both


@pytest.fixture
async def runtime(both: tuple[Containerd, CriRuntime]) -> CriRuntime:
    return both[1]


class TestContainerd(RuntimeContract):
    """`runtime` is the module's."""


@pytest.fixture
async def pod(runtime: CriRuntime, tmp_path: Path) -> Pod:
    spec = sandbox_spec(log_directory=tmp_path)
    return Pod(runtime, spec, await runtime.run_sandbox(spec))
