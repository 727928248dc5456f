"""Start a task now, not in the next turn of the event loop.

A request that is answered from memory never waits; run as an ordinary task it
still costs a turn of the loop, and with it a system call, which is a third of
its whole price (`benchmarks/wire.py`). Python 3.12 has eager tasks; for 3.11
the first step is taken out of the loop's queue and run on the spot, which is
what 3.12 does in C.

Rule: there is one current task at a time, so within a task another starts in
the ordinary way.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def start_eagerly(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """The task, perhaps done already. A loop without a queue we know gets an ordinary task."""
    if asyncio.current_task(loop) is not None:
        return loop.create_task(coroutine)
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    task = asyncio.Task(coroutine, loop=loop)
    ready = getattr(loop, "_ready", None)
    if ready:
        # The task has put the first step, and nothing else, at the end of the queue.
        ready.pop()._run()
    return task
