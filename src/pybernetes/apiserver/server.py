"""The API server: everything put together behind one `handle`.

`ApiServer` is entered as an async context manager, which fills the caches and follows
the store; `handle` is what a socket server and the in-memory transport call. Who sits
in it is given from outside: the store, time and chance, who authenticates, authorizes
and admits, and what answers the paths and streams that are not objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pybernetes import __version__
from pybernetes.apiserver.backend import Backend, NoFieldManager
from pybernetes.apiserver.call import Call
from pybernetes.apiserver.catalog import Catalog
from pybernetes.apiserver.chain import CHAIN, Link, linked
from pybernetes.apiserver.customresources.registrar import CustomResources
from pybernetes.apiserver.dispatch import Dispatcher
from pybernetes.apiserver.health import health_routes, metrics_route, version_route
from pybernetes.apiserver.hooks import AllowAll, NoAdmission
from pybernetes.apiserver.metrics import Registry
from pybernetes.apiserver.watchcache import Feed

if TYPE_CHECKING:
    from random import Random
    from types import TracebackType

    from pybernetes.aio.clock import Clock
    from pybernetes.api.resource import Resource
    from pybernetes.apiserver.hooks import (
        Admission,
        Authenticator,
        Authorizer,
        Connect,
        FieldManager,
        HealthCheck,
        Route,
    )
    from pybernetes.apiserver.metrics import Labels
    from pybernetes.storage import Store
    from pybernetes.wire.http import Request, Response

# A client may bring its own audit id, within reason.
_AUDIT_ID_LIMIT = 64

_REQUEST_LABELS = ("verb", "group", "version", "resource", "subresource")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Knobs. The defaults are upstream's."""

    # Whether a request without credentials goes on as system:anonymous, or is 401.
    anonymous: bool = True
    # The longest a request may take that is not meant to last.
    request_timeout_seconds: float = 60.0
    # Feature gates that are on beyond those that are on by default.
    feature_gates: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class Plugins:
    """What is built elsewhere and sits in the server; all of it optional."""

    authenticator: Authenticator | None = None
    authorizer: Authorizer = field(default_factory=AllowAll)
    admission: Admission = field(default_factory=NoAdmission)
    field_manager: FieldManager = field(default_factory=NoFieldManager)
    # (group, resource, subresource) → who answers.
    connects: Mapping[tuple[str, str, str], Connect] = field(default_factory=dict)
    routes: Sequence[Route] = ()
    links: tuple[Link, ...] = CHAIN
    # Checks of /readyz and, under the same names, of /healthz and /livez.
    ready_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
    live_checks: Mapping[str, HealthCheck] = field(default_factory=dict)


# Makes plugins that need the server they sit in: its catalog, its caches, its backend.
MakePlugins = Callable[["ApiServer"], Plugins]


def without_plugins(server: ApiServer) -> Plugins:
    """No access control and no policy: everybody may do everything."""
    return Plugins()


class ApiServer:
    """One API server over one store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        random: Random,
        config: ServerConfig = ServerConfig(),
        *,
        resources: Sequence[Resource[Any]] | None = None,
        make_plugins: MakePlugins = without_plugins,
    ) -> None:
        self.store, self.clock, self.random, self.config = store, clock, random, config
        self.catalog = Catalog(clock)
        self.catalog.load(served_by_default(resources, config.feature_gates))
        self.feed = Feed(store)
        self.backend = Backend(self.catalog, self.feed, clock, random)
        self.custom_resources = CustomResources(self.backend)
        self.metrics = Registry()
        self._make_metrics()
        self._started = False
        self._stopping = False
        plugins = make_plugins(self)
        self.plugins = plugins
        self.authenticator, self.authorizer = plugins.authenticator, plugins.authorizer
        self.backend.authorizer = plugins.authorizer
        self.backend.admission = plugins.admission
        self.backend.field_manager = plugins.field_manager
        self.backend.connects.update(plugins.connects)
        self.dispatcher = Dispatcher(self.backend, (*self._own_routes(), *plugins.routes))
        self._chain = linked(self, plugins.links, self.dispatcher)

    # -- life

    async def __aenter__(self) -> ApiServer:
        await self.feed.start(self.catalog.caches)
        await self.custom_resources.start()
        self._started = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        await self.custom_resources.stop()
        self.feed.stop()
        for close in self.backend.closers:
            await close()

    def stop_being_ready(self) -> None:
        """Say at /readyz that it is over soon, so that nobody new comes."""
        self._stopping = True

    # -- requests

    async def handle(self, request: Request) -> Response:
        """Answer a request. Raises only what the transport raised itself."""
        audit_id = request.headers.get("audit-id")
        if not audit_id or len(audit_id) > _AUDIT_ID_LIMIT:
            audit_id = self._new_id()
        return await self._chain(Call(request, audit_id))

    def _new_id(self) -> str:
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    # -- what it says of itself

    def _own_routes(self) -> tuple[Route, ...]:
        return (
            version_route(__version__),
            metrics_route(self.metrics),
            *health_routes("/healthz", self._live_checks),
            *health_routes("/livez", self._live_checks),
            *health_routes("/readyz", self._ready_checks),
        )

    def _live_checks(self) -> Mapping[str, HealthCheck]:
        return {"ping": _ping, "storage": self._check_storage, **self.plugins.live_checks}

    def _ready_checks(self) -> Mapping[str, HealthCheck]:
        return {
            **self._live_checks(),
            "caches": self._check_caches,
            "shutdown": self._check_shutdown,
            **self.plugins.ready_checks,
        }

    def _check_storage(self) -> str | None:
        # A damaged object is no reason to stop serving the others; a failing disk is.
        for problem in self.store.problems():
            if not problem.key:
                return problem.message
        return None

    def _check_caches(self) -> str | None:
        return None if self._started else "the caches are not filled yet"

    def _check_shutdown(self) -> str | None:
        return "the server is going down" if self._stopping else None

    def _make_metrics(self) -> None:
        metrics = self.metrics
        self.request_total = metrics.counter(
            "apiserver_request_total",
            "Requests by verb, resource and HTTP code.",
            (*_REQUEST_LABELS, "code"),
        )
        self.request_duration = metrics.histogram(
            "apiserver_request_duration_seconds",
            "How long requests took; streams are left out.",
            _REQUEST_LABELS,
        )
        metrics.gauge(
            "apiserver_longrunning_requests",
            "Watches that are open.",
            self._count_watches,
            ("resource",),
        )
        metrics.gauge(
            "apiserver_storage_objects",
            "Objects stored, by the prefix of their keys.",
            lambda: {(name,): len(cache) for name, cache in self.feed.caches.items()},
            ("resource",),
        )
        metrics.gauge(
            "apiserver_storage_damaged_objects",
            "Stored values that are not objects and are left out.",
            lambda: {(name,): len(c.damaged) for name, c in self.feed.caches.items() if c.damaged},
            ("resource",),
        )
        metrics.gauge(
            "apiserver_storage_revision",
            "The newest revision of the store.",
            lambda: {(): self.store.revision},
        )

    def _count_watches(self) -> Mapping[Labels, float]:
        caches = self.feed.caches
        return {
            (name,): cache.dispatcher.watchers
            for name, cache in caches.items()
            if cache.dispatcher.watchers
        }


def _ping() -> str | None:
    return None


def served_by_default(
    resources: Sequence[Resource[Any]] | None, gates: frozenset[str]
) -> list[Resource[Any]]:
    """The registry without what stands behind a gate that is closed."""
    if resources is None:
        from pybernetes.api.registry import RESOURCES

        resources = RESOURCES
    return [entry for entry in resources if not entry.feature_gate or entry.feature_gate in gates]
