"""The control plane: store, API server, controllers and scheduler, started in that order.

`control_plane` is an async context manager: inside it the API answers, its bootstrap objects are
there, and controllers and scheduler run. Each in-process component has a client of its own, over
the in-memory transport and with its own identity, so that authentication is settled and everything
behind it (authorization, admission, audit) treats it like anybody else.

What the outside does (sockets, files, the machine) is not here: `testing.Cluster` and
`cluster.server` both stand on this.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pybernetes.aio.backoff import Backoff
from pybernetes.aio.supervision import run_restarting
from pybernetes.api.user import MASTERS, UserInfo, service_account_user
from pybernetes.apiserver import ApiServer, ServerConfig
from pybernetes.client import Caches, Client, EventRecorder, EventWriter
from pybernetes.cluster.access import AccessOptions, bootstrap, make_plugins
from pybernetes.cluster.nodelinks import NodeLinks
from pybernetes.cluster.progress import Progress
from pybernetes.controllers import ControllerContext, ControllerOptions, run_controllers
from pybernetes.scheduler import run_scheduler
from pybernetes.wire.http import Peer
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import Store

log = logging.getLogger(__name__)

KUBE_SYSTEM = "kube-system"
# The API server's own user: upstream's loopback client.
APISERVER = UserInfo("system:apiserver", (MASTERS,))
CONTROLLER_MANAGER = UserInfo("system:kube-controller-manager")
SCHEDULER = UserInfo("system:kube-scheduler")

# A component that fails is started again; what it does is in the API, so nothing is lost.
RESTARTS = Backoff(initial=timedelta(milliseconds=200), maximum=timedelta(seconds=30), jitter=0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneOptions:
    """Which parts run, and what they are told about the cluster."""

    controllers: bool = True
    scheduler: bool = True
    controller_options: ControllerOptions = field(default_factory=ControllerOptions)
    access: AccessOptions = field(default_factory=AccessOptions)
    server: ServerConfig = field(default_factory=ServerConfig)


class ControlPlane:
    """A running control plane, and how components in its process reach it."""

    def __init__(self, server: ApiServer, clock: Clock, random: Random, links: NodeLinks) -> None:
        self.server, self.clock, self.random = server, clock, random
        # How the server reaches node agents; those of this process enter themselves here.
        self.links = links
        self._clients: dict[str, Client] = {}
        self.caches = Caches(self.client_as(CONTROLLER_MANAGER), random=random, lifetime=None)
        self.events = EventWriter(self.client_as(CONTROLLER_MANAGER), clock=clock, random=random)

    def client_as(self, user: UserInfo) -> Client:
        """A client in this process with that identity; the same one for the same user."""
        if user.name not in self._clients:
            peer = Peer(address="127.0.0.1", secure=True, identity=user)
            self._clients[user.name] = Client(MemoryHttpClient(self.server.handle, peer=peer))
        return self._clients[user.name]

    @property
    def admin(self) -> Client:
        return self.client_as(APISERVER)

    def controller_client(self, name: str) -> Client:
        """A controller acts as its own service account, as upstream's do."""
        return self.client_as(service_account_user(KUBE_SYSTEM, name))

    def recorder(self, component: str, *, host: str = "") -> EventRecorder:
        return EventRecorder(self.events, component, host=host)


@asynccontextmanager
async def control_plane(
    store: Store,
    *,
    clock: Clock,
    random: Random,
    options: ControlPlaneOptions | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[ControlPlane]:
    """Run a control plane over the store while the block runs."""
    options = options or ControlPlaneOptions()
    progress = progress or Progress()
    links = NodeLinks(options.access.pki)
    access = replace(options.access, dial=links.dial, signing_key=options.access.token_key())
    options = replace(options, access=access)
    with progress.step("API server"):
        server = ApiServer(
            store,
            clock,
            random,
            options.server,
            make_plugins=lambda server: make_plugins(server, access),
        )
        await server.__aenter__()
    plane = ControlPlane(server, clock, random, links)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(plane.caches.run(), name="caches"),
                tasks.create_task(plane.events.run(), name="events"),
            ]
            with progress.step("bootstrap objects"):
                await bootstrap(plane.admin, server, access)
            for name, start in _components(plane, options):
                running.append(tasks.create_task(_supervise(name, start, random), name=name))
            try:
                yield plane
            finally:
                server.stop_being_ready()
                for task in running:
                    task.cancel()
    finally:
        await server.__aexit__(None, None, None)


def _components(
    plane: ControlPlane, options: ControlPlaneOptions
) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """What runs beside the API server, by name."""
    found: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    if options.controllers:
        context = ControllerContext(
            client_for=plane.controller_client,
            caches=plane.caches,
            clock=plane.clock,
            random=plane.random,
            recorder_for=plane.recorder,
            options=replace(options.controller_options, sign_token=options.access.token_key().sign),
        )
        found.append(("controllers", lambda: run_controllers(context)))
    if options.scheduler:
        found.append(
            (
                "scheduler",
                lambda: run_scheduler(
                    plane.client_as(SCHEDULER),
                    plane.caches,
                    plane.clock,
                    plane.random,
                    recorder=plane.recorder("default-scheduler"),
                ),
            )
        )
    return found


async def _supervise(name: str, start: Callable[[], Awaitable[None]], random: Random) -> None:
    await run_restarting(name, start, backoff=RESTARTS, random=random, log=log)
