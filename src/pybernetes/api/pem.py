"""PEM in fields of objects: whether it holds what it should. Answers are upstream's sentences.

Values are judged, never kept: nothing here gives parsed certificates to anybody. The library
behind it takes long to load, so it is loaded when the first value comes by.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_BLOCK, CERTIFICATE_BLOCK = "CERTIFICATE REQUEST", "CERTIFICATE"

# A block, and between its lines headers (which nobody may use) and the data.
_BLOCK = re.compile(rb"-----BEGIN ([^\r\n]*?)-----[ \t]*\r?\n(.*?)-----END \1-----", re.DOTALL)


def blocks_of(data: bytes) -> Iterator[tuple[str, bool, bytes | None]]:
    """Type, whether there are headers, and the data (None if it is no base64) of each block."""
    for match in _BLOCK.finditer(data):
        head, gap, body = match[2].replace(b"\r\n", b"\n").rpartition(b"\n\n")
        has_headers = bool(gap and b":" in head)
        try:
            der = base64.b64decode(
                b"".join((body if has_headers else match[2]).split()), validate=True
            )
        except binascii.Error:
            der = None
        yield match[1].decode(errors="replace"), has_headers, der


def _bytes_of(value: str) -> bytes:
    """What the base64 of a JSON field says; nothing for what cannot be read."""
    try:
        return base64.b64decode(value)
    except binascii.Error:
        return b""


def request_problem(value: str) -> str:
    """What is wrong with a signing request (base64 of PEM); empty if nothing is."""
    first = next(blocks_of(_bytes_of(value)), None)
    if first is None or first[0] != REQUEST_BLOCK:
        return "PEM block type must be CERTIFICATE REQUEST"
    from cryptography import x509

    try:
        request = x509.load_der_x509_csr(first[2] or b"")
        is_signed = request.is_signature_valid
    except ValueError as error:
        return f"x509: malformed certificate request: {error}"
    return "" if is_signed else "x509: signature of the certificate request is not valid"


def certificates_problem(value: str) -> str:
    """What is wrong with an issued certificate chain (base64 of PEM); empty if nothing is."""
    data = _bytes_of(value)
    if not data:
        return ""
    count = 0
    for type_, has_headers, der in blocks_of(data):
        if type_ != CERTIFICATE_BLOCK:
            return f'only CERTIFICATE PEM blocks are allowed, found "{type_}"'
        if has_headers:
            return "no PEM block headers are permitted"
        if _is_authority(der) is None:
            return "x509: malformed certificate"
        count += 1
    return "" if count else "must contain one or more CERTIFICATE PEM blocks"


def trust_bundle_problems(text: str) -> Iterator[str]:
    """What is wrong with a bundle of trust anchors (plain PEM)."""
    # By their data, where each anchor stands: an anchor is there once.
    places: dict[bytes, list[int]] = {}
    count = 0
    for index, (type_, has_headers, der) in enumerate(blocks_of(text.encode())):
        count += 1
        if type_ != CERTIFICATE_BLOCK:
            yield f"entry {index} has bad block type: {type_}"
            continue
        if has_headers:
            yield f"entry {index} has PEM block headers"
            continue
        is_authority = _is_authority(der)
        if is_authority is None:
            yield f"entry {index} does not parse as X.509"
        elif not is_authority:
            yield f"entry {index} does not have the CA bit set"
        else:
            places.setdefault(der or b"", []).append(index)
    if not count:
        yield "at least one trust anchor must be provided"
    for found in places.values():
        if len(found) > 1:
            yield f"duplicate trust anchor (indices [{' '.join(map(str, found))}])"


def _is_authority(der: bytes | None) -> bool | None:
    """Whether a certificate may sign others; None if it is no certificate."""
    from cryptography import x509

    try:
        extensions = x509.load_der_x509_certificate(der or b"").extensions
        return bool(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False
    except ValueError:
        return None
