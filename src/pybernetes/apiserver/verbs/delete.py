"""DELETE and DELETECOLLECTION: an object goes at once, after a grace, or after finalizers.

A deletion that cannot be finished now is an update: it sets deletionTimestamp and
deletionGracePeriodSeconds, and the finalizers that the propagation policy asks for.
Whoever removes the last finalizer of such an object (see `write.is_finished`), or
deletes it with a grace of zero, finishes it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pybernetes.api.types.meta_v1 import DeleteOptions, ObjectMeta, Preconditions
from pybernetes.apimachinery.errors import (
    BadRequest,
    Conflict,
    InternalError,
    Invalid,
    NotFound,
    StatusError,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.body import content_type_of, parse_body, read_body
from pybernetes.apiserver.customresources.names import CLEANUP, PENDING, terminating
from pybernetes.apiserver.entry import Entry
from pybernetes.apiserver.forms import list_metadata
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.listoptions import parse_list_options
from pybernetes.apiserver.objectmeta import FOREGROUND, ORPHAN
from pybernetes.apiserver.requestinfo import is_true
from pybernetes.apiserver.respond import list_response, success
from pybernetes.apiserver.verbs.read import select_page, selection_of
from pybernetes.apiserver.verbs.write import (
    RACE_ATTEMPTS,
    Written,
    durability_of,
    empty_of,
    until_seen,
    written_response,
)
from pybernetes.storage import KeyNotFound, RevisionMismatch, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

CUSTOM_RESOURCE_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"

BACKGROUND_POLICY, FOREGROUND_POLICY, ORPHAN_POLICY = "Background", "Foreground", "Orphan"

# Kinds whose deletion is answered with the object rather than with a Status.
_ANSWERED_WITH_OBJECT = frozenset(
    {
        ("", "persistentvolumes"),
        ("", "persistentvolumeclaims"),
        ("", "pods"),
        ("", "podtemplates"),
        ("", "resourcequotas"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattachments"),
    }
)

# Objects of a collection that are deleted at the same time.
_COLLECTION_WORKERS = 8


# -- options


async def read_delete_options(call: Call) -> DeleteOptions:
    """From the body or, if there is none, from the query. Raises BadRequest and Invalid."""
    data = await read_body(call)
    query = call.query
    options = _parse_options(data, content_type_of(call)) if data else _options_of_query(query)
    if not options.dry_run and call.dry_run:
        options = replace(options, dry_run=("All",))
    problems = list(_option_problems(options))
    if problems:
        raise Invalid("DeleteOptions", "meta.k8s.io", "", problems)
    return options


def _parse_options(data: bytes, content_type: str) -> DeleteOptions:
    value, _ = parse_body(data, content_type, kind="DeleteOptions")
    if not isinstance(value, dict):
        raise BadRequest("the body of a deletion must be a DeleteOptions object")
    if (value.get("kind") or "DeleteOptions") != "DeleteOptions":
        raise BadRequest("decoded object cannot be converted to DeleteOptions")
    kept = {name: item for name, item in value.items() if item is not None}
    try:
        return msgspec.convert(kept, DeleteOptions)
    except msgspec.ValidationError as error:
        raise BadRequest(
            f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {error}'
        ) from None


def _options_of_query(query: Mapping[str, str]) -> DeleteOptions:
    if not query:
        return DeleteOptions()
    grace = query.get("gracePeriodSeconds")
    orphan = query.get("orphanDependents")
    uid = query.get("preconditions.uid", "")
    try:
        return DeleteOptions(
            grace_period_seconds=None if not grace else int(grace),
            orphan_dependents=None if orphan is None else is_true(orphan),
            propagation_policy=query.get("propagationPolicy", ""),
            preconditions=Preconditions(uid=uid) if uid else None,
        )
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{grace}": invalid syntax') from None


def _option_problems(options: DeleteOptions) -> Iterator[FieldError]:
    policy = options.propagation_policy
    if policy and options.orphan_dependents is not None:
        yield Path("propagationPolicy").invalid(
            policy, "orphanDependents and deletionPropagation cannot be both set"
        )
    if policy not in ("", BACKGROUND_POLICY, FOREGROUND_POLICY, ORPHAN_POLICY):
        yield Path("propagationPolicy").not_supported(
            policy, (FOREGROUND_POLICY, BACKGROUND_POLICY, ORPHAN_POLICY, "nil")
        )
    if options.dry_run and options.dry_run != ("All",):
        yield Path("dryRun").not_supported(list(options.dry_run), ("All",))


# -- what a deletion does to an object; pure


def finalizers_after(
    present: tuple[str, ...], options: DeleteOptions, default_propagation: str
) -> tuple[str, ...]:
    """Finalizers that ask the garbage collector to orphan, or to delete dependents first."""
    rest = tuple(name for name in present if name not in (ORPHAN, FOREGROUND))
    policy = options.propagation_policy
    if options.orphan_dependents is not None:
        policy = ORPHAN_POLICY if options.orphan_dependents else BACKGROUND_POLICY
    if not policy:
        # Nobody says anything now: what was asked for before still holds.
        if ORPHAN in present:
            policy = ORPHAN_POLICY
        elif FOREGROUND in present:
            policy = FOREGROUND_POLICY
        else:
            policy = default_propagation
    wanted = {ORPHAN_POLICY: (ORPHAN,), FOREGROUND_POLICY: (FOREGROUND,)}.get(policy, ())
    after = (*rest, *wanted)
    return present if set(after) == set(present) else after


@dataclass(frozen=True, slots=True)
class Marked:
    """What to do with an object: keep it as it is, store `obj` instead, or let it go."""

    obj: Any
    changed: bool = False
    goes: bool = False


def marked_for_deletion(served: Served, obj: Any, options: DeleteOptions, now: Any) -> Marked:
    """The object after a deletion was asked for, and whether it may go now."""
    metadata = obj.metadata
    grace = None
    if metadata.deletion_timestamp is not None:
        return _marked_again(obj, options)
    strategy = served.strategy
    if strategy.grace_seconds is not None:
        grace = strategy.grace_seconds(obj, options.grace_period_seconds)
    finalizers = finalizers_after(metadata.finalizers, options, strategy.default_propagation)
    if grace is None and not finalizers:
        return Marked(obj, goes=True)
    seconds = grace or 0
    metadata = replace(
        metadata,
        deletion_timestamp=now + timedelta(seconds=seconds),
        deletion_grace_period_seconds=seconds,
        finalizers=finalizers,
        generation=metadata.generation + 1 if metadata.generation else 0,
    )
    return Marked(
        replace(obj, metadata=metadata), changed=True, goes=not finalizers and seconds == 0
    )


def _marked_again(obj: Any, options: DeleteOptions) -> Marked:
    """Being deleted already: the grace may only become shorter."""
    metadata = obj.metadata
    grace = metadata.deletion_grace_period_seconds
    if not grace:
        finalizers = metadata.finalizers
        policy = options.propagation_policy
        # A pending deletion may still be told what is to become of the dependents.
        if policy or options.orphan_dependents is not None:
            finalizers = finalizers_after(finalizers, options, BACKGROUND_POLICY)
        if finalizers != metadata.finalizers:
            changed = replace(obj, metadata=replace(metadata, finalizers=finalizers))
            return Marked(changed, changed=True, goes=not finalizers)
        return Marked(obj, goes=not finalizers)
    wished = options.grace_period_seconds
    if wished is None or wished >= grace:
        return Marked(obj)
    wished = max(wished, 0)
    at = metadata.deletion_timestamp - timedelta(seconds=grace - wished)
    metadata = replace(metadata, deletion_timestamp=at, deletion_grace_period_seconds=wished)
    goes = wished == 0 and not metadata.finalizers
    return Marked(replace(obj, metadata=metadata), changed=True, goes=goes)


def marked_namespace(obj: Any, options: DeleteOptions, now: Any) -> Marked:
    """A namespace is emptied first; it goes when its spec has no finalizers left."""
    metadata = obj.metadata
    if metadata.deletion_timestamp is not None:
        return Marked(obj, goes=not obj.spec.finalizers and not metadata.finalizers)
    finalizers = finalizers_after(metadata.finalizers, options, BACKGROUND_POLICY)
    metadata = replace(
        metadata,
        deletion_timestamp=now,
        deletion_grace_period_seconds=0,
        finalizers=finalizers,
    )
    status = replace(obj.status, phase="Terminating")
    return Marked(replace(obj, metadata=metadata, status=status), changed=True)


def marked_definition(served: Served, obj: Any, options: DeleteOptions, now: Any) -> Marked:
    """The instances of a definition are deleted first."""
    metadata = obj.metadata
    if metadata.deletion_timestamp is None:
        kept = tuple(name for name in metadata.finalizers if name != CLEANUP)
        metadata = replace(metadata, finalizers=(*kept, CLEANUP))
        obj = replace(obj, metadata=metadata, status=terminating(obj, PENDING, now))
    return marked_for_deletion(served, obj, options, now)


# -- one object


async def delete(backend: Backend, call: Call, served: Served) -> Response:
    call.wanted  # noqa: B018  # an answer nobody can read must not cost a deletion
    options = await read_delete_options(call)
    written = await delete_object(backend, call, served, call.info.name, options)
    metadata = written.obj.metadata
    if written.deleted and (served.group, served.plural) not in _ANSWERED_WITH_OBJECT:
        return success(
            {
                "name": metadata.name,
                "group": served.group,
                "kind": served.plural,
                "uid": metadata.uid,
            }
        )
    # Upstream's way to say that dependents are waited for.
    waits = not written.deleted and options.orphan_dependents is False
    return written_response(call, served, written, status=202 if waits else 200)


async def delete_object(
    backend: Backend,
    call: Call,
    served: Served,
    name: str,
    options: DeleteOptions,
    *,
    admitted: bool = True,
    namespace: str | None = None,
) -> Written:
    """Delete, or begin to. Raises NotFound, Conflict for a precondition, Forbidden."""
    key = served.key(call.info.namespace if namespace is None else namespace, name)
    for attempt in range(RACE_ATTEMPTS):
        entry = served.cache.entries.get(key)
        if entry is None and key not in served.cache.damaged:
            raise NotFound(served.plural, name, group=served.group)
        old = None if entry is None else _decoded(served, entry)
        if entry is None or old is None:
            return await _delete_unreadable(backend, served, key, options)
        _check_preconditions(served, old, options)
        if admitted:
            attributes = Attributes(
                call,
                Operation.DELETE,
                served,
                old.metadata.namespace,
                name,
                old=old,
                options=options,
                dry_run=bool(options.dry_run),
            )
            await backend.admission.mutate(attributes)
            await backend.admission.validate(attributes)
        now = backend.clock.now().replace(microsecond=0)
        if served.plural == "namespaces" and not served.group:
            marked = marked_namespace(old, options, now)
        elif served.group_resource == CUSTOM_RESOURCE_DEFINITIONS:
            marked = marked_definition(served, old, options, now)
        else:
            marked = marked_for_deletion(served, old, options, now)
        try:
            return await _carry_out(backend, served, entry, marked, dry_run=bool(options.dry_run))
        except RevisionMismatch as lost:
            if attempt == RACE_ATTEMPTS - 1:
                raise Conflict(served.plural, name, group=served.group) from None
            await until_seen(backend, served, entry, lost)
    raise AssertionError("the last attempt returns or raises")


def _decoded(served: Served, entry: Entry) -> Any:
    try:
        return served.decode(entry)
    except ValueError:
        return None


async def _delete_unreadable(
    backend: Backend, served: Served, key: str, options: DeleteOptions
) -> Written:
    """What cannot be read can be deleted only by who says that this is meant.

    No finalizer is respected and no policy asked, for there is nothing to ask them about.
    """
    name = key.rpartition("/")[2]
    if not options.ignore_store_read_error_with_cluster_breaking_potential:
        raise InternalError(
            f'the stored data of {served.group_resource} "{name}" cannot be read; it can only be '
            "deleted with ignoreStoreReadErrorWithClusterBreakingPotential in the DeleteOptions"
        )
    if not options.dry_run:
        try:
            await backend.store.delete(served.cache.prefix + key)
        except KeyNotFound:
            raise NotFound(served.plural, name, group=served.group) from None
    metadata = ObjectMeta(name=name, namespace=key.rpartition("/")[0])
    obj = replace(empty_of(served.resource.kind), metadata=metadata)
    return Written(Entry(key, 0, served.encode(obj)), obj, deleted=True)


def _check_preconditions(served: Served, obj: Any, options: DeleteOptions) -> None:
    wanted, metadata = options.preconditions, obj.metadata
    if wanted is None:
        return
    if wanted.uid and wanted.uid != metadata.uid:
        raise Conflict(
            served.plural,
            metadata.name,
            f"the UID in the precondition ({wanted.uid}) does not match the UID in record "
            f"({metadata.uid}). The object might have been deleted and then recreated",
            group=served.group,
        )
    if wanted.resource_version and wanted.resource_version != metadata.resource_version:
        raise Conflict(
            served.plural,
            metadata.name,
            f"the ResourceVersion in the precondition ({wanted.resource_version}) does not match "
            f"the ResourceVersion in record ({metadata.resource_version}). "
            "The object might have been modified",
            group=served.group,
        )


async def _carry_out(
    backend: Backend, served: Served, entry: Entry, marked: Marked, *, dry_run: bool
) -> Written:
    path = served.cache.prefix + entry.key
    durability = durability_of(served)
    value = served.encode(marked.obj) if marked.changed else entry.value
    try:
        if marked.goes:
            if not dry_run:
                await backend.store.delete(path, if_revision=entry.revision, durability=durability)
            return Written(Entry(entry.key, entry.revision, value), marked.obj, deleted=True)
        if not marked.changed or value == entry.value:
            return Written(entry, marked.obj)
        if dry_run:
            return Written(Entry(entry.key, entry.revision, value), marked.obj)
        stored = await backend.store.put(
            path,
            await served.stored_value(value),
            if_revision=entry.revision,
            durability=durability,
        )
    except KeyNotFound:
        raise NotFound(served.plural, entry.name, group=served.group) from None
    except StoreFailed as error:
        raise InternalError(str(error)) from None
    return Written(Entry(entry.key, stored.revision, value), marked.obj)


# -- a collection


async def delete_collection(backend: Backend, call: Call, served: Served) -> Response:
    wanted = call.wanted
    options = await read_delete_options(call)
    list_options = parse_list_options(call.query, is_watch=False)
    selection = selection_of(call, served)
    page = await select_page(backend, served, list_options, selection)
    waiting = list(reversed(page.entries))
    problems: list[StatusError] = []

    async def work() -> None:
        while waiting and not problems:
            entry = waiting.pop()
            try:
                await delete_object(
                    backend, call, served, entry.name, options, namespace=entry.namespace
                )
            except NotFound:
                pass  # somebody else was faster, and that is all we wanted
            except StatusError as error:
                problems.append(error)

    # All are waited for, so that nothing goes on after the answer.
    await asyncio.gather(*(work() for _ in range(min(_COLLECTION_WORKERS, len(waiting)))))
    if problems:
        raise problems[0]
    form = served.form(wanted)
    metadata = list_metadata(backend.feed.revision, page.continue_, page.remaining)
    return list_response(call, form, page.entries, metadata, wanted)
