"""ConfigMap: settings as keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import ConfigMap
from pybernetes.api.validation import validate_with
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import config_key_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

MAX_BYTES = 1024 * 1024
FROZEN = "field is immutable when `immutable` is set"


def validate_config_map(new: ConfigMap, old: ConfigMap | None) -> Iterator[FieldError]:
    total = 0
    for key, value in new.data.items():
        yield from validate_with(config_key_errors, key, Path("data").key(key))
        if key in new.binary_data:
            yield Path("data").key(key).invalid(key, "duplicate of key present in binaryData")
        total += len(value.encode())
    for key, encoded in new.binary_data.items():
        yield from validate_with(config_key_errors, key, Path("binaryData").key(key))
        total += decoded_size(encoded)
    if total > MAX_BYTES:
        yield Path("").too_long(MAX_BYTES)
    if old is not None and old.immutable:
        if not new.immutable:
            yield Path("immutable").forbidden(FROZEN)
        if new.data != old.data:
            yield Path("data").forbidden(FROZEN)
        if new.binary_data != old.binary_data:
            yield Path("binaryData").forbidden(FROZEN)


def decoded_size(encoded: str) -> int:
    """Bytes behind base64 text."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")


CONFIG_MAPS = Resource(
    group="",
    version="v1",
    kind=ConfigMap,
    plural="configmaps",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_config_map, generation_follows=()),
    columns=(Column("Data", lambda obj: len(obj.data) + len(obj.binary_data)), AGE),
)
