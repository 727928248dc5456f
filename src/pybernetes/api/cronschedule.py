"""Cron schedules as robfig/cron reads them: five fields, names, steps, `@every`, time zones.

A day matches if the day of the month *or* the day of the week does, when both are restricted.
Hours are those that really pass: one that a change to summer time leaves out is left out, one
that comes twice in autumn comes twice.
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
# A schedule that matches nothing for so many years never does (the 30th of February).
_YEARS = 5
_MINUTE = timedelta(minutes=1)


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
        found = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        last_year = found.astimezone(self.zone).year + _YEARS
        while (wall := found.astimezone(self.zone)).year <= last_year:
            if wall.month not in self.months:
                found = self._midnight((wall.replace(day=1) + timedelta(days=32)).replace(day=1))
            elif not self._is_day(wall):
                found = self._midnight(wall + timedelta(days=1))
            elif wall.hour not in self.hours:
                found += timedelta(minutes=60 - wall.minute)
            elif wall.minute not in self.minutes:
                found += _MINUTE
            else:
                return found
        return None

    def _midnight(self, day: datetime) -> datetime:
        """When a day begins, in UTC; after the gap, where the clock skips midnight itself."""
        begins = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return begins.astimezone(UTC)

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
    if not text:
        raise ScheduleError("empty spec string")
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


def schedule_errors(text: str, *, allows_zone: bool = False, has_zone: bool = False) -> list[str]:
    """What is wrong with a CronJob's schedule.

    Only objects that always had a zone in their schedule may keep it, and then not say another.
    """
    errors = []
    try:
        parse_schedule(text)
    except ScheduleError as error:
        errors.append(str(error))
    if "TZ" in text:
        if not allows_zone:
            errors.append("cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
        elif has_zone:
            errors.append("cannot use both timeZone field and TZ or CRON_TZ in schedule")
    return errors


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
    """Whether every value counts; a star with a step is a choice."""
    spans = [piece.partition("/") for piece in part.split(",")]
    return any(span in ("*", "?") and step in ("", "1") for span, _, step in spans)


def _values(part: str, field: _Field) -> frozenset[int]:
    found: set[int] = set()
    for piece in filter(None, part.split(",")):
        found |= _range(piece, field)
    return frozenset(found)


def _range(piece: str, field: _Field) -> set[int]:
    span, slash, step_text = piece.partition("/")
    low_text, dash, high_text = span.partition("-")
    if low_text in ("*", "?"):
        low, high = field.low, field.high
    else:
        low = _number(low_text, field)
        if "-" in high_text:
            raise ScheduleError(f"too many hyphens: {piece}")
        # A number with a step is where the steps begin.
        high = _number(high_text, field) if dash else field.high if slash else low
    if "/" in step_text:
        raise ScheduleError(f"too many slashes: {piece}")
    step = _integer(step_text) if slash else 1
    if low < field.low:
        raise ScheduleError(f"beginning of range ({low}) below minimum ({field.low}): {piece}")
    if high > field.high:
        raise ScheduleError(f"end of range ({high}) above maximum ({field.high}): {piece}")
    if low > high:
        raise ScheduleError(f"beginning of range ({low}) beyond end of range ({high}): {piece}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {piece}")
    return set(range(low, high + 1, step))


def _number(text: str, field: _Field) -> int:
    if text and text.lower() in field.names:
        return field.names.index(text.lower())
    return _integer(text)


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ScheduleError(
            f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax'
        )
    return int(text)
