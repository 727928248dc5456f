"""Supervision: keep something running that is meant to run for ever.

A failure is logged and the thing is started again after a back-off. When it ran
longer than the longest back-off before it failed, it counts as recovered and the
back-off starts from the beginning. Cancellation ends it, and is never swallowed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable
    from random import Random

    from pybernetes.aio.backoff import Backoff


async def run_restarting(
    name: str,
    start: Callable[[], Awaitable[None]],
    *,
    backoff: Backoff,
    random: Random,
    log: logging.Logger,
) -> None:
    """Run `start()` again and again, until cancelled."""
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        started_at = loop.time()
        try:
            await start()
            problem: Exception | None = None
        except Exception as error:  # one part's failure must not end its neighbours
            problem = error
        if loop.time() - started_at > backoff.maximum.total_seconds():
            failures = 0
        delay = backoff.delay(failures, random)
        failures += 1
        log.warning(
            "%s %s, starting it again in %.3g s",
            name,
            "ended" if problem is None else "failed",
            delay.total_seconds(),
            exc_info=problem,
        )
        await asyncio.sleep(delay.total_seconds())
