"""CREATE: the way of a new object into the store.

decode → defaults → managedFields → mutating admission → strategy (metadata, an empty status)
→ validation → validating admission → store. A generated name that is
taken is generated again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.resource import Status
from pybernetes.apimachinery.errors import (
    AlreadyExists,
    InternalError,
    Invalid,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import generate_name
from pybernetes.apiserver.body import check_write_options, read_object
from pybernetes.apiserver.chain import access_of, forbidden
from pybernetes.apiserver.entry import Entry
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.objectmeta import (
    begun,
    metadata_errors,
)
from pybernetes.apiserver.requestinfo import is_path_segment
from pybernetes.apiserver.verbs.write import (
    Written,
    durability_of,
    empty_of,
    in_namespace,
    new_uid,
    part_at,
    raise_problems,
    status_paths,
    with_part,
    written_response,
)
from pybernetes.storage import RevisionMismatch, StoreFailed

if TYPE_CHECKING:
    from pybernetes.api.types.meta_v1 import ObjectMeta
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

# How often a generated name may turn out to be taken; upstream's figure.
GENERATE_ATTEMPTS = 8


async def check_may_create(backend: Backend, call: Call) -> None:
    """Who may put or apply an object may not for that make one.

    For the verbs that create what is missing: the request itself was authorized as theirs.
    Raises StatusError (403 Forbidden).
    """
    access = access_of(call)
    access.verb = "create"
    decision = await backend.authorizer.authorize(access)
    if not decision.allowed:
        raise forbidden(access, decision.reason)


async def create(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "CreateOptions")
    call.wanted  # noqa: B018  # an answer nobody can read must not cost a write
    obj = await read_object(call, served)
    written = await create_object(backend, call, served, obj)
    return written_response(call, served, written, status=201)


async def create_object(
    backend: Backend, call: Call, served: Served, obj: Any, *, owned: bool = False
) -> Written:
    """Make a new object of what somebody sent. Raises StatusError.

    `owned`: its managedFields say already whose it is.
    """
    obj = served.strategy.default(in_namespace(served, obj, call.info.namespace))
    if not owned:
        # Before admission: what policy adds is nobody's.
        obj = backend.field_manager.created(call, served, obj)
    attributes = Attributes(
        call,
        Operation.CREATE,
        served,
        obj.metadata.namespace,
        obj.metadata.name,
        obj=obj,
        options=call.query,
        dry_run=call.dry_run,
    )
    try:
        await backend.admission.mutate(attributes)
        return await store_new(backend, call, served, attributes)
    finally:
        attributes.finish()


async def store_new(
    backend: Backend, call: Call, served: Served, attributes: Attributes
) -> Written:
    """From after mutating admission to the store."""
    generated = not attributes.obj.metadata.name and bool(attributes.obj.metadata.generate_name)
    given = attributes.obj
    for attempt in range(GENERATE_ATTEMPTS):
        obj = _begin(backend, served, given)
        _check_new(served, obj)
        for sentence in served.strategy.warn(obj, None):
            call.warn(sentence)
        attributes.obj, attributes.name = obj, obj.metadata.name
        await backend.admission.validate(attributes)
        obj = attributes.obj
        try:
            return await _put_new(backend, served, obj, dry_run=attributes.dry_run)
        except AlreadyExists:
            if not generated:
                raise
            if attempt == GENERATE_ATTEMPTS - 1:
                raise AlreadyExists(
                    served.plural, obj.metadata.name, group=served.group, generated=True
                ) from None
    raise AssertionError("the last attempt returns or raises")


def _begin(backend: Backend, served: Served, obj: Any) -> Any:
    metadata = obj.metadata
    if not metadata.name and metadata.generate_name:
        metadata = replace(metadata, name=generate_name(metadata.generate_name, backend.random))
    metadata = begun(
        metadata,
        uid=new_uid(backend),
        now=backend.clock.now().replace(microsecond=0),
        generation=1 if served.strategy.generation_follows else 0,
    )
    obj = replace(obj, metadata=metadata)
    status = served.subresource("status")
    is_given = isinstance(status, Status) and status.given_at_birth
    for path in () if is_given else status_paths(served):
        obj = with_part(obj, path, part_at(empty_of(served.resource.kind), path))
    return served.strategy.prepare_create(obj)


def _check_new(served: Served, obj: Any) -> None:
    strategy, metadata = served.strategy, obj.metadata
    problems = [
        *metadata_errors(
            metadata, is_namespaced=served.is_namespaced, name_errors=strategy.name_errors
        ),
        *strategy.validate(obj, None),
    ]
    raise_problems(served, metadata.name, problems)
    # Whatever a kind allows in its names: they become part of a key.
    if not is_path_segment(metadata.name):
        raise _invalid_segment(served, metadata)


def _invalid_segment(served: Served, metadata: ObjectMeta) -> Invalid:
    problem = Path("metadata").name.invalid(
        metadata.name, "may not contain '/' or '%', nor be a dot"
    )
    return Invalid(served.kind_name, served.group, metadata.name, [problem])


async def _put_new(backend: Backend, served: Served, obj: Any, *, dry_run: bool) -> Written:
    metadata = obj.metadata
    key = served.key(metadata.namespace, metadata.name)
    existing = served.cache.entries.get(key)
    if existing is not None:
        raise _exists(served, metadata.name, existing)
    if dry_run:
        return Written(Entry(key, 0, served.encode(obj)), obj, created=True)
    value = served.encode(obj)
    try:
        kept_value = await backend.store.put(
            served.cache.prefix + key,
            await served.stored_value(value),
            if_revision=0,
            durability=durability_of(served),
        )
    except RevisionMismatch:
        raise _exists(served, metadata.name, served.cache.entries.get(key)) from None
    except StoreFailed as error:
        raise InternalError(str(error)) from None
    return Written(Entry(key, kept_value.revision, value), obj, created=True)


def _exists(served: Served, name: str, existing: Entry | None) -> AlreadyExists:
    error = AlreadyExists(served.plural, name, group=served.group)
    if existing is None or b'"deletionTimestamp"' not in existing.value:
        return error
    if served.decode(existing).metadata.deletion_timestamp is not None:
        error.message = f"object is being deleted: {error.message}"
    return error
