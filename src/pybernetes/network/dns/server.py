"""The DNS server's sockets: UDP and TCP on one address.

What has been answered from the zone before is answered again without looking at it: the bytes of
the question, except its number, lead straight to the bytes of the answer (a few of them, in
different orders, where there are several records). That is what nearly every query is, and it
costs about as much as the two system calls around it.

Rules: an answer kept this way goes when a name it depends on changes; what came from upstream is
never kept here, because its time to live runs down. Everything that waits is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pybernetes.network.dns import wire
from pybernetes.network.dns.wire import FormatError, Query, Reply
from pybernetes.network.program import NetworkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from random import Random

    from pybernetes.network.dns.chain import Handler

log = logging.getLogger(__name__)

# Datagrams taken from the socket before anybody else gets a turn.
_BURST = 256
# Kept answers; when there are more, all are dropped, which costs less than choosing.
_KEPT = 20_000
# Orders in which several records are given.
_ORDERS = 8
_IN_FLIGHT = 1000
_TCP_CONNECTIONS = 100
_PORT_CHOICES = 20
_TCP_IDLE_SECONDS = 10.0
_SO_RCVBUFFORCE = 33
_LENGTH = struct.Struct("!H")


@dataclass(slots=True)
class Counters:
    queries: int = 0
    # Answered by bytes already made.
    repeated: int = 0
    # Turned away because too many were waiting.
    refused: int = 0
    malformed: int = 0


class DnsServer:
    """Answers on one address until its context is left."""

    def __init__(self, handler: Handler, *, random: Random) -> None:
        self._handler = handler
        self._random = random
        self.counters = Counters()
        # Bytes of a query behind its number -> answers to it behind the number.
        self._kept: dict[bytes, tuple[bytes, ...]] = {}
        # Name -> queries in `_kept` whose answer depends on it.
        self._kept_of: dict[bytes, set[bytes]] = {}
        self._socket: socket.socket | None = None
        self._tasks: asyncio.TaskGroup | None = None
        # The TCP listener, its connections, and queries that wait for their answer.
        self._running: set[asyncio.Task[None]] = set()
        self._in_flight = self._connections = 0

    def forget(self, names: Iterable[bytes]) -> None:
        """These names answer differently now."""
        for name in names:
            for key in self._kept_of.pop(name, ()):
                self._kept.pop(key, None)

    @contextlib.asynccontextmanager
    async def serve(self, address: str, port: int) -> AsyncIterator[tuple[str, int]]:
        """Answer on that address; gives the one bound, in case port was 0."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            udp, tcp = _bind(address, port)
            stack.callback(udp.close)
            stack.callback(tcp.close)
            self._socket = udp
            async with asyncio.TaskGroup() as self._tasks:
                self._spawn(self._accept(tcp), "dns listener")
                loop.add_reader(udp, self._drain)
                try:
                    yield udp.getsockname()
                finally:
                    loop.remove_reader(udp)
                    for task in self._running:
                        task.cancel()
                    self._socket = self._tasks = None

    def _drain(self) -> None:
        """Take datagrams until there is none, answering those whose answer is ready."""
        one, kept, choose = self._socket, self._kept, self._random.choice
        assert one is not None
        receive, send = one.recvfrom, one.sendto
        for count in range(_BURST):
            try:
                data, peer = receive(4096)
            except (BlockingIOError, InterruptedError):
                self.counters.queries += count
                return
            except OSError as error:
                # An ICMP error about an earlier answer is not about this socket.
                log.debug("receiving a query: %s", error)
                continue
            answers = kept.get(data[2:])
            if answers is None:
                self._begin(data, peer)
                continue
            self.counters.repeated += 1
            answer = answers[0] if len(answers) == 1 else choose(answers)
            # A full send buffer loses the answer, as the network might: the asker asks again.
            with contextlib.suppress(OSError):
                send(data[:2] + answer, peer)
        self.counters.queries += _BURST

    def _begin(self, data: bytes, peer: tuple[str, int]) -> None:
        try:
            query = wire.parse_query(data)
        except FormatError:
            self.counters.malformed += 1
            self._send(wire.error_reply(data, wire.FORMERR), peer)
            return
        if self._tasks is None or self._in_flight >= _IN_FLIGHT:
            self.counters.refused += 1
            self._send(wire.encode_reply(query, Reply(wire.SERVFAIL)), peer)
            return
        self._in_flight += 1
        self._spawn(self._answer_udp(query, data, peer), "dns query")

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer_udp(self, query: Query, data: bytes, peer: tuple[str, int]) -> None:
        try:
            reply = await self._handle(query)
            orders = self._orders(query, reply)
            self._send(orders[0], peer)
            if reply.names and not query.has_options:
                self._keep(data, reply, orders)
        finally:
            self._in_flight -= 1

    async def _handle(self, query: Query) -> Reply:
        try:
            return await self._handler(query)
        except Exception:  # one query must not end the others
            log.exception("cannot answer %s", wire.format_name(query.name))
            return Reply(wire.SERVFAIL)

    def _orders(self, query: Query, reply: Reply) -> list[bytes]:
        """The answer in bytes, several times in different orders if there are several records."""
        if not reply.names or len(reply.answers) < 2 or reply.answers[0].type == wire.CNAME:
            return [wire.encode_reply(query, reply)]
        orders: list[bytes] = []
        for _ in range(_ORDERS):
            records = list(reply.answers)
            self._random.shuffle(records)
            orders.append(wire.encode_reply(query, replace(reply, answers=tuple(records))))
        return orders

    def _keep(self, data: bytes, reply: Reply, orders: list[bytes]) -> None:
        if len(self._kept) >= _KEPT:
            self._kept.clear()
            self._kept_of.clear()
        key = data[2:]
        self._kept[key] = tuple(order[2:] for order in orders)
        for name in reply.names:
            self._kept_of.setdefault(name, set()).add(key)

    def _send(self, data: bytes | None, peer: tuple[str, int]) -> None:
        if data is not None and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(data, peer)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                # Out of file descriptors, most likely: some will come back.
                log.warning("cannot take a DNS connection: %s", error.strerror)
                await asyncio.sleep(0.5)
                continue
            if self._connections >= _TCP_CONNECTIONS:
                connection.close()
                continue
            self._connections += 1
            self._spawn(self._serve_tcp(connection), "dns connection")

    async def _serve_tcp(self, connection: socket.socket) -> None:
        """One question after the other, as long as the asker keeps asking."""
        loop = asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            while True:
                async with asyncio.timeout(_TCP_IDLE_SECONDS):
                    (length,) = _LENGTH.unpack(await _read(connection, 2))
                    data = await _read(connection, length)
                answer = await self._answer_tcp(data)
                if answer is None:
                    return
                async with asyncio.timeout(_TCP_IDLE_SECONDS):
                    await loop.sock_sendall(connection, _LENGTH.pack(len(answer)) + answer)
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            self._connections -= 1
            connection.close()

    async def _answer_tcp(self, data: bytes) -> bytes | None:
        self.counters.queries += 1
        try:
            query = wire.parse_query(data, over_tcp=True)
        except FormatError:
            self.counters.malformed += 1
            return wire.error_reply(data, wire.FORMERR)
        return self._orders(query, await self._handle(query))[0]


async def _read(connection: socket.socket, length: int) -> bytes:
    """Exactly so many bytes. Raises EOFError if the peer sends fewer."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        piece = await loop.sock_recv(connection, length - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _bind(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    # With port 0 the kernel chooses for UDP, and for TCP the same may be taken: choose again.
    for _ in range(_PORT_CHOICES if port == 0 else 1):
        try:
            return _bind_both(address, port)
        except OSError as error:
            problem = error
    raise NetworkError(
        f"cannot answer DNS on {address}:{port} ({problem.strerror}); see who has the port with:"
        f" ss -lnp 'sport = :{port}'"
    ) from problem


def _bind_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for one in (udp, tcp):
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((address, port))
        tcp.bind(udp.getsockname())
        tcp.listen(128)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
