"""The pure parts of custom resources: paths, structure, what rules see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery.schema import from_openapi
from pybernetes.apiserver.customresources import jsonpath
from pybernetes.apiserver.customresources.structure import clean_check, filler, pruned

OBJECT: dict[str, Any] = {
    "spec": {"a": 1, "odd.name": 2, "list": [10, 20, 30], "map": {"x": {"n": 1}, "y": {"n": 2}}},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "age": 3},
            {"type": "Done", "status": "False", "age": 7},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.a", [1]),
        ("{.spec.a}", [1]),
        ("$.spec.a", [1]),
        (".spec['odd.name']", [2]),
        (".spec.odd\\.name", [2]),
        (".spec.list[1]", [20]),
        (".spec.list[-1]", [30]),
        (".spec.list[0:2]", [10, 20]),
        (".spec.list[*]", [10, 20, 30]),
        (".spec.map.*.n", [1, 2]),
        ("..n", [1, 2]),
        (".spec.missing", []),
        (".spec.a.b", []),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Done')].age", [7]),
        (".status.conditions[?(@.age>5)].type", ["Done"]),
        (".status.conditions[?(@.age)].type", ["Ready", "Done"]),
        (".status.conditions[?(@.age<'x')].type", []),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert list(jsonpath.find(OBJECT, jsonpath.parse(path))) == found


@pytest.mark.parametrize("path", ["spec", ".spec[", ".spec.list[a]", ".spec..", ".a b"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(jsonpath.JsonPathError):
        jsonpath.parse(path)


SCHEMA = from_openapi(
    {
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {
                "type": "object",
                "properties": {"c": {"type": "integer", "default": 1}},
            },
            "d": {
                "type": "array",
                "items": {"type": "object", "properties": {"a": {"type": "string", "default": ""}}},
            },
            "e": {"type": "object", "additionalProperties": {"type": "object"}},
            "f": {"x-kubernetes-preserve-unknown-fields": True, "type": "object"},
        },
    }
)

names = st.sampled_from(["a", "b", "c", "d", "e", "f", "z"])
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(names, values, max_size=5))
def test_pruning_and_defaults_are_idempotent_and_agree(value: dict[str, Any]) -> None:
    unknown: list[str] = []
    result = pruned(value, SCHEMA, unknown, root=True)
    check, fill = clean_check(SCHEMA, root=True), filler(SCHEMA, root=True)
    assert check is not None
    assert fill is not None
    assert check(value) is not bool(unknown)
    assert check(result)
    assert pruned(result, SCHEMA, [], root=True) == result
    filled = fill(result)
    assert fill(filled) is filled
    assert filled["a"] is not None
    assert check(filled)
