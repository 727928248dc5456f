"""What writes have in common: their outcome, the checks of what was sent, lost races."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec.structs import replace

from pybernetes.api.resource import Status
from pybernetes.apimachinery.errors import (
    BadRequest,
    Conflict,
    Invalid,
    StatusError,
)
from pybernetes.apiserver.respond import encode_json, object_response
from pybernetes.apiserver.verbs.read import include_object
from pybernetes.storage import Durability, RevisionMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.meta_v1 import ObjectMeta
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.wire.http import Response

# How often a race may be lost; upstream's figure.
RACE_ATTEMPTS = 5


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
        data = encode_json(served.to_value(written.obj))
        return object_response(call, data, status=status, wanted=wanted)
    form = served.form(wanted, include_object=include_object(call))
    data = form.object(written.entry, header=True)
    return object_response(call, data, status=status, wanted=wanted)


def in_namespace(served: Served, obj: Any, namespace: str) -> Any:
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


def new_uid(backend: Backend) -> str:
    return str(UUID(int=backend.random.getrandbits(128), version=4))


def raise_problems(served: Served, name: str, problems: Iterable[FieldError]) -> None:
    found = list(problems)
    if found:
        raise Invalid(served.kind_name, served.group, name, found)


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
        if served.needs_preparation:
            await served.prepare()
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


def status_paths(served: Served) -> tuple[str, ...]:
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
