"""Elements of nftables sets and maps, changed and listed over netlink.

nft(8) re-reads the whole ruleset for each change (10 to 16 ms); an element changed here costs
0.04 ms, in a transaction as atomic as nft's. Chains and rules are never made here: they come
once from `nft -f` (see ruleset.py), so that `nft list ruleset` always shows what a person would
have written.

Rule: a key or a value is the exact bytes of the kernel's registers, each field padded to four
bytes; a verdict is the words nft would print (`goto pick-3`, `drop`) as bytes.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.network import netlink
from pybernetes.network.netlink import NetlinkSocket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SUBSYSTEM = 10
# The multicast group that hears every change to nftables.
GROUP_NFTABLES = 7
_BATCH_BEGIN, _BATCH_END = 16, 17
MSG_GETCHAIN, MSG_GETRULE = 4, 7
MSG_NEWSETELEM, MSG_GETSETELEM, MSG_DELSETELEM, MSG_NEWGEN = 12, 13, 14, 15

# The table's name is the first attribute of every message about chains, rules and elements.
_TABLE = 1
_CHAIN_NAME = 3
_RULE_CHAIN = 2
_LIST_SET, _LIST_ELEMENTS = 2, 3
_ELEMENT = 1
_KEY, _DATA, _KEY_END = 1, 2, 10
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2

_CODES = {b"drop": 0, b"accept": 1}
_WORDS = {0: b"drop", 1: b"accept"}
_GOTO, _JUMP = -4, -3
_INT = struct.Struct("!i")

# An attribute's length has 16 bits; a list of elements must fit.
_LIST_BYTES = 60_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the bytes of a set's elements are: a verdict, a value, or nothing but the key."""

    verdict: bool = False
    # Keys are two keys in a row, the first and the last of an interval.
    interval: bool = False


PLAIN = Shape()


@dataclass(slots=True)
class Batch:
    """Changes that happen together or not at all, in the order they were added."""

    table: str
    # (message type, name of the set, its elements as attributes)
    parts: list[tuple[int, str, list[bytes]]] = field(default_factory=list)

    def add(self, name: str, elements: Mapping[bytes, bytes], shape: Shape = PLAIN) -> None:
        if elements:
            encoded = [_element(key, value, shape) for key, value in elements.items()]
            self.parts.append((MSG_NEWSETELEM, name, encoded))

    def delete(self, name: str, keys: Iterable[bytes], shape: Shape = PLAIN) -> None:
        encoded = [_element(key, b"", Shape(interval=shape.interval)) for key in keys]
        if encoded:
            self.parts.append((MSG_DELSETELEM, name, encoded))


class Nftables:
    """The tables of this network namespace: the one the calling thread is in when it is made."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket()

    @property
    def port(self) -> int:
        return self._socket.port

    def close(self) -> None:
        self._socket.close()

    def commit(self, batch: Batch) -> None:
        """Apply all of it or, raising NetlinkError, none of it."""
        if not batch.parts:
            return
        sequence = self._socket.next_sequence
        begin = netlink.generic(socket.AF_UNSPEC, SUBSYSTEM)
        frames = [netlink.message(_BATCH_BEGIN, netlink.NLM_F_REQUEST, sequence(), begin)]
        requests = [request for part in batch.parts for request in _requests(batch.table, part)]
        last = 0
        for position, (kind, body) in enumerate(requests, 1):
            flags = netlink.NLM_F_REQUEST
            if kind == MSG_NEWSETELEM:
                flags |= netlink.NLM_F_CREATE
            if position == len(requests):
                flags |= netlink.NLM_F_ACK
            last = sequence()
            frames.append(netlink.message(SUBSYSTEM << 8 | kind, flags, last, body))
        frames.append(netlink.message(_BATCH_END, netlink.NLM_F_REQUEST, sequence(), begin))
        self._socket.transact(b"".join(frames), last)

    def elements(self, table: str, name: str, shape: Shape = PLAIN) -> dict[bytes, bytes]:
        """Every element of a set or map; raises NetlinkError (ENOENT) if there is none such."""
        found: dict[bytes, bytes] = {}
        body = _generic() + netlink.text(_TABLE, table) + netlink.text(_LIST_SET, name)
        for payload in self._socket.dump(SUBSYSTEM << 8 | MSG_GETSETELEM, body):
            for kind, value in netlink.attributes(payload, netlink.NFGENMSG_LENGTH):
                if kind != _LIST_ELEMENTS:
                    continue
                for _, element in netlink.attributes(value):
                    _collect(found, element, shape)
        return found

    def chains(self, table: str) -> dict[str, int]:
        """The chains of a table with their number of rules; empty if there is no such table."""
        found: dict[str, int] = {}
        for payload in self._socket.dump(SUBSYSTEM << 8 | MSG_GETCHAIN, _generic()):
            facts = dict(netlink.attributes(payload, netlink.NFGENMSG_LENGTH))
            if _string(facts.get(_TABLE, b"")) == table:
                found[_string(facts.get(_CHAIN_NAME, b""))] = 0
        if not found:
            return found
        body = _generic() + netlink.text(_TABLE, table)
        for payload in self._socket.dump(SUBSYSTEM << 8 | MSG_GETRULE, body):
            facts = dict(netlink.attributes(payload, netlink.NFGENMSG_LENGTH))
            if _string(facts.get(_TABLE, b"")) == table:
                chain = _string(facts.get(_RULE_CHAIN, b""))
                found[chain] = found.get(chain, 0) + 1
        return found


def touched_by_others(data: bytes, table: str, ours: int) -> bool:
    """Does a datagram of the notice group tell of a change to `table` that `ours` did not make?"""
    for kind, _, _, port, body in netlink.messages(data):
        if port == ours or kind & 0xFF == MSG_NEWGEN:
            continue
        for what, value in netlink.attributes(body, netlink.NFGENMSG_LENGTH):
            if what == _TABLE:
                if _string(value) == table:
                    return True
                break
    return False


def _generic() -> bytes:
    return netlink.generic(socket.AF_INET)


def _requests(table: str, part: tuple[int, str, list[bytes]]) -> Iterable[tuple[int, bytes]]:
    kind, name, elements = part
    start = _generic() + netlink.text(_TABLE, table) + netlink.text(_LIST_SET, name)
    held: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > _LIST_BYTES:
            yield kind, start + netlink.nested(_LIST_ELEMENTS, *held)
            held, size = [], 0
        held.append(element)
        size += len(element)
    yield kind, start + netlink.nested(_LIST_ELEMENTS, *held)


def _element(key: bytes, value: bytes, shape: Shape) -> bytes:
    parts: list[bytes] = []
    if shape.interval:
        half = len(key) // 2
        parts.append(netlink.nested(_KEY, netlink.attribute(_VALUE, key[:half])))
        parts.append(netlink.nested(_KEY_END, netlink.attribute(_VALUE, key[half:])))
    else:
        parts.append(netlink.nested(_KEY, netlink.attribute(_VALUE, key)))
    if value and shape.verdict:
        parts.append(netlink.nested(_DATA, netlink.nested(_VERDICT, *_verdict(value))))
    elif value:
        parts.append(netlink.nested(_DATA, netlink.attribute(_VALUE, value)))
    return netlink.nested(_ELEMENT, *parts)


def _verdict(words: bytes) -> Iterable[bytes]:
    if (code := _CODES.get(words)) is not None:
        yield netlink.attribute(_CODE, _INT.pack(code))
        return
    verb, _, chain = words.partition(b" ")
    yield netlink.attribute(_CODE, _INT.pack(_GOTO if verb == b"goto" else _JUMP))
    yield netlink.attribute(_CHAIN, chain + b"\0")


def _collect(found: dict[bytes, bytes], element: bytes, shape: Shape) -> None:
    facts = dict(netlink.attributes(element))
    if _KEY not in facts:
        return
    key = dict(netlink.attributes(facts[_KEY])).get(_VALUE, b"")
    if shape.interval:
        end = dict(netlink.attributes(facts.get(_KEY_END, b""))).get(_VALUE, key)
        key += end
    data = dict(netlink.attributes(facts.get(_DATA, b"")))
    if _VERDICT in data:
        verdict = dict(netlink.attributes(data[_VERDICT]))
        (code,) = _INT.unpack(verdict.get(_CODE, b"\0\0\0\0"))
        chain = verdict.get(_CHAIN, b"").rstrip(b"\0")
        verb = b"goto " if code == _GOTO else b"jump "
        found[key] = _WORDS.get(code, verb + chain)
    else:
        found[key] = data.get(_VALUE, b"")


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
