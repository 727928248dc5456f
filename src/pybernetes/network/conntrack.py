"""Forget connections that connection tracking still sends to an endpoint that is gone.

TCP notices by itself that its peer vanished; UDP has no connection to break, so the kernel goes
on translating a client's datagrams to the old endpoint for as long as the client keeps sending.

Rule: only entries whose frontend and endpoint are both named are deleted; never a whole table.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.network import netlink
from pybernetes.network.netlink import NetlinkError, NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _FILTER = 1, 2, 3, 25
_IP, _PROTO = 1, 2
_V4_SRC, _V4_DST = 1, 2
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3
_FILTER_ORIG, _FILTER_REPLY = 1, 2
# Bits of the kernel's dump filter: destination address, protocol, destination port.
_BY_ADDRESS, _BY_PROTOCOL, _BY_PORT = 1 << 1, 1 << 3, 1 << 5
_UDP = 17
_PORT = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class StaleFlow:
    """UDP clients of a frontend that must be sent elsewhere.

    `address` is empty for a node port. `backend` is the endpoint that is gone, or None for flows
    that were never translated because the Service had no endpoint yet.
    """

    address: str
    port: int
    backend: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Flow:
    """What an entry of connection tracking says: who called what, and who answers."""

    protocol: int
    original: tuple[str, str, int, int]
    reply: tuple[str, str, int, int]
    # The attribute that identifies it when it is deleted.
    tuple_bytes: bytes

    def is_stale(self, stale: StaleFlow) -> bool:
        _, address, _, port = self.original
        if self.protocol != _UDP or port != stale.port:
            return False
        if stale.address and address != stale.address:
            return False
        answering = (self.reply[0], self.reply[2])
        if stale.backend is None:
            return answering == (address, port)
        return answering == stale.backend


def forget(stale: Iterable[StaleFlow]) -> int:
    """Delete the flows; how many there were. Raises NetlinkError or OSError if it may not."""
    wanted = list(stale)
    if not wanted:
        return 0
    deleted = 0
    with contextlib.closing(NetlinkSocket()) as control:
        frontends = {(flow.address, flow.port) for flow in wanted}
        for address, port in sorted(frontends):
            matching = [flow for flow in wanted if (flow.address, flow.port) == (address, port)]
            for flow in list(flows(control, address, port)):
                if any(flow.is_stale(one) for one in matching):
                    deleted += _delete(control, flow)
    return deleted


def flows(control: NetlinkSocket, address: str, port: int) -> Iterator[Flow]:
    """UDP flows to a frontend, filtered in the kernel where it knows how (5.8 and later)."""
    flags = _BY_PROTOCOL | _BY_PORT | (_BY_ADDRESS if address else 0)
    kind = SUBSYSTEM << 8 | _GET
    generic = netlink.generic(socket.AF_INET)
    selected = generic + _selection(address, port) + _flags(flags)
    try:
        payloads = list(control.dump(kind, selected))
    except NetlinkError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        payloads = list(control.dump(kind, generic))
    for payload in payloads:
        if (flow := parse_flow(payload)) is not None:
            yield flow


def parse_flow(payload: bytes) -> Flow | None:
    facts = dict(netlink.attributes(payload, netlink.NFGENMSG_LENGTH))
    original, reply = facts.get(_TUPLE_ORIG), facts.get(_TUPLE_REPLY)
    if original is None or reply is None:
        return None
    protocol, forth = _parse_tuple(original)
    _, back = _parse_tuple(reply)
    if forth is None or back is None:
        return None
    return Flow(protocol, forth, back, netlink.nested(_TUPLE_ORIG, original))


def _parse_tuple(data: bytes) -> tuple[int, tuple[str, str, int, int] | None]:
    facts = dict(netlink.attributes(data))
    addresses = dict(netlink.attributes(facts.get(_IP, b"")))
    protocol = dict(netlink.attributes(facts.get(_PROTO, b"")))
    number = protocol.get(_NUMBER, b"\0")[0]
    source, destination = addresses.get(_V4_SRC), addresses.get(_V4_DST)
    from_port, to_port = protocol.get(_SRC_PORT), protocol.get(_DST_PORT)
    if source is None or destination is None or from_port is None or to_port is None:
        return number, None
    return number, (
        socket.inet_ntoa(source),
        socket.inet_ntoa(destination),
        int(_PORT.unpack(from_port[:2])[0]),
        int(_PORT.unpack(to_port[:2])[0]),
    )


def _selection(address: str, port: int) -> bytes:
    parts: list[bytes] = []
    if address:
        parts.append(netlink.nested(_IP, netlink.attribute(_V4_DST, socket.inet_aton(address))))
    parts.append(
        netlink.nested(
            _PROTO,
            netlink.attribute(_NUMBER, bytes((_UDP,))),
            netlink.attribute(_DST_PORT, _PORT.pack(port)),
        )
    )
    return netlink.nested(_TUPLE_ORIG, *parts)


def _flags(flags: int) -> bytes:
    # The kernel wants both words, though we select by the original direction alone.
    return netlink.nested(
        _FILTER,
        netlink.attribute(_FILTER_ORIG, struct.pack("=I", flags)),
        netlink.attribute(_FILTER_REPLY, struct.pack("=I", 0)),
    )


def _delete(control: NetlinkSocket, flow: Flow) -> int:
    body = netlink.generic(socket.AF_INET) + flow.tuple_bytes
    try:
        control.request(SUBSYSTEM << 8 | _DELETE, 0, body)
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        return 0
    return 1
