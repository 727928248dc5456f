"""DNS messages: bytes in, values out, and back (RFC 1035, EDNS of RFC 6891).

A name is its wire form, labels with their length bytes and a final zero; what names are looked
up by is that in lower case (length bytes are below 64, so `bytes.lower` leaves them alone). A
reply repeats the question as it was sent, and records of that name point at it, so the asker
sees the letters it used.

Rule: nothing a peer sends makes this module loop or raise anything but FormatError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41
AXFR, ANY = 252, 255
IN = 1

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800

# What fits everywhere without EDNS, and what we say we take with it (DNS flag day 2020).
PLAIN_SIZE = 512
EDNS_SIZE = 1232
DNSSEC_OK = 0x8000

HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_SRV = struct.Struct("!HHH")
_SOA = struct.Struct("!IIIII")
_POINTER = 0xC0
_MAX_NAME = 255


class FormatError(ValueError):
    """The bytes are not a DNS message we can read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record; names inside `data` are written out in full."""

    name: bytes
    type: int
    ttl: int
    data: bytes
    rclass: int = IN


@dataclass(frozen=True, slots=True)
class Query:
    """One question, as asked."""

    id: int
    flags: int
    # The name as sent, and as it is looked up.
    asked: bytes
    name: bytes
    type: int
    rclass: int
    # The largest UDP answer the asker takes; None without EDNS.
    edns_size: int | None = None
    edns_version: int = 0
    dnssec: bool = False
    # EDNS options were sent, so another query like this will hardly have the same bytes.
    has_options: bool = False
    over_tcp: bool = False

    @property
    def size(self) -> int:
        if self.over_tcp:
            return 65535
        return PLAIN_SIZE if self.edns_size is None else max(PLAIN_SIZE, self.edns_size)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers; the server puts it into bytes."""

    rcode: int = NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = False
    # From cluster data alone: stays true until one of these names changes.
    names: frozenset[bytes] = frozenset()
    # The upstream's answer did not fit its datagram.
    truncated: bool = False


def encode_name(text: str) -> bytes:
    """`web.default.svc` as labels, in lower case. Raises FormatError for what is no name."""
    wire = bytearray()
    for label in text.rstrip(".").lower().encode("ascii", "replace").split(b"."):
        if not 0 < len(label) < 64:
            if not text.strip("."):
                break
            raise FormatError(f"{text!r} is not a domain name")
        wire.append(len(label))
        wire += label
    wire.append(0)
    if len(wire) > _MAX_NAME:
        raise FormatError(f"{text!r} is too long for a domain name")
    return bytes(wire)


def format_name(wire: bytes) -> str:
    return b".".join(labels_of(wire)).decode("ascii", "replace") + "."


def labels_of(wire: bytes) -> list[bytes]:
    labels: list[bytes] = []
    offset = 0
    while (length := wire[offset]) != 0:
        labels.append(wire[offset + 1 : offset + 1 + length])
        offset += 1 + length
    return labels


def parent_of(wire: bytes) -> bytes:
    """The name without its first label; the root's parent is the root."""
    return wire if wire == b"\0" else wire[1 + wire[0] :]


def is_below(wire: bytes, zone: bytes) -> bool:
    """Is the name that zone's apex or below it?"""
    if not wire.endswith(zone):
        return False
    # The zone must begin where a label does.
    offset = 0
    while offset < len(wire) - len(zone):
        offset += 1 + wire[offset]
    return offset == len(wire) - len(zone)


def parse_query(data: bytes, *, over_tcp: bool = False) -> Query:
    """The question of a message that has one. Raises FormatError otherwise."""
    if len(data) < HEADER.size:
        raise FormatError("shorter than a header")
    number, flags, questions, answers, authorities, additionals = HEADER.unpack_from(data)
    if questions != 1 or flags & QR or answers or authorities:
        raise FormatError("not a query with one question")
    asked, offset = _plain_name(data, HEADER.size)
    if offset + 4 > len(data):
        raise FormatError("the question ends too soon")
    kind, rclass = _QUESTION.unpack_from(data, offset)
    offset += 4
    edns_size: int | None = None
    version, dnssec, has_options = 0, False, False
    for _ in range(additionals):
        owner, offset = _read_name(data, offset)
        if offset + _RECORD.size > len(data):
            raise FormatError("a record ends too soon")
        what, size, ttl, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size + length
        if offset > len(data):
            raise FormatError("a record ends too soon")
        if what == OPT and owner == b"\0":
            if edns_size is not None:
                raise FormatError("more than one OPT record")
            edns_size, version = size, ttl >> 16 & 0xFF
            dnssec, has_options = bool(ttl & DNSSEC_OK), length > 0
    return Query(
        number, flags, asked, asked.lower(), kind, rclass,
        edns_size, version, dnssec, has_options, over_tcp,
    )  # fmt: skip


def opcode_of(flags: int) -> int:
    return (flags & _OPCODE) >> 11


def encode_reply(query: Query, reply: Reply) -> bytes:
    """The message, shortened to what the asker takes: TC if an answer had to be left out."""
    flags = QR | RA | (query.flags & (RD | _OPCODE)) | (reply.rcode & 0x0F)
    if reply.authoritative:
        flags |= AA
    writer = _Writer(query, query.size)
    counts = [writer.write(reply.answers), writer.write(reply.authority)]
    complete = counts == [len(reply.answers), len(reply.authority)]
    # What is additional may be left out without a word (RFC 2181, 9).
    counts.append(writer.write(reply.additional) if complete else 0)
    if reply.truncated or not complete:
        flags |= TC
    if query.edns_size is not None:
        writer.write_opt(reply.rcode, dnssec=query.dnssec)
        counts[2] += 1
    return HEADER.pack(query.id, flags, 1, *counts) + bytes(writer.body)


def error_reply(data: bytes, rcode: int) -> bytes | None:
    """An answer to bytes that were no query: the header alone, or nothing if it was an answer."""
    if len(data) < HEADER.size:
        return None
    number, flags, *_ = HEADER.unpack_from(data)
    if flags & QR:
        return None
    return HEADER.pack(number, QR | (flags & (RD | _OPCODE)) | rcode, 0, 0, 0, 0)


def encode_query(number: int, name: bytes, kind: int, *, dnssec: bool = False) -> bytes:
    """A question for an upstream resolver, with EDNS."""
    return (
        HEADER.pack(number, RD, 1, 0, 0, 1)
        + name
        + _QUESTION.pack(kind, IN)
        + b"\0"
        + _RECORD.pack(OPT, EDNS_SIZE, DNSSEC_OK if dnssec else 0, 0)
    )


def parse_reply(data: bytes, number: int, name: bytes, kind: int) -> Reply:
    """An upstream's answer to that very question. Raises FormatError for any other."""
    if len(data) < HEADER.size:
        raise FormatError("shorter than a header")
    found, flags, questions, *counts = HEADER.unpack_from(data)
    if found != number or not flags & QR or questions != 1:
        raise FormatError("not the answer to our question")
    asked, offset = _read_name(data, HEADER.size)
    if offset + 4 > len(data) or asked.lower() != name:
        raise FormatError("not the answer to our question")
    if _QUESTION.unpack_from(data, offset) != (kind, IN):
        raise FormatError("not the answer to our question")
    offset += 4
    sections: list[tuple[Record, ...]] = []
    rcode = flags & 0x0F
    for count in counts:
        records: list[Record] = []
        for _ in range(count):
            if flags & TC and offset == len(data):
                break
            record, offset = _parse_record(data, offset)
            if record.type != OPT:
                records.append(record)
        sections.append(tuple(records))
    answers, authority, additional = sections
    return Reply(rcode, answers, authority, additional, truncated=bool(flags & TC))


def address_data(text: str) -> tuple[int, bytes] | None:
    """(A or AAAA, its data) of an address; None if it is none."""
    for kind, parse in ((A, IPv4Address), (AAAA, IPv6Address)):
        try:
            return kind, parse(text).packed
        except ValueError:
            continue
    return None


def srv_data(port: int, target: bytes, *, priority: int = 0, weight: int = 100) -> bytes:
    return _SRV.pack(priority, weight, port) + target


def soa_data(primary: bytes, mailbox: bytes, serial: int, minimum: int) -> bytes:
    return primary + mailbox + _SOA.pack(serial, 7200, 1800, 86400, minimum)


def soa_minimum(data: bytes) -> int:
    """For how long a negative answer may be kept (RFC 2308)."""
    return int(struct.unpack("!I", data[-4:])[0]) if len(data) >= 4 else 0


def text_data(*texts: str) -> bytes:
    return b"".join(bytes((len(raw),)) + raw for raw in (text.encode()[:255] for text in texts))


class _Writer:
    """The records of a reply behind its question, compressed, never beyond the limit."""

    def __init__(self, query: Query, limit: int) -> None:
        self.body = bytearray(query.asked + _QUESTION.pack(query.type, query.rclass))
        self._limit = limit - HEADER.size - (11 if query.edns_size is not None else 0)
        # Names already written, in lower case, and where.
        self._places: dict[bytes, int] = {}
        self._remember(query.name, HEADER.size)

    def write(self, records: Sequence[Record]) -> int:
        """Write as many as fit; how many."""
        for count, record in enumerate(records):
            start = len(self.body)
            self._write_name(record.name)
            self.body += _RECORD.pack(record.type, record.rclass, record.ttl, len(record.data))
            self.body += record.data
            if len(self.body) > self._limit:
                del self.body[start:]
                return count
        return len(records)

    def write_opt(self, rcode: int, *, dnssec: bool) -> None:
        ttl = rcode >> 4 << 24 | (DNSSEC_OK if dnssec else 0)
        self.body += b"\0" + _RECORD.pack(OPT, EDNS_SIZE, ttl, 0)

    def _write_name(self, name: bytes) -> None:
        offset = 0
        while (rest := name[offset:]) != b"\0":
            place = self._places.get(rest.lower())
            if place is not None:
                at = HEADER.size + len(self.body) + offset
                self.body += name[:offset]
                self.body += struct.pack("!H", _POINTER << 8 | place)
                self._remember(name, at - offset, until=offset)
                return
            offset += 1 + name[offset]
        self._remember(name, HEADER.size + len(self.body))
        self.body += name

    def _remember(self, name: bytes, place: int, until: int | None = None) -> None:
        offset = 0
        end = len(name) - 1 if until is None else until
        while offset < end:
            # A pointer has fourteen bits; and nothing after a failed write is left to point at.
            if place + offset < 0x4000 and len(self.body) <= self._limit:
                self._places.setdefault(name[offset:].lower(), place + offset)
            offset += 1 + name[offset]


def _plain_name(data: bytes, offset: int) -> tuple[bytes, int]:
    """A name without pointers: in a question there is nothing to point at."""
    start = offset
    while offset < len(data):
        length = data[offset]
        if length == 0:
            name = data[start : offset + 1]
            if len(name) > _MAX_NAME:
                raise FormatError("a name is too long")
            return name, offset + 1
        if length > 63:
            raise FormatError("a label is too long")
        offset += 1 + length
    raise FormatError("a name ends too soon")


def _read_name(data: bytes, offset: int) -> tuple[bytes, int]:
    """A name that may end in a pointer, written out in full."""
    name = bytearray()
    after = -1
    # Every pointer must lead further back than the last, so this ends.
    earliest = offset
    while offset < len(data):
        length = data[offset]
        if length == 0:
            name.append(0)
            return bytes(name), offset + 1 if after < 0 else after
        if length & _POINTER == _POINTER:
            if offset + 2 > len(data):
                break
            target = (length & 0x3F) << 8 | data[offset + 1]
            if after < 0:
                after = offset + 2
            if target >= earliest:
                raise FormatError("a name points forward")
            earliest = offset = target
            continue
        if length > 63:
            raise FormatError("a label is too long")
        name += data[offset : offset + 1 + length]
        if len(name) >= _MAX_NAME:
            raise FormatError("a name is too long")
        offset += 1 + length
    raise FormatError("a name ends too soon")


# How many bytes stand before the names in the data of a record, and how many names there are.
_NAMES_IN_DATA = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), MX: (2, 1), SRV: (6, 1), SOA: (0, 2)}


def _parse_record(data: bytes, offset: int) -> tuple[Record, int]:
    name, offset = _read_name(data, offset)
    if offset + _RECORD.size > len(data):
        raise FormatError("a record ends too soon")
    kind, rclass, ttl, length = _RECORD.unpack_from(data, offset)
    offset += _RECORD.size
    end = offset + length
    if end > len(data):
        raise FormatError("a record ends too soon")
    raw = data[offset:end]
    if kind in _NAMES_IN_DATA:
        skip, names = _NAMES_IN_DATA[kind]
        parts = [data[offset : offset + skip]]
        place = offset + skip
        for _ in range(names):
            target, place = _read_name(data, place)
            parts.append(target)
        if place > end:
            raise FormatError("a record ends too soon")
        parts.append(data[place:end])
        raw = b"".join(parts)
    return Record(name, kind, min(ttl, 0x7FFFFFFF), raw, rclass), end


def minimum_ttl(records: Iterable[Record]) -> int | None:
    return min((record.ttl for record in records), default=None)
