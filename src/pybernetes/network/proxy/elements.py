"""Map elements between three forms: readable (plan.py), the kernel's bytes, and nft's words.

The proxy holds what it wants as bytes, because that is what the kernel is compared with and what
is sent; the words are for the slow way through nft(8) and for people.

Rule: one table, MAPS, says what every map and set of the ruleset looks like; skeleton, netlink
and text are all derived from it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pybernetes.network.nfnetlink import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.network.proxy.plan import Elements, Key, Value

_PORT = struct.Struct("!Hxx")
_SLOT = struct.Struct("=I")

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL_BYTES = {name: bytes((number, 0, 0, 0)) for name, number in PROTOCOL_NUMBERS.items()}
_PROTOCOL_NAMES = {packed: name for name, packed in _PROTOCOL_BYTES.items()}

# nft's type of each field. numgen has none of its own, so maps with a slot use typeof; and there a
# port must be that of one protocol, because nft 1.0.6 cannot read `th dport` back from the kernel.
_TYPES = {"address": "ipv4_addr", "protocol": "inet_proto", "port": "inet_service"}
_TYPEOFS = {"address": "ip daddr", "port": "{} dport", "slot": "numgen random mod 2"}

FRONTEND = ("address", "protocol", "port")
NODE_PORT = ("protocol", "port")
BACKEND = ("address", "port")
PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class MapType:
    """One map (or set, when neither data nor verdict) of the table."""

    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    verdict: bool = False
    interval: bool = False
    # Filled by packets, not by the proxy: never part of what is wanted.
    dynamic: bool = False
    # All its elements are of this protocol.
    protocol: str = ""

    @property
    def shape(self) -> Shape:
        return Shape(verdict=self.verdict, interval=self.interval)


# Packed elements of each map: the value is b"" in a set.
Packed = dict[str, dict[bytes, bytes]]

MAPS: dict[str, MapType] = {
    "services": MapType(FRONTEND, verdict=True),
    "services-outside": MapType(FRONTEND, verdict=True),
    **{
        f"endpoints-{protocol}": MapType(("address", "port", "slot"), BACKEND, protocol=protocol)
        for protocol in PROTOCOLS
    },
    "ports": MapType(NODE_PORT, verdict=True),
    "ports-outside": MapType(NODE_PORT, verdict=True),
    **{
        f"port-endpoints-{protocol}": MapType(("port", "slot"), BACKEND, protocol=protocol)
        for protocol in PROTOCOLS
    },
    "refused": MapType(FRONTEND, verdict=True),
    "refused-ports": MapType(NODE_PORT, verdict=True),
    "masqueraded": MapType(FRONTEND),
    "masqueraded-ports": MapType(NODE_PORT),
    "hairpin": MapType(("address", "address")),
    "sticky": MapType(FRONTEND, verdict=True),
    "sticky-ports": MapType(NODE_PORT, verdict=True),
    "source-limited": MapType(FRONTEND),
    "source-ranges": MapType((*FRONTEND, "address"), interval=True),
    "affinity": MapType(("address", *FRONTEND), BACKEND, dynamic=True),
}

# Clients remembered at most; the oldest leave by their timeout.
AFFINITY_SIZE = 262144


def declaration(name: str) -> str:
    """How the skeleton declares a map or set."""
    kind = MAPS[name]
    typeof = bool(kind.protocol)
    words = _TYPEOFS if typeof else _TYPES
    line = f"{'typeof' if typeof else 'type'} {' . '.join(words[field] for field in kind.key)}"
    if kind.verdict:
        line += " : verdict"
    elif kind.data:
        line += f" : {' . '.join(words[field] for field in kind.data)}"
    line = line.replace("{}", kind.protocol)
    if kind.dynamic:
        line += f"; size {AFFINITY_SIZE}; flags dynamic,timeout"
    if kind.interval:
        line += "; flags interval"
    return f"{noun(name)} {name} {{ {line}; }}"


def noun(name: str) -> str:
    kind = MAPS[name]
    return "map" if kind.data or kind.verdict else "set"


def pack(elements: Elements) -> Packed:
    packed: Packed = {}
    for (name, key), value in elements.items():
        packed.setdefault(name, {})[pack_key(name, key)] = pack_value(name, value)
    return packed


def pack_key(name: str, key: Key) -> bytes:
    fields = MAPS[name].key
    if MAPS[name].interval:
        half = len(key) // 2
        return _pack(fields, key[:half]) + _pack(fields, key[half:])
    return _pack(fields, key)


def pack_value(name: str, value: Value) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode() if value == "drop" else b"goto " + value.encode()
    return _pack(BACKEND, value)


def unpack_key(name: str, key: bytes) -> Key:
    fields = MAPS[name].key
    if MAPS[name].interval:
        half = len(key) // 2
        return (*_unpack(fields, key[:half]), *_unpack(fields, key[half:]))
    return _unpack(fields, key)


def unpack_backend(value: bytes) -> tuple[str, int]:
    address, port = _unpack(BACKEND, value)
    return str(address), int(port)


def chain_of(value: bytes) -> str:
    """The chain a packed verdict goes to; empty for a bare verdict."""
    return value[5:].decode() if value.startswith(b"goto ") else ""


def format_element(name: str, key: bytes, value: bytes) -> str:
    """An element as nft(8) reads it: `10.96.0.1 . tcp . 443 : goto pick-3`."""
    kind = MAPS[name]
    words: list[str]
    if kind.interval:
        half = len(key) // 2
        low, high = _unpack(kind.key, key[:half]), _unpack(kind.key, key[half:])
        words = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
    else:
        words = [str(part) for part in _unpack(kind.key, key)]
    text = " . ".join(words)
    if kind.verdict and value:
        return f"{text} : {value.decode()}"
    if value:
        return f"{text} : {' . '.join(str(part) for part in _unpack(kind.data, value))}"
    return text


def format_elements(name: str, elements: Iterable[tuple[bytes, bytes]]) -> str:
    return ", ".join(format_element(name, key, value) for key, value in elements)


@lru_cache(maxsize=65536)
def _address(text: str) -> bytes:
    return socket.inet_aton(text)


def _pack(fields: tuple[str, ...], values: Iterable[str | int]) -> bytes:
    parts: list[bytes] = []
    for field, value in zip(fields, values, strict=True):
        if field == "address":
            parts.append(_address(str(value)))
        elif field == "protocol":
            parts.append(_PROTOCOL_BYTES[str(value)])
        elif field == "port":
            parts.append(_PORT.pack(int(value)))
        else:
            parts.append(_SLOT.pack(int(value)))
    return b"".join(parts)


def _unpack(fields: tuple[str, ...], data: bytes) -> Key:
    values: list[str | int] = []
    for position, field in enumerate(fields):
        piece = data[4 * position : 4 * position + 4]
        if field == "address":
            values.append(socket.inet_ntoa(piece))
        elif field == "protocol":
            values.append(_PROTOCOL_NAMES.get(piece, str(piece[0])))
        elif field == "port":
            values.append(int(_PORT.unpack(piece)[0]))
        else:
            values.append(int(_SLOT.unpack(piece)[0]))
    return tuple(values)
