"""From HTTP to the API's words: bodies, errors, retries, watch streams.

Whatever carries HTTP (`wire.HttpClient` over a socket, `wire.MemoryHttpClient` in
the same process) is used through this one class. An answer that is not success
becomes the exception its Status stands for.

Rule: a request that the server refused *for now* (429 or 5xx with Retry-After) was
not carried out, so it is tried again here, as often as upstream's clients do.
Everything else is the caller's to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

import msgspec

from pybernetes.apimachinery.errors import StatusError

if TYPE_CHECKING:
    from pybernetes.wire.http import ClientResponse, Connection, HttpTransport

JSON = "application/json"

# How often one request is sent at most, counting refusals that name a time to wait.
MOST_TRIES = 10

# A longer wait is not waited for: the caller hears the refusal at once.
LONGEST_RETRY_AFTER_SECONDS = 60

# A longer line of a watch is an attack or a mistake: objects end at 3 MiB.
LONGEST_LINE_BYTES = 64 * 1024 * 1024

Query = Mapping[str, str]
Lines: TypeAlias = "list[bytes]"
HeaderSource = Callable[[], Sequence[tuple[str, str]]]


class Transport:
    """Sends requests of the API over one HTTP transport, with one identity.

    `headers` is asked for each request, because tokens are rotated.
    """

    def __init__(
        self, http: HttpTransport, *, user_agent: str = "pybernetes", headers: HeaderSource = tuple
    ) -> None:
        self._http = http
        self._headers = headers
        self._user_agent = user_agent

    def impersonating(self, user: str, groups: Sequence[str] = (), *, uid: str = "") -> Transport:
        """The same connection, acting as somebody else, if the server allows it."""
        added = [("impersonate-user", user), *(("impersonate-group", group) for group in groups)]
        if uid:
            added.append(("impersonate-uid", uid))
        own = self._headers
        return Transport(self._http, user_agent=self._user_agent, headers=lambda: [*own(), *added])

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes = b"",
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        """One request and its whole answer. Raises StatusError."""
        target = _target(path, query)
        headers = self._request_headers(accept)
        if body:
            headers.append(("content-type", content_type))
        for attempt in range(1, MOST_TRIES + 1):
            async with await self._http.request(
                method, target, headers=headers, body=body
            ) as response:
                data = await response.read()
            if response.status < 300:
                break
            wait = _retry_after_seconds(response)
            if wait is None or attempt == MOST_TRIES:
                raise _error_of(response, data)
            await asyncio.sleep(wait)
        return data

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query | None = None, accept: str = JSON
    ) -> AsyncIterator[ClientResponse]:
        """A GET whose answer is read while it comes (a watch, a log). Raises StatusError."""
        async with await self._http.request(
            "GET", _target(path, query), headers=self._request_headers(accept)
        ) as response:
            if response.status >= 300:
                raise _error_of(response, await response.read())
            yield response

    async def upgrade(
        self,
        method: str,
        path: str,
        *,
        query: Query | Sequence[tuple[str, str]] | None = None,
        headers: Sequence[tuple[str, str]],
    ) -> tuple[ClientResponse, Connection]:
        """Change the protocol (exec, attach, port-forward). Raises StatusError if refused."""
        response, connection = await self._http.upgrade(
            method, _target(path, query), headers=[*self._request_headers("*/*"), *headers]
        )
        if connection is None:
            async with response:
                raise _error_of(response, await response.read())
        return response, connection

    async def close(self) -> None:
        await self._http.close()

    def _request_headers(self, accept: str) -> list[tuple[str, str]]:
        return [("accept", accept), ("user-agent", self._user_agent), *self._headers()]


async def lines_of(response: ClientResponse) -> AsyncGenerator[Lines, None]:
    """The lines of a stream, as many at a time as came together; an unfinished last one is lost."""
    # The beginning of a line whose end has not come yet, in pieces.
    rest: list[bytes] = []
    size = 0
    async for chunk in response:
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            rest.append(tail)
            size += len(tail)
            if size > LONGEST_LINE_BYTES:
                raise ValueError(f"a line of a watch is longer than {LONGEST_LINE_BYTES} bytes")
            continue
        yield (b"".join([*rest, head]) if rest else head).split(b"\n")
        rest, size = ([tail], len(tail)) if tail else ([], 0)


def _target(path: str, query: Query | Sequence[tuple[str, str]] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _retry_after_seconds(response: ClientResponse) -> float | None:
    if response.status != 429 and response.status < 500:
        return None
    # Upstream's servers only ever send whole seconds, never a date.
    text = response.headers.get("retry-after").strip()
    if not text.isascii() or not text.isdigit() or int(text) > LONGEST_RETRY_AFTER_SECONDS:
        return None
    return int(text)


def _error_of(response: ClientResponse, data: bytes) -> StatusError:
    """The Status in the body, or one made up from what is there."""
    try:
        value = msgspec.json.decode(data)
    except ValueError:
        value = None
    if isinstance(value, dict) and value.get("kind") == "Status":
        return StatusError.from_status(value)
    text = data[:1024].decode("utf-8", "replace").strip()
    message = text or "the server gave no reason"
    return StatusError.from_status({"code": response.status, "message": message})
