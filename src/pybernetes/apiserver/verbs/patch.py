"""PATCH: compute the new object from the stored one, then go the way of an update.

Three formats are read here; the fourth, apply, has a way of its own (`verbs.apply`) and works
where managedFields are kept. A patch without a resourceVersion is computed again after a lost race.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.errors import (
    BadRequest,
    Invalid,
    StatusError,
    UnsupportedMediaType,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.jsontext import JsonError, load_json
from pybernetes.apimachinery.patch import (
    MalformedPatch,
    PatchError,
    TooManyOperations,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)
from pybernetes.apiserver.body import (
    IGNORE,
    STRICT,
    check_write_options,
    content_type_of,
    field_validation,
    read_body,
    typed_object,
)
from pybernetes.apiserver.fieldmanager import FieldManagement
from pybernetes.apiserver.verbs.apply import apply_patch
from pybernetes.apiserver.verbs.update import Manner, rewrite
from pybernetes.apiserver.verbs.write import written_response

if TYPE_CHECKING:
    from pybernetes.api.resource import Part
    from pybernetes.apimachinery.schema import Schema
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.wire.http import Response

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

# From the stored values, the patch and the kind to new values; raises PatchError.
Apply = Callable[[Any, Any, "Schema"], Any]

# By media type; strategic patches exist only for kinds with a built-in type.
PATCH_FORMATS: dict[str, Apply] = {
    JSON_PATCH: lambda document, patch, schema: json_patch(document, patch),
    MERGE_PATCH: lambda document, patch, schema: merge_patch(document, patch),
    STRATEGIC_PATCH: strategic_merge_patch,
}


def formats_of(served: Served) -> dict[str, Apply]:
    if served.has_go_type:
        return PATCH_FORMATS
    return {name: apply for name, apply in PATCH_FORMATS.items() if name != STRATEGIC_PATCH}


async def patch(
    backend: Backend, call: Call, served: Served, part: Part[Any] | None = None
) -> Response:
    check_write_options(call.query, "PatchOptions")
    call.wanted  # noqa: B018  # an answer nobody can read must not cost a write
    content_type, books = content_type_of(call), backend.field_manager
    if content_type == APPLY_PATCH and isinstance(books, FieldManagement):
        return await apply_patch(backend, call, served, part, books)
    formats = formats_of(served)
    apply = formats.get(content_type)
    if apply is None:
        raise UnsupportedMediaType((*formats, APPLY_PATCH))
    if "force" in call.query:
        problem = Path("force").forbidden("may not be specified for non-apply patch")
        raise Invalid("PatchOptions", "meta.k8s.io", "", [problem])
    operations = parse_patch(call, await read_body(call))

    def propose(old: Any, entry: Entry) -> Any:
        document = current_value(served, old, entry)
        return typed_object(call, served, applied(apply, document, operations, served.schema))

    written = await rewrite(backend, call, served, propose, manner=Manner(part, computed=True))
    return written_response(call, served, written)


def parse_patch(call: Call, data: bytes) -> Any:
    try:
        value, duplicates = load_json(data)
    except JsonError as error:
        raise BadRequest(f"error decoding patch: {error}") from None
    if duplicates and (mode := field_validation(call.query)) != IGNORE:
        sentences = [f'duplicate field "{path}"' for path in duplicates]
        if mode == STRICT:
            raise BadRequest(f"strict decoding error: {', '.join(sentences)}")
        for sentence in sentences:
            call.warn(sentence)
    return value


def current_value(served: Served, old: Any, entry: Entry) -> Any:
    """The stored object as plain values that nobody else holds."""
    return served.to_value(old)


def applied(apply: Apply, document: Any, patch: Any, schema: Schema) -> Any:
    try:
        return apply(document, patch, schema)
    except TooManyOperations as error:
        raise StatusError(str(error), code=413, reason="RequestEntityTooLarge") from None
    except MalformedPatch as error:
        raise BadRequest(str(error)) from None
    except PatchError as error:
        raise unprocessable(str(error)) from None


def unprocessable(cause: str) -> StatusError:
    """422 in the words upstream has for a patch that does not fit; the cause says why."""
    return StatusError(
        "the server rejected our request due to an error in our request",
        code=422,
        reason="Invalid",
        details={"causes": [{"message": cause}]},
    )
