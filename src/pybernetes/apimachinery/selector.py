"""Label and field selectors: parsed once, matched often.

`parse_label_selector` reads the query syntax (`app=web,tier in (a,b),!old`),
`selector_of` reads the LabelSelector of an object. Both give the same immutable `Selector`.
Matching costs one dictionary lookup per requirement.

In an object, an absent selector means nothing and an empty one everything; that
difference is kept here (`NOTHING`, `EVERYTHING`) so that callers need not think of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pybernetes.apimachinery.fielderror import Path, quote
from pybernetes.apimachinery.names import label_value_errors, qualified_name_errors


class SelectorError(ValueError):
    """The text is not a selector; the message is upstream's."""


# The operators of the query syntax; the ones of LabelSelector map onto the first four.
IN, NOT_IN, EXISTS, NOT_EXISTS = "in", "notin", "exists", "!"
EQUALS, DOUBLE_EQUALS, NOT_EQUALS, GREATER, LESS = "=", "==", "!=", "gt", "lt"
_BINARY_OPERATORS = (IN, NOT_IN, EQUALS, DOUBLE_EQUALS, NOT_EQUALS, GREATER, LESS)
_EXPRESSION_OPERATORS = {
    "In": IN,
    "NotIn": NOT_IN,
    "Exists": EXISTS,
    "DoesNotExist": NOT_EXISTS,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label."""

    key: str
    operator: str
    # Sorted, without repetition.
    values: tuple[str, ...] = ()
    _set: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_set", frozenset(self.values))

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in" | "=" | "==":
                return value in self._set
            case "notin" | "!=":
                return value not in self._set
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and self._compares(value)

    def _compares(self, value: str) -> bool:
        try:
            number, bound = int(value), int(self.values[0])
        except ValueError:
            return False
        return number > bound if self.operator == GREATER else number < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return "!" + self.key
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case "gt":
                return f"{self.key}>{self.values[0]}"
            case "lt":
                return f"{self.key}<{self.values[0]}"
        return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class Selector:
    """A conjunction of requirements; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()
    # Matches no labels at all, not even with requirements fulfilled.
    nothing: bool = False

    @property
    def empty(self) -> bool:
        """Does it match everything?"""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str]) -> bool:
        for requirement in self.requirements:
            if not requirement.matches(labels):
                return False
        return not self.nothing

    def required_value(self, key: str) -> str | None:
        """The only value this label may have, if there is one; lets indexes be used."""
        for requirement in self.requirements:
            if (
                requirement.key == key
                and requirement.operator in (IN, EQUALS, DOUBLE_EQUALS)
                and len(requirement.values) == 1
            ):
                return requirement.values[0]
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def make_requirement(key: str, operator: str, values: Sequence[str] = ()) -> Requirement:
    """A checked requirement. Raises SelectorError."""
    if errors := qualified_name_errors(key):
        raise SelectorError(f"<nil>: Invalid value: {quote(key)}: {'; '.join(errors)}")
    path = Path("values")
    if operator in (IN, NOT_IN) and not values:
        raise SelectorError(
            str(path.invalid([], "for 'in', 'notin' operators, values set can't be empty"))
        )
    for index, value in enumerate(values):
        if operator in (GREATER, LESS) and not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
            detail = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise SelectorError(str(path[index].invalid(value, detail)))
        if errors := label_value_errors(value):
            raise SelectorError(str(path[index].key(key).invalid(value, "; ".join(errors))))
    return Requirement(key, operator, tuple(sorted(set(values))))


def selector_of(selector: Any) -> Selector:
    """The selector of a LabelSelector, as a struct or as plain JSON; None selects nothing.

    Raises SelectorError for what validation would have refused.
    """
    if selector is None:
        return NOTHING
    if isinstance(selector, Mapping):
        labels = selector.get("matchLabels") or {}
        expressions = [
            (part.get("key", ""), part.get("operator", ""), part.get("values") or ())
            for part in selector.get("matchExpressions") or ()
        ]
    else:
        labels = selector.match_labels
        expressions = [
            (part.key, part.operator, part.values) for part in selector.match_expressions
        ]
    if not expressions:
        return equality_selector(labels)
    requirements = [Requirement(key, EQUALS, (value,)) for key, value in labels.items()]
    for key, operator, values in expressions:
        if operator not in _EXPRESSION_OPERATORS:
            raise SelectorError(f"{quote(operator)} is not a valid label selector operator")
        requirements.append(make_requirement(key, _EXPRESSION_OPERATORS[operator], values))
    return _sorted_selector(requirements)


def equality_selector(labels: Mapping[str, str]) -> Selector:
    """All of these labels, as in the plain map selectors of services and controllers."""
    return _sorted_selector([Requirement(key, EQUALS, (value,)) for key, value in labels.items()])


def _sorted_selector(requirements: Sequence[Requirement]) -> Selector:
    if not requirements:
        return EVERYTHING
    return Selector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


@lru_cache(1024)
def parse_label_selector(text: str) -> Selector:
    """Read the query syntax. Raises SelectorError."""
    return _sorted_selector(_LabelParser(text).requirements())


# Symbols, whole words, and white space between them.
_TOKEN = re.compile(r"\s*(==|!=|[=!,()<>]|[^\s=!,()<>]+)")
_SYMBOLS = frozenset({"=", "==", "!=", "!", ",", "(", ")", "<", ">", ""})
_OPERATOR_OF = {"<": LESS, ">": GREATER} | {
    text: text for text in (IN, NOT_IN, EQUALS, DOUBLE_EQUALS, NOT_EQUALS)
}


class _LabelParser:
    """Recursive descent over the tokens of a label selector; "" ends them."""

    def __init__(self, text: str) -> None:
        self._tokens = [match.group(1) for match in _TOKEN.finditer(text)]
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while token := self._peek():
            if token in _SYMBOLS and token != "!":
                raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            separator = self._next()
            if separator == "":
                break
            if separator != ",":
                raise SelectorError(f"found '{separator}', expected: ',' or 'end of string'")
            following = self._peek()
            if following in _SYMBOLS and following != "!":
                raise SelectorError(f"found '{following}', expected: identifier after ','")
        return found

    def _requirement(self) -> Requirement:
        key = self._next()
        absent = key == "!"
        if absent:
            key = self._next()
        if key in _SYMBOLS:
            raise SelectorError(f"found '{key}', expected: identifier")
        if errors := qualified_name_errors(key):
            raise SelectorError(f"<nil>: Invalid value: {quote(key)}: {'; '.join(errors)}")
        if absent:
            return make_requirement(key, NOT_EXISTS)
        if self._peek() in ("", ","):
            return make_requirement(key, EXISTS)
        token = self._next()
        operator = _OPERATOR_OF.get(token)
        if operator is None:
            raise SelectorError(f"found '{token}', expected: {', '.join(_BINARY_OPERATORS)}")
        if operator in (IN, NOT_IN):
            return make_requirement(key, operator, self._values())
        return make_requirement(key, operator, [self._exact_value()])

    def _exact_value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        token = self._next()
        if token in _SYMBOLS:
            raise SelectorError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> list[str]:
        token = self._next()
        if token != "(":
            raise SelectorError(f"found '{token}' expected: '('")
        if self._peek() == ")":
            self._next()
            return []
        values: list[str] = []
        # An empty place between commas is the empty value: `(a,)` is {"a", ""}.
        while True:
            token = self._peek()
            if token in (",", ")"):
                values.append("")
            elif token in _SYMBOLS:
                raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
            else:
                values.append(self._next())
            token = self._next()
            if token == ")":
                return values
            if token != ",":
                raise SelectorError(f"found '{token}', expected: ',' or ')'")


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{_escape(self.value)}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of (in)equalities on the selectable fields of a kind."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        for requirement in self.requirements:
            equal = fields.get(requirement.field, "") == requirement.value
            if equal is (requirement.operator == NOT_EQUALS):
                return False
        return True

    def required_value(self, name: str) -> str | None:
        """The only value this field may have, if there is one."""
        for requirement in self.requirements:
            if requirement.field == name and requirement.operator != NOT_EQUALS:
                return requirement.value
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


@lru_cache(1024)
def parse_field_selector(text: str) -> FieldSelector:
    """Read `a.b=c,d!=e`. Raises SelectorError."""
    requirements = []
    for term in _split_terms(text):
        if not term:
            continue
        match = re.search("!=|==|=", term)
        if match is None:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
        operator = NOT_EQUALS if match.group() == "!=" else EQUALS
        value = _unescape(term[match.end() :])
        requirements.append(FieldRequirement(term[: match.start()], operator, value))
    requirements.sort(key=lambda requirement: requirement.field)
    return FieldSelector(tuple(requirements))


def _split_terms(text: str) -> Iterator[str]:
    start, escaped = 0, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _escape(value: str) -> str:
    return re.sub(r"([\\,=])", r"\\\1", value)


def _unescape(value: str) -> str:
    if "\\" not in value and "=" not in value:
        return value
    result: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if following not in ("\\", ",", "=") or not following:
                raise SelectorError(
                    f"invalid field selector: invalid escape sequence: \\{following}"
                )
            result.append(following)
        elif character in (",", "="):
            raise SelectorError(
                f"invalid field selector: unescaped character in value: {ord(character)}"
            )
        else:
            result.append(character)
    return "".join(result)
