"""Objects of core/v1 for tests of their rules, from manifests as a user writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api import codec
from pybernetes.api.schemas import schema_of
from pybernetes.apimachinery.schema import decode_strict

if TYPE_CHECKING:
    from pybernetes.api.resource import Resource


def read(resource: Resource[Any], manifest: dict[str, Any]) -> Any:
    """What the API server makes of a body: pruned, canonical, with defaults."""
    schema = schema_of(resource.group, resource.version, resource.kind_name)
    assert schema is not None
    decoded = decode_strict(manifest, schema)
    assert not decoded.unknown
    assert not decoded.errors
    return resource.strategy.default(codec.from_dict(resource.kind, decoded.value))


def create(resource: Resource[Any], manifest: dict[str, Any]) -> Any:
    return resource.strategy.prepare_create(read(resource, manifest))


def errors_of(resource: Resource[Any], new: Any, old: Any = None) -> list[str]:
    if old is not None:
        new = resource.strategy.prepare_update(new, old)
    return [str(error) for error in resource.strategy.validate(new, old)]


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy of plain JSON with the value at a dotted path replaced (None: taken away)."""
    head, _, rest = path.partition(".")
    key: Any = int(head) if head.isdecimal() else head
    if isinstance(value, list):
        items = list(value)
        items[key] = changed(items[key], rest, new) if rest else new
        return items
    copy = dict(value or {})
    if rest:
        copy[key] = changed(copy.get(key), rest, new)
    elif new is None:
        copy.pop(key, None)
    else:
        copy[key] = new
    return copy
