"""SPDY/3.1 frames as bytes, both ways; no I/O and no notion of a stream's state.

A codec belongs to one connection: header blocks are compressed with one zlib
context per direction, so frames must be written in the order they are encoded,
and a frame that is encoded must be written.

Rule: data frames are handed on as they arrive, in as many pieces as it takes,
so their length needs no limit; control frames and header blocks have one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pybernetes.wire.http import ProtocolError

# The most a control frame may carry, and what its header block may unfold to.
CONTROL_LIMIT = 64 * 1024
HEADERS_LIMIT = 256 * 1024

FLAG_FIN = 0x01
FLAG_UNIDIRECTIONAL = 0x02

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS = 1, 2, 3, 4
_PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 6, 7, 8, 9

SETTING_INITIAL_WINDOW = 7

# RST_STREAM status codes.
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5
FLOW_CONTROL_ERROR, STREAM_ALREADY_CLOSED = 7, 9

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SynStream:
    stream_id: int
    fields: Fields
    fin: bool = False
    unidirectional: bool = False
    associated_to: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    stream_id: int
    fields: Fields = ()
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    values: dict[int, int]


@dataclass(frozen=True, slots=True)
class Ping:
    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    last_good_stream: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class MoreHeaders:
    stream_id: int
    fields: Fields
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """A data frame, or when received possibly a piece of one; `fin` is on the last piece."""

    stream_id: int
    data: bytes
    fin: bool = False


Frame = (
    SynStream | SynReply | RstStream | Settings | Ping | GoAway | MoreHeaders | WindowUpdate | Data
)


def _dictionary() -> bytes:
    """What both header compressors are primed with: names with their lengths, then text."""
    names = [
        "options",
        "head",
        "post",
        "put",
        "delete",
        "trace",
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "accept-ranges",
        "age",
        "allow",
        "authorization",
        "cache-control",
        "connection",
        "content-base",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "date",
        "etag",
        "expect",
        "expires",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "last-modified",
        "location",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "referer",
        "retry-after",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "method",
        "get",
        "status",
    ]
    names += ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive"]
    names.append("origin")
    text = (
        "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
        "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
        "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
        "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
        "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
        "application/xml,application/xhtml+xml,text/plain,text/javascript,public"
        "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
    )
    return b"".join(struct.pack(">I", len(name)) + name.encode() for name in names) + text.encode()


DICTIONARY = _dictionary()


class FrameCodec:
    """Encodes and decodes the frames of one connection."""

    def __init__(self) -> None:
        # A small window and low memory: header blocks here are tens of bytes.
        self._deflate = zlib.compressobj(wbits=11, memLevel=4, zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        # Received and not yet complete: a frame head, or a control frame.
        self._buffer = bytearray()
        # The data frame whose payload is arriving: stream, flags, bytes missing.
        self._data: tuple[int, int, int] | None = None

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream_id, data, fin):
                return struct.pack(">II", stream_id, (fin and FLAG_FIN << 24) | len(data)) + data
            case SynStream():
                flags = FLAG_FIN if frame.fin else 0
                flags |= FLAG_UNIDIRECTIONAL if frame.unidirectional else 0
                head = struct.pack(">IIBB", frame.stream_id, frame.associated_to, 0, 0)
                return _control(_SYN_STREAM, flags, head + self._pack(frame.fields))
            case SynReply(stream_id, fields, fin):
                payload = struct.pack(">I", stream_id) + self._pack(fields)
                return _control(_SYN_REPLY, fin and FLAG_FIN, payload)
            case MoreHeaders(stream_id, fields, fin):
                payload = struct.pack(">I", stream_id) + self._pack(fields)
                return _control(_HEADERS, fin and FLAG_FIN, payload)
            case RstStream(stream_id, status):
                return _control(_RST_STREAM, 0, struct.pack(">II", stream_id, status))
            case Settings(values):
                pairs = b"".join(struct.pack(">II", key, value) for key, value in values.items())
                return _control(_SETTINGS, 0, struct.pack(">I", len(values)) + pairs)
            case Ping(ping_id):
                return _control(_PING, 0, struct.pack(">I", ping_id))
            case GoAway(last_good_stream, status):
                return _control(_GOAWAY, 0, struct.pack(">II", last_good_stream, status))
            case WindowUpdate(stream_id, delta):
                return _control(_WINDOW_UPDATE, 0, struct.pack(">II", stream_id, delta))

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames these bytes complete; raises ProtocolError. Take all before feeding more."""
        position, buffer = 0, self._buffer
        while position < len(data) or (self._data and not self._data[2]):
            if self._data is not None:
                stream_id, flags, missing = self._data
                piece = data[position : position + missing]
                position += len(piece)
                missing -= len(piece)
                self._data = (stream_id, flags, missing) if missing else None
                yield Data(stream_id, piece, not missing and bool(flags & FLAG_FIN))
                continue
            position = self._take(data, position, 8)
            if len(buffer) < 8:
                return
            word, size = struct.unpack_from(">II", buffer)
            flags, length = size >> 24, size & 0xFFFFFF
            if not word & 0x80000000:
                self._data = (word, flags, length)
                buffer.clear()
                continue
            if length > CONTROL_LIMIT:
                raise ProtocolError(f"a SPDY control frame of {length} bytes")
            position = self._take(data, position, 8 + length)
            if len(buffer) < 8 + length:
                return
            payload = bytes(buffer[8:])
            buffer.clear()
            if word >> 16 != 0x8003:
                raise ProtocolError("a SPDY version that is not 3")
            frame = self._parse_control(word & 0xFFFF, flags, payload)
            if frame is not None:
                yield frame

    def _take(self, data: bytes, position: int, wanted: int) -> int:
        """Move bytes into the buffer until it has `wanted`; the position behind them."""
        end = position + max(wanted - len(self._buffer), 0)
        self._buffer += data[position:end]
        return min(end, len(data))

    def _parse_control(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        try:
            return self._parse_known(kind, flags, payload)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"a malformed SPDY frame of type {kind}: {error}") from None

    def _parse_known(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        fin = bool(flags & FLAG_FIN)
        if kind == _SYN_STREAM:
            stream_id, associated = struct.unpack_from(">II", payload)
            one_way = bool(flags & FLAG_UNIDIRECTIONAL)
            return SynStream(
                stream_id & 0x7FFFFFFF, self._unpack(payload[10:]), fin, one_way, associated
            )
        if kind in (_SYN_REPLY, _HEADERS):
            (stream_id,) = struct.unpack_from(">I", payload)
            frame = SynReply if kind == _SYN_REPLY else MoreHeaders
            return frame(stream_id & 0x7FFFFFFF, self._unpack(payload[4:]), fin)
        if kind == _PING:
            return Ping(*struct.unpack(">I", payload))
        if kind == _SETTINGS:
            (count,) = struct.unpack_from(">I", payload)
            pairs = struct.iter_unpack(">II", payload[4 : 4 + 8 * count])
            return Settings({key & 0xFFFFFF: value for key, value in pairs})
        if kind in (_RST_STREAM, _GOAWAY, _WINDOW_UPDATE):
            stream_id, value = struct.unpack_from(">II", payload)
            stream_id &= 0x7FFFFFFF
            if kind == _RST_STREAM:
                return RstStream(stream_id, value)
            return GoAway(stream_id, value) if kind == _GOAWAY else WindowUpdate(stream_id, value)
        return None  # Unknown types are to be ignored.

    def _pack(self, fields: Fields) -> bytes:
        values: dict[str, list[str]] = {}
        for name, value in fields:
            values.setdefault(name.lower(), []).append(value)
        block = [struct.pack(">I", len(values))]
        for name, listed in values.items():
            for text in (name, "\0".join(listed)):
                raw = text.encode()
                block.append(struct.pack(">I", len(raw)) + raw)
        return self._deflate.compress(b"".join(block)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _unpack(self, block: bytes) -> Fields:
        plain = self._inflate.decompress(block, HEADERS_LIMIT)
        if self._inflate.unconsumed_tail:
            raise ProtocolError("a SPDY header block that is too long")
        (count,) = struct.unpack_from(">I", plain)
        position = 4
        fields: list[tuple[str, str]] = []
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = struct.unpack_from(">I", plain, position)
                texts.append(plain[position + 4 : position + 4 + length].decode())
                position += 4 + length
            fields += [(texts[0].lower(), value) for value in texts[1].split("\0")]
        return fields


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">II", 0x80030000 | kind, flags << 24 | len(payload)) + payload
