"""What every served kind must do, over the real registry.

The objects are made: one as empty as the API allows, one with something in every field.
Where the published facts and examples are on the machine, they are the third.
"""

from __future__ import annotations

import json
import types
import typing
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pybernetes.api import codec
from pybernetes.api.registry import RESOURCES, group_versions, resource_at, resource_for_kind
from pybernetes.api.resource import Part, Resource
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.fielderror import FieldError
from tests.api.published import EXAMPLES, FACTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMN_FACTS = FACTS / "printer_columns.json"

every_kind = pytest.mark.parametrize(
    "resource",
    [pytest.param(entry, id=f"{entry.api_version}/{entry.plural}") for entry in RESOURCES],
)


def _empty(resource: Resource[Any]) -> Any:
    namespace = "default" if resource.is_namespaced else ""
    return resource.kind(metadata=ObjectMeta(name="a", namespace=namespace))


def _full(hint: Any, above: tuple[Any, ...] = ()) -> Any:
    """Something of a type: every field of structs, one item in lists and maps.

    A struct within itself (a schema in a schema) is there once more, and then empty.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _full(next(arg for arg in args if arg is not type(None)), above)
    if origin is tuple:
        return (_full(args[0], above),)
    if origin is dict:
        return {"key": _full(args[1], above)}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if hint in above:
            return hint()
        hints, path = typing.get_type_hints(hint), (*above, hint)
        return hint(**{name: _full(hints[name], path) for name in hint.__struct_fields__})
    samples = {str: "1", int: 1, float: 1.5, bool: True, datetime: NOW}
    return samples.get(hint, "1")


def _objects(resource: Resource[Any]) -> list[Any]:
    objects = [_empty(resource), _full(resource.kind)]
    group = resource.group or "core"
    path = EXAMPLES / f"{group}.{resource.version}.{resource.kind_name}.json"
    if path.is_file():
        objects.append(codec.decode(resource.kind, path.read_bytes()))
    return objects


@every_kind
def test_defaults_are_idempotent(resource: Resource[Any]) -> None:
    for obj in _objects(resource):
        once = resource.strategy.default(obj)
        assert resource.strategy.default(once) == once
        if resource.group == "":
            # Pods, events, nodes are read most: what is whole must cost no copy.
            assert resource.strategy.default(once) is once


@every_kind
def test_round_trip_is_exact(resource: Resource[Any]) -> None:
    for obj in _objects(resource):
        whole = resource.strategy.default(obj)
        data = codec.encode(whole)
        again = codec.decode(resource.kind, data)
        assert again == whole
        assert codec.encode(again) == data


@every_kind
def test_validation_yields_field_errors_and_never_fails(resource: Resource[Any]) -> None:
    strategy = resource.strategy
    for raw in _objects(resource):
        old = strategy.default(raw)
        new = strategy.prepare_create(old)
        checks = [strategy.validate(raw, None), strategy.validate(new, None)]
        checks.append(strategy.validate(strategy.prepare_update(old, new), new))
        for part in resource.subresources:
            if isinstance(part, Part):
                checks.append(part.validate(part.prepare(old, new), new))
        for errors in checks:
            for error in errors:
                assert isinstance(error, FieldError)
                assert str(error)
        assert all(isinstance(warning, str) for warning in strategy.warn(new, None))


@every_kind
def test_an_unchanged_object_may_be_written_again(resource: Resource[Any]) -> None:
    """An update that changes nothing is refused for no more than the object itself."""
    strategy = resource.strategy
    for raw in _objects(resource):
        obj = strategy.default(strategy.prepare_create(strategy.default(raw)))
        known = {str(error) for error in strategy.validate(obj, None)}
        again = {str(error) for error in strategy.validate(strategy.prepare_update(obj, obj), obj)}
        assert again <= known


@every_kind
def test_columns_can_be_shown(resource: Resource[Any]) -> None:
    names = [column.name for column in resource.columns]
    assert len(set(names)) == len(names)
    for raw in _objects(resource):
        obj = resource.strategy.default(raw)
        if resource.kind_name == "Event" and obj.event_time == "1":
            continue  # the filler's "1" is no time; the server never stores one
        for column in resource.columns:
            column.value(obj, NOW)


@pytest.mark.skipif(not COLUMN_FACTS.is_file(), reason="the facts are not on this machine")
@every_kind
def test_columns_are_the_published_ones(resource: Resource[Any]) -> None:
    tables = json.loads(COLUMN_FACTS.read_bytes())["tables"]
    fact = tables.get(f"{resource.api_version}/{resource.plural}")
    if fact is None:
        assert not resource.columns
        return
    published = [
        (c["name"], c["type"], c.get("format", ""), c["priority"]) for c in fact["columns"]
    ]
    if resource.name_column:
        assert published.pop(0) == ("Name", "string", "name", 0)
    if not resource.columns:
        assert published == [("Created At", "date", "", 0)]
        return
    ours = [(c.name, c.type, c.format, int(c.wide)) for c in resource.columns]
    assert ours == published


@every_kind
def test_fields_can_be_selected(resource: Resource[Any]) -> None:
    for raw in _objects(resource):
        obj = resource.strategy.default(raw)
        for name, value_of in resource.selectable_fields.items():
            assert isinstance(value_of(obj), str), name


@every_kind
def test_the_registry_finds_it(resource: Resource[Any]) -> None:
    assert resource_for_kind(resource.kind) is resource
    assert resource_at(resource.group, resource.version, resource.plural) is resource
    assert (resource.group, resource.version) in group_versions()


def test_nothing_is_served_twice() -> None:
    places = [(entry.group, entry.version, entry.plural) for entry in RESOURCES]
    assert len(set(places)) == len(places)
    assert group_versions()[0] == ("", "v1")


def test_what_is_not_served_is_not_found() -> None:
    assert resource_at("", "v1", "gadgets") is None
    with pytest.raises(LookupError, match="is not served"):
        resource_for_kind(ObjectMeta)
