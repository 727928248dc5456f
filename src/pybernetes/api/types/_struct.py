"""What every generated class is made of: the frozen struct, its names and its defaults.

Rule: a field that equals its plain default is not written; a field made by ``always`` or ``new``
is always written, because msgspec compares only with plain defaults and empty containers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import field as field

from pybernetes.api.types._wirenames import WIRE_NAMES

T = TypeVar("T")

# An amount such as "500m" or "1Gi", in canonical form (see apimachinery.quantity).
Quantity: TypeAlias = str
IntOrString: TypeAlias = int | str


def wire_name(attribute: str) -> str:
    """The name of a field in JSON: ``api_version`` is ``apiVersion``."""
    if (odd := WIRE_NAMES.get(attribute)) is not None:
        return odd
    first, *rest = attribute.rstrip("_").split("_")
    return first + "".join([word[:1].upper() + word[1:] for word in rest])


class Struct(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, rename=wire_name
):
    """An immutable value of the API.

    Values are trees and never refer back to themselves, so the garbage collector need not
    look at them. Change one with ``msgspec.structs.replace``.
    """


def always(value: T) -> T:
    """The default of a field that is written even when nobody set it."""
    made: T = field(default_factory=lambda: value)
    return made


def always_dict() -> dict[str, Any]:
    """An empty mapping that is written."""
    # The factory must not be `dict` itself: msgspec leaves out what that made.
    made: dict[str, Any] = field(default_factory=lambda: {})
    return made


def new(make: Callable[[], T]) -> T:
    """A nested struct that is always there and always written, as Go's struct values are."""
    made: T = field(default_factory=make)
    return made
