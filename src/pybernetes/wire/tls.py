"""TLS as bytes in, bytes out, over `ssl.MemoryBIO`.

asyncio's own TLS touches 312 KB for every connection; this engine lets all
connections share one read buffer (see `channel`) and costs about a tenth.

Rule: never give a MemoryBIO more than one record's worth at a time. It keeps
the largest size it ever had for as long as the connection lives.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
from contextlib import suppress
from typing import cast

# The most plain text a TLS record holds; also the slice in which BIOs are filled.
RECORD = 16 * 1024

# A TLS record of type "handshake": how every honest client begins.
_HANDSHAKE_RECORD = 0x16


class TlsEngine:
    """One side of one TLS connection, without I/O."""

    __slots__ = ("_incoming", "_outgoing", "_ssl", "established")

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self.established = False

    def handshake(self) -> bool:
        """Go on as far as possible; True when done. Raises ssl.SSLError."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        return True

    def receive(self, data: memoryview) -> None:
        """Take at most RECORD bytes off the wire; follow with handshake() or decrypt_into()."""
        self._incoming.write(data)

    def decrypt_into(self, buffer: memoryview) -> int | None:
        """Fill the buffer with plain text; 0: nothing now; None: the peer has ended its stream."""
        filled = 0
        try:
            while filled < len(buffer) and (self._incoming.pending or self._ssl.pending()):
                # With a buffer to fill it returns a count, which typeshed does not know.
                count = cast("int", self._ssl.read(len(buffer) - filled, buffer[filled:]))
                if count == 0:
                    return filled or None
                filled += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return filled or None
        return filled

    def encrypt(self, data: bytes | memoryview) -> Iterator[bytes]:
        view = memoryview(data)
        for start in range(0, len(view), RECORD):
            self._ssl.write(view[start : start + RECORD])
            yield self._outgoing.read()

    def encrypt_record(self, data: bytes) -> bytes:
        """The same for at most RECORD bytes."""
        self._ssl.write(data)
        return self._outgoing.read()

    def pending_output(self) -> bytes:
        """What the engine itself wants to say: handshake, alerts, key updates."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def end(self) -> bytes:
        """Our close_notify, to be sent before the socket is closed."""
        # Want-read is the normal case: we do not wait for the peer's close_notify.
        with suppress(ssl.SSLError, OSError):
            self._ssl.unwrap()
        return self.pending_output()

    def peer_certificate_der(self) -> bytes | None:
        return self._ssl.getpeercert(True)

    def peer_subject(self) -> tuple[tuple[str, str], ...]:
        """The verified peer's subject as flat (attribute, value) pairs."""
        certificate = self._ssl.getpeercert()
        if not certificate:
            return ()
        names = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
        return tuple(pair for relative in names for pair in relative)


def looks_like_tls(data: memoryview) -> bool:
    return data[0] == _HANDSHAKE_RECORD
