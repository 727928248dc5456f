"""Answers: objects, lists and Status errors as HTTP responses.

Everything the API says is JSON bytes first; YAML and gzip are put on at the very end. A
large list is never one buffer: it is joined and sent piece by piece, from entries that
cannot change meanwhile, so it still shows one moment.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pybernetes.apiserver.negotiation import JSON, PLAIN, YAML, Wanted
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from pybernetes.apimachinery.errors import StatusError
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.forms import ListForm

# Bodies above this are compressed if the client can read it, as upstream does.
GZIP_FROM_BYTES = 128 * 1024
# Lists above this are sent piece by piece.
STREAM_FROM_BYTES = 128 * 1024
PIECE_BYTES = 64 * 1024
# After so many pieces everybody else gets a turn.
_PIECES_PER_TURN = 16

_CACHE_CONTROL = ("Cache-Control", "no-cache, private")
_JSON_HEADERS = (("Content-Type", JSON), _CACHE_CONTROL)

encode_json = msgspec.json.encode


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor() -> _Compressor:
    # isal is eight times as fast; without it zlib does.
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(1, zlib.DEFLATED, 31)
    compressor: _Compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return compressor


def gzipped(data: bytes) -> bytes:
    compressor = _compressor()
    return compressor.compress(data) + compressor.flush()


def accepts_gzip(call: Call) -> bool:
    return "gzip" in call.request.headers.get("accept-encoding")


def json_response(data: bytes, *, status: int = 200) -> Response:
    return Response(status, [*_JSON_HEADERS], data)


def object_response(
    call: Call, data: bytes, *, status: int = 200, wanted: Wanted = PLAIN
) -> Response:
    """One JSON document, in the encoding and compression the client asked for."""
    if wanted.is_yaml:
        return Response(status, [("Content-Type", YAML), _CACHE_CONTROL], _as_yaml(data))
    if call.query and call.flag("pretty"):
        data = msgspec.json.format(data, indent=2) + b"\n"
    if wanted.form:
        headers = [("Content-Type", wanted.content_type), _CACHE_CONTROL]
    else:
        headers = [*_JSON_HEADERS]
    if len(data) > GZIP_FROM_BYTES and accepts_gzip(call):
        data = gzipped(data)
        headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
    return Response(status, headers, data)


def _as_yaml(data: bytes) -> bytes:
    import yaml  # only for the few who ask for it

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(msgspec.json.decode(data), Dumper=dumper, allow_unicode=True)
    return text.encode()


def status_response(error: StatusError) -> Response:
    headers = [*_JSON_HEADERS]
    if error.retry_after_seconds:
        headers.append(("Retry-After", str(error.retry_after_seconds)))
    return Response(error.code, headers, encode_json(error.status()))


def success(details: Mapping[str, Any] | None = None, *, status: int = 200) -> Response:
    """The Status that says that it is done."""
    content: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
    }
    if details:
        content["details"] = {key: value for key, value in details.items() if value}
    if status != 200:
        content["code"] = status
    return json_response(encode_json(content), status=status)


def list_response(
    call: Call, form: ListForm, entries: Sequence[Entry], metadata: bytes, wanted: Wanted
) -> Response:
    pieces = _list_pieces(form, entries, metadata)
    if wanted.is_yaml or not _is_large(entries):
        return object_response(call, b"".join(pieces), wanted=wanted)
    headers = [("Content-Type", wanted.content_type), _CACHE_CONTROL]
    if accepts_gzip(call):
        headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        pieces = _compressed(pieces)
    return Response(200, headers, _taking_turns(pieces))


def _is_large(entries: Iterable[Entry]) -> bool:
    size = 0
    for entry in entries:
        size += len(entry.value)
        if size > STREAM_FROM_BYTES:
            return True
    return False


def _list_pieces(form: ListForm, entries: Sequence[Entry], metadata: bytes) -> Iterator[bytes]:
    yield form.list_opening(metadata)
    item = form.item
    parts: list[bytes] = []
    size, separator = 0, b""
    for entry in entries:
        encoded = item(entry)
        parts.append(encoded)
        size += len(encoded)
        if size >= PIECE_BYTES:
            yield separator + b",".join(parts)
            parts, size, separator = [], 0, b","
    if parts:
        yield separator + b",".join(parts)
    yield form.list_closing


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    compressor = _compressor()
    for piece in pieces:
        if data := compressor.compress(piece):
            yield data
    yield compressor.flush()


async def _taking_turns(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for count, piece in enumerate(pieces, 1):
        yield piece
        if count % _PIECES_PER_TURN == 0:
            await asyncio.sleep(0)
