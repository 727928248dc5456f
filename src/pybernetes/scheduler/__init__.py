"""Decides which node runs a pod, and can say why not.

`reasons` is refusals as data, `features` what matters of a pod, `columns` the cluster as numpy
arrays, `framework` how plugins decide together, `plugins/` one idea each, `preemption` who would
have to leave, `queue` who waits for what, `scheduler` the loop. numpy is imported when the loop's
module is: whoever only wants `run_scheduler`'s name does not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybernetes.scheduler.scheduler import run_scheduler

__all__ = ["run_scheduler"]


def __getattr__(name: str) -> object:
    if name == "run_scheduler":
        from pybernetes.scheduler.scheduler import run_scheduler

        return run_scheduler
    raise AttributeError(name)
