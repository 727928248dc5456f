"""Selectors: pure values; nothing is fake here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.apimachinery.selector import (
    EVERYTHING,
    NOTHING,
    SelectorError,
    equality_selector,
    parse_field_selector,
    parse_label_selector,
    selector_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

LABELS = {"app": "web", "tier": "front", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches", "written"),
    [
        ("", True, ""),
        ("app=web", True, "app=web"),
        ("app==web", True, "app==web"),
        ("app != web", False, "app!=web"),
        ("other!=web", True, "other!=web"),
        ("app in (web, db)", True, "app in (db,web)"),
        ("app notin (web)", False, "app notin (web)"),
        ("other notin (web)", True, "other notin (web)"),
        ("app", True, "app"),
        ("!app", False, "!app"),
        ("! other", True, "!other"),
        ("n>4", True, "n>4"),
        ("n<4", False, "n<4"),
        ("app>4", False, "app>4"),
        ("tier=front,app=web", True, "app=web,tier=front"),
        ("empty=", True, "empty="),
        ("empty in (,a)", True, "empty in (,a)"),
        ("empty in (a,)", True, "empty in (,a)"),
        ("app in (in,notin,web)", True, "app in (in,notin,web)"),
        ("in=a", False, "in=a"),
        ("x.io/app=web", False, "x.io/app=web"),
    ],
)
def test_label_selector(text: str, matches: bool, written: str) -> None:
    selector = parse_label_selector(text)
    assert selector.matches(LABELS) is matches
    assert str(selector) == written
    assert parse_label_selector(written) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in ()", "values: Invalid value: []: for 'in', 'notin' operators, values set can't"),
        ("a in (b", "expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a$=b", 'unable to parse requirement: <nil>: Invalid value: "a$": name part must'),
        ("a=b$", 'unable to parse requirement: values[0][a]: Invalid value: "b$": a valid label'),
        ("a>b", "values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be"),
    ],
)
def test_refused_with_upstreams_text(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_label_selector(text)
    assert message in str(caught.value)


def test_absent_selects_nothing_and_empty_everything() -> None:
    assert selector_of(None) == NOTHING
    assert not NOTHING.matches({})
    assert selector_of({}) == EVERYTHING
    assert EVERYTHING.empty
    assert not NOTHING.empty


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["web"], True),
        ("NotIn", ["web"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_expressions(operator: str, values: list[str], matches: bool) -> None:
    selector = selector_of(
        {
            "matchLabels": {"tier": "front"},
            "matchExpressions": [{"key": "app", "operator": operator, "values": values}],
        }
    )
    assert selector.matches(LABELS) is matches


def test_unknown_operator() -> None:
    with pytest.raises(SelectorError, match='"Like" is not a valid label selector operator'):
        selector_of({"matchExpressions": [{"key": "a", "operator": "Like"}]})


def test_only_value_is_known_to_indexes() -> None:
    assert parse_label_selector("app in (web),n").required_value("app") == "web"
    assert parse_label_selector("app in (web,db)").required_value("app") is None
    assert parse_field_selector("spec.nodeName=a,b!=c").required_value("spec.nodeName") == "a"
    assert parse_field_selector("b!=c").required_value("b") is None


words = st.from_regex(r"\A[a-z]([a-z0-9.-]{0,4}[a-z0-9])?\Z")
maps = st.dictionaries(words, words, max_size=4)


@given(maps, maps)
def test_equality_is_being_a_subset(wanted: dict[str, str], labels: dict[str, str]) -> None:
    selector = equality_selector(wanted)
    assert selector.matches(labels) == (wanted.items() <= labels.items())
    assert parse_label_selector(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("a.b=c", {"a.b": "c"}, True),
        ("a.b==c", {"a.b": "d"}, False),
        ("a.b!=c", {"a.b": "d"}, True),
        ("a.b=", {}, True),
        ("a=b,c=d", {"a": "b", "c": "x"}, False),
        (r"a=b\,c\=d", {"a": "b,c=d"}, True),
        ("", {}, True),
    ],
)
def test_field_selector(text: str, fields: Mapping[str, str], matches: bool) -> None:
    selector = parse_field_selector(text)
    assert selector.matches(fields) is matches
    assert parse_field_selector(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ],
)
def test_field_selector_refused(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_field_selector(text)
    assert str(caught.value) == message
