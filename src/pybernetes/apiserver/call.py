"""One request on its way through the chain: what is known of it so far.

Links of the chain fill it in from the outside in: request info, then the user, then
what it is about. Handlers read it; warnings for the client are collected in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from pybernetes.api.user import ANONYMOUS, UNAUTHENTICATED, UserInfo
from pybernetes.apiserver.negotiation import PLAIN, Wanted, negotiate
from pybernetes.apiserver.requestinfo import NO_QUERY, RequestInfo, is_true

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Request

# Warnings beyond this many characters in all are left out, as upstream does.
WARNINGS_LIMIT = 4096

# Field values are in the memory of every client; a longer one is cut.
_WARNING_LIMIT = 256

# Who a request comes from before anybody has asked.
NOBODY = UserInfo(ANONYMOUS, (UNAUTHENTICATED,))


class Call:
    """A request with everything the chain has found out about it."""

    __slots__ = (
        "_wanted",
        "_warnings",
        "annotations",
        "audit_id",
        "impersonator",
        "info",
        "query",
        "request",
        "served",
        "user",
    )

    def __init__(self, request: Request, audit_id: str) -> None:
        self.request = request
        self.audit_id = audit_id
        self.info = RequestInfo(request.path, request.method.lower())
        self.query: Mapping[str, str] = NO_QUERY
        self.user = NOBODY
        # Who really sends a request that is made as somebody else.
        self.impersonator: UserInfo | None = None
        # What the request is about, once dispatch has found it.
        self.served: Served | None = None
        # Sentences for the Warning headers, each once, in order.
        self._warnings: dict[str, None] = {}
        # Notes for the audit log, made when the first is written.
        self.annotations: dict[str, str] | None = None
        self._wanted: Wanted | None = None

    @property
    def wanted(self) -> Wanted:
        """The representation the client asks for. Raises NotAcceptable."""
        if self._wanted is None:
            accept = self.request.headers.get("accept")
            self._wanted = negotiate(accept) if accept else PLAIN
        return self._wanted

    @property
    def dry_run(self) -> bool:
        return "dryRun" in self.query and self.query["dryRun"] == "All"

    def flag(self, name: str) -> bool:
        return name in self.query and is_true(self.query[name])

    def warn(self, text: str) -> None:
        self._warnings.setdefault(text)

    @property
    def has_warnings(self) -> bool:
        return bool(self._warnings)

    @property
    def warning_headers(self) -> list[tuple[str, str]]:
        headers, size = [], 0
        for text in self._warnings:
            if len(text) > _WARNING_LIMIT:
                text = text[:_WARNING_LIMIT]
            size += len(text)
            if size > WARNINGS_LIMIT:
                break
            headers.append(("Warning", f"299 - {_quoted(text)}"))
        return headers


def _quoted(text: str) -> str:
    """A quoted-string that fits into a header: no control characters, only Latin-1."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c <= "~" else quote(c, safe="") for c in text) + '"'
