"""One gRPC connection over a unix socket, and how its failures are named.

The only module that imports grpclib. Rules: the connection is made when it is first needed and
again after it broke; every call has a deadline, which the server is told too; whoever does not
answer is `RuntimeUnavailable`, whoever answers "no" is `RpcFailed` with the code it gave.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from pybernetes.kubelet.runtime.interface import ContainerRuntimeError, RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import timedelta

    from google.protobuf.message import Message

Reply = TypeVar("Reply", bound="Message")

# As Go writes the codes in its messages.
CODE_NAMES = {status: status.name.title().replace("_", "") for status in Status} | {
    Status.OK: "OK",
    Status.CANCELLED: "Canceled",
}

# grpclib's default window of 4 MiB for the connection is kept; one message may be larger.
_CONFIGURATION = Configuration()


class RpcFailed(ContainerRuntimeError):
    """The server answered with an error."""

    @property
    def unimplemented(self) -> bool:
        return self.code == "Unimplemented"

    @property
    def not_found(self) -> bool:
        return self.code == "NotFound"


class GrpcChannel:
    """Calls over one unix socket. `whose` is the server's name in error sentences."""

    def __init__(self, socket_path: str, *, whose: str = "the container runtime") -> None:
        self._socket_path = socket_path
        self._whose = whose
        # Made on first use: a channel belongs to the loop it was made in.
        self._channel: Channel | None = None

    @property
    def socket_path(self) -> str:
        return self._socket_path

    async def call(
        self,
        method: str,
        request: Message,
        reply: type[Reply],
        *,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, one reply. Raises RuntimeUnavailable or RpcFailed."""
        unary: UnaryUnaryMethod[Message, Reply] = UnaryUnaryMethod(
            self._open(), method, type(request), reply
        )
        # grpclib asserts where a connection that breaks in the middle of an answer cuts it short.
        try:
            return await unary(request, timeout=timeout, metadata=metadata)
        except (GRPCError, OSError, StreamTerminatedError, ProtocolError, AssertionError) as error:
            raise self._failure(error, timeout) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        request: Message,
        reply: type[Reply],
        *,
        metadata: Mapping[str, str] | None = None,
        refusal_time: timedelta | None = None,
    ) -> AsyncIterator[AsyncIterator[Reply]]:
        """One request, replies without end. The request has been sent when the block begins.

        With `refusal_time`, and the server has had that long to refuse it.
        """
        opened: UnaryStreamMethod[Message, Reply] = UnaryStreamMethod(
            self._open(), method, type(request), reply
        )
        try:
            async with opened.open(metadata=metadata) as stream:
                await stream.send_message(request, end=True)
                if refusal_time is not None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(refusal_time.total_seconds()):
                            await stream.recv_initial_metadata()
                yield stream
                # Whoever leaves the block early does not wait for the server to finish.
                await stream.cancel()
        except (GRPCError, OSError, StreamTerminatedError, ProtocolError) as error:
            raise self._failure(error, 0) from error

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _open(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(path=self._socket_path, config=_CONFIGURATION)
        return self._channel

    def _failure(self, error: BaseException, timeout: float) -> ContainerRuntimeError:
        where = f"{self._whose} at {self._socket_path}"
        if isinstance(error, GRPCError):
            code = CODE_NAMES.get(error.status, "Unknown")
            if error.status is Status.UNAVAILABLE:
                return RuntimeUnavailable(f"{where} is unavailable: {error.message or code}")
            return RpcFailed(error.message or code, code=code)
        if isinstance(error, asyncio.TimeoutError):
            return RuntimeUnavailable(f"{where} did not answer within {timeout:g} s")
        if isinstance(error, FileNotFoundError):
            return RuntimeUnavailable(f"{where} is not running: there is no such socket")
        if isinstance(error, ConnectionRefusedError):
            return RuntimeUnavailable(f"{where} is not running: nobody listens on its socket")
        if isinstance(error, OSError):
            return RuntimeUnavailable(f"{where} cannot be reached: {error.strerror or error}")
        return RuntimeUnavailable(f"{where} closed the connection")
