"""The contract of runtimes, kept by the simulated one. Real: the runtime. Virtual: time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pybernetes.kubelet.runtime.script import fails_to_start, ignores_stop, missing
from pybernetes.kubelet.runtime.simulated import SimulatedRuntime
from pybernetes.testing.runtime_contract import IMAGE, IMPOSSIBLE_IMAGE, RuntimeContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.kubelet.runtime.interface import Runtime


class TestSimulatedRuntime(RuntimeContract):
    @pytest.fixture
    async def runtime(self, clock: Clock, random: Random) -> AsyncIterator[Runtime]:
        runtime = SimulatedRuntime(clock, random)
        runtime.images.add(IMAGE)
        runtime.script_image(IMPOSSIBLE_IMAGE, missing())
        yield runtime
        runtime.check_invariants()

    def will_be_stubborn(self, runtime: Runtime, container: str) -> None:
        assert isinstance(runtime, SimulatedRuntime)
        runtime.script(container, ignores_stop())

    def will_not_start(self, runtime: Runtime, container: str) -> None:
        assert isinstance(runtime, SimulatedRuntime)
        runtime.script(container, fails_to_start('exec: "/nosuch": no such file or directory'))
