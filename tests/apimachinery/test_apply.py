"""Sets of fields and the rules of ownership, on plain values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.api.schemas import schema_of
from pybernetes.apimachinery.apply import (
    Claim,
    FieldSet,
    Managed,
    Manager,
    OwnersDisagree,
    Shape,
    apply,
)
from pybernetes.apimachinery.apply.fieldset import (
    difference,
    intersection,
    is_field_set,
    is_member,
    paths,
    union,
)
from pybernetes.apimachinery.apply.shape import DuplicateItem, compare, field_set, merge, without

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def shape_of(group: str, kind: str) -> Shape:
    schema = schema_of(group, "v1", kind)
    assert schema is not None
    return Shape(schema)


POD = shape_of("", "Pod")


def members(fields: FieldSet, prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = set()
    for step, node in fields.items():
        if step != ".":
            path = (*prefix, step)
            if is_member(node):
                found.add(path)
            found |= members(node, path)
    return found


def set_of(wanted: set[tuple[str, ...]]) -> FieldSet:
    result: FieldSet = {}
    for path in wanted:
        node: FieldSet = {}
        for step in reversed(path):
            node = {step: node}
        result = union(result, node)
    return result


PATHS = st.sets(
    st.lists(st.sampled_from(["f:a", "f:b", 'k:{"n":1}']), min_size=1, max_size=3).map(tuple)
)


@given(PATHS, PATHS)
def test_sets_are_sets(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> None:
    a, b = set_of(first), set_of(second)
    assert members(a) == first
    assert is_field_set(a)
    assert members(union(a, b)) == first | second
    assert members(difference(a, b)) == first - second
    assert members(intersection(a, b)) == first & second
    assert union(a, b) == union(b, a)


def pod(*containers: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, "spec": {"containers": list(containers)}}


def test_the_fields_of_a_value() -> None:
    value = pod({"name": "c", "ports": [{"containerPort": 80}]}, labels={"a": "b"})
    assert field_set(value, POD) == {
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:name": {},
                    "f:ports": {
                        # A key that is not said has its default.
                        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                    },
                }
            }
        },
    }


def test_paths_in_words() -> None:
    value = pod({"name": "c", "image": "i"}, finalizers=["x/y"], labels={"a": "b"})
    assert list(paths(field_set(value, POD))) == [
        '.metadata.finalizers[="x/y"]',
        ".metadata.labels.a",
        '.spec.containers[name="c"]',
        '.spec.containers[name="c"].image',
        '.spec.containers[name="c"].name',
    ]


def test_two_elements_of_one_key() -> None:
    with pytest.raises(DuplicateItem):
        field_set(pod({"name": "c"}, {"name": "c"}), POD)


@pytest.mark.parametrize(
    ("under", "over", "merged"),
    [
        ("abc", "bd", "abcd"),
        ("abc", "ca", "bca"),
        ("ab", "db", "adb"),
        ("ab", "d", "abd"),
        ("", "ab", "ab"),
    ],
)
def test_the_order_of_merged_lists(under: str, over: str, merged: str) -> None:
    def named(text: str) -> dict[str, Any]:
        return pod(*({"name": letter} for letter in text))

    result = merge(named(under), named(over), POD)
    assert "".join(item["name"] for item in result["spec"]["containers"]) == merged


def test_atomic_values_are_taken_whole() -> None:
    deployments = shape_of("apps", "Deployment")
    old = {"spec": {"selector": {"matchLabels": {"a": "1"}}}}
    new = {"spec": {"selector": {"matchLabels": {"b": "1"}}}}
    assert merge(old, new, deployments) == new
    assert compare(old, new, deployments).modified == {"f:spec": {"f:selector": {}}}


CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc")}, optional={"image": st.sampled_from("xy")}
    ),
    unique_by=lambda item: item["name"],
    max_size=3,
)


@given(CONTAINERS, CONTAINERS)
def test_what_was_added_can_be_taken_away(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    old, new = pod(*before), pod(*after)
    merged = merge(old, new, POD)
    comparison = compare(old, merged, POD)
    assert not comparison.removed
    taken = without(merged, comparison.added, POD)
    again = compare(taken, old, POD)
    assert not again.removed
    assert not again.added
    assert compare(merged, merge(merged, new, POD), POD).is_empty


# -- appliers


def applied(
    live: Any, config: Any, managed: Managed, name: str, *, force: bool = False
) -> tuple[Any, Managed]:
    return apply(
        live,
        config,
        POD,
        managed,
        Manager(name, "Apply"),
        Claim({}, "v1", NOW),
        relevant=lambda fields: fields,
        force=force,
    )


def test_shared_fields_stay_until_nobody_wants_them() -> None:
    both = pod({"name": "c", "image": "i"})
    live, managed = applied({}, both, {}, "one")
    live, managed = applied(live, both, managed, "two")
    live, managed = applied(live, pod(labels={"a": "b"}), managed, "one")
    assert live["spec"]["containers"] == [{"name": "c", "image": "i"}]
    live, managed = applied(live, pod(), managed, "two")
    assert not live["spec"]["containers"]


def test_who_is_forced_out_owns_it_no_more() -> None:
    live, managed = applied({}, pod({"name": "c", "image": "i"}), {}, "one")
    with pytest.raises(OwnersDisagree) as raised:
        applied(live, pod({"name": "c", "image": "j"}), managed, "two")
    assert [clash.path for clash in raised.value.clashes] == ['.spec.containers[name="c"].image']
    live, managed = applied(live, pod({"name": "c", "image": "j"}), managed, "two", force=True)
    mine = list(paths(managed[Manager("one", "Apply")].fields))
    assert mine == ['.spec.containers[name="c"]', '.spec.containers[name="c"].name']


@given(CONTAINERS, CONTAINERS, CONTAINERS)
def test_the_last_one_forced_has_what_it_said(
    first: list[dict[str, Any]], second: list[dict[str, Any]], third: list[dict[str, Any]]
) -> None:
    live, managed = applied({}, pod(*first), {}, "one")
    live, managed = applied(live, pod(*second), managed, "two", force=True)
    live, managed = applied(live, pod(*third), managed, "one", force=True)
    present = {item["name"]: item for item in live["spec"].get("containers") or ()}
    for item in third:
        assert item.items() <= present[item["name"]].items()
    # What is there is somebody's, and what was only in the first is gone.
    assert present.keys() == {item["name"] for item in (*second, *third)}
    for claim in managed.values():
        assert claim.fields
        assert is_field_set(claim.fields)
