"""How one version of a custom resource is served: its entry, its schema, its columns.

`entry_of` makes of a definition what the registry has for built-in kinds; `CustomServed` does
what a `Served` does, with a schema that came at run time.

What is stored is whole (pruned, defaults filled in), so reading it costs nothing: bytes stay
bytes, in the stored version and in every other that has the same schema.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.resource import AGE, Column, Resource, Scale, Scope, Status, Strategy
from pybernetes.api.schemas import definition
from pybernetes.api.types._kindinfo import KindInfo, Subresource
from pybernetes.apimachinery.schema import UNSET, Decoded, Schema, decode_strict, from_openapi
from pybernetes.apimachinery.timestamp import parse_time
from pybernetes.apiserver.catalog import Served
from pybernetes.apiserver.customresources import jsonpath
from pybernetes.apiserver.customresources.convertedcache import ConvertedCache
from pybernetes.apiserver.customresources.object import CustomObject, encode, object_of
from pybernetes.apiserver.customresources.structure import clean_check, filler, pruned
from pybernetes.apiserver.customresources.values import judge_of
from pybernetes.apiserver.entry import Shape
from pybernetes.apiserver.forms import Converted, Metadata, Plain
from pybernetes.apiserver.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pybernetes.aio.clock import Clock
    from pybernetes.api.types.apiextensions_v1 import (
        CustomResourceColumnDefinition,
        CustomResourceDefinition,
        CustomResourceDefinitionNames,
        CustomResourceDefinitionVersion,
    )
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.customresources.expressions import Expressions
    from pybernetes.apiserver.customresources.structure import FillIn
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.forms import ListForm
    from pybernetes.apiserver.negotiation import Wanted
    from pybernetes.apiserver.watchcache import WatchCache

Json = Any

_ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_LAST_VERBS = ("delete", "deletecollection", "get", "list", "watch")
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


# --- the entry ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomResource(Resource[CustomObject]):
    """An entry whose facts come from a definition instead of the published tables."""

    facts: KindInfo
    list_kind: str = ""
    # The warning to whoever uses this version.
    deprecation: str = ""

    def __post_init__(self) -> None:
        for name in ("singular", "short_names", "categories", "verbs", "storage_prefix"):
            object.__setattr__(self, name, getattr(self.facts, name))

    @property
    def info(self) -> KindInfo:
        return self.facts

    @property
    def kind_name(self) -> str:
        return self.facts.kind


def storage_prefix(group: str, plural: str) -> str:
    """Where instances are, below /registry/.

    A group has a dot and the first segment of a built-in kind that has one is a group of
    Kubernetes, in which the plural tells them apart; so no prefix is another's.
    """
    return f"{group}/{plural}"


def storage_version(spec_versions: tuple[CustomResourceDefinitionVersion, ...]) -> str:
    return next(version.name for version in spec_versions if version.storage)


def _info(
    definition: CustomResourceDefinition,
    names: CustomResourceDefinitionNames,
    version: CustomResourceDefinitionVersion,
    *,
    terminating: bool,
) -> KindInfo:
    spec = definition.spec
    group, kind = spec.group, names.kind
    stored = storage_version(spec.versions)
    verbs = _LAST_VERBS if terminating else _ALL_VERBS
    digest = hashlib.sha256(f"{group}/{stored}/{kind}".encode()).digest()[:8]
    subresources = []
    if version.subresources is not None and version.subresources.status is not None:
        status_verbs = ("get", "patch", "update")
        subresources.append(Subresource("status", group, version.name, kind, status_verbs))
    if version.subresources is not None and version.subresources.scale is not None:
        scale_verbs = ("get", "patch", "update")
        subresources.append(Subresource("scale", "autoscaling", "v1", "Scale", scale_verbs))
    return KindInfo(
        group=group,
        version=version.name,
        kind=kind,
        module="",
        class_name=kind,
        plural=names.plural,
        singular=names.singular,
        namespaced=spec.scope == Scope.NAMESPACED.value,
        list_kind=names.list_kind,
        short_names=names.short_names,
        categories=names.categories,
        verbs=verbs,
        subresources=tuple(subresources),
        storage_prefix=storage_prefix(group, names.plural),
        storage_version=f"{group}/{stored}",
        storage_version_hash=base64.b64encode(digest).decode(),
    )


def entry_of(
    definition: CustomResourceDefinition,
    version: CustomResourceDefinitionVersion,
    rules: Rules,
    *,
    terminating: bool = False,
) -> CustomResource:
    """One version of a definition whose names are accepted."""
    names = definition.status.accepted_names
    info = _info(definition, names, version, terminating=terminating)
    subresources: list[Any] = []
    said = version.subresources
    has_status = said is not None and said.status is not None
    if has_status:
        subresources.append(Status(keeps_metadata=False, validate=rules.validate))
    if said is not None and said.scale is not None:
        subresources.append(
            Scale(
                replicas=_plain_path(said.scale.spec_replicas_path),
                status_replicas=_plain_path(said.scale.status_replicas_path),
                selector=_plain_path(said.scale.label_selector_path),
            )
        )
    return CustomResource(
        group=info.group,
        version=version.name,
        kind=CustomObject,
        plural=info.plural,
        scope=Scope(definition.spec.scope),
        facts=info,
        list_kind=names.list_kind,
        deprecation=_deprecation(info, version),
        strategy=Strategy(
            default=rules.default,
            validate=rules.validate,
            generation_follows=("content",) if has_status else ("content", "status"),
            allow_unconditional_update=False,
        ),
        subresources=tuple(subresources),
        columns=tuple(columns_of(version)),
        selectable_fields={
            _plain_path(selectable.json_path): _field_reader(selectable.json_path)
            for selectable in version.selectable_fields
        },
    )


def _deprecation(info: KindInfo, version: CustomResourceDefinitionVersion) -> str:
    if not version.deprecated:
        return ""
    return version.deprecation_warning or f"{info.api_version} {info.kind} is deprecated"


def _plain_path(path: str) -> str:
    return path.removeprefix(".")


def _field_reader(path: str) -> Callable[[CustomObject], str]:
    steps = jsonpath.parse(path)

    def read(obj: CustomObject) -> str:
        for value in jsonpath.find({**obj.content, "status": obj.status}, steps):
            if isinstance(value, str):
                return value
            return "" if value is None else msgspec.json.encode(value).decode()
        return ""

    return read


# --- columns --------------------------------------------------------------------------------------


def columns_of(version: CustomResourceDefinitionVersion) -> Iterator[Column[CustomObject]]:
    if not version.additional_printer_columns:
        yield AGE
    for said in version.additional_printer_columns:
        yield _column(said)


def _column(said: CustomResourceColumnDefinition) -> Column[CustomObject]:
    try:
        steps = jsonpath.parse(said.json_path)
    except jsonpath.JsonPathError:
        # The definition was accepted before, so the others are still shown.
        return Column(said.name, None, said.type, said.format, wide=bool(said.priority))
    of_metadata = said.json_path.strip("{}$ ").startswith((".metadata", "['metadata']"))
    show = _SHOW.get(said.type, _as_text)

    def cell(obj: CustomObject) -> object:
        tree: dict[str, Json]
        if of_metadata:
            tree = {"metadata": obj.metadata_value()}
        else:
            tree = {**obj.content, "status": obj.status, "kind": obj.kind}
            tree["apiVersion"] = obj.api_version
        for value in jsonpath.find(tree, steps):
            return None if value is None else show(value)
        return None

    return Column(said.name, cell, said.type, said.format, wide=bool(said.priority))


def _as_text(value: Json) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return msgspec.json.encode(value).decode()


def _as_integer(value: Json) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value)


def _as_number(value: Json) -> object:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _as_boolean(value: Json) -> object:
    return value if isinstance(value, bool) else None


def _as_date(value: Json) -> object:
    try:
        return parse_time(value) if isinstance(value, str) else None
    except ValueError:
        return "<invalid>"


_SHOW: dict[str, Callable[[Json], object]] = {
    "integer": _as_integer,
    "number": _as_number,
    "boolean": _as_boolean,
    "date": _as_date,
}


# --- the rules of a version -----------------------------------------------------------------------


@dataclass(eq=False)
class Rules:
    """What the schema of a version says, compiled when it is first needed."""

    document: dict[str, Json]
    schema: Schema = field(init=False)

    def __post_init__(self) -> None:
        self.schema = from_openapi(self.document)

    @cached_property
    def _is_clean(self) -> Callable[[Json], bool] | None:
        return clean_check(self.schema, root=True)

    @cached_property
    def _fill(self) -> FillIn | None:
        return filler(self.schema, root=True)

    @cached_property
    def _judge(self) -> Callable[[Json, Json, str, list[FieldError]], None]:
        return judge_of(self.schema)

    @cached_property
    def _looks_at_metadata(self) -> bool:
        return "metadata" in (self.schema.properties or ()) or "metadata" in self.schema.required

    @cached_property
    def _expressions(self) -> Expressions | None:
        from pybernetes.apiserver.customresources import expressions

        if not expressions.is_available():
            return None
        return expressions.compile_rules(self.schema)

    def without_unknown(self, value: dict[str, Json], unknown: list[str]) -> dict[str, Json]:
        if self._is_clean is None or self._is_clean(value):
            return value
        result: dict[str, Json] = pruned(value, self.schema, unknown, root=True)
        return result

    def filled_in(self, value: dict[str, Json]) -> dict[str, Json]:
        fill = self._fill
        if fill is None:
            return value
        result: dict[str, Json] = fill(value)
        return result

    # -- as hooks of a strategy

    def default(self, obj: CustomObject) -> CustomObject:
        fill = self._fill
        if fill is None:
            return obj
        value = dict(obj.content)
        if obj.status is not None:
            value["status"] = obj.status
        filled = fill(value)
        if filled is value:
            return obj
        status = filled.pop("status", None)
        return replace(obj, content=filled, status=status)

    def validate(self, new: CustomObject, old: CustomObject | None) -> Iterator[FieldError]:
        errors: list[FieldError] = []
        value = self._judged(new)
        before = UNSET if old is None else self._judged(old)
        self._judge(value, before, "", errors)
        yield from errors
        # Rules may rely on the types that the schema says.
        if not errors and self._has_rules and self._expressions is not None:
            yield from self._expressions.judge(
                self._seen(new), UNSET if old is None else self._seen(old)
            )

    @cached_property
    def _has_rules(self) -> bool:
        return b"x-kubernetes-validations" in msgspec.json.encode(self.document)

    def _seen(self, obj: CustomObject) -> dict[str, Json]:
        """What rules at the root see: of the metadata only the name."""
        value = self._judged(obj)
        value["metadata"] = {"name": obj.metadata.name}
        if obj.metadata.generate_name:
            value["metadata"]["generateName"] = obj.metadata.generate_name
        return value

    def _judged(self, obj: CustomObject) -> dict[str, Json]:
        value = {"apiVersion": obj.api_version, "kind": obj.kind, **obj.content}
        if obj.status is not None:
            value["status"] = obj.status
        if self._looks_at_metadata:
            metadata = obj.metadata
            value["metadata"] = {"name": metadata.name}
            if metadata.generate_name:
                value["metadata"]["generateName"] = metadata.generate_name
        return value


def schema_document(version: CustomResourceDefinitionVersion) -> dict[str, Json]:
    """The schema of a version as plain values."""
    schema = None if version.schema is None else version.schema.open_api_v3_schema
    return {"type": "object"} if schema is None else codec.to_dict(schema)


# --- serving --------------------------------------------------------------------------------------


class CustomServed(Served):
    """One version of a custom resource."""

    resource: CustomResource
    has_go_type = False

    def __init__(
        self,
        resource: CustomResource,
        cache: WatchCache,
        clock: Clock,
        rules: Rules,
        *,
        stored_version: str,
        same_as_stored: bool,
        deprecation: str = "",
    ) -> None:
        super().__init__(resource, cache, clock)
        self.rules = rules
        self.deprecation = deprecation
        # Discovery leaves them out at the end, but finalizers must be taken away somehow.
        self.verbs = frozenset(resource.verbs) | {"patch", "update"}
        self._is_stored_version = resource.version == stored_version
        # Whether the cache is of this version, filled through a webhook.
        self._converted = cache if isinstance(cache, ConvertedCache) else None
        self.needs_preparation = self._converted is not None
        # Whether the stored bytes are this version's but for the apiVersion.
        self._same_as_stored = same_as_stored
        self._stored_api_version = f"{resource.group}/{stored_version}"
        self._cached_api_version = (
            self._stored_api_version if self._converted is None else resource.api_version
        )

    @property
    def schema(self) -> Schema:
        return self.rules.schema

    async def prepare(self) -> None:
        if self._converted is not None:
            await self._converted.prepare()

    async def stored_value(self, value: bytes) -> bytes:
        if self._converted is None:
            return value
        return await self._converted.to_stored(value, self._stored_api_version)

    async def value_of_stored(self, value: bytes) -> bytes:
        return value if self._converted is None else await self._converted.from_stored(value)

    def read_strictly(self, value: Any) -> Decoded:
        unknown: list[str] = []
        value = self.rules.without_unknown(value, unknown)
        metadata = value.get("metadata")
        if metadata is not None:
            decoded = decode_strict(metadata, definition(_META))
            if decoded.errors:
                return decoded
            unknown += [f"metadata.{path}" for path in decoded.unknown]
            value = {**value, "metadata": decoded.value}
        return Decoded(value, tuple(unknown))

    def from_value(self, value: dict[str, Any]) -> CustomObject:
        return object_of(value)

    def to_value(self, obj: CustomObject) -> dict[str, Any]:
        value: dict[str, Any] = msgspec.json.decode(encode(obj))
        return value

    def decode(self, entry: Entry) -> CustomObject:
        value = msgspec.json.decode(self.cache.shape.with_revision(entry.value, entry.revision))
        if self._is_stored_version or self._converted is not None:
            return object_of(value)
        value["apiVersion"] = self.api_version
        if not self._same_as_stored:
            value = self.rules.filled_in(self.rules.without_unknown(value, []))
        return object_of(value)

    def encode(self, obj: CustomObject) -> bytes:
        if obj.metadata.resource_version:
            obj = replace(obj, metadata=replace(obj.metadata, resource_version=""))
        return encode(replace(obj, kind=self.kind_name, api_version=self._cached_api_version))

    def _make_form(self, wanted: Wanted, include_object: str) -> ListForm:
        list_kind = self.resource.list_kind
        if wanted.form == "PartialObjectMetadata":
            return Metadata(self.cache.shape, wanted.form_version)
        plain: ListForm
        if self._same_as_stored or self._converted is not None:
            plain = CustomPlain(self.cache.shape, self.kind_name, self.api_version, list_kind)
        else:
            plain = CustomConverted(self.decode, self.kind_name, self.api_version, list_kind)
        if wanted.form == "Table":
            return Table(self, plain, wanted.form_version, include_object, self._clock)
        return plain


class CustomPlain(Plain):
    """Stored bytes, under the apiVersion of this version.

    Items of a list say what they are: who reads them knows no type that would.
    """

    def __init__(self, shape: Shape, kind: str, api_version: str, list_kind: str) -> None:
        super().__init__(shape, kind, api_version)
        self._opening = _opening(list_kind, api_version)
        # How the bytes begin here, and where they go on as they are stored.
        self._head = Shape(kind, api_version).head
        self._item_head = self._head


class CustomConverted(Converted):
    """Objects of a version whose schema is not the stored one's."""

    def __init__(
        self, decode: Callable[[Entry], CustomObject], kind: str, api_version: str, list_kind: str
    ) -> None:
        super().__init__(decode, kind, api_version)
        self._opening = _opening(list_kind, api_version)
        self._decode_custom = decode

    def object(self, entry: Entry, *, header: bool) -> bytes:
        return encode(self._decode_custom(entry))

    def item(self, entry: Entry) -> bytes:
        return self.object(entry, header=False)


def _opening(list_kind: str, api_version: str) -> bytes:
    return b'{"kind":"%b","apiVersion":"%b","metadata":' % (
        list_kind.encode(),
        api_version.encode(),
    )
