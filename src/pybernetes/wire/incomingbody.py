"""The body of a request while it arrives: filled by the parser, emptied by the handler.

Rule: what the handler takes is told to the connection, which stops reading
while too much is not taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from pybernetes.wire.http import Body, BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Source(Protocol):
    """The connection, as far as its bodies know it."""

    def body_taken(self, count: int) -> None: ...

    def send_continue(self) -> None: ...


class IncomingBody(Body):
    """The body of a request while it arrives."""

    __slots__ = ("_awaited", "_chunks", "_connection", "_error", "_size", "_waiter", "complete")

    def __init__(self, connection: Source, *, length: int, awaited: bool) -> None:
        super().__init__()
        self._connection = connection
        # Announced length; -1 if the body is chunked.
        self._size = length
        # The client waits for "100 Continue" before it sends anything.
        self._awaited = awaited
        self._chunks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.complete = False

    async def read(self, limit: int) -> bytes:
        if self._size > limit:
            raise BodyTooLarge(limit)
        parts, size = [], 0
        async for part in self:
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                part = self._chunks.popleft()
                self._connection.body_taken(len(part))
                yield part
            if self._error is not None:
                raise self._error
            if self.complete:
                return
            if self._awaited:
                self._awaited = False
                self._connection.send_continue()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    @property
    def is_held_back(self) -> bool:
        """The client still waits for "100 Continue": it may never send this body."""
        return self._awaited and not self.complete

    @property
    def announced(self) -> int:
        return self._size

    def drop(self) -> int:
        """Forget what nobody has read; how many bytes that was."""
        count = sum(map(len, self._chunks))
        self._chunks.clear()
        return count

    def feed(self, data: bytes) -> None:
        self._awaited = False
        self._chunks.append(data)
        self._wake()

    def finish(self, error: Exception | None = None) -> None:
        if error is None:
            self.complete = True
        else:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
