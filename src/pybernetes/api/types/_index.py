"""Look-ups over all generated kinds: by class, by kind, by resource.

Light by design: no module of types is imported to answer, only ``KindInfo.load`` does so.
"""

from __future__ import annotations

from typing import Any

from pybernetes.api.types._kindinfo import KindInfo, Subresource
from pybernetes.api.types._kinds import GROUP_ORDER
from pybernetes.api.types._kinds import KINDS as _ALL

__all__ = [
    "GROUP_ORDER",
    "KINDS",
    "KindInfo",
    "Subresource",
    "info_at",
    "info_of",
    "info_of_kind",
    "served_kinds",
]

# By module and name of the class.
KINDS: dict[str, KindInfo] = {info.qualified_name: info for info in _ALL}

# By (group, version, kind) and, for what is served, by (group, version, plural).
_BY_KIND = {(info.group, info.version, info.kind): info for info in _ALL}
_BY_PLURAL = {(info.group, info.version, info.plural): info for info in _ALL if info.plural}


def info_of(cls: type[Any]) -> KindInfo:
    """The facts about a class. Raises LookupError for a class that is not a kind."""
    try:
        return KINDS[f"{cls.__module__}.{cls.__qualname__}"]
    except KeyError:
        raise LookupError(f"{cls.__qualname__} is not a kind of the API") from None


def info_of_kind(group: str, version: str, kind: str) -> KindInfo | None:
    return _BY_KIND.get((group, version, kind))


def info_at(group: str, version: str, plural: str) -> KindInfo | None:
    """The kind served as ``plural`` in a group and version."""
    return _BY_PLURAL.get((group, version, plural))


def served_kinds() -> tuple[KindInfo, ...]:
    """Every kind that is a resource, groups in the order of discovery."""
    return tuple(info for info in _ALL if info.plural)
