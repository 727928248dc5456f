"""Versions of a kind that differ in nothing but their names: one goes into the other as it is.

Most beta versions are like this by the time they are stable. A version that has other fields
needs a conversion of its own.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pybernetes.api import codec
from pybernetes.api.resource import Conversion
from pybernetes.api.types._index import info_of

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def recast(kind: type[T]) -> Callable[[Any], T]:
    """How an object of another version becomes one of this kind."""
    return partial(_recast, kind, info_of(kind).api_version)


def _recast(kind: type[T], api_version: str, obj: Any) -> T:
    value = codec.to_dict(obj)
    value["apiVersion"] = api_version
    return codec.from_dict(kind, value)


def same_shape(kind: type[T], stored: type[Any]) -> Conversion[T]:
    return Conversion(stored, recast(stored), recast(kind))
