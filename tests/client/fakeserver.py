"""A server of the API's reading and writing rules, small enough to misbehave on demand.

It keeps dictionaries with revisions, serves get, list (with pages), create, update,
merge patch, delete and watch, and can cut its watches, forget its history (410) and
refuse. Nothing is validated, nobody is asked who they are.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from pybernetes.apimachinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    NotFound,
    StatusError,
)
from pybernetes.client.client import Client
from pybernetes.wire.http import Request, Response
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(frozen=True)
class Address:
    """What a path means."""

    collection: str  # "/api/v1/pods": the path without the namespace
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.collection, self.namespace, self.name


def parse_path(path: str) -> Address:
    parts = [unquote(part) for part in path.strip("/").split("/")]
    root = parts[:2] if parts[0] == "api" else parts[:3]
    rest = parts[len(root) :]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    return Address("/" + "/".join([*root, plural]), namespace, name, subresource)


@dataclass
class FakeServer:
    watch_list: bool = True
    silent_about_watch_list: bool = False
    page_limit: int = 0
    revision: int = 100
    compacted: int = 0
    # Current objects, by collection, namespace and name.
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    # Everything that ever happened: revision, collection, type, object.
    history: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    # Called with each request; what it gives instead of None is the answer.
    interfere: Callable[[Request], Response | None] = lambda _: None
    # One queue per open watch: its collection, and lines to send; None ends it.
    watches: dict[int, tuple[str, str, asyncio.Queue[bytes | None]]] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def client(self) -> Client:
        return Client(MemoryHttpClient(self.handle))

    # What tests do

    def cut_watches(self) -> None:
        for _, _, queue in list(self.watches.values()):
            queue.put_nowait(None)

    def compact(self) -> None:
        self.compacted = self.revision

    def send_to_watches(self, event: dict[str, Any]) -> None:
        for _, _, queue in self.watches.values():
            queue.put_nowait(json.dumps(event).encode() + b"\n")

    # What clients do

    async def handle(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.target}")
        if (answer := self.interfere(request)) is not None:
            return answer
        try:
            address = parse_path(request.path)
            query = dict(parse_qsl(request.query))
            body = await request.body.read(1 << 22)
            if request.method == "GET" and query.get("watch"):
                return self._watch(address, query)
            return self._answer(request, address, query, json.loads(body) if body else {})
        except StatusError as error:
            return answer_of(error)

    def _answer(
        self, request: Request, address: Address, query: dict[str, str], body: Any
    ) -> Response:
        if request.method == "GET":
            return ok(self._get(address)) if address.name else ok(self._list(address, query))
        if request.method == "POST":
            if address.subresource:
                self._get(address)
                return ok({"kind": "Status", "status": "Success"}, 201)
            return ok(self.create(address.collection, body, address.namespace), 201)
        if request.method == "PUT":
            return ok(self.update(address, body))
        if request.method == "PATCH":
            merged = merge(self._get(address), body)
            return ok(self.update(address, merged))
        if request.method == "DELETE" and address.name:
            preconditions = (body or {}).get("preconditions", {})
            uid = self._get(address)["metadata"]["uid"]
            if preconditions.get("uid", uid) != uid:
                raise Conflict(address.collection, address.name, "Precondition failed")
            self.delete(address)
            return ok({"kind": "Status", "status": "Success"})
        if request.method == "DELETE":
            for key in list(self.objects):
                if key[0] == address.collection and address.namespace in ("", key[1]):
                    self.delete(Address(*key, ""))
            return ok({"kind": "Status", "status": "Success"})
        raise BadRequest("what?")

    def _get(self, address: Address) -> dict[str, Any]:
        try:
            return self.objects[address.key]
        except KeyError:
            raise NotFound(address.collection, address.name) from None

    def _list(self, address: Address, query: dict[str, str]) -> dict[str, Any]:
        items = [
            obj
            for (collection, namespace, _), obj in sorted(self.objects.items())
            if collection == address.collection and address.namespace in ("", namespace)
        ]
        start = 0
        if token := query.get("continue", ""):
            revision, _, position = token.partition(":")
            start = int(position)
            if int(revision) < self.compacted:
                raise Expired("The provided continue parameter is too old")
        metadata: dict[str, Any] = {"resourceVersion": str(self.revision)}
        limit = min(int(query.get("limit", 0)), self.page_limit or 10**9)
        if limit and start + limit < len(items):
            metadata["continue"] = f"{self.revision}:{start + limit}"
            metadata["remainingItemCount"] = len(items) - start - limit
            items = items[: start + limit]
        return {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[start:]}

    def create(self, collection: str, body: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        metadata = dict(body.get("metadata") or {})
        name = metadata.get("name") or f"{metadata['generateName']}{next(self._ids)}"
        namespace = metadata.get("namespace", "") or namespace
        if (collection, namespace, name) in self.objects:
            raise AlreadyExists(collection, name)
        metadata |= {"name": name, "uid": f"uid-{next(self._ids)}"}
        if namespace:
            metadata["namespace"] = namespace
        return self._write("ADDED", Address(collection, namespace, name, ""), body, metadata)

    def update(self, address: Address, body: dict[str, Any]) -> dict[str, Any]:
        old = self._get(address)
        given = body["metadata"].get("resourceVersion", "")
        if given and given != old["metadata"]["resourceVersion"]:
            raise Conflict(address.collection, address.name)
        if address.subresource == "status":
            body = old | {"status": body.get("status", {})}
        return self._write("MODIFIED", address, body, dict(body["metadata"]))

    def delete(self, address: Address) -> None:
        obj = self._get(address)
        self._write("DELETED", address, obj, dict(obj["metadata"]))

    def _write(
        self, event: str, address: Address, body: dict[str, Any], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        obj = {**body, "metadata": metadata}
        if event == "DELETED":
            del self.objects[address.key]
        else:
            self.objects[address.key] = obj
        self.history.append((self.revision, address.collection, event, obj))
        for collection, namespace, queue in self.watches.values():
            if collection == address.collection and namespace in ("", address.namespace):
                queue.put_nowait(line(event, obj))
        return obj

    def _watch(self, address: Address, query: dict[str, str]) -> Response:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        since = int(query.get("resourceVersion") or self.revision)
        if query.get("sendInitialEvents") and not self.silent_about_watch_list:
            if not self.watch_list:
                raise BadRequest("sendInitialEvents is forbidden for watch")
            for obj in self._list(address, {})["items"]:
                queue.put_nowait(line("ADDED", obj))
            queue.put_nowait(bookmark(self.revision, initial_events_end=True))
            since = self.revision
        elif since < self.compacted:
            gone = Expired(f"too old resource version: {since} ({self.compacted})")
            queue.put_nowait(line("ERROR", gone.status()))
            queue.put_nowait(None)
        for revision, collection, event, obj in self.history:
            namespace = obj["metadata"].get("namespace", "")
            here = collection == address.collection and address.namespace in ("", namespace)
            if here and revision > since:
                queue.put_nowait(line(event, obj))
        number = next(self._ids)
        self.watches[number] = (address.collection, address.namespace, queue)

        async def lines() -> AsyncIterator[bytes]:
            try:
                while (first := await queue.get()) is not None:
                    parts = [first]
                    while not queue.empty() and queue._queue[0] is not None:  # type: ignore[attr-defined]  # peeking
                        parts.append(queue.get_nowait() or b"")
                    yield b"".join(parts)
            finally:
                del self.watches[number]

        return Response(200, [("content-type", "application/json")], lines())


def merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        merged[key] = merge(merged.get(key), value)
    return {key: value for key, value in merged.items() if value is not None}


def line(event: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": event, "object": obj}).encode() + b"\n"


def bookmark(revision: int, *, initial_events_end: bool = False) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": metadata})


def ok(value: Any, status: int = 200) -> Response:
    return Response(status, [("content-type", "application/json")], json.dumps(value).encode())


def answer_of(error: StatusError) -> Response:
    return ok(error.status(), error.code)
