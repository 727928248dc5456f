"""Slow start: many similar writes, in batches of 1, 2, 4, 8 …

When the first write of five hundred is refused (quota, admission), one request
was spent and not five hundred. Unlike a `TaskGroup`, a failure does not cancel
its siblings: the fate of a request that was sent must stay known.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def slow_start(actions: Sequence[Callable[[], Awaitable[None]]], *, initial: int = 1) -> int:
    """Run all actions in doubling batches and return how many there were.

    If some of a batch fail, the rest of that batch is still waited for, later
    batches are not begun, and the first error is raised.
    """
    done, size = 0, max(initial, 1)
    while done < len(actions):
        batch = actions[done : done + size]
        errors: dict[int, Exception] = {}
        async with asyncio.TaskGroup() as tasks:
            for position, action in enumerate(batch):
                tasks.create_task(_keep_error(action, position, errors))
        if errors:
            raise errors[min(errors)]
        done += len(batch)
        size *= 2
    return done


async def _keep_error(
    action: Callable[[], Awaitable[None]], position: int, errors: dict[int, Exception]
) -> None:
    try:
        await action()
    except Exception as error:  # the caller raises it once the siblings are done
        errors[position] = error
