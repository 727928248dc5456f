"""The typed client: verbs on kinds, over any transport.

`kind` is a generated class (`Pod`) or a `Kind` (custom resources, metadata only);
what comes back is of that type. Errors are those of `apimachinery.errors`.

Rules: an object is never changed, every write gives the new one back. Deleting an
*object* deletes that incarnation (its uid is sent as a precondition); deleting by
name deletes whoever has the name now.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from pybernetes.api import codec
from pybernetes.api.types.meta_v1 import DeleteOptions, Preconditions
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.client.kind import AnyKind, Kind, ListHead, RawEvent, dynamic_kind, kind_of
from pybernetes.client.transport import JSON, Lines, Transport, lines_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from pybernetes.client.transport import Query
    from pybernetes.wire.http import ClientResponse, Connection, HttpTransport

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

_RAW_EVENT = msgspec.json.Decoder(RawEvent)
_LIST_HEAD = msgspec.json.Decoder(ListHead)

# What the server calls the annotation of the bookmark that ends the initial events.
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class PatchType(Enum):
    """How a patch is to be read; the value is its media type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """One page of a list. `continue_` is not empty if there is more."""

    items: tuple[T, ...]
    resource_version: str
    continue_: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR is raised instead."""

    type: str
    object: T


class Client:
    """The API as seen by one identity, which the transport carries."""

    def __init__(self, transport: Transport | HttpTransport) -> None:
        self.transport = transport if isinstance(transport, Transport) else Transport(transport)

    def as_user(self, user: str, groups: Sequence[str] = (), *, uid: str = "") -> Client:
        """The same client acting as somebody else; the server must allow impersonation."""
        return Client(self.transport.impersonating(user, groups, uid=uid))

    async def get(
        self, kind: AnyKind[T], name: str, namespace: str = "", *, resource_version: str = ""
    ) -> T:
        kind = kind_of(kind)
        return kind.decode(
            await self.transport.call(
                "GET",
                kind.path(namespace, _required(name)),
                query=_query(resourceVersion=resource_version),
            )
        )

    async def get_or_none(self, kind: AnyKind[T], name: str, namespace: str = "") -> T | None:
        try:
            return await self.get(kind, name, namespace)
        except NotFound:
            return None

    async def list(
        self,
        kind: AnyKind[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
    ) -> Listing[T]:
        """One page, or everything without `limit`.

        An object that cannot be decoded is left out and logged: it must not hide the others.
        """
        kind = kind_of(kind)
        data = await self.transport.call(
            "GET",
            kind.path(namespace),
            query=_query(
                labelSelector=label_selector,
                fieldSelector=field_selector,
                limit=str(limit) if limit else "",
                **{"continue": continue_},
                resourceVersion=resource_version,
            ),
        )
        head = _LIST_HEAD.decode(data)
        return Listing(
            tuple(decode_each(kind, head.items or ())),
            head.metadata.resource_version,
            head.metadata.continue_,
            head.metadata.remaining_item_count,
        )

    async def create(
        self,
        obj: T,
        *,
        dry_run: bool = False,
        kind: Kind[T] | None = None,
        field_manager: str = "",
    ) -> T:
        """`kind` is needed for dictionaries only."""
        kind = _kind_of_object(obj, kind)
        return await self._send(
            "POST",
            kind,
            kind.path(kind.metadata_of(obj).namespace),
            codec.encode(obj),
            dry_run=dry_run,
            field_manager=field_manager,
        )

    async def update(
        self,
        obj: T,
        *,
        dry_run: bool = False,
        kind: Kind[T] | None = None,
        subresource: str = "",
        field_manager: str = "",
    ) -> T:
        """Raises Conflict if the object has changed since `obj` was read."""
        kind = _kind_of_object(obj, kind)
        metadata = kind.metadata_of(obj)
        return await self._send(
            "PUT",
            kind,
            kind.path(metadata.namespace, _required(metadata.name), subresource),
            codec.encode(obj),
            dry_run=dry_run,
            field_manager=field_manager,
        )

    async def update_status(self, obj: T, *, kind: Kind[T] | None = None) -> T:
        return await self.update(obj, kind=kind, subresource="status")

    async def patch(
        self,
        kind: AnyKind[T],
        name: str,
        namespace: str = "",
        *,
        patch: object,
        type: PatchType = PatchType.MERGE,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        """`patch` is JSON values or a struct; bytes are sent as they are."""
        kind = kind_of(kind)
        return await self._send(
            "PATCH",
            kind,
            kind.path(namespace, _required(name), subresource),
            patch if isinstance(patch, bytes) else codec.encode(patch),
            content_type=type.value,
            dry_run=dry_run,
            field_manager=field_manager,
            force=force,
        )

    @overload
    async def delete(
        self,
        target: AnyKind[Any],
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
        dry_run: bool = False,
    ) -> None: ...

    @overload
    async def delete(
        self,
        target: object,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
        dry_run: bool = False,
    ) -> None: ...

    async def delete(
        self,
        target: object,
        name: str = "",
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
        dry_run: bool = False,
    ) -> None:
        """Delete an object, or what has that kind and name.

        `propagation` is Foreground, Background or Orphan. Raises Conflict if uid or
        resource version are not those of the present object.
        """
        kind: Kind[Any]
        if isinstance(target, (type, Kind)):
            kind = kind_of(target)
        else:
            kind = kind_of(type(target))
            metadata = kind.metadata_of(target)
            name, namespace, uid = metadata.name, metadata.namespace, uid or metadata.uid
        preconditions = Preconditions(uid=uid, resource_version=resource_version)
        options = DeleteOptions(
            preconditions=preconditions if uid or resource_version else None,
            grace_period_seconds=grace_seconds,
            propagation_policy=propagation,
            dry_run=("All",) if dry_run else (),
        )
        await self.transport.call(
            "DELETE", kind.path(namespace, _required(name)), body=codec.encode(options)
        )

    async def delete_collection(
        self,
        kind: AnyKind[Any],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
    ) -> None:
        """Delete everything of that kind there that the selectors match."""
        options = DeleteOptions(grace_period_seconds=grace_seconds, propagation_policy=propagation)
        await self.transport.call(
            "DELETE",
            kind_of(kind).path(namespace),
            query=_query(labelSelector=label_selector, fieldSelector=field_selector),
            body=codec.encode(options),
        )

    async def get_subresource(
        self, parent: AnyKind[Any], name: str, namespace: str, subresource: str, kind: type[U]
    ) -> U:
        """What `kind` says which the subresource speaks: the Scale of a Deployment."""
        path = kind_of(parent).path(namespace, _required(name), subresource)
        return codec.decode(kind, await self.transport.call("GET", path))

    async def create_subresource(
        self, parent: AnyKind[Any], name: str, namespace: str, subresource: str, obj: U
    ) -> U:
        """Post a Binding, an Eviction, a TokenRequest; `obj` itself if the answer is only "done"."""
        return await self._send_subresource("POST", parent, name, namespace, subresource, obj)

    async def update_subresource(
        self, parent: AnyKind[Any], name: str, namespace: str, subresource: str, obj: U
    ) -> U:
        return await self._send_subresource("PUT", parent, name, namespace, subresource, obj)

    @asynccontextmanager
    async def watch(
        self,
        kind: AnyKind[T],
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        initial_events: bool = False,
        timeout_seconds: int = 0,
    ) -> AsyncIterator[AsyncIterator[WatchEvent[T]]]:
        """The changes after a resource version, until the server ends the stream.

        Raises Expired, at once or during iteration, when that version is no longer kept.
        """
        kind = kind_of(kind)
        async with (
            self.watch_lines(
                kind,
                namespace,
                resource_version=resource_version,
                label_selector=label_selector,
                field_selector=field_selector,
                bookmarks=bookmarks,
                initial_events=initial_events,
                timeout_seconds=timeout_seconds,
            ) as batches,
            aclosing(_events_of(kind, batches)) as events,
        ):
            yield events

    @asynccontextmanager
    async def watch_lines(
        self,
        kind: Kind[Any],
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = True,
        initial_events: bool = False,
        timeout_seconds: int = 0,
    ) -> AsyncIterator[AsyncIterator[Lines]]:
        """The same as undecoded lines, as many at a time as came together: for caches."""
        query = _query(
            watch="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            allowWatchBookmarks="true" if bookmarks or initial_events else "",
            sendInitialEvents="true" if initial_events else "",
            resourceVersionMatch="NotOlderThan" if initial_events else "",
            timeoutSeconds=str(timeout_seconds) if timeout_seconds else "",
        )
        async with (
            self.transport.stream(kind.path(namespace), query=query) as response,
            aclosing(lines_of(response)) as batches,
        ):
            yield batches

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes = b"",
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        """Any path of the server, as bytes. Raises StatusError."""
        return await self.transport.call(
            method, path, query=query, body=body, content_type=content_type, accept=accept
        )

    def stream(
        self, path: str, *, query: Query | None = None, accept: str = "*/*"
    ) -> AbstractAsyncContextManager[ClientResponse]:
        """A GET whose answer is read while it comes: a log."""
        return self.transport.stream(path, query=query, accept=accept)

    async def upgrade(
        self,
        method: str,
        path: str,
        *,
        query: Query | Sequence[tuple[str, str]] | None = None,
        headers: Sequence[tuple[str, str]],
    ) -> tuple[ClientResponse, Connection]:
        return await self.transport.upgrade(method, path, query=query, headers=headers)

    async def discover(self, group: str, version: str, kind: str) -> Kind[dict[str, Any]]:
        """Ask the server where a kind is served; LookupError if nowhere."""
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            resources = msgspec.json.decode(await self.transport.call("GET", path))["resources"]
        except NotFound:
            resources = []
        for resource in resources:
            if resource["kind"] == kind and "/" not in resource["name"]:
                return dynamic_kind(
                    group,
                    version,
                    resource["name"],
                    kind=kind,
                    namespaced=bool(resource.get("namespaced")),
                )
        raise LookupError(f"the server has no {kind} in {path}")

    async def close(self) -> None:
        await self.transport.close()

    async def _send(
        self,
        method: str,
        kind: Kind[T],
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        dry_run: bool = False,
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        query = _query(
            dryRun="All" if dry_run else "",
            fieldManager=field_manager,
            force="true" if force else "",
        )
        return kind.decode(
            await self.transport.call(
                method, path, query=query, body=body, content_type=content_type
            )
        )

    async def _send_subresource(
        self,
        method: str,
        parent: AnyKind[Any],
        name: str,
        namespace: str,
        subresource: str,
        obj: U,
    ) -> U:
        path = kind_of(parent).path(namespace, _required(name), subresource)
        data = await self.transport.call(method, path, body=codec.encode(obj))
        if codec.decode(_KindOnly, data).kind == "Status":
            return obj
        return codec.decode(type(obj), data)


class _KindOnly(msgspec.Struct, frozen=True):
    kind: str = ""


def decode_each(kind: Kind[T], items: Sequence[msgspec.Raw]) -> list[T]:
    """Decode what can be decoded; log the rest."""
    decoded = []
    for item in items:
        try:
            decoded.append(kind.decode(memoryview(item)))
        except ValueError as error:
            log.warning("leaving out one of %s that cannot be read: %s", kind, error)
    return decoded


async def _events_of(
    kind: Kind[T], batches: AsyncIterator[Lines]
) -> AsyncGenerator[WatchEvent[T], None]:
    async for lines in batches:
        for line in lines:
            if line:
                event = read_event(line)
                yield WatchEvent(event.type, kind.decode(memoryview(event.object)))


def read_event(line: bytes) -> RawEvent:
    """One line of a watch. An ERROR event is raised as what it says."""
    event = _RAW_EVENT.decode(line)
    if event.type == "ERROR":
        raise StatusError.from_status(msgspec.json.decode(event.object))
    return event


def _query(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _required(name: str) -> str:
    # An empty name would address the whole collection.
    if not name:
        raise ValueError("the object has no name")
    return name


def _kind_of_object(obj: T, kind: Kind[T] | None) -> Kind[T]:
    return kind_of(type(obj)) if kind is None else kind
