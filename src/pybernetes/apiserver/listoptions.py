"""What a list, watch or get asks for beyond its selection: revisions, pages, durations.

Parses the query, refuses what upstream refuses with upstream's words, and reads and
writes continue tokens. A token is upstream's: it names the revision of the first page
and the key to go on after, so that all pages show the same moment.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.apimachinery.errors import BadRequest, Invalid
from pybernetes.apimachinery.fielderror import ErrorKind, FieldError, Path
from pybernetes.apiserver.requestinfo import is_true

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXACT, NOT_OLDER_THAN = "Exact", "NotOlderThan"

_TOKEN_VERSION = "meta.k8s.io/v1"

# In a token: the client accepted that its list is of no single moment.
INCONSISTENT = -1


@dataclass(frozen=True, slots=True)
class ListOptions:
    resource_version: str = ""
    match: str = ""
    limit: int = 0
    continue_: str = ""
    # Of a watch only; None means not said.
    send_initial_events: bool | None = None
    allow_bookmarks: bool = False
    timeout_seconds: int | None = None

    @property
    def revision(self) -> int | None:
        """The resourceVersion as a number; None if there is none or it is "0"."""
        if self.resource_version in ("", "0"):
            return None
        return parse_revision(self.resource_version)


NO_OPTIONS = ListOptions()


def parse_revision(text: str) -> int:
    """Raises BadRequest, as upstream does, for what is not a number."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return int(text)
    problem = "value out of range" if text.isascii() and text.isdigit() else "invalid syntax"
    error = FieldError(
        ErrorKind.INVALID,
        "resourceVersion",
        text,
        f'strconv.ParseUint: parsing "{text}": {problem}',
    )
    raise BadRequest(f"invalid resource version: {error}")


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def parse_list_options(query: Mapping[str, str], *, is_watch: bool) -> ListOptions:
    """Raises BadRequest for what cannot be read and Invalid for what contradicts itself."""
    if not query:
        return NO_OPTIONS
    send = query.get("sendInitialEvents")
    options = ListOptions(
        resource_version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=max(_integer(query, "limit") or 0, 0),
        continue_=query.get("continue", ""),
        send_initial_events=None if send is None else is_true(send),
        allow_bookmarks=is_true(query.get("allowWatchBookmarks", "0")),
        timeout_seconds=_integer(query, "timeoutSeconds"),
    )
    problems = list(_watch_problems(options) if is_watch else _list_problems(options))
    if problems:
        raise Invalid("ListOptions", "meta.k8s.io", "", problems)
    return options


_MATCH = Path("resourceVersionMatch")


def _list_problems(options: ListOptions) -> Iterator[FieldError]:
    match = options.match
    if match:
        if not options.resource_version:
            yield _MATCH.forbidden(
                "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        if options.continue_:
            yield _MATCH.forbidden("resourceVersionMatch is forbidden when continue is provided")
        if match not in (EXACT, NOT_OLDER_THAN):
            yield _MATCH.not_supported(match, (EXACT, NOT_OLDER_THAN, ""))
        if match == EXACT and options.resource_version == "0":
            yield _MATCH.forbidden(
                'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            )
    if options.send_initial_events is not None:
        yield Path("sendInitialEvents").forbidden("sendInitialEvents is forbidden for list")


def _watch_problems(options: ListOptions) -> Iterator[FieldError]:
    match = options.match
    if options.send_initial_events is not None and match != NOT_OLDER_THAN:
        yield _MATCH.forbidden(
            f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}"
        )
    if match:
        if options.send_initial_events is None:
            yield _MATCH.forbidden(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        if match != NOT_OLDER_THAN:
            yield _MATCH.not_supported(match, (NOT_OLDER_THAN,))
        if options.continue_:
            yield _MATCH.forbidden("resourceVersionMatch is forbidden when continue is provided")


# -- continue tokens


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: str


def encode_continue(revision: int, last_key: str) -> str:
    """A token to go on after `last_key`."""
    # Upstream names the first key that may come next: the last one and a zero byte.
    token = msgspec.json.encode(_Token(_TOKEN_VERSION, revision, f"{last_key}\0"))
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def decode_continue(text: str) -> tuple[int, str]:
    """The revision (or INCONSISTENT) and the key to go on after. Raises BadRequest."""
    try:
        padded = text + "=" * (-len(text) % 4)
        token = msgspec.json.decode(
            base64.b64decode(padded, altchars=b"-_", validate=True), type=_Token
        )
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"invalid continue token: continue key is not valid: {error}") from None
    if token.v != _TOKEN_VERSION:
        raise BadRequest(
            "invalid continue token: continue key is not valid: server does not recognize this "
            f'encoded version "{token.v}"'
        )
    if token.rv == 0 or token.rv < INCONSISTENT:
        raise BadRequest(
            "invalid continue token: continue key is not valid: incorrect encoded start "
            f"resourceVersion (version {_TOKEN_VERSION})"
        )
    if not token.start:
        raise BadRequest(
            "invalid continue token: continue key is not valid: encoded start key empty "
            f"(version {_TOKEN_VERSION})"
        )
    return token.rv, token.start.removesuffix("\0")
