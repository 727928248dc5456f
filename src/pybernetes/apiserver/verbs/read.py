"""GET, LIST and WATCH: nothing is decoded that need not be.

Reads come from the watch cache, which is as new as the store: the store hands it every
change before the writer is answered. Only a read of the past (a later page of a list, an
exact revision) goes to the store's history.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from pybernetes.apimachinery.errors import BadRequest, Expired, NotFound
from pybernetes.apiserver.backend import too_large_revision
from pybernetes.apiserver.forms import list_metadata
from pybernetes.apiserver.listoptions import (
    EXACT,
    INCONSISTENT,
    ListOptions,
    decode_continue,
    encode_continue,
    parse_list_options,
    parse_revision,
)
from pybernetes.apiserver.respond import list_response, object_response
from pybernetes.apiserver.selection import Selection, parse_selection
from pybernetes.apiserver.watch import Watcher
from pybernetes.storage import Compacted, FutureRevision
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry

# Watches without a timeout of their own last between this and twice this.
MIN_WATCH_SECONDS = 1800

# Keys read at a time from the store's past while a selector leaves most of them out.
_PAST_PAGE = 1000

_TOO_OLD_TO_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_TOO_OLD_TO_LIST = "The resourceVersion for the provided list is too old."


def include_object(call: Call) -> str:
    """How much of an object stands in the rows of a table."""
    wanted = call.query.get("includeObject", "") or "Metadata"
    if wanted not in ("None", "Metadata", "Object"):
        raise BadRequest(
            f"unrecognized includeObject value: {wanted}, must be one of None, Metadata, Object"
        )
    return wanted


async def get(backend: Backend, call: Call, served: Served) -> Response:
    info = call.info
    if call.query and (version := call.query.get("resourceVersion", "")) not in ("", "0"):
        await backend.wait_for(parse_revision(version))
    entry = served.cache.entries.get(served.key(info.namespace, info.name))
    if entry is None:
        raise NotFound(served.plural, info.name, group=served.group)
    wanted = call.wanted
    form = (
        served.form(wanted)
        if not wanted.form
        else served.form(wanted, include_object=include_object(call))
    )
    return object_response(call, form.object(entry, header=True), wanted=wanted)


async def list_(backend: Backend, call: Call, served: Served) -> Response:
    options = parse_list_options(call.query, is_watch=False)
    selection = selection_of(call, served)
    page = await select_page(backend, served, options, selection)
    wanted = call.wanted
    form = served.form(wanted, include_object=include_object(call))
    metadata = list_metadata(page.revision, page.continue_, page.remaining)
    return list_response(call, form, page.entries, metadata, wanted)


def selection_of(call: Call, served: Served) -> Selection:
    info = call.info
    selection = parse_selection(
        call.query,
        info.namespace if served.is_namespaced else "",
        known_fields=served.selectable_fields,
    )
    # The old way to watch one object: /watch/ before its path.
    if info.name and selection.fields.required_value("metadata.name") is None:
        return selection.named(info.name)
    return selection


class Page:
    """Some objects in key order, and how to go on."""

    __slots__ = ("continue_", "entries", "remaining", "revision")

    def __init__(
        self,
        entries: Sequence[Entry],
        revision: int,
        *,
        continue_: str = "",
        remaining: int | None = None,
    ) -> None:
        self.entries = entries
        self.revision = revision
        self.continue_ = continue_
        self.remaining = remaining


async def select_page(
    backend: Backend, served: Served, options: ListOptions, selection: Selection
) -> Page:
    if options.continue_:
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        revision, after = decode_continue(options.continue_)
        if revision == INCONSISTENT:
            return _present(backend, served, options, selection, after)
        return await _past(backend, served, options, selection, revision, after)
    revision_asked = options.revision
    if revision_asked is None:
        return _present(backend, served, options, selection)
    # Upstream's old way: a limit and a revision without a match mean exactly that revision.
    exact = options.match == EXACT or (not options.match and options.limit > 0)
    if exact:
        return await _past(backend, served, options, selection, revision_asked, "")
    await backend.wait_for(revision_asked)
    return _present(backend, served, options, selection)


def _present(
    backend: Backend, served: Served, options: ListOptions, selection: Selection, after: str = ""
) -> Page:
    """As things are now. Nothing waits in here, so all of it is one moment."""
    entries = selection.select(served.cache, after=after)
    return _cut(entries, options.limit, backend.feed.revision, served, selection)


async def _past(
    backend: Backend,
    served: Served,
    options: ListOptions,
    selection: Selection,
    revision: int,
    after: str,
) -> Page:
    """As things were at a revision: from the cache if nothing has changed since."""
    cache = served.cache
    if revision > backend.feed.revision:
        raise too_large_revision(revision, backend.feed.revision)
    if revision >= cache.newest and revision >= cache.window_start:
        return _cut(
            selection.select(cache, after=after), options.limit, revision, served, selection
        )
    try:
        entries = await _read_past(backend, served, selection, revision, after, options.limit)
    except Compacted:
        if not options.continue_:
            raise Expired(_TOO_OLD_TO_LIST) from None
        raise ExpiredPage(after) from None
    except FutureRevision as error:
        raise too_large_revision(error.revision, error.newest) from None
    return _cut(iter(entries), options.limit, revision, served, selection)


class ExpiredPage(Expired):
    """The moment of the first page is forgotten; carries a token for the rest as it is now."""

    def __init__(self, after: str) -> None:
        super().__init__(_TOO_OLD_TO_CONTINUE)
        self._after = after

    def status(self) -> dict[str, Any]:
        token = encode_continue(INCONSISTENT, self._after)
        return {**super().status(), "metadata": {"continue": token}}


async def _read_past(
    backend: Backend, served: Served, selection: Selection, revision: int, after: str, limit: int
) -> list[Entry]:
    """One entry more than the limit, so that it is known whether there are more."""
    cache = served.cache
    prefix = cache.prefix + (f"{selection.namespace}/" if selection.namespace else "")
    path = cache.prefix + after if after else ""
    fields_of = cache.dispatcher.fields_of
    found: list[Entry] = []
    while True:
        # The number that remains is told only when nothing is selected: read all then.
        size = 0 if selection.is_whole or not limit else _PAST_PAGE
        page = await backend.store.range(prefix, after=path, limit=size, revision=revision)
        for item in page.items:
            entry = cache.entry_of(item)
            if entry is not None and selection.matches(entry, fields_of):
                found.append(entry)
        if not page.remaining or not page.items or (limit and len(found) > limit):
            return found
        path = page.items[-1].key


def _cut(
    entries: Iterator[Entry], limit: int, revision: int, served: Served, selection: Selection
) -> Page:
    if not limit:
        return Page(list(entries), revision)
    taken = list(islice(entries, limit))
    following = next(entries, None)
    if following is None:
        return Page(taken, revision)
    token = encode_continue(revision, taken[-1].key)
    remaining = 1 + sum(1 for _ in entries) if selection.is_whole else None
    return Page(taken, revision, continue_=token, remaining=remaining)


async def watch(backend: Backend, call: Call, served: Served) -> Response:
    options = parse_list_options(call.query, is_watch=True)
    selection = selection_of(call, served)
    wanted = call.wanted
    form = served.form(wanted, include_object=include_object(call))
    revision = options.revision
    if revision is not None and revision > backend.feed.revision:
        await backend.wait_for(revision)
    since: int | None = revision
    mark_initial_end = False
    if options.send_initial_events:
        since, mark_initial_end = None, options.allow_bookmarks
    elif options.send_initial_events is False and revision is None:
        since = backend.feed.revision
    seconds = options.timeout_seconds
    watcher = Watcher(
        backend.feed,
        served.cache,
        selection,
        form,
        since=since,
        seconds=seconds if seconds else MIN_WATCH_SECONDS * (1 + backend.random.random()),
        bookmarks=options.allow_bookmarks,
        mark_initial_end=mark_initial_end,
    )
    return Response(200, [("Content-Type", wanted.content_type), _NO_CACHE], watcher)


_NO_CACHE = ("Cache-Control", "no-cache, private")
