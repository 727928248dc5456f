"""A resource: one entry from which routes, discovery, tables and RBAC names of a kind follow.

An entry says only what is particular about its kind. What nearly every kind does is the
default and written nowhere: a write to the object cannot touch its status and one to the
status nothing else, names are DNS subdomains, the generation follows the spec, short names,
verbs and storage prefix are the published ones (``api/types/_index.py``).

Rule: hooks are pure. They get frozen objects, return new ones, read no clock and no store,
and may be called any number of times for one request (a lost race is tried again). What
needs the world (allocating an address, looking up a class) is admission, not a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pybernetes.api.types._index import KindInfo, info_of
from pybernetes.apimachinery.fielderror import FieldError
from pybernetes.apimachinery.names import dns_subdomain_errors

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")


class Scope(Enum):
    """Whether objects live in a namespace; the values are those of CRDs and discovery."""

    NAMESPACED = "Namespaced"
    CLUSTER = "Cluster"


# --- what happens on a write --------------------------------------------------------------

Default = Callable[[T], T]
PrepareCreate = Callable[[T], T]
PrepareUpdate = Callable[[T, T], T]
Validate = Callable[[T, "T | None"], Iterable[FieldError]]
Warn = Callable[[T, "T | None"], Iterable[str]]
Grace = Callable[[T, "int | None"], "int | None"]


def _unchanged(new: Any) -> Any:
    return new


def _unchanged_update(new: Any, old: Any) -> Any:
    return new


def _no_errors(new: Any, old: Any) -> Iterable[FieldError]:
    return ()


def _no_warnings(new: Any, old: Any) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Generic[T]):
    """How objects of a kind are made whole and judged, in the order of the fields.

    A create runs default, prepare_create, admission, validate(new, None); an update runs
    default, prepare_update, admission, validate(new, old).
    """

    # Fills in what the user left out. Idempotent, and run on every read of stored data as
    # well, so that objects written by an older version are whole. Never looks at old objects.
    default: Default[T] = _unchanged

    # Sets what users cannot choose and drops what they may not set. The status is already
    # empty (on create) or the old one (on update) if the resource has a Status part; name,
    # uid, creation time and generation are the API server's business.
    prepare_create: PrepareCreate[T] = _unchanged
    prepare_update: PrepareUpdate[T] = _unchanged_update

    # Every problem, not the first; old is None on create. Metadata was checked before, the
    # immutable parts of it included. Never changes anything.
    validate: Validate[T] = _no_errors

    # Sentences for the Warning header of the answer; old is None on create.
    warn: Warn[T] = _no_warnings

    # What is wrong with a name; metadata.generateName is judged as a prefix by the server.
    name_errors: Callable[[str], Sequence[str]] = dns_subdomain_errors

    # Wire paths; metadata.generation starts at 1 and rises when one of them changes by a
    # write to the object itself. Empty for kinds without a generation (ConfigMap, Secret).
    generation_follows: tuple[str, ...] = ("spec",)

    # PUT on a missing object makes it, instead of 404.
    allow_create_on_update: bool = False

    # PUT without resourceVersion overwrites what is there, instead of 422.
    allow_unconditional_update: bool = True

    # Seconds an object lives on after its deletion was asked for, given those asked for
    # (None: not said). None: it goes at once. Kinds without this know no graceful deletion.
    grace_seconds: Grace[T] | None = None

    # What becomes of dependents when a DELETE does not say: Background or Orphan.
    default_propagation: str = "Background"


# --- subresources -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Subresource:
    """Something below an object: ``/api/v1/…/pods/web/<name>``.

    Kind and verbs for discovery come from the facts (``Resource.info.subresources``).
    """

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Subresource, Generic[T]):
    """A part of the object with rules of its own, written by itself: GET, PUT, PATCH.

    The body is the whole object. Before the hooks run everything but ``owns`` has been put
    back to what is stored; labels, annotations and finalizers of the body are kept only
    with ``keeps_metadata``. The strategy's own validate does not run, this one does.
    """

    # Attribute paths (snake_case) that a write here may change.
    owns: tuple[str, ...]
    # Same contract as in Strategy; always an update: old is there.
    prepare: PrepareUpdate[T] = _unchanged_update
    validate: Validate[T] = _no_errors
    keeps_metadata: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Part[T]):
    name: str = "status"
    owns: tuple[str, ...] = ("status",)
    # Controllers set labels and finalizers together with the status; upstream lets them.
    keeps_metadata: bool = True
    # A new object may bring its status, because who makes it also knows how it is: a kubelet
    # registers its node whole.
    given_at_birth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralContainers(Part[T]):
    """Adds debugging containers to a running pod."""

    name: str = "ephemeralcontainers"
    owns: tuple[str, ...] = ("spec.ephemeral_containers",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize(Part[T]):
    """Changes the resources of a running pod; prepare narrows the spec down to them."""

    name: str = "resize"
    owns: tuple[str, ...] = ("spec",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalize(Part[T]):
    """Takes finalizers out of a namespace's spec; the last one lets it go. PUT only."""

    name: str = "finalize"
    owns: tuple[str, ...] = ("spec.finalizers",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Part[T]):
    """The verdict on a certificate signing request: its Approved and Denied conditions."""

    name: str = "approval"
    owns: tuple[str, ...] = ("status.conditions",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Subresource):
    """Reads and writes an autoscaling/v1 Scale. All paths are wire paths."""

    name: str = "scale"
    # Where the wished and the present number are, and the selector (a LabelSelector, a map
    # of labels, or its text).
    replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str = "spec.selector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Subresource):
    """A POST of another kind that makes something happen to the object.

    The server does it (``apiserver/subresources``); an entry only says that it is there.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding(Action):
    name: str = "binding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction(Action):
    name: str = "eviction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Action):
    name: str = "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect(Subresource):
    """A connection to something behind the object rather than an object: a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(Connect):
    name: str = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(Connect):
    name: str = "exec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach(Connect):
    name: str = "attach"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortForward(Connect):
    name: str = "portforward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy(Connect):
    """HTTP to the object; everything below its path belongs to it too."""

    name: str = "proxy"


# --- tables -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of ``kubectl get``.

    A cell is a string, number or bool and is shown as it is, or one of: None (``<none>``), a
    datetime (its age, ``<unknown>`` for a missing one comes from ``AGE``), a timedelta (as a
    duration), a LabelSelector or a map of labels (as selector text), a list (with commas).
    What needs to know the time sets ``cell_at`` instead of ``cell``.
    """

    name: str
    cell: Callable[[T], object] | None = None
    type: str = "string"
    format: str = ""
    # Shown with -o wide only (priority 1).
    wide: bool = False
    cell_at: Callable[[T, datetime], object] | None = None

    def value(self, obj: T, now: datetime) -> object:
        if self.cell_at is not None:
            return self.cell_at(obj, now)
        return None if self.cell is None else self.cell(obj)


def _age(obj: Any) -> object:
    created = obj.metadata.creation_timestamp
    return "<unknown>" if created is None else created


AGE: Column[Any] = Column("Age", _age)


# --- versions -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conversion(Generic[T]):
    """How a version that is not the stored one goes into the store and comes back.

    Both directions together must lose nothing that either version can say; what has no
    field goes into annotations, as upstream does.
    """

    stored: type[Any]
    to_stored: Callable[[T], Any]
    from_stored: Callable[[Any], T]


# --- the entry ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[T]):
    """A kind as it is served under one group and version."""

    group: str
    version: str
    kind: type[T]
    plural: str
    scope: Scope

    # Left out, these are the published ones.
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    # Below /registry/; stays empty for what is answered but never stored (reviews, bindings).
    storage_prefix: str = ""

    strategy: Strategy[T] = field(default_factory=Strategy)
    subresources: tuple[Subresource, ...] = ()

    # After the Name column, which every table starts with unless `name_column` is false.
    # No columns at all: the server's default, Name and Created At.
    columns: tuple[Column[T], ...] = ()
    name_column: bool = True

    # By the name used in field selectors; metadata.name and metadata.namespace go without
    # saying. Values are kept beside the bytes in the watch cache: cheap to compute, please.
    selectable_fields: Mapping[str, Callable[[T], str]] = field(default_factory=dict)

    # For a version that is not the stored one.
    conversion: Conversion[T] | None = None

    # Written to disk lazily: a crash may lose the last seconds (leases, events).
    relaxed: bool = False

    # The feature gate that must be on; empty for what is always served.
    feature_gate: str = ""

    def __post_init__(self) -> None:
        info = info_of(self.kind)
        said = (self.group, self.version, self.plural, self.scope is Scope.NAMESPACED)
        known = (info.group, info.version, info.plural, info.namespaced)
        if said != known:
            raise ValueError(f"the entry of {self.plural} says {said}, the facts say {known}")
        names = ("singular", "short_names", "categories", "verbs", "storage_prefix")
        for name in names:
            if not getattr(self, name):
                object.__setattr__(self, name, getattr(info, name))
        served = {sub.name for sub in info.subresources}
        if unknown := {sub.name for sub in self.subresources} - served:
            raise ValueError(f"{self.plural} has no subresources {sorted(unknown)}")

    @property
    def info(self) -> KindInfo:
        return info_of(self.kind)

    @property
    def kind_name(self) -> str:
        return self.kind.__name__

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """``deployments.apps``, as in messages and RBAC."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def is_namespaced(self) -> bool:
        return self.scope is Scope.NAMESPACED

    def subresource(self, name: str) -> Subresource | None:
        for candidate in self.subresources:
            if candidate.name == name:
                return candidate
        return None
