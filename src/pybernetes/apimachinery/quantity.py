"""Quantities: amounts of a resource (`100m`, `1.5Gi`, `2e3`).

A quantity travels and is stored as its canonical text; arithmetic is done on exact
numbers: `parse_quantity` gives an int, or a Fraction if the amount is not whole.

Canonical form, as upstream: no fraction, the largest suffix that needs none, of the family
the writer used (binary Ki, decimal k, exponent e3). Nothing finer than a nano is kept, and
rounding goes up (away from zero): who asks for a little must not get nothing.

Texts repeat endlessly in a cluster, so everything that takes one is cached.
"""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

# What can be computed with; texts are accepted wherever amounts are.
Amount = int | Fraction
_CACHED_TEXTS = 8192
# The largest binary quantity; more is cut to it.
_LARGEST = 2**63 - 1
_NANO = 10**9


class Family(Enum):
    """Which suffixes a quantity is written with."""

    DECIMAL = "DecimalSI"
    BINARY = "BinarySI"
    EXPONENT = "DecimalExponent"


class QuantityError(ValueError):
    """The text is not a quantity; the message is upstream's."""


_WRONG_FORMAT = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_WRONG_SUFFIX = "unable to parse quantity's suffix"

_TEXT = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {0: "", **{exponent // 10: suffix for suffix, exponent in _BINARY.items()}}


class _Parsed(NamedTuple):
    amount: Amount
    family: Family


@lru_cache(_CACHED_TEXTS)
def _parse(text: str) -> _Parsed:
    match = _TEXT.fullmatch(text)
    if match is None or not text:
        raise QuantityError(_WRONG_FORMAT)
    sign, whole, fraction, suffix = match.groups()
    digits = whole + (fraction or "")
    places = len(fraction or "")
    number = int(digits or "0")
    scale = Fraction(1)
    if suffix in _DECIMAL:
        family, exponent = Family.DECIMAL, _DECIMAL[suffix] - places
    elif suffix in _BINARY:
        family, exponent = Family.BINARY, -places
        number <<= _BINARY[suffix]
    else:
        family, exponent = Family.EXPONENT, _exponent_of(suffix) - places
    if exponent >= 0:
        amount: Amount = number * 10**exponent
    else:
        scale = Fraction(1, 10**-exponent)
        amount = _round_up(number * scale, _NANO)
    if family is Family.BINARY:
        amount = min(amount, _LARGEST)
        if 0 < amount < 1:
            family = Family.DECIMAL
    return _Parsed(-amount if sign == "-" else amount, family)


def _exponent_of(suffix: str) -> int:
    if suffix[:1] not in ("e", "E"):
        raise QuantityError(_WRONG_SUFFIX)
    try:
        exponent = int(suffix[1:])
    except ValueError:
        raise QuantityError(_WRONG_SUFFIX) from None
    # Bounded, so that `1e999999999` cannot make us compute it.
    if not -(2**31) <= exponent < 2**31:
        raise QuantityError(_WRONG_SUFFIX)
    return max(-1000, min(1000, exponent))


def _round_up(amount: Amount, parts: int) -> Amount:
    """To a whole number of 1/parts, away from zero."""
    scaled = amount * parts
    rounded = -int(-scaled // 1) if scaled >= 0 else int(scaled // 1)
    whole, rest = divmod(rounded, parts)
    return Fraction(rounded, parts) if rest else whole


def parse_quantity(value: str | int | float | Fraction) -> Amount:
    """The exact amount. Raises QuantityError."""
    if isinstance(value, str):
        return _parse(value).amount
    if isinstance(value, int | Fraction):
        return value
    return _parse(_text_of(value)).amount


def _text_of(value: float) -> str:
    """A JSON number as the text it was written with."""
    return repr(value) if not value.is_integer() or abs(value) >= 1e15 else str(int(value))


def canonical_quantity(value: str | int | float | Fraction) -> str:
    """The one text of this amount. Raises QuantityError."""
    if isinstance(value, str):
        return _canonical(value)
    if isinstance(value, float):
        return _canonical(_text_of(value))
    return format_quantity(value)


@lru_cache(_CACHED_TEXTS)
def _canonical(text: str) -> str:
    parsed = _parse(text)
    return format_quantity(parsed.amount, parsed.family)


@lru_cache(_CACHED_TEXTS)
def canonical_resource(text: str) -> str:
    """Canonical, and rounded up to a whole milli, as in every ResourceList."""
    parsed = _parse(text)
    return format_quantity(_round_up(parsed.amount, 1000), parsed.family)


def format_quantity(amount: Amount, family: Family = Family.DECIMAL) -> str:
    """The canonical text of an amount in a family of suffixes."""
    if amount == 0:
        return "0"
    # Small or broken binary amounts would lose digits, so they are written decimally.
    if family is Family.BINARY:
        if amount.denominator == 1 and not -1024 < amount < 1024:
            number, times = _divide_out(int(amount), 1024, len(_BINARY_SUFFIX) - 1)
            return f"{number}{_BINARY_SUFFIX[times]}"
        family = Family.DECIMAL
    rounded = _round_up(amount, _NANO)
    number, exponent = _divide_out(int(rounded * _NANO), 10, 1100)
    exponent -= 9
    while exponent % 3:
        number *= 10
        exponent -= 1
    if exponent == 0:
        return str(number)
    if family is Family.DECIMAL and exponent in _DECIMAL_SUFFIX:
        return f"{number}{_DECIMAL_SUFFIX[exponent]}"
    return f"{number}e{exponent}"


def _divide_out(number: int, factor: int, most: int) -> tuple[int, int]:
    times = 0
    while times < most and number % factor == 0:
        number //= factor
        times += 1
    return number, times


def family_of(text: str) -> Family:
    return _parse(text).family


def is_quantity(text: str) -> bool:
    try:
        _parse(text)
    except QuantityError:
        return False
    return True


def int_value(value: str | int | float | Fraction) -> int:
    """In whole units, rounded up."""
    return -int(-parse_quantity(value) // 1)


def milli_value(value: str | int | float | Fraction) -> int:
    """In thousandths, rounded up."""
    if isinstance(value, str):
        return _milli_value(value)
    return -int(-(parse_quantity(value) * 1000) // 1)


@lru_cache(_CACHED_TEXTS)
def _milli_value(text: str) -> int:
    return -int(-(_parse(text).amount * 1000) // 1)


def compare(left: str, right: str) -> int:
    """Negative, zero or positive, as left is less than, equal to or more than right."""
    a, b = _parse(left).amount, _parse(right).amount
    return (a > b) - (a < b)


def add(left: str, right: str) -> str:
    """The canonical sum, in the suffixes of `left` (of `right` if left is zero)."""
    a, b = _parse(left), _parse(right)
    return format_quantity(a.amount + b.amount, a.family if a.amount else b.family)


def sub(left: str, right: str) -> str:
    a, b = _parse(left), _parse(right)
    return format_quantity(a.amount - b.amount, a.family if a.amount else b.family)
