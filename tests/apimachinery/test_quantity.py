"""Quantities: pure values; nothing is fake here."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery.quantity import (
    Family,
    QuantityError,
    add,
    canonical_quantity,
    canonical_resource,
    compare,
    format_quantity,
    int_value,
    milli_value,
    parse_quantity,
    sub,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("0.5", "500m"),
        ("+0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("100000", "100k"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1Ki", "1Ki"),
        ("1023Ki", "1023Ki"),
        ("0.1Mi", "104857600m"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("5e0", "5"),
        ("12e4", "120e3"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("16Ei", "9223372036854775807"),
        ("-1.5Gi", "-1536Mi"),
        ("100n", "100n"),
        ("1000n", "1u"),
        ("0.1n", "1n"),
        ("1.0000000001", "1000000001n"),
        ("007", "7"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert canonical_quantity(text) == canonical
    assert canonical_quantity(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "quantities must match the regular expression"),
        ("1.2.3", "quantities must match the regular expression"),
        ("abc", "quantities must match the regular expression"),
        (" 1", "quantities must match the regular expression"),
        ("1Kb", "quantities must match the regular expression"),
        ("1\n", "quantities must match the regular expression"),
        ("1KiKi", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
        ("1K", "unable to parse quantity's suffix"),
        ("12-3", "unable to parse quantity's suffix"),
    ],
)
def test_refused_with_upstreams_text(text: str, message: str) -> None:
    with pytest.raises(QuantityError, match=message):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("0.0001", "1m"), ("1.0001", "1001m"), ("100u", "1m"), ("1Gi", "1Gi"), ("-0.0001", "-1m")],
)
def test_resource_lists_keep_no_more_than_milli(text: str, canonical: str) -> None:
    assert canonical_resource(text) == canonical


@pytest.mark.parametrize(
    ("value", "canonical"), [(1, "1"), (0.5, "500m"), (2.0, "2"), (1e21, "1e21"), (0.1, "100m")]
)
def test_json_numbers_are_quantities(value: float, canonical: str) -> None:
    assert canonical_quantity(value) == canonical


def test_whole_amounts_round_up() -> None:
    assert [int_value(text) for text in ("1", "1001m", "-1001m", "1n")] == [1, 2, -1, 1]
    assert [milli_value(text) for text in ("1", "1u", "1.0001", "2Ki")] == [1000, 1, 1001, 2048000]


def test_sums_keep_the_suffixes_of_the_first() -> None:
    assert add("1Gi", "1024Mi") == "2Gi"
    assert add("0", "1Gi") == "1Gi"
    assert add("1Gi", "1000000000") == "2073741824"
    assert sub("1", "1500m") == "-500m"
    assert compare("1Gi", "1G") > 0
    assert compare("1000m", "1") == 0


def test_a_huge_exponent_costs_nothing() -> None:
    assert parse_quantity("1e-999999999") == Fraction(1, 10**9)
    with pytest.raises(QuantityError):
        parse_quantity("1e99999999999999999999")


amounts = st.integers(-(10**20), 10**20).map(lambda nanos: Fraction(nanos, 10**9))


@given(amounts, st.sampled_from(Family))
def test_canonical_text_keeps_the_amount(amount: Fraction, family: Family) -> None:
    text = format_quantity(amount, family)
    assert parse_quantity(text) == amount
    assert canonical_quantity(text) == text


@given(
    st.from_regex(r"\A[+-]?[0-9]{1,6}(\.[0-9]{0,6})?(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|e[+-]?[0-9])\Z")
)
def test_canonical_is_stable_and_never_less(text: str) -> None:
    canonical = canonical_quantity(text)
    assert canonical_quantity(canonical) == canonical
    magnitude, rounded = text.lstrip("+-"), canonical_resource(text).lstrip("-")
    assert parse_quantity(rounded) >= parse_quantity(magnitude)
