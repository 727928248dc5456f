"""What a request asks for, read from its method, path and query alone.

Follows upstream's rules for `/api` and `/apis`: the verb comes from the method and
becomes `list`, `watch` or `deletecollection` when no name is given; `/watch/` and
`/proxy/` after the version are the legacy verb prefixes; `/namespaces/x/status` is a
subresource of the namespace and `/namespaces/x/pods` is not. Everything else is a
non-resource path. Pure; an answer never depends on what is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping

# A request without query parameters shares this one.
NO_QUERY: Mapping[str, str] = MappingProxyType({})

VERB_OF_METHOD = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
SPECIAL_VERBS = frozenset({"proxy", "watch"})
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})

# Requests that may last: no deadline, and not counted as requests in flight.
LONG_RUNNING_SUBRESOURCES = frozenset({"exec", "attach", "portforward", "log", "proxy"})


class BadPath(ValueError):
    """The path has a special verb and nothing after it."""


@dataclass(slots=True)
class RequestInfo:
    """The parts of a request that routing, authorization and metrics look at."""

    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    # What follows the subresource, for proxies: "a/b" of /pods/x/proxy/a/b.
    remainder: str = ""

    @property
    def is_long_running(self) -> bool:
        return self.verb in ("watch", "proxy") or (
            self.subresource in LONG_RUNNING_SUBRESOURCES and self.verb in ("get", "create")
        )

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@lru_cache(maxsize=1024)
def _parse(query: str) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, value)
    return MappingProxyType(values)


def parse_query(query: str) -> Mapping[str, str]:
    """Parameters by name; of one that is repeated the first counts, as in Go."""
    return _parse(query) if query else NO_QUERY


def all_of(query: str, name: str) -> list[str]:
    """Every value of a parameter that may be repeated."""
    return [value for known, value in parse_qsl(query, keep_blank_values=True) if known == name]


def is_true(text: str) -> bool:
    """A boolean parameter: present without a value means yes, as upstream reads it."""
    return text not in ("false", "0", "False", "F", "f", "FALSE")


def parse_request(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Raises BadPath for a special verb without a resource."""
    segments = path.strip("/").split("/")
    root = segments[0]
    if root == "api":
        if len(segments) < 3:
            return RequestInfo(path, method.lower())
        group, version, rest = "", segments[1], segments[2:]
    elif root == "apis":
        if len(segments) < 4:
            return RequestInfo(path, method.lower())
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        return RequestInfo(path, method.lower())
    verb = VERB_OF_METHOD.get(method, "")
    if rest[0] in SPECIAL_VERBS:
        if len(rest) < 2:
            raise BadPath(f"unable to determine kind and namespace from url, {path}")
        verb, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    info = RequestInfo(path, verb, True, group, version, namespace, rest[0])
    if len(rest) > 1:
        info.name = rest[1]
        if len(rest) > 2 and verb != "proxy":
            info.subresource = rest[2]
            info.remainder = "/".join(rest[3:])
    if not info.name:
        _refine_collection_verb(info, query)
    return info


def _refine_collection_verb(info: RequestInfo, query: Mapping[str, str]) -> None:
    if info.verb == "get":
        info.verb = "watch" if is_true(query.get("watch", "0")) else "list"
    elif info.verb == "delete":
        info.verb = "deletecollection"
    # A watch or list of one object by name is authorized as access to that name.
    if info.verb in ("list", "watch", "deletecollection") and (
        selector := query.get("fieldSelector")
    ):
        for term in selector.split(","):
            name, found, value = term.replace("==", "=").partition("=")
            if found and name == "metadata.name" and is_path_segment(value):
                info.name = value


def is_path_segment(name: str) -> bool:
    """Whether a name can stand alone in a path, and so in a storage key."""
    return bool(name) and name not in (".", "..") and "/" not in name and "%" not in name
