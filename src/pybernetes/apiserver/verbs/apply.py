"""Server-side apply: a PATCH that says what an object should have, and owns it.

The configuration is laid over what is there, by the rules of `apimachinery.apply`; a missing
object is made. From there it goes the way of an update or of a create.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.apply import DuplicateItem
from pybernetes.apimachinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    StatusError,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.yamltext import YamlError, load_yaml
from pybernetes.apiserver.body import IGNORE, STRICT, field_validation, read_body
from pybernetes.apiserver.requestinfo import is_true
from pybernetes.apiserver.verbs.create import check_may_create, create_object
from pybernetes.apiserver.verbs.update import Manner, rewrite
from pybernetes.apiserver.verbs.write import check_named_as_path, in_namespace, written_response

if TYPE_CHECKING:
    from pybernetes.api.resource import Part
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.fieldmanager import FieldManagement
    from pybernetes.apiserver.verbs.write import Written
    from pybernetes.wire.http import Response


async def apply_patch(
    backend: Backend,
    call: Call,
    served: Served,
    part: Part[Any] | None,
    books: FieldManagement,
) -> Response:
    if not call.query.get("fieldManager", ""):
        problem = Path("fieldManager").required("is required for apply patch")
        raise Invalid("PatchOptions", "meta.k8s.io", "", [problem])
    config = read_config(call, served, await read_body(call))
    force = is_true(call.query.get("force", "false"))

    def applied(old: Any) -> Any:
        try:
            obj = books.applied(call, served, old, config, force=force)
        except DuplicateItem as error:
            raise _untyped(served, config, f"duplicate entries for key [{error}]") from None
        check_named_as_path(call, served, obj.metadata)
        return in_namespace(served, obj, call.info.namespace)

    def propose(old: Any, entry: Entry) -> Any:
        return applied(old)

    async def change() -> Written:
        manner = Manner(part, computed=True, owned=True)
        return await rewrite(backend, call, served, propose, manner=manner)

    try:
        written = await change()
    except NotFound:
        key = served.key(call.info.namespace, call.info.name)
        if part is not None or key in served.cache.entries:
            raise
        await check_may_create(backend, call)
        obj = applied(None)
        if obj.metadata.uid:
            cause = (
                f"uid mismatch: the provided object specified uid {obj.metadata.uid}, "
                "and no existing object was found"
            )
            raise Conflict(served.plural, call.info.name, cause, group=served.group) from None
        try:
            written = await create_object(backend, call, served, obj, owned=True)
        except AlreadyExists:
            # Somebody else made it meanwhile; then it is there to be changed.
            if key not in served.cache.entries:
                raise
            written = await change()
    return written_response(call, served, written, status=201 if written.created else 200)


def read_config(call: Call, served: Served, data: bytes) -> dict[str, Any]:
    """The configuration as plain values that fit the kind. Raises StatusError."""
    try:
        value, duplicates = load_yaml(data)
    except YamlError as error:
        raise BadRequest(f"error decoding YAML: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("error decoding YAML: json: cannot unmarshal into Go value of type map")
    if duplicates and (mode := field_validation(call.query)) != IGNORE:
        sentences = [f'duplicate field "{path}"' for path in duplicates]
        if mode == STRICT:
            raise BadRequest(f"error strict decoding YAML: {', '.join(sentences)}")
        for sentence in sentences:
            call.warn(sentence)
    _check_type(served, value)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):
        if metadata.get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil")
        metadata.pop("creationTimestamp", None)
    decoded = served.read_strictly(value)
    if decoded.unknown:
        problems = [f".{path}: field not declared in schema" for path in decoded.unknown]
        raise _untyped(served, value, *problems)
    if decoded.errors:
        raise _untyped(served, value, *decoded.errors)
    config: dict[str, Any] = decoded.value
    return config


def _check_type(served: Served, value: dict[str, Any]) -> None:
    said, kind = value.get("apiVersion"), value.get("kind")
    if not said or not kind:
        raise BadRequest(
            "invalid object type: Object 'apiVersion' or 'Kind' is missing in apply patch"
        )
    if said != served.api_version:
        raise BadRequest(
            f"incorrect version specified in apply patch. Specified patch version: {said}, "
            f"expected: {served.api_version}"
        )
    if kind != served.kind_name:
        raise BadRequest(
            f"incorrect kind specified in apply patch. Specified patch kind: {kind}, "
            f"expected: {served.kind_name}"
        )


def _untyped(served: Served, value: dict[str, Any], *problems: str) -> StatusError:
    """What upstream says, and with its code, of a configuration that does not fit its kind."""
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    who = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    what = f"{served.api_version}, Kind={served.kind_name}"
    text = problems[0]
    if len(problems) > 1:
        text = "errors:" + "".join(f"\n  {problem}" for problem in problems)
    message = f"failed to create typed patch object ({who}; {what}): {text}"
    return StatusError(message, code=500, reason="")
