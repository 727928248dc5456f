"""Cron schedules as robfig/cron reads them: five fields, names, steps, `@every`, time zones.

A day matches if the day of the month *or* the day of the week does, when both are restricted; a
moment that a change to summer time skips is skipped, one that comes twice is taken once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from pybernetes.apimachinery.duration import parse_duration

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE_PREFIX = re.compile(r"^(?:CRON_)?TZ=(\S+)\s+")
# A schedule that matches nothing in five years never does (the 30th of February).
_HORIZON = timedelta(days=5 * 366)


class ScheduleError(ValueError):
    """The schedule cannot be read; the text is robfig/cron's."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, ("", *_MONTHS)),
    _Field("day of week", 0, 6, tuple(_DAYS)),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Moments; `every` instead of the sets for `@every 1h`."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    # Whether the field was a star: then only the other one decides about the day.
    any_day: bool = True
    any_weekday: bool = True
    every: timedelta | None = None
    zone: tzinfo = UTC

    def next_after(self, moment: datetime) -> datetime | None:
        """The first moment after `moment`, in UTC; None if there is none within five years."""
        if self.every is not None:
            return moment.astimezone(UTC).replace(microsecond=0) + self.every
        local = moment.astimezone(self.zone).replace(tzinfo=None, second=0, microsecond=0)
        wall = local + timedelta(minutes=1)
        end = wall + _HORIZON
        while wall < end:
            if wall.month not in self.months:
                wall = (wall.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
            elif not self._is_day(wall):
                wall = wall.replace(hour=0, minute=0) + timedelta(days=1)
            elif wall.hour not in self.hours:
                wall = wall.replace(minute=0) + timedelta(hours=1)
            elif wall.minute not in self.minutes:
                wall += timedelta(minutes=1)
            else:
                found = wall.replace(tzinfo=self.zone).astimezone(UTC)
                # A wall time that does not exist comes back as another one.
                exists = found.astimezone(self.zone).replace(tzinfo=None) == wall
                if exists and found > moment:
                    return found
                wall += timedelta(minutes=1)
        return None

    def _is_day(self, wall: datetime) -> bool:
        day = wall.day in self.days
        # Python's week begins with Monday, cron's with Sunday.
        weekday = (wall.weekday() + 1) % 7 in self.weekdays
        return (day and weekday) if self.any_day or self.any_weekday else (day or weekday)


@lru_cache(maxsize=512)
def parse_schedule(text: str, zone: str = "") -> Schedule:
    """Raises ScheduleError. `zone` is an IANA name; a TZ= prefix of the text wins."""
    if (prefix := _ZONE_PREFIX.match(text)) is not None:
        zone, text = prefix[1], text[prefix.end() :]
    where = _zone(zone)
    text = text.strip()
    if text.startswith("@every "):
        try:
            every = parse_duration(text.removeprefix("@every "))
        except ValueError as error:
            raise ScheduleError(f"failed to parse duration {text}: {error}") from None
        whole = timedelta(seconds=max(1, int(every.total_seconds())))
        return Schedule(every=whole, zone=where)
    if text.startswith("@"):
        if text not in _SHORTHANDS:
            raise ScheduleError(f"unrecognized descriptor: {text}")
        text = _SHORTHANDS[text]
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ScheduleError(
            f"expected exactly {len(_FIELDS)} fields, found {len(parts)}: [{' '.join(parts)}]"
        )
    minutes, hours, days, months, weekdays = (
        _values(part, field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    return Schedule(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        any_day=_is_star(parts[2]),
        any_weekday=_is_star(parts[4]),
        zone=where,
    )


def schedule_errors(text: str, *, has_zone: bool = False) -> list[str]:
    """What is wrong with a CronJob's schedule."""
    if "TZ" in text:
        if has_zone:
            return ["cannot use both timeZone field and TZ or CRON_TZ in schedule"]
        return ["cannot use TZ or CRON_TZ in schedule, use timeZone field instead"]
    try:
        parse_schedule(text)
    except ScheduleError as error:
        return [str(error)]
    return []


def time_zone_errors(name: str) -> list[str]:
    """What is wrong with a CronJob's time zone."""
    if not name:
        return ["timeZone must be nil or non-empty string"]
    if name.lower() == "local":
        return [
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        ]
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return [f"unknown time zone {name}"]
    return []


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ScheduleError(f"provided bad location {name}: unknown time zone {name}") from None


def _is_star(part: str) -> bool:
    return part.startswith(("*", "?"))


def _values(part: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for piece in part.split(","):
        found |= _range(piece, field)
    return frozenset(found)


def _range(piece: str, field: _Field) -> set[int]:
    span, slash, step_text = piece.partition("/")
    step = 1
    if slash:
        step = _number(step_text, field)
        if step == 0:
            raise ScheduleError(f"step of range should be a positive number: {piece}")
    low_text, dash, high_text = span.partition("-")
    if low_text in ("*", "?"):
        low, high = field.low, field.high
    else:
        low = _number(low_text, field)
        high = _number(high_text, field) if dash else low
        if slash and not dash:
            high = field.high
    if field.name == "day of week" and high == 7:
        # Seven is Sunday too.
        return {value % 7 for value in range(low, 8, step)}
    if low < field.low:
        raise ScheduleError(f"beginning of range ({low}) below minimum ({field.low}): {piece}")
    if high > field.high:
        raise ScheduleError(f"end of range ({high}) above maximum ({field.high}): {piece}")
    if low > high:
        raise ScheduleError(f"beginning of range ({low}) beyond end of range ({high}): {piece}")
    return set(range(low, high + 1, step))


def _number(text: str, field: _Field) -> int:
    if text.lower() in field.names and text:
        return field.names.index(text.lower())
    if not text.isdecimal():
        raise ScheduleError(
            f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
        )
    return int(text)
