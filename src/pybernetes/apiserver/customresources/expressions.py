"""Rules in CEL (x-kubernetes-validations) on values of custom resources.

The CEL library is an extra, and imported here only, when the first rule is compiled. Rules see
a value as its schema types it: numbers are doubles, dates timestamps; fields that the schema does
not know are not there, and names that are no identifiers are escaped as upstream does.

Costs are bounded twice: the library ends an expression that iterates too much, and one request
evaluates at most `EVALUATIONS` rules.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.duration import parse_duration
from pybernetes.apimachinery.fielderror import ErrorKind, FieldError
from pybernetes.apimachinery.schema import UNSET
from pybernetes.apimachinery.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pybernetes.apimachinery.schema import Schema

log = logging.getLogger(__name__)

Json = Any

# Rules evaluated for one request; beyond it the object is refused.
EVALUATIONS = 10_000

_OLD = re.compile(r"\boldSelf\b")
# How an optional oldSelf comes to be: values of that type cannot be handed over.
_OPTIONAL = "cel.bind(oldSelf, hasOld ? optional.of(oldValue) : optional.none(), {})"
_MESSAGE_LIMIT = 5 * 1024

_REASONS = {
    "": ErrorKind.INVALID,
    "FieldValueInvalid": ErrorKind.INVALID,
    "FieldValueForbidden": ErrorKind.FORBIDDEN,
    "FieldValueRequired": ErrorKind.REQUIRED,
    "FieldValueDuplicate": ErrorKind.DUPLICATE,
}


class RuleError(ValueError):
    """An expression that cannot be compiled; the text is the compiler's."""


def is_available() -> bool:
    """Whether the CEL library is installed."""
    try:
        import cel_expr_python  # noqa: F401
    except ImportError:
        return False
    return True


# --- compiling ------------------------------------------------------------------------------------


@cache
def _environment() -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import (
        ext_bindings,
        ext_encoders,
        ext_math,
        ext_optional,
        ext_strings,
    )
    from google.protobuf import descriptor_pool

    anything = cel.Type.DYN
    return cel.NewEnv(
        descriptor_pool.Default(),
        variables=dict.fromkeys(("self", "oldSelf", "oldValue", "hasOld"), anything),
        extensions=[
            ext_bindings.ExtBindings(),
            ext_encoders.ExtEncoders(),
            ext_math.ExtMath(),
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
            _kubernetes_functions(cel),
        ],
    )


def _kubernetes_functions(cel: Any) -> Any:
    """Upstream's libraries for lists and regular expressions."""
    anything, text = cel.Type.DYN, cel.Type.STRING
    items, texts = cel.Type.List(anything), cel.Type.List(text)

    def member(name: str, result: Any, parameters: list[Any], implementation: Any) -> Any:
        overload = cel.Overload(f"kubernetes_{name}", result, parameters, True, implementation)
        return cel.FunctionDecl(name, [overload])

    return cel.CelExtension(
        "kubernetes",
        [
            member("isSorted", cel.Type.BOOL, [items], _is_sorted),
            member("sum", anything, [items], sum),
            member("min", anything, [items], min),
            member("max", anything, [items], max),
            member("find", text, [text, text], _find),
            member("findAll", texts, [text, text], _find_all),
        ],
    )


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= other for one, other in pairwise(items))


def _find(value: str, pattern: str) -> str:
    import re2

    found = re2.search(pattern, value)
    return "" if found is None else str(found.group(0))


def _find_all(value: str, pattern: str) -> list[str]:
    import re2

    return [str(found.group(0)) for found in re2.finditer(pattern, value)]


def compiled(expression: str) -> Any:
    """Raises RuleError."""
    try:
        return _environment().compile(expression)
    except RuntimeError as error:
        text = str(error).removeprefix("INVALID_ARGUMENT: ")
        raise RuleError(text.rpartition(" [")[0] or text) from None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be asked."""

    text: str
    program: Any
    # The rule compares with the old value; without one there is nothing to ask, unless that is
    # optional.
    is_transition: bool
    optional_old: bool
    message: str
    message_program: Any
    kind: ErrorKind
    field_path: str

    def failure(self, value: Json, old: Json, path: str, type_: str) -> FieldError | None:
        """`value` and `old` are what CEL sees; old is UNSET if there is none."""
        data = {"self": value}
        if self.optional_old:
            data["hasOld"] = old is not UNSET
            data["oldValue"] = None if old is UNSET else old
        elif self.is_transition:
            data["oldSelf"] = old
        outcome = self.program.eval(data=data)
        if outcome.type().name() == "BOOL":
            if outcome.value():
                return None
            return FieldError(self.kind, f"{path}{self.field_path}", type_, self._text(data))
        problem = str(outcome.value())
        if "Iteration budget" in problem:
            raise RuntimeError(problem)
        return FieldError(
            ErrorKind.INVALID, path, type_, f"{problem} evaluating rule: {self._name()}"
        )

    def _name(self) -> str:
        return self.message or self.text

    def _text(self, data: Mapping[str, Json]) -> str:
        if self.message_program is not None:
            outcome = self.message_program.eval(data=data)
            if outcome.type().name() == "STRING":
                text = outcome.value().strip()
                if text and "\n" not in text and len(text) <= _MESSAGE_LIMIT:
                    return str(text)
        return self.message or f"failed rule: {self.text}"


def compile_rule(said: Mapping[str, Any]) -> Rule:
    """Raises RuleError."""
    text = said["rule"].strip()
    optional_old = bool(said.get("optionalOldSelf"))
    is_transition = _OLD.search(text) is not None
    whole = "{}" if not optional_old else _OPTIONAL
    program = compiled(whole.format(text)) if optional_old else compiled(text)
    message = said.get("messageExpression", "")
    return Rule(
        text,
        program,
        is_transition,
        optional_old,
        said.get("message", "").strip(),
        compiled(whole.format(message)) if message else None,
        _REASONS.get(said.get("reason", ""), ErrorKind.INVALID),
        said.get("fieldPath", ""),
    )


# --- rules of a schema ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A place in the schema that has rules, or leads to one."""

    schema: Schema
    rules: tuple[Rule, ...]
    properties: dict[str, _Node] = field(default_factory=dict)
    items: _Node | None = None
    values: _Node | None = None


def _node_of(schema: Schema) -> _Node | None:
    rules = tuple(_usable_rules(schema.constraints.get("x-kubernetes-validations", ())))
    node = _Node(schema, rules)
    for name in schema.properties or ():
        assert schema.properties is not None
        if (child := _node_of(schema.properties[name])) is not None:
            node.properties[name] = child
    if schema.items is not None:
        node.items = _node_of(schema.items)
    if schema.additional_properties is not None:
        node.values = _node_of(schema.additional_properties)
    return node if rules or node.properties or node.items or node.values else None


def _usable_rules(said: Iterable[Mapping[str, Any]]) -> Iterator[Rule]:
    """A definition that was accepted by other rules is served nevertheless."""
    for one in said:
        try:
            yield compile_rule(one)
        except RuleError as error:
            log.warning("a rule of a custom resource is not checked: %s", error)


class Expressions:
    """All rules of a version."""

    def __init__(self, root: _Node) -> None:
        self._root = root

    def judge(self, value: dict[str, Json], old: Json) -> Iterator[FieldError]:
        """Whole values, with metadata; old is UNSET on create."""
        evaluations = _Evaluations()
        try:
            evaluations.walk(self._root, value, old, "")
        except RuntimeError as error:
            text = "no further validation rules will be run due to call cost exceeds limit for rule"
            problem = FieldError(ErrorKind.INVALID, "", "object", f"{text}: {error}")
            evaluations.errors.append(problem)
        yield from evaluations.errors


def compile_rules(schema: Schema) -> Expressions | None:
    """None if there are none."""
    root = _node_of(schema)
    return None if root is None else Expressions(root)


class _Evaluations:
    """The rules of one object, asked one after the other."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._left = EVALUATIONS

    def walk(self, node: _Node, value: Json, old: Json, path: str) -> None:
        if node.rules and value is not None:
            self._ask(node, value, old, path)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, child in node.properties.items():
                if name in value:
                    here = f"{path}.{name}" if path else name
                    self.walk(child, value[name], before.get(name, UNSET), here)
            if node.values is not None:
                for name, item in value.items():
                    if name not in node.properties:
                        here = f"{path}[{name}]"
                        self.walk(node.values, item, before.get(name, UNSET), here)
        elif isinstance(value, list) and node.items is not None:
            self._walk_list(node, node.items, value, old, path)

    def _walk_list(self, node: _Node, items: _Node, value: Json, old: Json, path: str) -> None:
        # Only elements of a map list can be told from each other over time.
        keys = node.schema.list_map_keys if node.schema.list_type == "map" else ()
        before: dict[str, Json] = {}
        if keys and isinstance(old, list):
            before = {repr([item.get(key) for key in keys]): item for item in old}
        for index, item in enumerate(value):
            was = UNSET
            if before and isinstance(item, dict):
                was = before.get(repr([item.get(key) for key in keys]), UNSET)
            self.walk(items, item, was, f"{path}[{index}]")

    def _ask(self, node: _Node, value: Json, old: Json, path: str) -> None:
        is_same = old is not UNSET and old == value
        seen = old_seen = UNSET
        for rule in node.rules:
            if rule.is_transition and old is UNSET and not rule.optional_old:
                continue
            # What an update leaves alone is not judged again.
            if is_same and not rule.is_transition:
                continue
            self._left -= 1
            if self._left < 0:
                raise RuntimeError(f"more than {EVALUATIONS} rules")
            if seen is UNSET:
                seen = visible(value, node.schema)
            if rule.is_transition and old is not UNSET and old_seen is UNSET:
                old_seen = visible(old, node.schema)
            type_ = node.schema.type or "object"
            failure = rule.failure(seen, old_seen, path, type_)
            if failure is not None:
                self.errors.append(failure)


# --- what rules see -------------------------------------------------------------------------------


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ESCAPABLE = re.compile(r"[A-Za-z_.\-/][A-Za-z0-9_.\-/]*", re.ASCII)
_KEYWORDS = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


@cache
def escaped(name: str) -> str | None:
    """A field name as an identifier of CEL; None if there is none for it."""
    if name in _KEYWORDS:
        return f"__{name}__"
    if _IDENTIFIER.fullmatch(name) and "__" not in name:
        return name
    if not _ESCAPABLE.fullmatch(name):
        return None
    for text, replacement in _ESCAPES:
        name = name.replace(text, replacement)
    return name


def visible(value: Json, schema: Schema) -> Json:
    """A value as rules see it."""
    if value is None:
        return None
    if type(value) is dict:
        return _visible_object(value, schema)
    if type(value) is list:
        items = schema.items
        return value if items is None else [visible(item, items) for item in value]
    if schema.type == "number" and type(value) is int:
        return float(value)
    if type(value) is str and schema.type == "string":
        return _visible_text(value, schema.format)
    return value


def _visible_object(value: dict[str, Json], schema: Schema) -> Json:
    if schema.additional_properties is not None:
        values = schema.additional_properties
        return {name: visible(item, values) for name, item in value.items()}
    fields: Mapping[str, Schema] = schema.properties or {}
    if not fields and schema.preserve_unknown:
        return value
    result = {}
    for name, item in value.items():
        identifier = escaped(name)
        if identifier is None:
            continue
        if name in fields:
            result[identifier] = visible(item, fields[name])
        elif name in ("apiVersion", "kind", "metadata"):
            result[identifier] = item
    return result


def _visible_text(value: str, format_: str) -> Json:
    if format_ in ("date-time", "datetime", "date"):
        from google.protobuf.timestamp_pb2 import Timestamp

        moment = Timestamp()
        moment.FromDatetime(parse_time(value if "T" in value else f"{value}T00:00:00Z"))
        return moment
    if format_ == "duration":
        from google.protobuf.duration_pb2 import Duration

        length = Duration()
        length.FromTimedelta(parse_duration(value))
        return length
    if format_ == "byte":
        import base64

        return base64.b64decode(value)
    return value
