"""Request bodies: bytes in JSON, YAML or protobuf become plain values, and those objects.

Unknown and duplicate fields are noticed for everybody and then treated as the client
wishes (`fieldValidation`): ignored, warned about (the default) or refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pybernetes.api import codec
from pybernetes.api.schemas import schema_of
from pybernetes.api.types._index import info_of
from pybernetes.apimachinery.errors import (
    BadRequest,
    Invalid,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.jsontext import JsonError, load_json
from pybernetes.apimachinery.schema import decode_strict
from pybernetes.wire.http import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pybernetes.apimachinery.schema import Decoded, Schema
    from pybernetes.apiserver.call import Call

# Upstream's limit on objects in requests.
BODY_LIMIT = 3 * 1024 * 1024

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"
PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf"
ACCEPTED = (JSON_TYPE, YAML_TYPE, PROTOBUF_TYPE)

IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"
FIELD_MANAGER_LIMIT = 128


async def read_body(call: Call) -> bytes:
    try:
        return await call.request.body.read(BODY_LIMIT)
    except BodyTooLarge:
        raise RequestEntityTooLarge(BODY_LIMIT) from None


def content_type_of(call: Call) -> str:
    """The media type of the body in lower case, without parameters."""
    return call.request.headers.get("content-type").partition(";")[0].strip().lower()


def parse_body(
    data: bytes, content_type: str, *, kind: str, api_version: str = "v1"
) -> tuple[Any, Sequence[str]]:
    """Plain values, and the paths of fields that occur twice."""
    if content_type in ("", JSON_TYPE):
        try:
            return load_json(data)
        except JsonError as error:
            raise unrecognized(kind, str(error), data) from None
    if content_type == YAML_TYPE:
        from pybernetes.apimachinery.yamltext import YamlError, load_yaml

        try:
            return load_yaml(data)
        except YamlError as error:
            raise unrecognized(kind, str(error), data) from None
    if content_type == PROTOBUF_TYPE:
        from pybernetes.apimachinery.protobuf import ProtobufError, decode_protobuf

        try:
            return decode_protobuf(data, api_version=api_version, kind=kind), ()
        except ProtobufError as error:
            raise unrecognized(kind, str(error), data) from None
    raise UnsupportedMediaType(ACCEPTED)


def unrecognized(kind: str, problem: str, data: bytes) -> BadRequest:
    shown = data[:30].decode("utf-8", "replace")
    more = " ..." if len(data) > 30 else ""
    return BadRequest(
        f"the object provided is unrecognized (must be of type {kind}): {problem} ({shown}{more})"
    )


def field_validation(query: Mapping[str, str]) -> str:
    return query.get("fieldValidation", "") or WARN


def check_write_options(query: Mapping[str, str], options_kind: str) -> None:
    """Raises Invalid for options of a create, update or patch that do not exist."""
    if not query:
        return
    problems = list(_option_problems(query))
    if problems:
        raise Invalid(options_kind, "meta.k8s.io", "", problems)


def _option_problems(query: Mapping[str, str]) -> Iterator[FieldError]:
    manager = query.get("fieldManager", "")
    if len(manager.encode()) > FIELD_MANAGER_LIMIT:
        yield Path("fieldManager").too_long(FIELD_MANAGER_LIMIT)
    elif not manager.isprintable():
        yield Path("fieldManager").invalid(manager, "should only contain printable characters")
    dry_run = query.get("dryRun", "")
    if dry_run and dry_run != "All":
        yield Path("dryRun").not_supported([dry_run], ("All",))
    validation = query.get("fieldValidation", "")
    if validation not in ("", IGNORE, WARN, STRICT):
        yield Path("fieldValidation").not_supported(validation, ("", IGNORE, STRICT, WARN))


class Readable(Protocol):
    """A kind that a body can be of: what is served, or what a subresource takes."""

    group: str
    version: str
    kind_name: str
    api_version: str
    # Other versions of the kind with the same fields; a body may be of them, too.
    also: Collection[str]

    def read_strictly(self, value: Any) -> Decoded: ...

    def from_value(self, value: dict[str, Any]) -> Any: ...


class BodyKind:
    """A kind that is sent and never stored: Scale, Binding, Eviction, TokenRequest."""

    def __init__(self, kind: type[Any], *, also: Collection[str] = ()) -> None:
        info = info_of(kind)
        self.also = also
        self.group, self.version = info.group, info.version
        self.kind_name, self.api_version = info.kind, info.api_version
        self._kind = kind

    @property
    def schema(self) -> Schema:
        schema = schema_of(self.group, self.version, self.kind_name)
        assert schema is not None
        return schema

    def read_strictly(self, value: Any) -> Decoded:
        return decode_strict(value, self.schema)

    def from_value(self, value: dict[str, Any]) -> Any:
        return codec.from_dict(self._kind, value)


async def read_object(call: Call, served: Readable) -> Any:
    """The typed object in the body of a create or update, not yet defaulted."""
    data = await read_body(call)
    value, duplicates = parse_body(
        data, content_type_of(call), kind=served.kind_name, api_version=served.api_version
    )
    return typed_object(call, served, value, duplicates)


def typed_object(call: Call, served: Readable, value: Any, duplicates: Sequence[str] = ()) -> Any:
    """Plain values as an object of the kind, judged as the client asked for."""
    if not isinstance(value, dict):
        problem = (
            f"json: cannot unmarshal {_json_kind(value)} into Go value of type {served.kind_name}"
        )
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {served.kind_name}): {problem}"
        )
    _check_kind(served, value)
    metadata = value.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields") == []:
        # Nothing is not the same as not said: it closes the books, as one empty entry does.
        value = {**value, "metadata": {**metadata, "managedFields": [{}]}}
    decoded = served.read_strictly(value)
    prefix = f'{served.kind_name} in version "{served.version}" cannot be handled as a {served.kind_name}'
    if decoded.errors:
        raise BadRequest(f"{prefix}: {decoded.errors[0]}")
    if decoded.unknown or duplicates:
        mode = field_validation(call.query)
        sentences = [f'unknown field "{path}"' for path in decoded.unknown]
        sentences += [f'duplicate field "{path}"' for path in duplicates]
        if mode == STRICT:
            raise BadRequest(f"{prefix}: strict decoding error: {', '.join(sentences)}")
        if mode == WARN:
            for sentence in sentences:
                call.warn(sentence)
    try:
        return served.from_value(decoded.value)
    except ValueError as error:
        raise BadRequest(f"{prefix}: {error}") from None


def _check_kind(served: Readable, value: dict[str, Any]) -> None:
    """What the body leaves out is what the path says; what it says must agree."""
    api_version = value.get("apiVersion") or served.api_version
    kind = value.get("kind") or served.kind_name
    if api_version != served.api_version and api_version not in served.also:
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({served.api_version})"
        )
    if kind != served.kind_name:
        raise BadRequest(
            f'{kind} in version "{served.version}" cannot be handled as a {served.kind_name}: '
            f"converting ({served.version}.{kind}) to ({served.group or 'core'}."
            f"{served.kind_name}): unknown conversion"
        )
    value["apiVersion"], value["kind"] = served.api_version, served.kind_name


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "null"
