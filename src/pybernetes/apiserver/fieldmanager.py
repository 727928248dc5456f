"""metadata.managedFields: whose field is whose, kept for every write.

An update owns what it changed, as its `fieldManager` or, without one, as the first word of its
user agent; an apply owns what it says (see `apimachinery.apply` for the rules, `verbs.apply`
for the request). What the strategy takes from its own subresources is never owned by a write
that cannot change it.

Rule: objects whose books were closed (`managedFields: []`) stay without until somebody applies.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from pybernetes.api.resource import Part
from pybernetes.api.schemas import schema_of
from pybernetes.api.types.meta_v1 import ManagedFieldsEntry
from pybernetes.apimachinery.apply import Claim, Manager, OwnersDisagree, Shape, capped, changed_by
from pybernetes.apimachinery.apply import apply as apply_config
from pybernetes.apimachinery.apply.fieldset import (
    difference,
    is_field_set,
    only_below,
    union,
    without_below,
)
from pybernetes.apimachinery.apply.ownership import (
    APPLY,
    BEFORE_FIRST_APPLY,
    UNOWNED,
    UPDATE,
)
from pybernetes.apimachinery.apply.shape import Comparison, compare, field_set
from pybernetes.apimachinery.errors import Conflict
from pybernetes.apiserver.body import FIELD_MANAGER_LIMIT
from pybernetes.apiserver.customresources.object import CustomObject
from pybernetes.apiserver.verbs.write import empty_of, status_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pybernetes.aio.clock import Clock
    from pybernetes.apimachinery.apply import Managed
    from pybernetes.apimachinery.apply.fieldset import FieldSet
    from pybernetes.apimachinery.apply.ownership import Relevant
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served

FIELDS_V1 = "FieldsV1"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# The one manager whose first apply may take what it applied from the client's side.
KUBECTL = "kubectl"

# Of how many sorts of new objects of a kind it is remembered what their makers own.
_REMEMBERED = 1024

# What a request sends to have the books closed.
RESET = (ManagedFieldsEntry(),)


def manager_name(call: Call) -> str:
    """Who writes: as it says itself, or its program's name."""
    return call.query.get("fieldManager", "") or program_of(call.request.headers.get("user-agent"))


def program_of(user_agent: str) -> str:
    name = "".join(c for c in user_agent.partition("/")[0] if c.isprintable())
    return name.encode()[:FIELD_MANAGER_LIMIT].decode(errors="ignore") or "unknown"


# -- the books as they are stored


def managed_of(entries: Sequence[ManagedFieldsEntry]) -> Managed | None:
    """The owners; None if an entry is not one."""
    managed: dict[Manager, Claim] = {}
    for entry in entries:
        if entry.operation not in (APPLY, UPDATE) or entry.fields_type != FIELDS_V1:
            return None
        fields = entry.fields_v1 or {}
        if not isinstance(fields, dict):
            return None
        version = "" if entry.operation == APPLY else entry.api_version
        manager = Manager(entry.manager or "unknown", entry.operation, entry.subresource, version)
        managed[manager] = Claim(fields, entry.api_version, entry.time)
    return managed


def entries_of(managed: Managed) -> tuple[ManagedFieldsEntry, ...]:
    """In upstream's order: appliers first, then by time and name."""
    entries = [
        ManagedFieldsEntry(
            manager=manager.name,
            operation=manager.operation,
            api_version=claim.api_version,
            time=claim.time,
            fields_type=FIELDS_V1,
            fields_v1=claim.fields,
            subresource=manager.subresource,
        )
        for manager, claim in managed.items()
    ]
    if len(entries) > 1:
        entries.sort(key=_rank)
    return tuple(entries)


def _rank(entry: ManagedFieldsEntry) -> tuple[str, float, str, str, str]:
    seconds = 0.0 if entry.time is None else entry.time.timestamp()
    return entry.operation, seconds, entry.manager, entry.api_version, entry.subresource


def with_entries(obj: Any, entries: tuple[ManagedFieldsEntry, ...]) -> Any:
    if obj.metadata.managed_fields == entries:
        return obj
    return replace(obj, metadata=replace(obj.metadata, managed_fields=entries))


def _without_times(managed: Managed) -> dict[Manager, tuple[FieldSet, str]]:
    return {manager: (claim.fields, claim.api_version) for manager, claim in managed.items()}


# -- the keeper


class FieldManagement:
    """Keeps the books of one server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By what is served: what can be owned in it, and what an object of it has from the start.
        self._shapes: WeakKeyDictionary[Served, Shape] = WeakKeyDictionary()
        self._empty: WeakKeyDictionary[Served, dict[str, Any]] = WeakKeyDictionary()
        # What the maker of an object owns, by a digest of the object without its name: the
        # thousand pods of a replica set are alike.
        self._owned_at_creation: WeakKeyDictionary[Served, dict[bytes, FieldSet]] = (
            WeakKeyDictionary()
        )

    # -- updates

    def created(self, call: Call, served: Served, obj: Any) -> Any:
        metadata = obj.metadata
        said = metadata.managed_fields
        managed = {} if not said or said == RESET else managed_of(said) or {}
        updater, version = self._updater(call, served), served.api_version
        plain = replace(obj, metadata=replace(metadata, name="", managed_fields=()))
        fields = self._made(served, plain)
        if not managed:
            owned: Managed = {updater: Claim(fields, version, self._now())} if fields else {}
        else:
            owned = changed_by(managed, Comparison(fields, {}, {}), updater, version, self._now())
        return with_entries(obj, entries_of(owned))

    def _made(self, served: Served, obj: Any) -> FieldSet:
        """What the maker of an object owns of it."""
        digest = blake2b(served.encode(obj), digest_size=16).digest()
        known = self._owned_at_creation.get(served)
        if known is None:
            known = self._owned_at_creation[served] = {}
        fields = known.get(digest)
        if fields is None:
            found = compare(self._start(served), served.to_value(obj), self.shape(served))
            relevant = relevant_of(served, None)
            fields = difference(relevant(union(found.added, found.modified)), UNOWNED)
            if len(known) >= _REMEMBERED:
                known.clear()
            known[digest] = fields
        return fields

    def updated(self, call: Call, served: Served, old: Any, new: Any) -> Any:
        before = old.metadata.managed_fields
        said = new.metadata.managed_fields
        part = part_of_call(call, served)
        managed = None
        if part is None and not call.info.subresource and said and said != before:
            if said == RESET:
                return with_entries(new, ())
            # Who knows the books may change them; who sends nothing does not close them.
            if (managed := managed_of(said)) is not None and not _are_sound(managed):
                managed = None
        if managed:
            base = entries_of(managed)
        else:
            managed, base = managed_of(before), before
        if not managed:
            return with_entries(new, ())
        comparison = compare(
            _values(served, old), _values(served, new), self.shape(served)
        ).filtered(relevant_of(served, part))
        owned = changed_by(
            managed, comparison, self._updater(call, served), served.api_version, self._now()
        )
        return with_entries(new, base if owned is managed else entries_of(capped(owned)))

    def _updater(self, call: Call, served: Served) -> Manager:
        return Manager(manager_name(call), UPDATE, call.info.subresource, served.api_version)

    # -- applies

    def applied(
        self,
        call: Call,
        served: Served,
        old: Any,
        config: dict[str, Any],
        *,
        force: bool,
    ) -> Any:
        """What an apply makes of an object (None: of nothing). Raises StatusError.

        The result has its managedFields; nothing has defaulted or judged it yet.
        """
        shape, part = self.shape(served), part_of_call(call, served)
        relevant = relevant_of(served, part)
        manager = Manager(manager_name(call), APPLY, call.info.subresource)
        claim = Claim({}, served.api_version, self._now())
        live = {} if old is None else _values(served, old)
        managed = self._before(served, old, live)
        try:
            value, owned = apply_config(
                live, config, shape, managed, manager, claim, relevant=relevant, force=force
            )
        except OwnersDisagree as disagreement:
            theirs = disagreement
            if manager.name == KUBECTL and old is not None:
                theirs = _beyond_client_side(theirs, live, shape)
            if theirs.fields:
                raise conflict(theirs) from None
            value, owned = apply_config(
                live, config, shape, managed, manager, claim, relevant=relevant, force=True
            )
        value["apiVersion"], value["kind"] = served.api_version, served.kind_name
        if manager.name == KUBECTL:
            _renew_last_applied(value, live, config)
        new = served.from_value(served.read_strictly(value).value)
        if old is not None and _without_times(owned) == _without_times(managed) and value == live:
            return with_entries(new, old.metadata.managed_fields)
        return with_entries(new, entries_of(capped(owned)))

    def _before(self, served: Served, old: Any, live: dict[str, Any]) -> Managed:
        """The owners before an apply; what was there before all books has an owner, too."""
        if old is None:
            return {}
        managed = managed_of(old.metadata.managed_fields)
        if managed:
            return managed
        everything = compare(self._start(served), live, self.shape(served))
        first = Manager(BEFORE_FIRST_APPLY, UPDATE, "", served.api_version)
        return changed_by({}, everything, first, served.api_version, self._now())

    # -- what there is to own

    def shape(self, served: Served) -> Shape:
        shape = self._shapes.get(served)
        if shape is None:
            meta = schema_of("", "v1", "ConfigMap")
            assert meta is not None
            special = meta.child("metadata")
            assert special is not None
            shape = Shape(served.schema, {"metadata": special})
            self._shapes[served] = shape
        return shape

    def _start(self, served: Served) -> dict[str, Any]:
        """An object in which nothing is said: what it has, no writer gave it."""
        kind = served.resource.kind
        if kind is CustomObject:
            return {}
        start = self._empty.get(served)
        if start is None:
            start = self._empty[served] = served.to_value(empty_of(kind))
        return start

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)


def _values(served: Served, obj: Any) -> dict[str, Any]:
    """The plain values of an object, without its books."""
    metadata = obj.metadata
    if metadata.managed_fields:
        obj = replace(obj, metadata=replace(metadata, managed_fields=()))
    return served.to_value(obj)


def part_of_call(call: Call, served: Served) -> Part[Any] | None:
    part = served.subresource(call.info.subresource) if call.info.subresource else None
    return part if isinstance(part, Part) else None


def relevant_of(served: Served, part: Part[Any] | None) -> Relevant:
    """Leaves of a set of fields those that a write to a part (None: the object) can change."""
    if part is None:
        others = frozenset(f"f:{path}" for path in status_paths(served) if "." not in path)
        return lambda fields: without_below(fields, others)
    owns = {f"f:{path.partition('.')[0]}" for path in part.owns}
    if part.keeps_metadata:
        owns.add("f:metadata")
    mine = frozenset(owns)
    return lambda fields: only_below(fields, mine)


def _are_sound(managed: Managed) -> bool:
    return all(is_field_set(claim.fields) for claim in managed.values())


# -- conflicts


def conflict(disagreement: OwnersDisagree) -> Conflict:
    clashes = disagreement.clashes
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {_shown(clash.manager)}",
            "field": clash.path,
        }
        for clash in clashes
    ]
    if len(clashes) == 1:
        clash = clashes[0]
        message = (
            f"Apply failed with 1 conflict: conflict with {_shown(clash.manager)}: {clash.path}"
        )
        return Conflict.of_apply(message, causes)
    lines = []
    for manager in dict.fromkeys(clash.manager for clash in clashes):
        lines.append(f"conflicts with {_shown(manager)}:")
        lines += [f"- {clash.path}" for clash in clashes if clash.manager == manager]
    message = f"Apply failed with {len(clashes)} conflicts: " + "\n".join(lines)
    return Conflict.of_apply(message, causes)


def _shown(manager: Manager) -> str:
    text = json.dumps(manager.name, ensure_ascii=False)
    if manager.subresource:
        text += f' with subresource "{manager.subresource}"'
    return f"{text} using {manager.api_version}" if manager.operation == UPDATE else text


# -- from client-side apply


def _last_applied(live: dict[str, Any]) -> str:
    text: str = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED, "")
    return text


def _beyond_client_side(
    disagreement: OwnersDisagree, live: dict[str, Any], shape: Shape
) -> OwnersDisagree:
    """Without the fields that kubectl itself applied from the client's side and nobody changed."""
    try:
        applied = json.loads(_last_applied(live))
        own = field_set(applied, shape)
        changed = compare(applied, live, shape).modified
    except (ValueError, AttributeError, TypeError):
        # Not there, or not what kubectl writes.
        return disagreement
    allowed = difference(own, changed)
    rest = {
        manager: fields
        for manager, theirs in disagreement.fields.items()
        if (fields := difference(theirs, allowed))
    }
    return OwnersDisagree(rest)


def _renew_last_applied(
    value: dict[str, Any], live: dict[str, Any], config: dict[str, Any]
) -> None:
    """Clients that still apply by the annotation must find what was applied last."""
    if not _last_applied(live):
        return
    metadata = dict(config.get("metadata") or {})
    annotations = dict(metadata.pop("annotations", None) or {})
    annotations.pop(LAST_APPLIED, None)
    said = {**config, "metadata": {"annotations": annotations, **metadata}}
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"
    metadata = dict(value["metadata"])
    metadata["annotations"] = {**(metadata.get("annotations") or {}), LAST_APPLIED: text}
    value["metadata"] = metadata
