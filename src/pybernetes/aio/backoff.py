"""Backoff: how long to wait before the next attempt.

A value, not a counter: whoever retries keeps the number of failures and asks.
Jitter is added on top of the capped delay, as Kubernetes does, so that many
clients that failed together do not come back together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

# More doublings than this change nothing but would overflow a float.
_MOST_STEPS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """`initial`, times `factor` per failure, up to `maximum`, plus up to `jitter` of itself."""

    initial: timedelta
    maximum: timedelta
    factor: float = 2.0
    jitter: float = 0.0

    def delay(self, attempt: int, random: Random | None = None) -> timedelta:
        """The wait after failure number `attempt`, counted from zero.

        Without `random` there is no jitter.
        """
        steps = min(max(attempt, 0), _MOST_STEPS)
        seconds = min(
            self.initial.total_seconds() * self.factor**steps, self.maximum.total_seconds()
        )
        if random is not None and self.jitter:
            seconds *= 1.0 + self.jitter * random.random()
        return timedelta(seconds=seconds)
