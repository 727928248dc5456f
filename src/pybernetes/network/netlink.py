"""Netlink: the few frames we speak to the kernel, made with `struct`.

A socket here is synchronous on purpose: the kernel does the work inside `send`, so there is
nothing to wait for, and a change to the packet rules costs tens of microseconds. Whatever may
be large (a dump, the first load) is the caller's business to run in a thread.

Rule: an error the kernel reports becomes a NetlinkError with its errno and, where the kernel
gave one, its own sentence.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x300, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
# nlmsg_flags of an error that carries attributes after the header it answers.
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 1, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_GENERIC = struct.Struct("!BBH")
_RECEIVE_BYTES = 1 << 18

# What precedes the attributes of every message of netfilter: the family of the table.
NFGENMSG_LENGTH = 4


class NetlinkError(OSError):
    """The kernel refused a message; `sequence` is the number of that message."""

    def __init__(self, number: int, detail: str = "", sequence: int = 0) -> None:
        super().__init__(number, detail or os.strerror(number))
        self.sequence = sequence


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to the four bytes everything in netlink is aligned to."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def generic(family: int, resource: int = 0) -> bytes:
    """The nfgenmsg that starts the body of a netfilter message."""
    return _GENERIC.pack(family, 0, resource)


def attributes(data: bytes, offset: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Every attribute between `offset` and `end`; stops at the first that makes no sense."""
    end = len(data) if end is None else end
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """(type, flags, sequence, port, body) of every message in a datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, flags, sequence, port, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


class NetlinkSocket:
    """A socket to netfilter that asks, waits for the answer, and raises what the kernel says."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._sequence = 0
        # What the send buffer was last raised to; a transaction is one message to the kernel.
        self._send_bytes = 0
        try:
            self._socket.bind((0, 0))
            # The kernel always answers at once; the limit only keeps a bug from hanging us.
            self._socket.settimeout(10.0)
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._raise_buffer(_SO_RCVBUFFORCE, 1 << 22)
        except BaseException:
            self._socket.close()
            raise

    @property
    def port(self) -> int:
        """The number by which the kernel's notices name us as the author of a change."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        self._socket.close()

    def next_sequence(self) -> int:
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of everything a dump request lists."""
        sequence = self.next_sequence()
        self._socket.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, body))
        while True:
            for what, flags, number, _, payload in messages(self._socket.recv(_RECEIVE_BYTES)):
                if number != sequence:
                    continue
                if what == NLMSG_DONE:
                    _raise_error(payload, flags, number)
                    return
                if what == NLMSG_ERROR:
                    _raise_error(payload, flags, number)
                    return
                yield payload

    def request(self, kind: int, flags: int, body: bytes) -> None:
        """Send one message and wait for its acknowledgement."""
        sequence = self.next_sequence()
        self._socket.send(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, body))
        self.await_acknowledgement(sequence)

    def transact(self, data: bytes, last: int) -> None:
        """Send a whole transaction and wait until the message `last` is acknowledged.

        The kernel acknowledges after it has committed, and reports the errors of all messages:
        the first is raised, the others are taken off the socket.
        """
        if len(data) + 4096 > self._send_bytes:
            self._send_bytes = max(1 << 18, 2 * len(data))
            self._raise_buffer(_SO_SNDBUFFORCE, self._send_bytes)
        self._socket.send(data)
        self.await_acknowledgement(last)

    def await_acknowledgement(self, last: int) -> None:
        first_error: NetlinkError | None = None
        while True:
            for what, flags, number, _, payload in messages(self._socket.recv(_RECEIVE_BYTES)):
                if what != NLMSG_ERROR:
                    continue
                try:
                    _raise_error(payload, flags, number)
                except NetlinkError as error:
                    first_error = first_error or error
                    continue
                if number == last:
                    if first_error is not None:
                        raise first_error
                    return
            if first_error is not None:
                # A refused transaction is over: the acknowledgement may never come.
                self._drain()
                raise first_error

    def _drain(self) -> None:
        self._socket.setblocking(False)
        try:
            while self._socket.recv(_RECEIVE_BYTES):
                pass
        except OSError:
            pass
        finally:
            self._socket.settimeout(10.0)

    def _raise_buffer(self, option: int, size: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, option, size)


def listen(group: int) -> socket.socket:
    """A non-blocking socket that hears a netfilter group's notices."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        listener.bind((0, 0))
        listener.setblocking(False)
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
        listener.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except BaseException:
        listener.close()
        raise
    return listener


def _raise_error(payload: bytes, flags: int, sequence: int) -> None:
    if len(payload) < _ERRNO.size:
        return
    (number,) = _ERRNO.unpack_from(payload)
    if number == 0:
        return
    detail = ""
    if flags & _NLM_F_ACK_TLVS and len(payload) >= 4 + HEADER.size:
        offset = 4 + HEADER.size
        if not flags & _NLM_F_CAPPED:
            (length,) = struct.unpack_from("=I", payload, 4)
            offset = 4 + ((length + 3) & ~3)
        for kind, value in attributes(payload, offset):
            if kind == _NLMSGERR_ATTR_MSG:
                detail = value.rstrip(b"\0").decode(errors="replace")
    raise NetlinkError(-number, detail, sequence)
