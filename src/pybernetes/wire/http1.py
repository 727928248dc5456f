"""How HTTP/1.1 looks in bytes: message heads and chunks, the same for both sides.

Pure functions. Rule: no header of ours ever smuggles a line break; what would
contain one is an error of the caller and raises ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.wire.http import REASON_PHRASES, Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# How many bytes of a long body are written before looking whether the reader keeps up.
STRIDE = 64 * 1024

_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {phrase}\r\n" for status, phrase in REASON_PHRASES.items()
}


def response_head(status: int, fields: Iterable[tuple[str, str]]) -> bytes:
    """Status line and header fields, with the empty line that ends them."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    return _head(line, fields)


def request_head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    if not (method.isalpha() and target.isascii() and target.isprintable()) or " " in target:
        raise ValueError(f"not a request line: {method} {target!r}")
    return _head(f"{method} {target} HTTP/1.1\r\n", fields)


def _head(first_line: str, fields: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    head = f"{first_line}{''.join(lines)}\r\n"
    # Each line has one break of ours; any other came in with a name or value.
    if head.count("\n") != len(lines) + 2 or head.count("\r") != len(lines) + 2:
        raise ValueError("a header field contains a line break")
    return head.encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def decode_field(raw: bytes) -> str:
    """Header bytes as text: UTF-8 as we and Go write it, else Latin-1 as the RFC has it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def strides(head: bytes, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Head and parts as pieces of about STRIDE bytes: few writes, no second copy of it all."""
    gathered: list[bytes | memoryview] = [head]
    size = 0
    for part in parts:
        rest = memoryview(part)
        while size + len(rest) >= STRIDE:
            gathered.append(rest[: STRIDE - size])
            rest = rest[STRIDE - size :]
            yield b"".join(gathered)
            gathered.clear()
            size = 0
        gathered.append(rest)
        size += len(rest)
    if gathered:
        yield b"".join(gathered)


def split_target(target: bytes) -> tuple[str, str]:
    text = target.decode("latin-1")
    if not text.startswith("/"):
        parts = urlsplit(text)
        if parts.scheme and parts.netloc:  # Absolute form, as sent to a proxy.
            return parts.path or "/", parts.query
    path, _, query = text.partition("?")
    return path, query


def has_field(response: Response, name: str) -> bool:
    length = len(name)
    return any(len(known) == length and known.lower() == name for known, _ in response.headers)


def plain_answer(status: int, text: str) -> Response:
    return Response(status, [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode())
