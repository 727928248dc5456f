"""What can be done to a resource: its paths, and the operations on each.

From the verbs and subresources of what is served follows everything that both versions of
OpenAPI say about paths, in one model: `operations_of` gives it, `document.py` writes it in
either dialect. Names of operations are upstream's, since generated clients are built of them.

The deprecated /watch/ paths are left out: nobody should find them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.resource import Connect, Log, Proxy
from pybernetes.api.schemas import schema_of
from pybernetes.apiserver.openapi.definitions import custom_name
from pybernetes.apiserver.verbs.patch import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pybernetes.api.types._kindinfo import Subresource as SubresourceInfo
    from pybernetes.apimachinery.schema import Schema
    from pybernetes.apiserver.catalog import Served

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
STATUS = _META + "Status"
PATCH = _META + "Patch"
DELETE_OPTIONS = _META + "DeleteOptions"

Kind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query or in the path."""

    name: str
    type: str = "string"
    description: str = ""
    place: str = "query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method on a path."""

    method: str
    # x-kubernetes-action: get, list, put, patch, post, delete, deletecollection, connect.
    action: str
    # Operation names: readCoreV1NamespacedPod.
    name: str
    description: str
    tag: str
    kind: Kind
    parameters: tuple[Parameter, ...] = ()
    # The published name of what is sent, and of what comes back; "" where it is text or bytes.
    body: str = ""
    body_required: bool = True
    # Media types of the body; empty for any that objects are written in.
    consumes: tuple[str, ...] = ()
    answer: str = ""
    codes: tuple[int, ...] = (200,)


@dataclass(frozen=True, slots=True)
class Path:
    """A path and what can be done there."""

    path: str
    parameters: tuple[Parameter, ...]
    operations: tuple[Operation, ...]


# --- parameters -----------------------------------------------------------------------------------

_NAMESPACE = Parameter("namespace", place="path", description="The namespace of the objects.")
_REMAINDER = Parameter("path", place="path", description="The path behind the proxy.")

_DRY_RUN = Parameter("dryRun", description="All: do everything but store the result.")
_MANAGER = Parameter("fieldManager", description="Who is said to own the fields this sets.")
_VALIDATION = Parameter(
    "fieldValidation",
    description="What becomes of unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
)
_FORCE = Parameter("force", "boolean", "Take fields over from their present owners (apply only).")

_WRITE = (_DRY_RUN, _MANAGER, _VALIDATION)

_DELETE = (
    _DRY_RUN,
    Parameter("gracePeriodSeconds", "integer", "Seconds the object may take to end; 0 is at once."),
    Parameter("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    Parameter(
        "propagationPolicy",
        description="What becomes of dependents: Orphan, Background or Foreground.",
    ),
)

_SELECT = (
    Parameter("continue", description="The token a previous page of the list ended with."),
    Parameter("fieldSelector", description="Only objects with these values of fields."),
    Parameter("labelSelector", description="Only objects with these labels."),
    Parameter("limit", "integer", "The largest number of objects in an answer."),
    Parameter("resourceVersion", description="The version the answer must show; see the match."),
    Parameter("resourceVersionMatch", description="Exact or NotOlderThan."),
    Parameter("sendInitialEvents", "boolean", "A watch begins with an event for every object."),
    Parameter("timeoutSeconds", "integer", "After so long the answer, or the watch, ends."),
)
_LIST = (
    Parameter("allowWatchBookmarks", "boolean", "The watch may tell how far it has come."),
    *_SELECT,
    Parameter("watch", "boolean", "Answer with the changes as they come, not with a list."),
)


# --- the operations of a resource -----------------------------------------------------------------


def definition_name(served: Served) -> str:
    return served.schema.ref or custom_name(served.group, served.version, served.kind_name)


def paths_of(served: Served) -> Iterator[Path]:
    """Everything that can be done to one resource of one version."""
    naming = _Naming(served)
    root = f"/apis/{served.group}" if served.group else "/api"
    root = f"{root}/{served.version}"
    place = (_NAMESPACE,) if served.is_namespaced else ()
    within = f"{root}/namespaces/{{namespace}}" if served.is_namespaced else root
    if served.is_namespaced and "list" in served.verbs:
        listing = _list(served, naming.everywhere("list"), naming)
        yield Path(f"{root}/{served.plural}", (), (listing,))
    if collection := tuple(_on_collection(served, naming)):
        yield Path(f"{within}/{served.plural}", place, collection)
    place = (
        Parameter("name", place="path", description=f"Name of the {served.kind_name}."),
        *place,
    )
    item = f"{within}/{served.plural}/{{name}}"
    if single := tuple(_on_item(served, naming)):
        yield Path(item, place, single)
    for info in served.resource.info.subresources:
        sub = served.subresource(info.name)
        if sub is None:
            continue
        if isinstance(sub, Connect) and not isinstance(sub, Log):
            yield Path(f"{item}/{sub.name}", place, tuple(_connects(info, naming, "")))
            if isinstance(sub, Proxy):
                path = f"{item}/{sub.name}/{{path}}"
                yield Path(path, (*place, _REMAINDER), tuple(_connects(info, naming, "WithPath")))
        else:
            yield Path(f"{item}/{sub.name}", place, tuple(_on_subresource(served, info, naming)))


class _Naming:
    """Names of the operations of one resource."""

    def __init__(self, served: Served) -> None:
        group = group_identifier(served.group)
        self.tag = f"{group}_{served.version}"
        self._start = _capital(group) + _capital(served.version)
        self._scope = "Namespaced" if served.is_namespaced else ""
        self._kind = served.kind_name

    def single(self, verb: str, more: str = "") -> str:
        return f"{verb}{self._start}{self._scope}{self._kind}{_capital(more)}"

    def connect(self, method: str, more: str) -> str:
        scope, kind = self._scope, self._kind
        return f"connect{self._start}{_capital(method)}{scope}{kind}{_capital(more)}"

    def collection(self, verb: str) -> str:
        return f"{verb}{self._start}Collection{self._scope}{self._kind}"

    def everywhere(self, verb: str) -> str:
        return f"{verb}{self._start}{self._kind}ForAllNamespaces"


def group_identifier(group: str) -> str:
    """``core``, ``apps``, ``rbacAuthorization``."""
    first, *rest = (group.removesuffix(".k8s.io") or "core").split(".")
    return first + "".join(_capital(part) for part in rest)


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _kind_of(served: Served) -> Kind:
    return (served.group, served.version, served.kind_name)


def _on_collection(served: Served, naming: _Naming) -> Iterator[Operation]:
    name, kind = definition_name(served), _kind_of(served)
    if "list" in served.verbs:
        yield _list(served, naming.single("list"), naming)
    if "create" in served.verbs:
        yield Operation(
            method="post",
            action="post",
            name=naming.single("create"),
            description=f"create a {served.kind_name}",
            tag=naming.tag,
            kind=kind,
            parameters=_WRITE,
            body=name,
            answer=name,
            codes=(200, 201, 202),
        )
    if "deletecollection" in served.verbs:
        yield Operation(
            method="delete",
            action="deletecollection",
            name=naming.collection("delete"),
            description=f"delete all objects of kind {served.kind_name} that are selected",
            tag=naming.tag,
            kind=kind,
            parameters=(*_DELETE, *_SELECT),
            body=DELETE_OPTIONS,
            body_required=False,
            answer=STATUS,
        )


def _list(served: Served, name: str, naming: _Naming) -> Operation:
    return Operation(
        method="get",
        action="list",
        name=name,
        description=f"list or watch objects of kind {served.kind_name}",
        tag=naming.tag,
        kind=_kind_of(served),
        parameters=_LIST,
        answer=f"{definition_name(served)}List",
    )


def _on_item(served: Served, naming: _Naming) -> Iterator[Operation]:
    name, kind = definition_name(served), _kind_of(served)
    yield from _reading_and_writing(served, naming, served.verbs, name, kind, "")
    if "delete" in served.verbs:
        yield Operation(
            method="delete",
            action="delete",
            name=naming.single("delete"),
            description=f"delete a {served.kind_name}",
            tag=naming.tag,
            kind=kind,
            parameters=_DELETE,
            body=DELETE_OPTIONS,
            body_required=False,
            # What goes gracefully is answered with itself.
            answer=name if served.strategy.grace_seconds is not None else STATUS,
            codes=(200, 202),
        )


def _on_subresource(served: Served, info: SubresourceInfo, naming: _Naming) -> Iterator[Operation]:
    kind = (info.group, info.version, info.kind)
    name = _name_of(kind, served)
    if info.name == "log":
        yield Operation(
            method="get",
            action="get",
            name=naming.single("read", info.name),
            description=f"read log of the specified {served.kind_name}",
            tag=naming.tag,
            kind=kind,
            parameters=_parameters_of(schema_of("", "v1", "PodLogOptions")),
        )
        return
    yield from _reading_and_writing(served, naming, info.verbs, name, kind, info.name)
    if "create" in info.verbs:
        yield Operation(
            method="post",
            action="post",
            name=naming.single("create", info.name),
            description=f"create {info.name} of a {served.kind_name}",
            tag=naming.tag,
            kind=kind,
            parameters=_WRITE,
            body=name,
            answer=name,
            codes=(200, 201, 202),
        )


def _reading_and_writing(
    served: Served,
    naming: _Naming,
    verbs: Sequence[str] | frozenset[str],
    name: str,
    kind: Kind,
    subresource: str,
) -> Iterator[Operation]:
    """GET, PUT and PATCH of an object or of a part of it."""
    what = f"{subresource} of the specified" if subresource else "the specified"
    tag = naming.tag
    if "get" in verbs:
        yield Operation(
            method="get",
            action="get",
            name=naming.single("read", subresource),
            description=f"read {what} {served.kind_name}",
            tag=tag,
            kind=kind,
            answer=name,
        )
    if "update" in verbs:
        yield Operation(
            method="put",
            action="put",
            name=naming.single("replace", subresource),
            description=f"replace {what} {served.kind_name}",
            tag=tag,
            kind=kind,
            parameters=_WRITE,
            body=name,
            answer=name,
            codes=(200, 201),
        )
    if "patch" in verbs:
        yield Operation(
            method="patch",
            action="patch",
            name=naming.single("patch", subresource),
            description=f"partially update {what} {served.kind_name}",
            tag=tag,
            kind=kind,
            parameters=(*_WRITE, _FORCE),
            body=PATCH,
            consumes=_patch_formats(served),
            answer=name,
            codes=(200, 201),
        )


def _patch_formats(served: Served) -> tuple[str, ...]:
    # Custom resources have no Go type to take merge keys from.
    strategic = (STRATEGIC_PATCH,) if served.schema.ref else ()
    return (JSON_PATCH, MERGE_PATCH, *strategic, APPLY_PATCH)


_METHODS = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}


def _connects(info: SubresourceInfo, naming: _Naming, more: str) -> Iterator[Operation]:
    """Streams and proxies: the same operation by several methods."""
    kind = (info.group, info.version, info.kind)
    parameters = _parameters_of(schema_of(*kind))
    for verb in info.verbs:
        method = _METHODS[verb]
        yield Operation(
            method=method,
            action="connect",
            name=naming.connect(method, info.name + more),
            description=f"connect {method.upper()} requests to {info.name}",
            tag=naming.tag,
            kind=kind,
            parameters=parameters,
        )


def _parameters_of(options: Schema | None) -> tuple[Parameter, ...]:
    """Query parameters from the fields of an options kind."""
    assert options is not None
    assert options.properties is not None
    fields: Mapping[str, Schema] = options.properties
    return tuple(
        Parameter(name, _plain_type(node))
        for name, node in fields.items()
        if name not in ("apiVersion", "kind")
    )


def _plain_type(node: Schema) -> str:
    while node.items is not None:
        node = node.items
    return node.type or "string"


def _name_of(kind: Kind, served: Served) -> str:
    if kind == _kind_of(served):
        return definition_name(served)
    schema = schema_of(*kind)
    assert schema is not None, kind
    return schema.ref
