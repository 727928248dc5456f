"""Whether a container that ended runs again, and when: restart policies and the crash loop.

The first restart is at once, then after 10 s, 20 s, 40 s … up to five minutes, counted from the end
of the container. A container that ran ten minutes since its last restart starts from the beginning.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.core_v1 import (
        Container,
        ContainerRestartRule,
        EphemeralContainer,
        Pod,
    )

FIRST_DELAY = timedelta(seconds=10)
LAST_DELAY = timedelta(minutes=5)
RESET_AFTER = 2 * LAST_DELAY


def wants_restart(
    pod: Pod, spec: Container | EphemeralContainer | None, sort: str, exit_code: int
) -> bool:
    """Does the container run again after ending with that code? `sort` is a `Sort`'s value."""
    if spec is None or sort == "ephemeral":
        return False
    if sort == "sidecar":
        return True
    if any(_rule_applies(rule, exit_code) for rule in spec.restart_policy_rules):
        return True
    policy = spec.restart_policy or pod.spec.restart_policy or "Always"
    if sort == "init" and policy == "Always":
        # An init container that has done its work is not needed again.
        policy = "OnFailure"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _rule_applies(rule: ContainerRestartRule, exit_code: int) -> bool:
    codes = rule.exit_codes
    if codes is None or rule.action != "Restart":
        return False
    return (exit_code in codes.values) == (codes.operator == "In")


def backoff_over(
    delay: timedelta | None, delayed_since: datetime | None, finished_at: datetime
) -> datetime | None:
    """The moment the container may start again; None: at once."""
    if delay is None or _is_stale(delayed_since, finished_at):
        return None
    return finished_at + delay


def next_delay(
    delay: timedelta | None, delayed_since: datetime | None, finished_at: datetime
) -> timedelta:
    """The delay that the end after next will see."""
    if delay is None or _is_stale(delayed_since, finished_at):
        return FIRST_DELAY
    return min(delay * 2, LAST_DELAY)


def _is_stale(delayed_since: datetime | None, finished_at: datetime) -> bool:
    return delayed_since is not None and finished_at - delayed_since > RESET_AFTER


def delay_text(delay: timedelta) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, seconds = divmod(int(delay.total_seconds()), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
