"""The structural schema: one model for built-in types and custom resources alike.

A ``Schema`` describes a JSON value: its type, its fields, how lists and maps are merged, what
is filled in. Built-in types come from the tables of ``api/schemas.py``, custom resources
through ``from_openapi``. Definitions may refer to themselves, so fields are made when they
are first asked for; a node is never changed after that.

``decode_strict`` is what every request body goes through. It reports rather than raises:
unknown fields (a warning or an error, as the client wishes) and values of a wrong type, in
the words of Go's decoder, which users search for.

Rules of decoding, all of them Go's: null is absent; inside a list or map it is the zero
value; quantities and times come out in canonical form; a zero in a field that Go holds as a
plain value is the same as no field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from pybernetes.apimachinery import schemadecode

Json = Any


class Unset(Enum):
    """No default is not the same as a default of null."""

    UNSET = "unset"


UNSET = Unset.UNSET

# What the caller gives to make a field when it is first asked for.
MakeField = Callable[[Any], "Schema"]


class Fields(Mapping[str, "Schema"]):
    """The fields of an object by wire name, in order; made lazily, shared by all its users."""

    __slots__ = ("_facts", "_made", "_make", "decoder")

    def __init__(self, facts: Mapping[str, Any], make: MakeField) -> None:
        self._facts = facts
        self._make = make
        # Fields that somebody asked for.
        self._made: dict[str, Schema] = {}
        # The compiled decoder of the object, once there is one (see schemadecode).
        self.decoder: schemadecode.Decoder | None = None

    def __getitem__(self, name: str) -> Schema:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._make(self._facts[name])
        return made

    def fresh(self) -> Iterator[tuple[str, Schema]]:
        """All fields, without keeping those that nobody else has asked for."""
        for name, facts in self._facts.items():
            yield name, self._made.get(name) or self._make(facts)

    def __contains__(self, name: object) -> bool:
        return name in self._facts

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


@dataclass(slots=True, eq=False, kw_only=True)
class Schema:
    """One node. Treat it as frozen: nodes are shared by everything that refers to them."""

    # object, array, string, integer, number, boolean; empty: any value.
    type: str = ""
    # int32, int64, double, byte, date-time; or one of ours: quantity, int-or-string,
    # micro-time.
    format: str = ""
    # The published name of the definition this node is, "io.k8s.api.core.v1.PodSpec".
    ref: str = ""

    # Of objects: None where any key is allowed (maps, and values nobody looks into).
    properties: Fields | None = None
    required: frozenset[str] = frozenset()
    # The values of a map.
    additional_properties: Schema | None = None
    # The elements of a list.
    items: Schema | None = None
    # One of these instead of `type` (JSONSchemaPropsOrBool and its like).
    alternatives: tuple[Schema, ...] = ()

    enum: tuple[Json, ...] = ()
    default: Json = UNSET
    nullable: bool = False

    # atomic, set or map, and the fields that name an element of a map list.
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    # atomic or granular.
    map_type: str = ""
    # Of strategic merge patches: any of merge, replace, retainKeys.
    patch_strategy: tuple[str, ...] = ()
    patch_merge_key: str = ""

    # x-kubernetes-preserve-unknown-fields: what is not in `properties` stays.
    preserve_unknown: bool = False
    # x-kubernetes-embedded-resource: an object with kind, apiVersion and metadata.
    embedded_resource: bool = False
    # A plain value in Go: zero says nothing.
    zero_is_absent: bool = False
    # Discriminated unions, as published.
    unions: tuple[Mapping[str, Any], ...] = ()
    # Everything OpenAPI may say beyond structure (minimum, pattern, x-kubernetes-validations,
    # anyOf, description …), of custom resources.
    constraints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def int_or_string(self) -> bool:
        return self.format == "int-or-string"

    @property
    def is_map(self) -> bool:
        return self.additional_properties is not None

    def at(self, path: str) -> Schema | None:
        """The node at a dotted path, through lists (``spec.containers.name``) and maps."""
        node: Schema | None = self
        for name in path.split("."):
            while node is not None and node.type == "array":
                node = node.items
            node = None if node is None else node.child(name)
        return node

    def child(self, name: str) -> Schema | None:
        """The node of one key of an object; None if the key is not known."""
        if self.properties is not None and name in self.properties:
            return self.properties[name]
        return self.additional_properties

    @property
    def go_type(self) -> str:
        """How Go would print the type; for messages."""
        if self.format == "quantity":
            return "resource.Quantity"
        if self.ref:
            package, _, name = self.ref.rpartition(".")
            return f"{package.rpartition('.')[2]}.{name}"
        if self.type == "array":
            return "[]" + (self.items.go_type if self.items is not None else "interface {}")
        if self.type == "object":
            value = self.additional_properties
            return "map[string]" + (value.go_type if value is not None else "interface {}")
        if self.format == "byte":
            return "[]uint8"
        plain = {"boolean": "bool", "number": "float64", "string": "string"}
        return plain.get(self.type) or self.format or "interface {}"


class Decoded(NamedTuple):
    """What came of a body: the value without what is unknown, and everything odd about it."""

    value: Json
    # Paths of unknown fields, as upstream writes them: "spec.containers[0].foo".
    unknown: tuple[str, ...] = ()
    # Sentences about values of a wrong type; with any, the value must not be used.
    errors: tuple[str, ...] = ()


def decode_strict(value: Json, schema: Schema) -> Decoded:
    """Check, prune and normalise a JSON value. Never changes its input.

    Clean values take the compiled path; only for the others the slow one is walked, which
    knows where it is.
    """
    try:
        return Decoded(schemadecode.decoder_of(schema)(value))
    except schemadecode.Unclean:
        pass
    except RecursionError:
        return Decoded(None, errors=("exceeded max depth",))
    walk = schemadecode.Walk()
    try:
        result = walk.decode(value, schema, schemadecode.TOP)
    except schemadecode.Abort as abort:
        return Decoded(None, tuple(walk.unknown), (str(abort),))
    except RecursionError:
        return Decoded(None, errors=("exceeded max depth",))
    return Decoded(result, tuple(walk.unknown), tuple(walk.errors))


def from_openapi(document: Mapping[str, Any]) -> Schema:
    """The schema of a custom resource (or of a part of one) from its openAPIV3Schema."""
    said = dict(document)
    children = said.pop("properties", None)
    items = said.pop("items", None)
    values = said.pop("additionalProperties", None)
    properties = None if children is None else Fields(children, from_openapi)
    additional = None
    if isinstance(values, Mapping):
        additional = from_openapi(values)
    elif values is True:
        additional = Schema()
    int_or_string = bool(said.pop("x-kubernetes-int-or-string", False))
    return Schema(
        type=said.pop("type", ""),
        format="int-or-string" if int_or_string else said.pop("format", ""),
        properties=properties,
        required=frozenset(said.pop("required", ())),
        additional_properties=additional,
        items=None if items is None else from_openapi(items),
        enum=tuple(said.pop("enum", None) or ()),
        default=said.pop("default", UNSET),
        nullable=bool(said.pop("nullable", False)),
        list_type=said.pop("x-kubernetes-list-type", ""),
        list_map_keys=tuple(said.pop("x-kubernetes-list-map-keys", ())),
        map_type=said.pop("x-kubernetes-map-type", ""),
        preserve_unknown=bool(said.pop("x-kubernetes-preserve-unknown-fields", False)),
        embedded_resource=bool(said.pop("x-kubernetes-embedded-resource", False)),
        constraints=said,
    )
