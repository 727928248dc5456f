"""CREATE, UPDATE and what they share with PATCH: the way of an object into the store.

decode → defaults → mutating admission → strategy (metadata, status and spec apart,
generation) → validation → validating admission → managedFields → store.

Writes are optimistic: they are computed from what the cache shows and carried out only
if that is still what is stored. Who names a resourceVersion hears of a lost race; who
does not is tried again from the new state. A write that changes nothing is no write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec.structs import replace

from pybernetes.api.resource import Status
from pybernetes.apimachinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    InternalError,
    Invalid,
    NotFound,
    StatusError,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import generate_name
from pybernetes.apiserver.body import check_write_options, read_object
from pybernetes.apiserver.entry import Entry
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.objectmeta import (
    begun,
    kept,
    metadata_errors,
    metadata_update_errors,
    rises,
)
from pybernetes.apiserver.requestinfo import is_path_segment
from pybernetes.apiserver.respond import object_response
from pybernetes.apiserver.verbs.read import include_object
from pybernetes.storage import Durability, KeyNotFound, RevisionMismatch, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.resource import Part
    from pybernetes.api.types.meta_v1 import ObjectMeta
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

# How often a generated name may turn out to be taken, and a race may be lost; upstream's figures.
GENERATE_ATTEMPTS = 8
RACE_ATTEMPTS = 5

# What an update makes of the stored object. May be called again after a lost race.
Propose = Callable[[Any, Entry], Any]


@dataclass(slots=True)
class Written:
    """What a write left: the entry, or for a dry run what would be there; and how it came."""

    entry: Entry
    obj: Any
    created: bool = False
    deleted: bool = False


def written_response(
    call: Call, served: Served, written: Written, *, status: int = 200
) -> Response:
    wanted = call.wanted
    if not wanted.form and written.entry.revision == 0:
        # A dry run of a create: there is no resourceVersion to tell.
        return object_response(call, written.entry.value, status=status, wanted=wanted)
    form = served.form(wanted, include_object=include_object(call))
    data = form.object(written.entry, header=True)
    return object_response(call, data, status=status, wanted=wanted)


# -- create


async def create(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "CreateOptions")
    call.wanted  # noqa: B018  # an answer nobody can read must not cost a write
    obj = await read_object(call, served)
    written = await create_object(backend, call, served, obj)
    return written_response(call, served, written, status=201)


async def create_object(backend: Backend, call: Call, served: Served, obj: Any) -> Written:
    """Make a new object of what somebody sent. Raises StatusError."""
    obj = _in_namespace(served, obj, call.info.namespace)
    attributes = Attributes(
        call,
        Operation.CREATE,
        served,
        obj.metadata.namespace,
        obj.metadata.name,
        obj=served.strategy.default(obj),
        options=call.query,
        dry_run=call.dry_run,
    )
    try:
        await backend.admission.mutate(attributes)
        return await store_new(backend, call, served, attributes)
    finally:
        attributes.finish()


def _in_namespace(served: Served, obj: Any, namespace: str) -> Any:
    """The namespace of the path counts; an object of another one is refused."""
    said = obj.metadata.namespace
    wanted = namespace if served.is_namespaced else ""
    if said == wanted:
        return obj
    if said and wanted:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return replace(obj, metadata=replace(obj.metadata, namespace=wanted))


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
        obj = backend.field_manager.created(call, served, attributes.obj)
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
    for path in _status_paths(served):
        obj = with_part(obj, path, part_at(empty_of(served.resource.kind), path))
    return served.strategy.prepare_create(obj)


def new_uid(backend: Backend) -> str:
    return str(UUID(int=backend.random.getrandbits(128), version=4))


def _check_new(served: Served, obj: Any) -> None:
    strategy, metadata = served.strategy, obj.metadata
    problems = [
        *metadata_errors(
            metadata, is_namespaced=served.is_namespaced, name_errors=strategy.name_errors
        ),
        *strategy.validate(obj, None),
    ]
    _raise_problems(served, metadata.name, problems)
    # Whatever a kind allows in its names: they become part of a key.
    if not is_path_segment(metadata.name):
        raise _invalid_segment(served, metadata)


def _invalid_segment(served: Served, metadata: ObjectMeta) -> Invalid:
    problem = Path("metadata").name.invalid(
        metadata.name, "may not contain '/' or '%', nor be a dot"
    )
    return Invalid(served.kind_name, served.group, metadata.name, [problem])


def _raise_problems(served: Served, name: str, problems: Iterable[FieldError]) -> None:
    found = list(problems)
    if found:
        raise Invalid(served.kind_name, served.group, name, found)


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
            served.cache.prefix + key, value, if_revision=0, durability=durability_of(served)
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


# -- update


async def update(
    backend: Backend, call: Call, served: Served, part: Part[Any] | None = None
) -> Response:
    check_write_options(call.query, "UpdateOptions")
    call.wanted  # noqa: B018  # as in create
    obj = await read_object(call, served)
    check_named_as_path(call, served, obj.metadata)
    obj = _in_namespace(served, obj, call.info.namespace)
    may_create = part is None and served.strategy.allow_create_on_update
    try:
        written = await rewrite(backend, call, served, lambda old, entry: obj, manner=Manner(part))
    except NotFound:
        if (
            not may_create
            or served.key(call.info.namespace, call.info.name) in served.cache.entries
        ):
            raise
        if obj.metadata.uid:
            raise failed_precondition(served, call.info.name, obj.metadata.uid, "") from None
        written = await create_object(backend, call, served, obj)
    return written_response(call, served, written, status=201 if written.created else 200)


def check_named_as_path(call: Call, served: Served, metadata: ObjectMeta) -> None:
    name = call.info.name
    if not metadata.name:
        raise BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if metadata.name != name:
        raise BadRequest(
            f"the name of the object ({metadata.name}) does not match the name on the URL ({name})"
        )
    namespace = call.info.namespace
    if served.is_namespaced and metadata.namespace and metadata.namespace != namespace:
        raise BadRequest(
            f"the namespace of the object ({metadata.namespace}) does not match the namespace on "
            f"the request ({namespace})"
        )


def failed_precondition(served: Served, name: str, wanted: str, found: str) -> Conflict:
    return Conflict(
        served.plural,
        name,
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
        group=served.group,
    )


@dataclass(frozen=True, slots=True)
class Manner:
    """How much of the way of an update a write goes."""

    # Only this part of the object is written.
    part: Part[Any] | None = None
    # What the write is called before admission if not by its part.
    subresource: str = ""
    # Whether admission looks at it. A subresource with a body of another kind has shown
    # it that body: policy judges what was sent, not what it does to the object.
    admitted: bool = True
    # Whether the strategy prepares and validates it. Not what the server itself decides.
    checked: bool = True
    # Whether the new object is computed from the present one. Its resourceVersion is then
    # no condition of the client's, and a lost race is tried again.
    computed: bool = False

    @property
    def name(self) -> str:
        return self.part.name if self.part is not None else self.subresource


WHOLE = Manner()
DIRECT = Manner(admitted=False, checked=False, computed=True)


async def rewrite(
    backend: Backend,
    call: Call,
    served: Served,
    propose: Propose,
    *,
    manner: Manner = WHOLE,
    name: str = "",
) -> Written:
    """Replace the object of the path (or `name`) by what `propose` makes of it.

    `propose` may raise StatusError.
    """
    name = name or call.info.name
    part = manner.part
    key = served.key(call.info.namespace, name)
    for attempt in range(RACE_ATTEMPTS):
        entry = served.cache.entries.get(key)
        if entry is None:
            raise NotFound(served.plural, name, group=served.group)
        old = served.decode(entry)
        proposed = propose(old, entry)
        is_conditional = _check_conditions(
            served, proposed.metadata, old.metadata, computed=manner.computed
        )
        if part is not None:
            proposed = confined(proposed, old, part)
        new = served.strategy.default(proposed)
        attributes = Attributes(
            call,
            Operation.UPDATE,
            served,
            call.info.namespace,
            name,
            manner.name,
            obj=new,
            old=old,
            options=call.query,
            dry_run=call.dry_run,
        )
        try:
            if manner.admitted:
                await backend.admission.mutate(attributes)
            if manner.checked:
                attributes.obj = new = _prepare(served, attributes.obj, old, part)
                _check_update(served, new, old, part)
                for sentence in served.strategy.warn(new, old) if part is None else ():
                    call.warn(sentence)
            if manner.admitted:
                await backend.admission.validate(attributes)
            new = backend.field_manager.updated(call, served, old, attributes.obj)
            return await _replace(backend, served, entry, old, new, attributes)
        except RevisionMismatch as lost:
            if is_conditional or attempt == RACE_ATTEMPTS - 1:
                raise Conflict(served.plural, name, group=served.group) from None
            await until_seen(backend, served, entry, lost)
        finally:
            attributes.finish()
    raise AssertionError("the last attempt returns or raises")


def _check_conditions(served: Served, new: ObjectMeta, old: ObjectMeta, *, computed: bool) -> bool:
    """Whether the writer named the version it started from; raises if it is not the present."""
    if new.uid and new.uid != old.uid:
        raise failed_precondition(served, old.name, new.uid, old.uid)
    version = new.resource_version
    if computed and version == old.resource_version:
        return False
    path = Path("metadata").resourceVersion
    if version in ("", "0"):
        if served.strategy.allow_unconditional_update:
            return False
        problem = path.invalid(0, "must be specified for an update")
        raise Invalid(served.kind_name, served.group, old.name, [problem])
    if version != old.resource_version:
        if not (version.isascii() and version.isdigit()):
            message = f'strconv.ParseUint: parsing "{version}": invalid syntax'
            problem = path.invalid(version, message)
            raise Invalid(served.kind_name, served.group, old.name, [problem])
        raise Conflict(served.plural, old.name, group=served.group)
    return True


def confined(new: Any, old: Any, part: Part[Any]) -> Any:
    """The stored object with only that of `new` which a write to this part may change."""
    result = old
    for path in part.owns:
        result = with_part(result, path, part_at(new, path))
    if part.keeps_metadata:
        metadata = new.metadata
        result = replace(
            result,
            metadata=replace(
                old.metadata,
                labels=metadata.labels,
                annotations=metadata.annotations,
                finalizers=metadata.finalizers,
            ),
        )
    return result


def _prepare(served: Served, new: Any, old: Any, part: Part[Any] | None) -> Any:
    strategy = served.strategy
    if part is not None:
        new = part.prepare(new, old)
    else:
        for path in _status_paths(served):
            new = with_part(new, path, part_at(old, path))
        new = strategy.prepare_update(new, old)
    metadata = kept(new.metadata, old.metadata)
    follows = strategy.generation_follows
    if follows and not isinstance(part, Status) and rises(new, old, follows):
        metadata = replace(metadata, generation=old.metadata.generation + 1)
    return replace(new, metadata=metadata)


def _check_update(served: Served, new: Any, old: Any, part: Part[Any] | None) -> None:
    strategy, metadata = served.strategy, new.metadata
    problems = [
        *metadata_errors(metadata, is_namespaced=served.is_namespaced, name_errors=_any_name),
        *metadata_update_errors(metadata, old.metadata),
        *(strategy.validate(new, old) if part is None else part.validate(new, old)),
    ]
    _raise_problems(served, old.metadata.name, problems)


def _any_name(name: str) -> tuple[str, ...]:
    # The name was judged when the object was made, perhaps by older rules.
    return ()


async def _replace(
    backend: Backend, served: Served, entry: Entry, old: Any, new: Any, attributes: Attributes
) -> Written:
    value = served.encode(new)
    path = served.cache.prefix + entry.key
    durability = durability_of(served, attributes.subresource)
    try:
        if is_finished(served, new, old):
            if attributes.dry_run:
                return Written(Entry(entry.key, entry.revision, value), new, deleted=True)
            await backend.store.delete(path, if_revision=entry.revision, durability=durability)
            return Written(Entry(entry.key, entry.revision, value), new, deleted=True)
        if value == entry.value:
            return Written(entry, new)
        if attributes.dry_run:
            return Written(Entry(entry.key, entry.revision, value), new)
        stored = await backend.store.put(
            path, value, if_revision=entry.revision, durability=durability
        )
    except KeyNotFound:
        raise NotFound(served.plural, entry.name, group=served.group) from None
    except StoreFailed as error:
        raise InternalError(str(error)) from None
    return Written(Entry(entry.key, stored.revision, value), new)


def is_finished(served: Served, new: Any, old: Any) -> bool:
    """Whether an update took away the last thing a deletion was waiting for."""
    metadata = new.metadata
    if old.metadata.deletion_timestamp is None or metadata.finalizers:
        return False
    if served.plural == "namespaces" and not served.group:
        return not new.spec.finalizers
    return bool(old.metadata.deletion_grace_period_seconds == 0)


async def until_seen(
    backend: Backend, served: Served, entry: Entry, lost: RevisionMismatch
) -> None:
    """After a lost race: wait until the cache shows the winner.

    A store may decide writes before they are visible; trying again at once would start
    from the same old state.
    """
    if served.cache.entries.get(entry.key) is not entry:
        return
    winner = lost.current.revision if lost.current is not None else backend.feed.revision + 1
    try:
        await backend.wait_for(winner)
    except StatusError:
        raise Conflict(served.plural, entry.name, group=served.group) from None


def durability_of(served: Served, subresource: str = "") -> Durability:
    # The status of a node is its heartbeat: written often, worth little, and sent again.
    if served.resource.relaxed or (
        subresource == "status" and served.plural == "nodes" and not served.group
    ):
        return Durability.RELAXED
    return Durability.DURABLE


# -- parts of objects


def _status_paths(served: Served) -> tuple[str, ...]:
    status = served.subresource("status")
    return status.owns if isinstance(status, Status) else ()


def part_at(obj: Any, path: str) -> Any:
    for attribute in path.split("."):
        if obj is None:
            return None
        obj = getattr(obj, attribute)
    return obj


def with_part(obj: Any, path: str, value: Any) -> Any:
    attribute, _, rest = path.partition(".")
    if not rest:
        return replace(obj, **{attribute: value})
    inner = getattr(obj, attribute)
    return obj if inner is None else replace(obj, **{attribute: with_part(inner, rest, value)})


# An object of each kind with nothing said in it.
_EMPTY: dict[type[Any], Any] = {}


def empty_of(kind: type[Any]) -> Any:
    if (empty := _EMPTY.get(kind)) is None:
        empty = _EMPTY[kind] = kind()
    return empty
