"""Field errors: what is wrong with one field of an object, as data first.

A validator yields `FieldError`s; `errors.Invalid` turns them into the 422 that users of
Kubernetes know. The sentences are upstream's, because people and programs search for them.

Paths are written like the object they describe, with the names of the wire:
`Path("spec").containers[0].name`, `Path("metadata").labels.key("a/b")`. A field whose name
is also a method of Path (`key`, `required`, …) is reached by `.child("key")`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

import msgspec


class ErrorKind(Enum):
    """The kinds of error upstream knows: text in the sentence, reason in the cause."""

    NOT_FOUND = ("Not found", "FieldValueNotFound")
    REQUIRED = ("Required value", "FieldValueRequired")
    DUPLICATE = ("Duplicate value", "FieldValueDuplicate")
    INVALID = ("Invalid value", "FieldValueInvalid")
    TYPE_INVALID = ("Invalid value", "FieldValueTypeInvalid")
    NOT_SUPPORTED = ("Unsupported value", "FieldValueNotSupported")
    FORBIDDEN = ("Forbidden", "FieldValueForbidden")
    TOO_LONG = ("Too long", "FieldValueTooLong")
    TOO_SHORT = ("Too short", "FieldValueTooShort")
    TOO_MANY = ("Too many", "FieldValueTooMany")
    TOO_FEW = ("Too few", "FieldValueTooFew")
    INTERNAL = ("Internal error", "InternalError")

    @property
    def text(self) -> str:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


# These say nothing about the value they refuse.
_WITHOUT_VALUE = frozenset(
    {
        ErrorKind.REQUIRED,
        ErrorKind.FORBIDDEN,
        ErrorKind.TOO_LONG,
        ErrorKind.TOO_SHORT,
        ErrorKind.INTERNAL,
    }
)


class _Omitted(Enum):
    OMITTED = "omitted"


# A value for `invalid` that is not printed (it is secret, or too large to help).
OMIT_VALUE = _Omitted.OMITTED


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of one field. `body` is what stands after the path."""

    kind: ErrorKind
    path: str
    value: object = OMIT_VALUE
    detail: str = ""

    @property
    def body(self) -> str:
        text = self.kind.text
        if self.kind not in _WITHOUT_VALUE and self.value is not OMIT_VALUE:
            text += f": {render_value(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    @property
    def cause(self) -> dict[str, Any]:
        """This error as an entry of Status.details.causes."""
        return {"reason": self.kind.reason, "message": self.body, "field": self.path}

    def __str__(self) -> str:
        return f"{self.path}: {self.body}"


def render_value(value: object) -> str:
    """A value as upstream prints it: strings quoted, plain numbers bare, the rest as JSON."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Fraction):
        return str(float(value))
    return msgspec.json.encode(value).decode()


# What Go's %q writes for characters that have a short escape.
_GO_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def quote(text: str) -> str:
    """Quote as Go's %q does."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quoted_character, text)) + '"'


def _quoted_character(character: str) -> str:
    escape = _GO_ESCAPES.get(character)
    if escape is not None:
        return escape
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


class Path:
    """Where a field is. Building one is cheap; its text is made only for an error."""

    __slots__ = ("_parent", "_segment")

    # ".name" for a field, "[0]" or "[key]" for an element; the root has no dot.
    _segment: str
    _parent: Path | None

    def __init__(self, name: str) -> None:
        self._parent = None
        # Upstream prints a root without a name like an empty index.
        self._segment = name or "[]"

    def child(self, *names: str) -> Path:
        path = self
        for name in names:
            path = _join(path, "." + name)
        return path

    def __getattr__(self, name: str) -> Path:
        # Wire names have no underscore: one means a Python attribute name slipped in.
        if "_" in name:
            raise AttributeError(f"{name!r} is not the wire name of a field")
        return _join(self, "." + name)

    def __getitem__(self, index: int) -> Path:
        return _join(self, f"[{index}]")

    def key(self, key: str) -> Path:
        return _join(self, f"[{key}]")

    def __str__(self) -> str:
        segments: list[str] = []
        path: Path | None = self
        while path is not None:
            segments.append(path._segment)
            path = path._parent
        return "".join(reversed(segments))

    def __repr__(self) -> str:
        return f"Path({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def required(self, detail: str = "") -> FieldError:
        return FieldError(ErrorKind.REQUIRED, str(self), "", detail)

    def invalid(self, value: object, detail: str = "") -> FieldError:
        return FieldError(ErrorKind.INVALID, str(self), value, detail)

    def type_invalid(self, value: object, detail: str = "") -> FieldError:
        return FieldError(ErrorKind.TYPE_INVALID, str(self), value, detail)

    def not_supported(self, value: object, supported: Sequence[str] | Set[str]) -> FieldError:
        """`supported` is printed in its own order; a set is printed sorted."""
        values = sorted(supported) if isinstance(supported, Set) else supported
        detail = "supported values: " + ", ".join(map(quote, values)) if values else ""
        return FieldError(ErrorKind.NOT_SUPPORTED, str(self), value, detail)

    def duplicate(self, value: object) -> FieldError:
        return FieldError(ErrorKind.DUPLICATE, str(self), value)

    def forbidden(self, detail: str = "") -> FieldError:
        return FieldError(ErrorKind.FORBIDDEN, str(self), "", detail)

    def not_found(self, value: object) -> FieldError:
        return FieldError(ErrorKind.NOT_FOUND, str(self), value)

    def too_long(self, limit: int) -> FieldError:
        return FieldError(ErrorKind.TOO_LONG, str(self), "", f"may not be more than {limit} bytes")

    def too_many(self, count: int, limit: int) -> FieldError:
        noun = "item" if limit == 1 else "items"
        return FieldError(ErrorKind.TOO_MANY, str(self), count, f"must have at most {limit} {noun}")

    def too_few(self, count: int, least: int) -> FieldError:
        noun = "item" if least == 1 else "items"
        return FieldError(ErrorKind.TOO_FEW, str(self), count, f"must have at least {least} {noun}")

    def internal(self, detail: str) -> FieldError:
        return FieldError(ErrorKind.INTERNAL, str(self), "", detail)

    def immutable(self, value: object = None) -> FieldError:
        return FieldError(ErrorKind.INVALID, str(self), value, "field is immutable")


def _join(parent: Path, segment: str) -> Path:
    path = Path.__new__(Path)
    path._parent = parent
    path._segment = segment
    return path
