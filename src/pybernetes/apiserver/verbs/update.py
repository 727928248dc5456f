"""UPDATE, and what everything that changes a stored object shares: `rewrite`.

Writes are optimistic: they are computed from what the cache shows and carried out only
if that is still what is stored. Who names a resourceVersion hears of a lost race; who
does not is tried again from the new state, and then in turn with the others who write
the same object, so that each of many gets through. A write that changes nothing is no
write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.resource import Status
from pybernetes.apimachinery.errors import (
    Conflict,
    InternalError,
    Invalid,
    NotFound,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.body import check_write_options, read_object
from pybernetes.apiserver.entry import Entry
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.objectmeta import (
    kept,
    metadata_errors,
    metadata_update_errors,
    rises,
)
from pybernetes.apiserver.verbs.create import check_may_create, create_object
from pybernetes.apiserver.verbs.write import (
    RACE_ATTEMPTS,
    Written,
    check_named_as_path,
    durability_of,
    failed_precondition,
    in_namespace,
    part_at,
    raise_problems,
    status_paths,
    until_seen,
    with_part,
    written_response,
)
from pybernetes.storage import KeyNotFound, RevisionMismatch, StoreFailed

if TYPE_CHECKING:
    from pybernetes.api.resource import Part
    from pybernetes.api.types.meta_v1 import ObjectMeta
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

# What an update makes of the stored object. May be called again after a lost race.
Propose = Callable[[Any, Entry], Any]


async def update(
    backend: Backend, call: Call, served: Served, part: Part[Any] | None = None
) -> Response:
    check_write_options(call.query, "UpdateOptions")
    call.wanted  # noqa: B018  # as in create
    obj = await read_object(call, served)
    check_named_as_path(call, served, obj.metadata)
    obj = in_namespace(served, obj, call.info.namespace)
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
        await check_may_create(backend, call)
        written = await create_object(backend, call, served, obj)
    return written_response(call, served, written, status=201 if written.created else 200)


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
    # Whether what is proposed says already whose fields are whose: an apply does.
    owned: bool = False

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
    key = served.key(call.info.namespace, name or call.info.name)
    rewriting = _Rewriting(backend, call, served, propose, manner, key)
    try:
        return await rewriting.attempt()
    except RevisionMismatch as lost:
        await rewriting.see(lost)
    for _ in range(RACE_ATTEMPTS - 1):
        # In turn with the others who lost: only those who come first time can still win.
        async with backend.turns.of(served.cache.prefix + key):
            try:
                return await rewriting.attempt()
            except RevisionMismatch as lost:
                await rewriting.see(lost)
    raise Conflict(served.plural, rewriting.name, group=served.group)


class _Rewriting:
    """A write on its way, which may take several attempts."""

    def __init__(
        self,
        backend: Backend,
        call: Call,
        served: Served,
        propose: Propose,
        manner: Manner,
        key: str,
    ) -> None:
        self._backend, self._call, self._served = backend, call, served
        self._propose, self._manner, self._key = propose, manner, key
        self.name = key.rpartition("/")[2]
        # What the last attempt started from.
        self._entry: Entry | None = None
        self._is_conditional = False

    async def attempt(self) -> Written:
        """Raises RevisionMismatch if somebody else wrote meanwhile."""
        served, part = self._served, self._manner.part
        entry = self._entry = served.cache.entries.get(self._key)
        if entry is None:
            raise NotFound(served.plural, self.name, group=served.group)
        old = served.decode(entry)
        proposed = self._propose(old, entry)
        self._is_conditional = _check_conditions(
            served, proposed.metadata, old.metadata, computed=self._manner.computed
        )
        if part is not None:
            proposed = confined(proposed, old, part)
        new = served.strategy.default(proposed)
        if self._manner.checked and not self._manner.owned:
            # Before admission: what policy changes is nobody's.
            new = self._backend.field_manager.updated(self._call, served, old, new)
        attributes = Attributes(
            self._call,
            Operation.UPDATE,
            served,
            old.metadata.namespace,
            self.name,
            self._manner.name,
            obj=new,
            old=old,
            options=self._call.query,
            dry_run=self._call.dry_run,
        )
        try:
            await self._judge(attributes)
            return await _replace(self._backend, served, entry, old, attributes.obj, attributes)
        finally:
            attributes.finish()

    async def _judge(self, attributes: Attributes) -> None:
        """Policy and the rules of the kind; both may change `attributes.obj`."""
        served, manner, admission = self._served, self._manner, self._backend.admission
        old, part = attributes.old, manner.part
        if manner.admitted:
            await admission.mutate(attributes)
        if manner.checked:
            attributes.obj = new = _prepare(served, attributes.obj, old, part)
            _check_update(served, new, old, part)
            for sentence in served.strategy.warn(new, old) if part is None else ():
                self._call.warn(sentence)
        if manner.admitted:
            await admission.validate(attributes)

    async def see(self, lost: RevisionMismatch) -> None:
        """After a lost race: wait for the new state, or tell the client that there is one."""
        if self._is_conditional:
            raise Conflict(self._served.plural, self.name, group=self._served.group) from None
        assert self._entry is not None
        await until_seen(self._backend, self._served, self._entry, lost)


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
    # Who owns what is not the writer's to say, but an apply has computed it.
    metadata, said = old.metadata, new.metadata
    if part.keeps_metadata:
        metadata = replace(
            metadata,
            labels=said.labels,
            annotations=said.annotations,
            finalizers=said.finalizers,
            managed_fields=said.managed_fields,
        )
    elif metadata.managed_fields is not said.managed_fields:
        metadata = replace(metadata, managed_fields=said.managed_fields)
    return replace(result, metadata=metadata)


def _prepare(served: Served, new: Any, old: Any, part: Part[Any] | None) -> Any:
    strategy = served.strategy
    if part is not None:
        new = part.prepare(new, old)
    else:
        for path in status_paths(served):
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
    raise_problems(served, old.metadata.name, problems)


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
            path,
            await served.stored_value(value),
            if_revision=entry.revision,
            durability=durability,
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
