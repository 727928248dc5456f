"""Probes: one task for each probe of a running container; it tells only what has changed.

`Tally` decides (pure): a verdict changes after so many successes or failures in a row. A failing
probe says so in an event each time, as upstream does; the recorder counts them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.kubelet.checks import Outcome, Result, attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from pybernetes.api.types.core_v1 import Probe
    from pybernetes.kubelet.checks import Target
    from pybernetes.kubelet.pod_state import ProbeKind

# Retried so often before a failure counts, as upstream does for what may be a hiccup.
MOST_TRIES = 3


@dataclass(frozen=True, slots=True)
class Tally:
    """Results in a row. `verdict` is None until there is one."""

    last: Result | None = None
    run: int = 0
    verdict: bool | None = None


def tallied(tally: Tally, result: Result, *, successes: int, failures: int) -> Tally:
    """The tally with one more result. What is unknown changes nothing."""
    if result is Result.UNKNOWN:
        return tally
    run = tally.run + 1 if tally.last is result else 1
    needed = successes if result is Result.SUCCESS else failures
    verdict = (result is Result.SUCCESS) if run >= needed else tally.verdict
    return Tally(result, run, verdict)


async def run_probe(
    kind: ProbeKind,
    probe: Probe,
    target: Target,
    random: Random,
    *,
    decided: Callable[[bool], None],
    say: Callable[[str, str, str], None],
    spread: bool = False,
) -> None:
    """Ask until cancelled. `decided` hears each change of the verdict.

    `spread`: begin at a random moment of the first period, so that the probes of a node that has
    just been started do not all come at once.
    """
    period = timedelta(seconds=probe.period_seconds or 10)
    timeout = timedelta(seconds=probe.timeout_seconds or 1)
    tally = Tally()
    if probe.initial_delay_seconds:
        await asyncio.sleep(probe.initial_delay_seconds)
    if spread:
        await asyncio.sleep(period.total_seconds() * random.random())
    while True:
        outcome = await _tried(probe, target, timeout)
        _tell(kind, outcome, say)
        before = tally.verdict
        tally = tallied(
            tally,
            outcome.result,
            successes=probe.success_threshold or 1,
            failures=probe.failure_threshold or 3,
        )
        # An unready container is unready until it says otherwise: that verdict is no news.
        if tally.verdict is not None and tally.verdict != before:
            decided(tally.verdict)
        await asyncio.sleep(period.total_seconds())


async def _tried(probe: Probe, target: Target, timeout: timedelta) -> Outcome:
    outcome = Outcome(Result.UNKNOWN)
    for _ in range(MOST_TRIES):
        outcome = await attempt(probe, target, timeout)
        if outcome.result is not Result.UNKNOWN:
            break
    return outcome


def _tell(kind: ProbeKind, outcome: Outcome, say: Callable[[str, str, str], None]) -> None:
    if outcome.result is Result.FAILURE:
        say("Warning", "Unhealthy", f"{kind.value} probe failed: {outcome.message}")
    elif outcome.result is Result.UNKNOWN:
        text = f"{kind.value} probe errored and resulted in unknown state: {outcome.message}"
        say("Warning", "Unhealthy", text)
