"""Decides which node runs a pod, and can say why not.

`reasons` is refusals as data, `features` what matters of a pod, `columns` the cluster as numpy
arrays, `derived` what is worked out from them, `framework` how plugins decide together, `plugins/`
one idea each, `preemption` who would have to leave, `queue` who waits for what, `scheduler` the
loop, `binding` and `reporting` what it does beside the loop. numpy is imported when a scheduler
starts: a process that runs none does not pay for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# One thread: our arrays are small, and OpenBLAS would start one per core for nothing. Here, because
# it has to be said before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Caches, Client, EventRecorder
    from pybernetes.scheduler.config import SchedulerConfig

__all__ = ["run_scheduler"]


async def run_scheduler(
    client: Client,
    caches: Caches,
    clock: Clock,
    random: Random,
    *,
    recorder: EventRecorder,
    config: SchedulerConfig | None = None,
) -> None:
    """Schedule until cancelled."""
    from pybernetes.scheduler.scheduler import Scheduler

    await Scheduler(client, caches, clock, random, recorder, config).run()
