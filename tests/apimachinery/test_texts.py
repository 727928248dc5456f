"""JSON and YAML texts: real parsers on real bytes; nothing is fake here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery.jsontext import JsonError, find_duplicates, load_json
from pybernetes.apimachinery.yamltext import YamlError, load_yaml, load_yaml_documents

# What YAML may contain without an escape; its escapes are not quite those of JSON.
words = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(words, children, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value", "duplicates"),
    [
        ('{"a":1}', {"a": 1}, []),
        ('{"a":1,"a" :2}', {"a": 2}, ["a"]),
        ('{"s":{"c":[{"n":1},{"n":1,"n":2,"n":3}]}}', {"s": {"c": [{"n": 1}, {"n": 3}]}},
         ["s.c[1].n"]),
        ('{"a":{"x":1},"a":{"x":1}}', {"a": {"x": 1}}, ["a"]),
        ('{"a":"\\": \\":"}', {"a": '": ":'}, []),
        ('{"a":"x\\u0022:","a":"x\\u0022:"}', {"a": 'x":'}, ["a"]),
        ('{"a":"\\" :","a":1,"b" :2}', {"a": 1, "b": 2}, ["a"]),
        ('{"a":123456789012345678901234567890,"a":1}', {"a": 1}, ["a"]),
        ('{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}, []),
        ("[]", [], []),
    ],
)  # fmt: skip
def test_json(text: str, value: Any, duplicates: list[str]) -> None:
    assert load_json(text.encode()) == (value, duplicates)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":NaN}', b"\xff", b"{} {}", b"[" * 100_000])
def test_no_json(text: bytes) -> None:
    with pytest.raises(JsonError):
        load_json(text)


@given(values)
def test_json_without_duplicates(value: Any) -> None:
    assert load_json(json.dumps(value, indent=1).encode()) == (value, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("Off", False), ("y", True), ("'y'", "y"), ("TRUE", True),
        ("~", None), ("", None), ("null", None), ("Null", None), ("nUll", "nUll"),
        ("017", 15), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("08", 8), ("-5", -5),
        ("1_000", 1000), ("1e3", 1000), ("1.5", 1.5), (".5", 0.5), ("1.", 1), ("+1", 1),
        ("1.5e-3", 0.0015), ("2026-01-02", "2026-01-02"), ("12:30:45", "12:30:45"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"), ("1.2.3", "1.2.3"),
        ("-", [None]), ("!!str 123", "123"), ("! 123", "123"), ("!foo 123", "123"),
        ("!!int '5'", 5), ("!!binary aGk=", "hi"), ("!!float 5", 5.0), ("1Gi", "1Gi"),
        ("9223372036854775807", 9223372036854775807), ("|\n  a\n  b\n", "a\nb\n"),
        ("{a: 1, 2: b, true: c, 1.5: d}", {"a": 1, "2": "b", "true": "c", "1.5": "d"}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)  # fmt: skip
def test_words_mean_what_kubernetes_takes_them_for(text: str, value: Any) -> None:
    loaded, duplicates = load_yaml(text)
    assert loaded == value
    assert type(loaded) is type(value)
    assert duplicates == []


def test_merge_keys() -> None:
    text = """
base: &base {a: 1, b: 2}
more: &more {b: 3, c: 4}
one: {<<: *base, a: 9}
two: {<<: [*base, *more]}
quoted: {"<<": 1}
"""
    loaded, _ = load_yaml(text)
    assert loaded["one"] == {"a": 9, "b": 2}
    assert loaded["two"] == {"a": 1, "b": 2, "c": 4}
    assert loaded["quoted"] == {"<<": 1}


def test_aliases_are_copies() -> None:
    loaded, _ = load_yaml("a: &x [1]\nb: *x\n")
    loaded["a"].append(2)
    assert loaded["b"] == [1]


def test_duplicate_keys_are_named_by_path() -> None:
    text = "spec:\n  c:\n  - x: 1\n    x: 2\n  c: []\n"
    assert load_yaml(text) == ({"spec": {"c": []}}, ["spec.c[0].x", "spec.c"])


def test_documents() -> None:
    assert load_yaml_documents("a: 1\n---\n---\nb: 2\n...\n") == [
        ({"a": 1}, []),
        (None, []),
        ({"b": 2}, []),
    ]
    assert load_yaml_documents("") == []
    assert load_yaml("a: 1\n---\nb: [") == ({"a": 1}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "yaml: line"),
        ("a: *x", "yaml: line 1: unknown anchor 'x' referenced"),
        ("{[a]: 1}", "yaml: line 1: invalid map key: not a scalar"),
        ("{~: 1}", "yaml: line 1: invalid map key: null"),
        ("\n.nan", "yaml: line 2: json: unsupported value: .nan"),
        ("<<: 5", "map merge requires map or sequence of maps as the value"),
        ("[" * 3_000_000, "exceeded max depth"),
        ("a: 1\n\tb: 2", "yaml: line 2"),
        (b"\xff\xfe\x00", "yaml: "),
        ("&a [*a]", "unknown anchor 'a'"),
    ],
    ids=range(10),
)
def test_no_yaml(text: str | bytes, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        load_yaml(text)
    assert message in str(caught.value)


def test_alias_bombs_do_not_go_off() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(YamlError, match="excessive aliasing"):
        load_yaml("\n".join(lines))


pairs = st.recursive(
    st.integers(0, 9) | st.sampled_from(['"', '":', '" :', "x"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.lists(st.tuples(st.sampled_from(["a", "b", '"', '":']), children), max_size=4).map(
            tuple
        )
    ),
    max_leaves=12,
)


def _write(value: Any, space: str) -> str:
    if isinstance(value, tuple):
        items = (f"{json.dumps(k)}{space}:{space}{_write(v, space)}" for k, v in value)
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, space) for item in value) + "]"
    return json.dumps(value)


@given(pairs, st.sampled_from(["", " ", "\n\t"]))
def test_the_shortcut_misses_no_duplicate(value: Any, space: str) -> None:
    data = _write(value, space).encode()
    assert load_json(data)[1] == find_duplicates(data)


@given(values)
def test_json_is_yaml(value: Any) -> None:
    assert load_yaml(json.dumps(value, ensure_ascii=False)) == (value, [])
