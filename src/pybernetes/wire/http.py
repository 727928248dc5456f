"""The values an HTTP exchange consists of, whatever carries it.

A `Handler` takes a `Request` and gives a `Response`; the socket server and the
in-memory transport both call the same handler, and the two clients both give a
`ClientResponse`. Nothing here does I/O or knows Kubernetes.

Rules: header names are kept in lower case; a path is what stood in the request
line, not decoded; whoever yields a body chunk gives up the right to change it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    from types import TracebackType

# Phrases by status code; a code outside the table is written without a phrase.
REASON_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# Answers that have no body, whatever their headers say (RFC 9110 §6.4.1).
BODILESS = frozenset({204, 304, *range(100, 200)})


class WireError(Exception):
    """Something went wrong below the level of an HTTP answer."""


class BodyTooLarge(WireError):
    """The body is longer than its reader will take."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"body is longer than {limit} bytes")
        self.limit = limit


class BodyTimeout(WireError):
    """The body has stopped arriving."""


class ConnectionClosed(WireError, ConnectionError):
    """The other side went away before the message was complete."""


class ProtocolError(WireError):
    """The other side sent something that is not the protocol."""


class Headers:
    """Header fields in the order they came; names are looked up in any case."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = [(name.lower(), value) for name, value in items]

    @classmethod
    def of_lowered(cls, items: list[tuple[str, str]]) -> Headers:
        """Wrap a list whose names are in lower case already; the list is kept, not copied."""
        headers = cls.__new__(cls)
        headers._items = items
        return headers

    def get(self, name: str, default: str = "") -> str:
        """The first value of that name."""
        name = name.lower()
        for known, value in self._items:
            if known == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        name = name.lower()
        return [value for known, value in self._items if known == name]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated tokens of all fields of that name, in lower case."""
        values = ",".join(self.get_all(name)).split(",")
        return [token.strip().lower() for token in values if token.strip()]

    def items(self) -> list[tuple[str, str]]:
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(known == name.lower() for known, _ in self._items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"


@dataclass(slots=True)
class Peer:
    """Who is at the other end.

    `subject` is the verified client certificate's, as (attribute, value) pairs
    in order, with OpenSSL's long names: ("commonName", "admin"). `identity` is
    set only by in-process transports, never by a socket.
    """

    address: str = ""
    certificate_der: bytes | None = None
    subject: tuple[tuple[str, str], ...] = ()
    identity: object | None = None
    secure: bool = False


class Body:
    """The bytes of a message, to be read once; this one holds them already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    async def read(self, limit: int) -> bytes:
        """All of it. Raises BodyTooLarge as soon as it is known to exceed `limit`."""
        if len(self._data) > limit:
            raise BodyTooLarge(limit)
        return self._data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._data:
            yield self._data


class StreamBody(Body):
    """A body that is still coming, as chunks."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks

    async def read(self, limit: int) -> bytes:
        parts, size = [], 0
        async for chunk in self:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit)
            parts.append(chunk)
        return b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: str
    headers: Headers
    body: Body
    peer: Peer
    version: str = "1.1"

    @property
    def decoded_path(self) -> str:
        return unquote(self.path) if "%" in self.path else self.path

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def upgrade_protocol(self) -> str:
        """The protocol the client asks to change to, in lower case; empty if none."""
        if "upgrade" not in self.headers.tokens("connection"):
            return ""
        return self.headers.get("upgrade").strip().lower()


class Connection(Protocol):
    """A two-way stream of bytes.

    `write` never waits; who writes more than a little calls `drain`, which waits
    while too much is unsent and raises ConnectionClosed when nobody will read it.
    """

    async def read(self) -> bytes:
        """Some bytes, at least one; b"" when the other side has ended its stream."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None:
        """Send what is written, then close both directions."""

    async def wait_closed(self) -> None: ...


@dataclass(slots=True)
class Response:
    """An answer.

    `body` as an async iterator is a stream: it is pulled at the pace of the
    client, each chunk goes out at once, and the iterator is closed (`aclose`)
    when the client leaves. With `upgrade` the head is sent as it is (status 101)
    and then the callable owns the connection until it returns.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Sequence[bytes] | AsyncIterator[bytes] = b""
    upgrade: Callable[[Connection], Awaitable[None]] | None = None


Handler = Callable[[Request], Awaitable[Response]]


class ClientResponse:
    """An answer as the client sees it; its body is read once, at the reader's pace.

    Must be read to its end or closed; `async with` does that. `close` may be
    called at any moment by the task that reads.
    """

    __slots__ = ("_chunks", "_close", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Headers,
        chunks: AsyncIterator[bytes],
        *,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks
        self._close = close

    async def read(self, limit: int | None = None) -> bytes:
        """The rest of the body. Raises BodyTooLarge, and closes, beyond `limit`."""
        parts, size = [], 0
        async for chunk in self._chunks:
            size += len(chunk)
            if limit is not None and size > limit:
                await self.close()
                raise BodyTooLarge(limit)
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def close(self) -> None:
        await self._close()

    async def __aenter__(self) -> ClientResponse:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class HttpTransport(Protocol):
    """What HttpClient and MemoryHttpClient have in common."""

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> ClientResponse: ...

    async def upgrade(
        self, method: str, target: str, *, headers: Sequence[tuple[str, str]] = ()
    ) -> tuple[ClientResponse, Connection | None]:
        """The connection is there if, and only if, the answer is 101."""

    async def close(self) -> None: ...
