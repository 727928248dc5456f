"""Answers /openapi/v2 and /openapi/v3: which document, in which form, and whether it is needed.

A document is made when it is first asked for and kept compressed, the few that were asked for
last: clients keep them on their disks and come back with a tag. Version 3 names its documents
by a hash in an index; the hash is that of everything a document is made from, so the index
costs no document.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pybernetes import __version__
from pybernetes.apimachinery.errors import NotAcceptable, NotFound
from pybernetes.apiserver.health import version_info
from pybernetes.apiserver.hooks import Route
from pybernetes.apiserver.respond import accepts_gzip, encode_json, gzipped, json_response
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Catalog, Served

_JSON = "application/json"
# Old clients ask by a name that is no media type, and stumble if they are answered with it.
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROTOBUF_NAMES = (_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
_ANYTHING = ("*/*", "application/*", _JSON)

# Compressed documents that are kept, and the bytes they may have together.
_KEPT = 6
_KEPT_BYTES = 512 * 1024

# What is named by its hash never changes.
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache, private"


@dataclass(frozen=True, slots=True)
class _Document:
    tag: str
    compressed: bytes


class OpenApi:
    """The routes of OpenAPI over a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._server_version = version_info(__version__)["gitVersion"]
        # By what they are; the last one was asked for last.
        self._documents: OrderedDict[tuple[str, ...], _Document] = OrderedDict()
        # Hashes by group version, once the index was asked for.
        self._hashes: dict[tuple[str, str], str] = {}
        catalog.on_change(self._forget)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("/openapi/v2", self._v2),
            Route("/openapi/v3", self._index),
            Route("/openapi/v3/", self._v3),
        )

    def _forget(self) -> None:
        self._documents.clear()
        self._hashes.clear()

    # --- answers ----------------------------------------------------------------------------------

    async def _v2(self, call: Call) -> Response:
        media_type = _v2_media_type(call.request.headers.get("accept"))
        if media_type == _JSON:
            document = self._document(("v2", "json"), self._make_v2_json)
        else:
            document = self._document(("v2", "protobuf"), self._make_v2_protobuf)
        return _answer(call, document, media_type, document.tag, _ASK_AGAIN)

    async def _index(self, call: Call) -> Response:
        from pybernetes.apiserver.openapi.document import group_version_path

        paths = {}
        for (group, version), found in self._all_hashes().items():
            path = group_version_path(group, version)
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={quote(found)}"}
        return json_response(encode_json({"paths": paths}))

    async def _v3(self, call: Call) -> Response:
        _check_accepts_json(call.request.headers.get("accept"))
        parts = call.info.path.removeprefix("/openapi/v3/").strip("/").split("/")
        match parts:
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                raise NotFound.unknown_path()
        tag = self._all_hashes().get((group, version))
        if tag is None:
            raise NotFound.unknown_path()
        wished = call.query.get("hash", "")
        if wished and wished != tag:
            # An old index: the present document is elsewhere.
            where = f"{call.info.path}?hash={quote(tag)}"
            return Response(301, [("Location", where), ("Cache-Control", _ASK_AGAIN)], b"")
        document = self._document(
            ("v3", group, version), lambda: self._make_v3(group, version), tag
        )
        return _answer(call, document, _JSON, tag, _FOR_EVER if wished else _ASK_AGAIN)

    # --- documents --------------------------------------------------------------------------------

    def _document(
        self, key: tuple[str, ...], make: Callable[[], bytes], tag: str = ""
    ) -> _Document:
        document = self._documents.get(key)
        if document is None:
            data = make()
            tag = tag or hashlib.sha256(data).hexdigest().upper()
            document = self._documents[key] = _Document(tag, gzipped(data))
            self._make_room()
        self._documents.move_to_end(key)
        return document

    def _make_room(self) -> None:
        size = sum(len(document.compressed) for document in self._documents.values())
        while len(self._documents) > 1 and (len(self._documents) > _KEPT or size > _KEPT_BYTES):
            _, gone = self._documents.popitem(last=False)
            size -= len(gone.compressed)

    def _make_v3(self, group: str, version: str) -> bytes:
        from pybernetes.apiserver.openapi.descriptions import Descriptions
        from pybernetes.apiserver.openapi.document import document_v3

        served = [s for s in self._catalog if (s.group, s.version) == (group, version)]
        return encode_json(document_v3(served, Descriptions.load(), self._server_version))

    def _make_v2(self) -> dict[str, Any]:
        from pybernetes.apiserver.openapi.descriptions import Descriptions
        from pybernetes.apiserver.openapi.document import document_v2

        return document_v2(self._catalog, Descriptions.load(), self._server_version)

    def _make_v2_json(self) -> bytes:
        return encode_json(self._make_v2())

    def _make_v2_protobuf(self) -> bytes:
        from pybernetes.apiserver.openapi.protobuf import encode_document

        return encode_document(self._make_v2())

    # --- hashes -----------------------------------------------------------------------------------

    def _all_hashes(self) -> dict[tuple[str, str], str]:
        if not self._hashes:
            facts: dict[tuple[str, str], list[Any]] = {}
            for served in self._catalog:
                facts.setdefault((served.group, served.version), []).append(_facts_of(served))
            for group_version, of_all in facts.items():
                digest = hashlib.sha256(_sources())
                digest.update(encode_json([self._server_version, of_all]))
                self._hashes[group_version] = digest.hexdigest().upper()
        return self._hashes


def _facts_of(served: Served) -> list[Any]:
    """Everything about a resource that its document depends on and that sources do not say."""
    subresources = [sub.name for sub in served.resource.subresources]
    said: list[Any] = [served.plural, served.kind_name, sorted(served.verbs), subresources]
    if not served.schema.ref:
        from pybernetes.apiserver.openapi.definitions import custom_document

        said.append(custom_document(served.schema))
    return said


@cache
def _sources() -> bytes:
    """A digest of the code and the tables that documents are made from."""
    from pybernetes.api.schemas import TABLE

    digest = hashlib.sha256()
    for path in (TABLE, *sorted(Path(__file__).parent.glob("*.[pt][yx]*"))):
        digest.update(path.read_bytes())
    return digest.digest()


# --- forms ----------------------------------------------------------------------------------------


def _media_types(accept: str) -> list[str]:
    return [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]


def _v2_media_type(accept: str) -> str:
    wished = _media_types(accept)
    for media_type in wished:
        if media_type in _PROTOBUF_NAMES:
            return _PROTOBUF
        if media_type in _ANYTHING:
            return _JSON
    if wished:
        raise NotAcceptable((_JSON, _PROTOBUF))
    return _JSON


def _check_accepts_json(accept: str) -> None:
    wished = _media_types(accept)
    if wished and not any(media_type in _ANYTHING for media_type in wished):
        raise NotAcceptable((_JSON,))


def _answer(call: Call, document: _Document, media_type: str, tag: str, caching: str) -> Response:
    quoted = f'"{tag}"'
    headers = [("ETag", quoted), ("Vary", "Accept, Accept-Encoding"), ("Cache-Control", caching)]
    asked = call.request.headers.get("if-none-match")
    if asked and quoted in [one.strip().removeprefix("W/") for one in asked.split(",")]:
        return Response(304, headers, b"")
    headers.insert(0, ("Content-Type", media_type))
    if accepts_gzip(call):
        headers.append(("Content-Encoding", "gzip"))
        return Response(200, headers, document.compressed)
    return Response(200, headers, zlib.decompress(document.compressed, 31))
