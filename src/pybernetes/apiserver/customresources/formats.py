"""Formats and patterns of strings in custom resources.

Patterns come from users and run on values of users: they are matched in linear time, by RE2.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache

from pybernetes.apimachinery.duration import parse_duration
from pybernetes.apimachinery.timestamp import parse_time

Fits = Callable[[str], bool]


class PatternError(ValueError):
    """A regular expression that is none."""


@lru_cache(maxsize=1024)
def search_of(pattern: str) -> Fits:
    """Whether a pattern is found anywhere in a text. Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise PatternError(str(error)) from None
    return lambda text: compiled.search(text) is not None


def _tried(parse: Callable[[str], object]) -> Fits:
    def fits(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return fits


def _cidr(text: str) -> object:
    if "/" not in text:
        raise ValueError(text)
    return ipaddress.ip_interface(text)


def _base64(text: str) -> object:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def _matching(pattern: str) -> Fits:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: compiled.fullmatch(text) is not None


_HEX = "[0-9a-fA-F]"

# By name; a format that is not here says nothing.
FORMATS: dict[str, Fits] = {
    "date-time": _tried(parse_time),
    "datetime": _tried(parse_time),
    "date": _tried(date.fromisoformat),
    "duration": _tried(parse_duration),
    "byte": _tried(_base64),
    "ipv4": _tried(ipaddress.IPv4Address),
    "ipv6": _tried(ipaddress.IPv6Address),
    "cidr": _tried(_cidr),
    "mac": _matching(f"{_HEX}{{2}}([:-]{_HEX}{{2}}){{5}}"),
    "uuid": _matching(f"{_HEX}{{8}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{4}}-?{_HEX}{{12}}"),
    "uuid3": _matching(f"{_HEX}{{8}}-?{_HEX}{{4}}-?3{_HEX}{{3}}-?{_HEX}{{4}}-?{_HEX}{{12}}"),
    "uuid4": _matching(
        f"{_HEX}{{8}}-?{_HEX}{{4}}-?4{_HEX}{{3}}-?[89abAB]{_HEX}{{3}}-?{_HEX}{{12}}"
    ),
    "uuid5": _matching(
        f"{_HEX}{{8}}-?{_HEX}{{4}}-?5{_HEX}{{3}}-?[89abAB]{_HEX}{{3}}-?{_HEX}{{12}}"
    ),
    "email": _matching(r"[^@\s]+@[^@\s]+"),
    "hostname": _matching(
        r"(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\.?"
    ),
}
