"""Cron schedules: a table of moments written by hand, changes of the clock included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pybernetes.api.cronschedule import (
    ScheduleError,
    parse_schedule,
    schedule_errors,
    time_zone_errors,
)

NEW_YORK = "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("after", "schedule", "expected"),
    [
        # Simple steps and lists.
        ("2026-07-09T14:45+00:00", "0/15 * * * *", "2026-07-09T15:00+00:00"),
        ("2026-07-09T14:45:10+00:00", "*/15 * * * *", "2026-07-09T15:00+00:00"),
        ("2026-07-09T14:59:59+00:00", "0/15 * * * *", "2026-07-09T15:00+00:00"),
        ("2026-07-09T15:45+00:00", "20-35/15 * * * *", "2026-07-09T16:20+00:00"),
        ("2026-07-09T23:46+00:00", "*/15 * * * *", "2026-07-10T00:00+00:00"),
        ("2026-07-09T23:35+00:00", "20-40,50 * * * *", "2026-07-09T23:36+00:00"),
        ("2026-07-09T23:41+00:00", "20-40,50 * * * *", "2026-07-09T23:50+00:00"),
        ("2026-12-31T23:59:45+00:00", "* * * * *", "2027-01-01T00:00+00:00"),
        # Names, in any case.
        ("2026-07-09T23:35+00:00", "0 0 * FEB Mon", "2027-02-01T00:00+00:00"),
        ("2026-07-09T23:35+00:00", "0 0 1 feb *", "2027-02-01T00:00+00:00"),
        # The day of the month or the day of the week, if both are said: 15th and Sundays.
        ("2026-07-13T00:00+00:00", "0 0 15 * sun", "2026-07-15T00:00+00:00"),
        ("2026-07-15T00:00+00:00", "0 0 15 * sun", "2026-07-19T00:00+00:00"),
        # And, if one of them is a star; a star with a step is a choice.
        ("2026-07-13T00:00+00:00", "0 0 * * sun", "2026-07-19T00:00+00:00"),
        ("2026-07-13T00:00+00:00", "0 0 15 * ?", "2026-07-15T00:00+00:00"),
        ("2026-07-13T00:00+00:00", "0 0 */10 * sun", "2026-07-19T00:00+00:00"),
        ("2026-07-19T00:00+00:00", "0 0 */10 * sun", "2026-07-21T00:00+00:00"),
        # Leap days, and days that never come.
        ("2026-02-28T00:00+00:00", "0 0 29 2 *", "2028-02-29T00:00+00:00"),
        ("2026-02-28T00:00+00:00", "0 0 30 2 *", ""),
        ("2026-01-31T12:00+00:00", "0 0 31 * *", "2026-03-31T00:00+00:00"),
        # Shorthands.
        ("2026-07-09T14:45:30+00:00", "@hourly", "2026-07-09T15:00+00:00"),
        ("2026-07-09T14:45+00:00", "@daily", "2026-07-10T00:00+00:00"),
        ("2026-07-09T14:45+00:00", "@weekly", "2026-07-12T00:00+00:00"),
        ("2026-07-09T14:45+00:00", "@monthly", "2026-08-01T00:00+00:00"),
        ("2026-07-09T14:45+00:00", "@yearly", "2027-01-01T00:00+00:00"),
        ("2026-07-09T14:45:30+00:00", "@every 1h30m", "2026-07-09T16:15:30+00:00"),
        ("2026-07-09T14:45:30+00:00", "@every 10ms", "2026-07-09T14:45:31+00:00"),
    ],
)
def test_next(after: str, schedule: str, expected: str) -> None:
    found = parse_schedule(schedule).next_after(at(after))
    assert found == (at(expected) if expected else None)


@pytest.mark.parametrize(
    ("after", "schedule", "expected"),
    [
        # 8 March 2026: from 02:00 the clock goes on with 03:00.
        ("2026-03-08T00:00-05:00", "30 2 8 3 *", "2027-03-08T02:30-05:00"),
        ("2026-03-08T00:00-05:00", "0 * * * *", "2026-03-08T01:00-05:00"),
        ("2026-03-08T01:00-05:00", "0 * * * *", "2026-03-08T03:00-04:00"),
        ("2026-03-07T12:00-05:00", "30 2 * * *", "2026-03-09T02:30-04:00"),
        ("2026-03-08T01:00-05:00", "0 3 * * *", "2026-03-08T03:00-04:00"),
        # 1 November 2026: from 02:00 it goes back to 01:00, and that hour comes twice.
        ("2026-11-01T00:00-04:00", "30 2 1 11 *", "2026-11-01T02:30-05:00"),
        ("2026-11-01T00:00-04:00", "30 1 1 11 *", "2026-11-01T01:30-04:00"),
        ("2026-11-01T01:45-04:00", "30 1 1 11 *", "2026-11-01T01:30-05:00"),
        ("2026-11-01T01:00-04:00", "0 * * * *", "2026-11-01T01:00-05:00"),
        ("2026-11-01T01:00-05:00", "0 * * * *", "2026-11-01T02:00-05:00"),
        ("2026-11-01T01:45-05:00", "30 1 * * *", "2026-11-02T01:30-05:00"),
        ("2026-10-31T12:00-04:00", "0 0 * * *", "2026-11-01T00:00-04:00"),
    ],
)
def test_when_the_clock_changes(after: str, schedule: str, expected: str) -> None:
    assert parse_schedule(schedule, NEW_YORK).next_after(at(after)) == at(expected)


def test_midnight_that_the_clock_skips() -> None:
    """In Sao Paulo summer time began at midnight: 20 October 2018 ended with 01:00."""
    schedule = parse_schedule("0 0 * * *", "America/Sao_Paulo")
    assert schedule.next_after(at("2018-11-03T05:00-03:00")) == at("2018-11-05T00:00-02:00")
    hourly = parse_schedule("0 * * * *", "America/Sao_Paulo")
    assert hourly.next_after(at("2018-11-03T23:00-03:00")) == at("2018-11-04T01:00-02:00")


def test_zones_in_the_text() -> None:
    for prefix in ("TZ", "CRON_TZ"):
        schedule = parse_schedule(f"{prefix}=Asia/Tokyo 0 9 * * *", NEW_YORK)
        assert schedule.next_after(at("2026-07-09T00:00+00:00")) == at("2026-07-10T09:00+09:00")


def test_moments_come_in_order_and_none_twice() -> None:
    """Through both changes of a year."""
    schedule = parse_schedule("*/20 1,2,3 * * *", NEW_YORK)
    moment = at("2026-01-01T00:00+00:00")
    count = 0
    while (found := schedule.next_after(moment)) is not None and found.year < 2027:
        assert found > moment
        moment, count = found, count + 1
    # Three an hour; an hour less in March, an hour more in November.
    assert count == 365 * 9
    assert moment - at("2026-01-01T00:00+00:00") > timedelta(days=360)


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        ("a b c", "expected exactly 5 fields, found 3: [a b c]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("5 j * * *", 'failed to parse int from j: strconv.Atoi: parsing "j": invalid syntax'),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("@sometimes", "unrecognized descriptor: @sometimes"),
        ("TZ=Mars/Olympus 0 0 * * *", "provided bad location Mars/Olympus: unknown time zone"),
        ("@every long", "failed to parse duration @every long: "),
        ("", "empty spec string"),
    ],
)
def test_what_cannot_be_read(schedule: str, error: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule(schedule)
    assert str(refused.value).startswith(error)


def test_schedules_of_cron_jobs() -> None:
    assert schedule_errors("0 0 * * *") == []
    text = "TZ=UTC 0 0 * * *"
    assert schedule_errors(text) == [
        "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    ]
    assert schedule_errors(text, allows_zone=True) == []
    assert schedule_errors(text, allows_zone=True, has_zone=True) == [
        "cannot use both timeZone field and TZ or CRON_TZ in schedule"
    ]


@pytest.mark.parametrize(
    ("zone", "errors"),
    [
        ("Europe/Berlin", []),
        ("", ["timeZone must be nil or non-empty string"]),
        (
            "Local",
            [
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            ],
        ),
        ("Mars/Olympus", ["unknown time zone Mars/Olympus"]),
        ("../etc/passwd", ["unknown time zone ../etc/passwd"]),
    ],
)
def test_time_zones(zone: str, errors: list[str]) -> None:
    assert time_zone_errors(zone) == errors
