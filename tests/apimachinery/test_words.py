"""Names, keys, numbers-or-percents, durations, times: pure; nothing is fake here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery import names
from pybernetes.apimachinery.duration import format_duration, parse_duration
from pybernetes.apimachinery.intstr import scaled
from pybernetes.apimachinery.meta import Key, parse_key
from pybernetes.apimachinery.timestamp import (
    duration_text,
    format_micro_time,
    format_time,
    parse_time,
)

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
    "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def test_labels() -> None:
    assert names.dns_label_errors("my-name") == []
    assert names.dns_label_errors("My") == [LABEL]
    assert names.dns_label_errors("a\n") == [LABEL]
    assert names.dns_label_errors("a" * 64) == ["must be no more than 63 bytes"]
    assert names.dns_label_errors("") == [LABEL]


def test_subdomains() -> None:
    assert names.dns_subdomain_errors("a.b-c.d") == []
    [message] = names.dns_subdomain_errors("a..b")
    assert message.endswith(
        "(e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?"
        "(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )


@pytest.mark.parametrize("value", ["a", "a.b_c-D", "x.io/a", "9"])
def test_qualified_names(value: str) -> None:
    assert names.qualified_name_errors(value) == []


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("", "name part must be non-empty"),
        ("/a", "prefix part must be non-empty"),
        ("X/a", "prefix part a lowercase RFC 1123 subdomain"),
        ("a/b/c", "a qualified name must consist of"),
        ("-a", "name part must consist of"),
        ("a" * 64, "name part must be no more than 63 bytes"),
    ],
)
def test_unqualified_names(value: str, start: str) -> None:
    assert names.qualified_name_errors(value)[0].startswith(start)


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        ("http", []),
        ("8080", ["must contain at least one letter (a-z)"]),
        ("a--b", ["must not contain consecutive hyphens"]),
        ("-a", ["must not begin or end with a hyphen"]),
        ("a234567890123456", ["must be no more than 15 bytes"]),
        ("A", [
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "must contain at least one letter (a-z)",
        ]),
    ],
)  # fmt: skip
def test_port_names(value: str, errors: list[str]) -> None:
    assert names.port_name_errors(value) == errors


def test_config_keys() -> None:
    assert names.config_key_errors("a.b_c-D") == []
    assert names.config_key_errors("..") == ["must not be '..'"]
    assert names.config_key_errors("..a") == ["must not start with '..'"]
    assert len(names.config_key_errors("a/b")) == 1


def test_path_segments() -> None:
    assert names.path_segment_errors("system:node") == []
    assert names.path_segment_errors("a/b%") == ["may not contain '/'", "may not contain '%'"]
    assert names.path_segment_errors("..") == ["may not be '..'"]


def test_other_words() -> None:
    assert names.env_name_errors("a b.c") == []
    assert names.env_name_errors("a=b")
    assert names.ip_errors("10.0.0.1") == names.ip_errors("::1") == []
    assert names.ip_errors("10.0.0.256")
    assert names.ip_errors("fe80::1%eth0")
    assert names.cidr_errors("10.0.0.0/8") == []
    assert names.cidr_errors("10.0.0.0")
    assert names.percent_errors("25%") == []
    assert names.percent_errors("25")[0].endswith("(e.g. '1%',  or '93%', "
                                                  "regex used for validation is '[0-9]+%')")  # fmt: skip
    assert names.wildcard_subdomain_errors("*.a.b") == []
    assert names.domain_prefixed_path_errors("a.io/b") == []
    assert names.domain_prefixed_path_errors("a.io")
    assert names.fully_qualified_domain_errors("a.b.c") == []
    assert names.fully_qualified_domain_errors("a.b")


@given(st.integers(), st.text("abc-", max_size=80))
def test_generated_names_are_short_and_repeatable(seed: int, base: str) -> None:
    name = names.generate_name(base, Random(seed))
    assert name == names.generate_name(base, Random(seed))
    assert len(name) <= 63
    assert name[:-5] == base[:58]


@pytest.mark.parametrize(
    ("value", "round_up", "result"),
    [(3, True, 3), ("25%", True, 3), ("25%", False, 2), ("0%", True, 0), ("100%", False, 10)],
)
def test_scaled(value: int | str, round_up: bool, result: int) -> None:
    assert scaled(value, 10, round_up=round_up) == result


def test_only_percents_scale() -> None:
    with pytest.raises(ValueError, match="string is not a percentage"):
        scaled("3", 10, round_up=True)


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("0", 0, "0s"),
        ("1h", 3600, "1h0m0s"),
        ("1h2m3.5s", 3723.5, "1h2m3.5s"),
        ("300ms", 0.3, "300ms"),
        ("1.5h", 5400, "1h30m0s"),
        ("-1.5s", -1.5, "-1.5s"),
        ("5us", 0.000005, "5µs"),
        (".5m", 30, "30s"),
    ],
)
def test_durations(text: str, seconds: float, written: str) -> None:
    duration = parse_duration(text)
    assert duration == timedelta(seconds=seconds)
    assert format_duration(duration) == written


@pytest.mark.parametrize("text", ["", "5", "5x", "s", "1h-2m", "-"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        parse_duration(text)


@given(st.timedeltas())
def test_durations_come_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


def test_times() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)
    assert format_time(moment) == "2026-01-02T03:04:05Z"
    assert format_micro_time(moment) == "2026-01-02T03:04:05.006000Z"
    assert parse_time("2026-01-02T04:04:05.006+01:00") == moment
    assert parse_time("2026-01-02T03:04:05.006000999Z") == moment
    with pytest.raises(ValueError, match="parsing time"):
        parse_time("2026-01-02")
    with pytest.raises(ValueError, match="time zone"):
        format_time(datetime(2026, 1, 2))


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (179 * 60, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 600, "3h10m"),
        (47 * 3600, "47h"),
        (51 * 3600, "2d3h"),
        (48 * 3600, "2d"),
        (400 * 86400, "400d"),
        (731 * 86400, "2y1d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_ages(age: int, text: str) -> None:
    assert duration_text(timedelta(seconds=age)) == text


def test_keys() -> None:
    assert str(Key("ns", "a")) == "ns/a"
    assert str(Key("", "a")) == "a"
    assert parse_key("ns/a") == Key("ns", "a")
    assert parse_key("a") == Key("", "a")
    with pytest.raises(ValueError, match="unexpected key format"):
        parse_key("a/b/c")
