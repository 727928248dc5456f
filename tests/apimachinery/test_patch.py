"""Patches on plain values; real schemas of built-in kinds, the jsonpatch library as oracle."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery.patch import (
    MalformedPatch,
    PatchError,
    TooManyOperations,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)
from pybernetes.apimachinery.schema import Schema, from_openapi

SCALAR: dict[str, Any] = {"type": "string"}


def _schema() -> Schema:
    """A pod in miniature: lists with a key, a set, an atomic list, a union and a map."""
    container = from_openapi(
        {
            "type": "object",
            "properties": {
                "name": SCALAR,
                "image": SCALAR,
                "args": {"type": "array", "items": SCALAR},
                "env": {"type": "array", "items": {"type": "object"}},
            },
        }
    )
    assert container.properties is not None
    env = container.properties["env"]
    env.patch_strategy, env.patch_merge_key = ("merge",), "name"
    schema = from_openapi(
        {
            "type": "object",
            "properties": {
                "containers": {"type": "array", "items": {"type": "object"}},
                "finalizers": {"type": "array", "items": SCALAR},
                "args": {"type": "array", "items": SCALAR},
                "strategy": {"type": "object", "properties": {"type": SCALAR}},
                "atomic": {"type": "object", "additionalProperties": SCALAR},
                "labels": {"type": "object", "additionalProperties": SCALAR},
            },
        }
    )
    assert schema.properties is not None
    containers = schema.properties["containers"]
    containers.items = container
    containers.patch_strategy, containers.patch_merge_key = ("merge",), "name"
    schema.properties["finalizers"].patch_strategy = ("merge",)
    schema.properties["strategy"].patch_strategy = ("retainKeys",)
    schema.properties["atomic"].patch_strategy = ("replace",)
    return schema


SCHEMA = _schema()


def named(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, **more} for name in names]


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        pytest.param(
            {"labels": {"a": "1", "b": "2"}}, {"labels": {"a": None, "c": "3"}},
            {"labels": {"b": "2", "c": "3"}}, id="maps merge, null deletes",
        ),
        pytest.param(
            {"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}, id="atomic list replaced",
        ),
        pytest.param(
            {"finalizers": ["a", "b"]}, {"finalizers": ["c", "a"]},
            {"finalizers": ["c", "a", "b"]}, id="sets unite, patch order first",
        ),
        pytest.param(
            {"finalizers": ["a", "b", "c"]}, {"$deleteFromPrimitiveList/finalizers": ["b", "x"]},
            {"finalizers": ["a", "c"]}, id="values taken out of a set",
        ),
        pytest.param(
            {"containers": named("a", "b", image="1")},
            {"containers": [{"name": "b", "image": "2"}]},
            {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]},
            id="element merged by key",
        ),
        pytest.param(
            {"containers": named("a", "b")}, {"containers": named("c")},
            {"containers": named("c", "a", "b")}, id="new element first without an order",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {"$setElementOrder/containers": named("a", "b", "c"), "containers": named("c")},
            {"containers": named("a", "b", "c")}, id="new element where the order says",
        ),
        pytest.param(
            {"containers": named("a", "b", "x")},
            {"$setElementOrder/containers": named("b", "a")},
            {"containers": named("b", "a", "x")}, id="order alone moves elements",
        ),
        pytest.param(
            {"containers": named("x", "a", "b")},
            {"$setElementOrder/containers": named("a", "b")},
            {"containers": named("x", "a", "b")}, id="server's own elements keep their place",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {"$setElementOrder/containers": named("b"),
             "containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": named("b")}, id="element deleted by directive",
        ),
        pytest.param(
            {"containers": named("a", "b")},
            {"containers": [*named("c"), {"$patch": "replace"}]},
            {"containers": named("c")}, id="list replaced by directive",
        ),
        pytest.param(
            {"labels": {"a": "1"}}, {"labels": {"$patch": "replace", "b": "2"}},
            {"labels": {"b": "2"}}, id="map replaced by directive",
        ),
        pytest.param(
            {"labels": {"a": "1"}}, {"labels": {"$patch": "delete"}}, {"labels": {}},
            id="map emptied by directive",
        ),
        pytest.param(
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"x": 1}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
            {"strategy": {"type": "Recreate"}}, id="retainKeys clears the rest of a union",
        ),
        pytest.param(
            {"atomic": {"a": "1"}}, {"atomic": {"b": "2"}}, {"atomic": {"b": "2"}},
            id="map with the replace strategy",
        ),
        pytest.param(
            {"finalizers": ["a", "b", "c"]},
            {"$setElementOrder/finalizers": ["c", "d", "a"], "finalizers": ["d"],
             "$deleteFromPrimitiveList/finalizers": ["b"]},
            {"finalizers": ["c", "d", "a"]}, id="set ordered, added to and taken from",
        ),
        pytest.param(
            {}, {"containers": [{"name": "a", "x": None, "env": [{"name": "e", "$patch": "delete"}]}]},
            {"containers": [{"name": "a", "env": []}]}, id="no directive survives",
        ),
        pytest.param(
            {"containers": named("a", env=[{"name": "x", "value": "1"}])},
            {"containers": [{"name": "a", "env": [{"name": "x", "value": None, "valueFrom": {}}]}]},
            {"containers": named("a", env=[{"name": "x", "valueFrom": {}}])},
            id="lists within elements merge too",
        ),
        pytest.param({"args": {"a": 1}}, {"args": ["x"]}, {"args": ["x"]}, id="other type wins"),
        pytest.param({"unknown": {"a": 1}}, {"unknown": {"b": 2}}, {"unknown": {"a": 1, "b": 2}},
                     id="maps nobody knows merge"),
    ],
)  # fmt: skip
def test_strategic_merge(
    original: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = copy.deepcopy((original, patch))
    assert strategic_merge_patch(original, patch, SCHEMA) == result
    assert (original, patch) == before


@pytest.mark.parametrize(
    ("patch", "error", "message"),
    [
        ({"labels": {"$patch": "x"}}, PatchError, "unknown patch type: x in"),
        ({"containers": [{"image": "1"}]}, PatchError,
         "does not contain declared merge key: name"),
        ({"containers": [{"name": "a", "$patch": "merge"}]}, PatchError,
         "merging lists cannot yet be specified in the patch"),
        ({"$retainKeys": ["a"], "labels": {}}, MalformedPatch,
         "invalid patch format of retainKeys"),
        ({"$setElementOrder/containers": 1}, MalformedPatch,
         "invalid patch format of setElementOrder list"),
        ({"$deleteFromPrimitiveList/finalizers": 1}, MalformedPatch,
         "invalid patch format of primitive list"),
        ({"$setElementOrder/containers": named("a", "b"), "containers": named("b", "a")},
         PatchError, "doesn't match $setElementOrder list"),
        ({"containers": [["a"]]}, PatchError, "lists of lists are not supported"),
    ],
)  # fmt: skip
def test_strategic_merge_refuses(
    patch: dict[str, Any], error: type[PatchError], message: str
) -> None:
    original = {"containers": named("a"), "labels": {"a": "1"}, "finalizers": ["a"]}
    with pytest.raises(error) as caught:
        strategic_merge_patch(original, patch, SCHEMA)
    assert message in str(caught.value)


names = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=6)


@given(names, names)
def test_an_order_is_obeyed(have: list[str], order: list[str]) -> None:
    patch = {
        "$setElementOrder/containers": named(*order),
        "containers": [*named(*order), *({"name": n, "$patch": "delete"} for n in have[:1])],
    }
    if have[:1] and have[0] in order:
        return
    result = strategic_merge_patch({"containers": named(*have)}, patch, SCHEMA)
    found = [item["name"] for item in result["containers"]]
    assert [name for name in found if name in order] == order
    assert sorted(found) == sorted({*have[1:], *order})
    assert [n for n in found if n not in order] == [n for n in have[1:] if n not in order]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c/d", "e~f"]), children, max_size=3)
    ),
    max_leaves=12,
)


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(item) for key, item in value.items() if item is not None}


@given(values, values)
def test_merge_patch_is_rfc_7386(document: Any, patch: Any) -> None:
    before = copy.deepcopy((document, patch))
    result = merge_patch(document, patch)
    assert (document, patch) == before
    if not isinstance(patch, dict):
        assert result == patch
        return
    assert merge_patch(result, patch) == result
    if not isinstance(document, dict):
        assert result == _without_nulls(patch)


@given(values, values)
def test_json_patches_of_the_library_apply(before: Any, after: Any) -> None:
    operations = jsonpatch.make_patch(before, after).patch
    kept = copy.deepcopy((before, operations))
    assert json_patch(before, operations) == after
    assert (before, operations) == kept


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ({"op": "add"}, MalformedPatch),
        ([1], MalformedPatch),
        ([{"op": "fly", "path": "/a"}], MalformedPatch),
        ([{"op": "add", "path": "a", "value": 1}], PatchError),
        ([{"op": "add", "path": "/a"}], MalformedPatch),
        ([{"op": "remove", "path": "/x"}], PatchError),
        ([{"op": "replace", "path": "/x", "value": 1}], PatchError),
        ([{"op": "add", "path": "/s/x", "value": 1}], PatchError),
        ([{"op": "add", "path": "/x/y", "value": 1}], PatchError),
        ([{"op": "remove", "path": "/l/9"}], PatchError),
        ([{"op": "remove", "path": "/l/x"}], PatchError),
        ([{"op": "test", "path": "/a", "value": 2}], PatchError),
        ([{"op": "move", "path": "/x", "from": "/y"}], PatchError),
        ([{"op": "copy", "path": "/x"}], MalformedPatch),
        ([{"op": "add", "path": 5, "value": 1}], PatchError),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, TooManyOperations),
    ],
    ids=range(16),
)
def test_json_patch_refuses(operations: Any, error: type[PatchError]) -> None:
    document = {"a": 1, "l": [1], "s": "text"}
    with pytest.raises(error):
        json_patch(document, operations)
    assert document == {"a": 1, "l": [1], "s": "text"}
