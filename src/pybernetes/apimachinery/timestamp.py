"""Times as the API writes them, and ages as people read them.

A Time has whole seconds and ends in Z; a MicroTime has exactly six digits more. Both are
UTC. Reading accepts all of RFC 3339.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def format_time(moment: datetime) -> str:
    """metav1.Time: 2006-01-02T15:04:05Z."""
    return f"{_utc(moment):%Y-%m-%dT%H:%M:%SZ}"


def format_micro_time(moment: datetime) -> str:
    """metav1.MicroTime: 2006-01-02T15:04:05.000000Z."""
    return f"{_utc(moment):%Y-%m-%dT%H:%M:%S.%fZ}"


def parse_time(text: str) -> datetime:
    """Read RFC 3339, keeping microseconds. Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse')
    year, month, day, hour, minute, second, fraction, zulu, sign, off_hours, off_minutes = (
        match.groups()
    )
    zone: timezone = UTC
    if not zulu:
        offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
        zone = timezone(-offset if sign == "-" else offset)
    return datetime(
        int(year),
        int(month),
        int(day),
        int(hour),
        int(minute),
        int(second),
        int((fraction or "")[:6].ljust(6, "0")),
        zone,
    ).astimezone(UTC)


def duration_text(age: timedelta) -> str:
    """An age as kubectl shows it: the finer, the younger (45s, 3m20s, 2d3h, 400d)."""
    seconds = int(age.total_seconds())
    # Two clocks are never quite the same; beyond that a negative age is a wrong clock.
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(major: int, major_unit: str, minor: int, minor_unit: str) -> str:
    return f"{major}{major_unit}{minor}{minor_unit}" if minor else f"{major}{major_unit}"


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC)
