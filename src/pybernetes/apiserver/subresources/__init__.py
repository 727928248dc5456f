"""Subresources that are neither a part of their object nor a connection.

`ACTIONS` maps (group, plural, subresource) to what answers its POST. Others are plugged
into `Backend.connects` by whoever can answer them, tokens for instance.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pybernetes.apiserver.subresources.binding import bind
from pybernetes.apiserver.subresources.eviction import evict

if TYPE_CHECKING:
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

Action = Callable[["Backend", "Call", "Served"], Awaitable["Response"]]

ACTIONS: dict[tuple[str, str, str], Action] = {
    ("", "pods", "binding"): bind,
    ("", "bindings", ""): bind,
    ("", "pods", "eviction"): evict,
}
