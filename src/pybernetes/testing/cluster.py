"""A whole cluster as a library: real API server, controllers, scheduler and node agents, in memory.

    async with Cluster(nodes=3) as cluster:
        await cluster.apply("deployment.yaml")
        await cluster.run_for(minutes=10)
        assert len(cluster.pods(phase="Running")) == 3

What is simulated is only what lies outside: the disk (the store is in memory), the containers
(scripts, see `runtime.script`) and, where the loop is a `VirtualTimeLoop`, time. In tests the
`cluster` fixture of the pytest plugin gives one under virtual time; `Cluster.running()` is the same
for code without a loop of its own.

`await settled()` waits until nothing can happen before time moves on: afterwards the state of the
world is what it is, and no sleep was guessed.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pybernetes.aio.clock import LoopClock
from pybernetes.aio.virtualtime import VirtualTimeLoop
from pybernetes.aio.virtualtime import settled as loop_settled
from pybernetes.api.core.nodestate import is_ready
from pybernetes.api.types.core_v1 import Event, Node, Pod
from pybernetes.apimachinery.yamltext import load_yaml_documents
from pybernetes.client import kind_of
from pybernetes.cluster.controlplane import ControlPlaneOptions, control_plane
from pybernetes.cluster.simulation import simulated_nodes
from pybernetes.storage import MemoryStore
from pybernetes.testing.builders import EPOCH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from types import TracebackType

    from pybernetes.client import Client
    from pybernetes.cluster.controlplane import ControlPlane
    from pybernetes.cluster.simulation import SimulatedNodes
    from pybernetes.kubelet.runtime.simulated import SimulatedRuntime

T = TypeVar("T")


class Cluster:
    """See the module. Everything random in it comes from `seed`."""

    def __init__(
        self,
        *,
        nodes: int = 1,
        seed: int = 0,
        store: MemoryStore | None = None,
        options: ControlPlaneOptions | None = None,
    ) -> None:
        self._count, self._store = nodes, store
        self._options = options
        self.random = Random(seed)
        # Set while the cluster runs.
        self.plane: ControlPlane
        self.nodes: SimulatedNodes
        self.clock: LoopClock
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Cluster:
        self.clock = LoopClock(EPOCH)
        self._store = self._store or MemoryStore(clock=self.clock)
        async with AsyncExitStack() as stack:
            self.plane = await stack.enter_async_context(
                control_plane(
                    self._store, clock=self.clock, random=self.random, options=self._options
                )
            )
            self.nodes = await stack.enter_async_context(simulated_nodes(self.plane, self._count))
            await self._wait_ready()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for runtime in self.nodes.runtimes.values():
            runtime.check_invariants()
        await self._stack.aclose()

    # --- what a test does -------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """With every right there is."""
        return self.plane.admin

    @property
    def runtime(self) -> SimulatedRuntime:
        """The only node's runtime. Raises LookupError where there are several."""
        if len(self.nodes.runtimes) != 1:
            raise LookupError("this cluster has several nodes: use cluster.runtime_of(name)")
        return next(iter(self.nodes.runtimes.values()))

    def runtime_of(self, node: str) -> SimulatedRuntime:
        return self.nodes.runtimes[node]

    def script(self, pattern: str, *behaviours: Any) -> None:
        """Say what matching containers do, on whatever node they come to be."""
        for runtime in self.nodes.runtimes.values():
            runtime.script(pattern, *behaviours)

    async def apply(self, *what: Any) -> list[Any]:
        """Create objects or bring them into this form: typed, dicts, YAML text or paths of files."""
        made = []
        for each in what:
            for obj in _objects_of(each):
                made.append(await self._apply(obj))
        return made

    async def run_for(self, **duration: float) -> None:
        """Let that much time pass, as timedelta counts it, and everything happen that is due."""
        await asyncio.sleep(timedelta(**duration).total_seconds())
        await self.settled()

    async def settled(self) -> None:
        """Until nothing can happen before time moves on."""
        await loop_settled()

    async def until(
        self, holds: Callable[[], bool], *, within: timedelta = timedelta(minutes=5)
    ) -> None:
        """Let time pass until something holds. Raises TimeoutError if it does not in time."""
        async with asyncio.timeout(within.total_seconds()):
            while not holds():
                await asyncio.sleep(1)
                await self.settled()

    # --- what a test asks -------------------------------------------------------------------------

    def pods(
        self,
        namespace: str | None = None,
        *,
        phase: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> list[Pod]:
        """As the process's cache shows them: up to date once settled."""
        return [
            pod
            for pod in self.plane.caches.of(Pod).list(namespace)
            if (not phase or pod.status.phase == phase)
            and (labels or {}).items() <= pod.metadata.labels.items()
        ]

    async def get(self, kind: type[T], name: str, namespace: str = "default") -> T:
        """From the API itself; the namespace is left out for kinds that have none."""
        return await self.client.get(kind, name, namespace if kind_of(kind).namespaced else "")

    async def events(self, about: str = "") -> list[Event]:
        """All events, or those about objects of that name, oldest first."""
        found = (await self.client.list(Event)).items
        return [event for event in found if not about or event.involved_object.name == about]

    # --- inside -----------------------------------------------------------------------------------

    async def _wait_ready(self) -> None:
        nodes = self.plane.caches.of(Node)
        await nodes.wait_synced()
        await self._until_cached(lambda: sum(map(is_ready, nodes)) == self._count, nodes)

    @staticmethod
    async def _until_cached(holds: Callable[[], bool], cache: Any) -> None:
        changed = asyncio.Event()
        unsubscribe = cache.subscribe(lambda old, new: changed.set())
        try:
            while not holds():
                changed.clear()
                await changed.wait()
        finally:
            unsubscribe()

    async def _apply(self, obj: Any) -> Any:
        if not isinstance(obj, dict):
            return await self._apply_typed(obj)
        group, _, version = obj["apiVersion"].rpartition("/")
        kind = await self.client.discover(group, version, obj["kind"])
        namespace = obj["metadata"].setdefault("namespace", "default") if kind.namespaced else ""
        name = obj["metadata"]["name"]
        if await self.client.get_or_none(kind, name, namespace) is None:
            return await self.client.create(obj, kind=kind)
        return await self.client.patch(kind, name, namespace, patch=obj)

    async def _apply_typed(self, obj: Any) -> Any:
        metadata = obj.metadata
        known: Any = await self.client.get_or_none(type(obj), metadata.name, metadata.namespace)
        if known is None:
            return await self.client.create(obj)
        metadata = msgspec.structs.replace(
            metadata, resource_version=known.metadata.resource_version, uid=known.metadata.uid
        )
        return await self.client.update(msgspec.structs.replace(obj, metadata=metadata))

    @staticmethod
    @contextmanager
    def running(**settings: Any) -> Iterator[SyncCluster]:
        """A cluster for code that is not asynchronous, on a loop of its own under virtual time."""
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            cluster = Cluster(**settings)
            held = _Held(cluster)
            task = runner.run(held.enter())
            try:
                yield SyncCluster(cluster, runner)
            finally:
                runner.run(held.leave(task))


class _Held:
    """Keeps a cluster's context in one task, as task groups want it, across many `run` calls."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._leave: asyncio.Event

    async def enter(self) -> asyncio.Task[None]:
        self._leave = asyncio.Event()
        entered = asyncio.Event()

        async def hold() -> None:
            async with self._cluster:
                entered.set()
                await self._leave.wait()

        task = asyncio.create_task(hold(), name="cluster")
        waiting = asyncio.create_task(entered.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            await task
        return task

    async def leave(self, task: asyncio.Task[None]) -> None:
        self._leave.set()
        await task


class SyncCluster:
    """The cluster's methods without `await`: each runs the loop until it is done."""

    def __init__(self, cluster: Cluster, runner: asyncio.Runner) -> None:
        self.cluster, self._runner = cluster, runner

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run anything on the cluster's loop, such as `cluster.client.get(…)`."""

        async def wait() -> T:
            return await awaitable

        return self._runner.run(wait())

    def apply(self, *what: Any) -> list[Any]:
        return self.run(self.cluster.apply(*what))

    def run_for(self, **duration: float) -> None:
        self.run(self.cluster.run_for(**duration))

    def pods(self, namespace: str | None = None, **wanted: Any) -> list[Pod]:
        return self.cluster.pods(namespace, **wanted)

    def get(self, kind: type[T], name: str, namespace: str = "default") -> T:
        return self.run(self.cluster.get(kind, name, namespace))


def _objects_of(what: Any) -> list[Any]:
    if isinstance(what, Path):
        return _documents(what.read_bytes())
    if isinstance(what, str):
        # Text with a line end is YAML, a single line is the path of a file.
        return _documents(what.encode() if "\n" in what else Path(what).read_bytes())
    return [what]


def _documents(text: bytes) -> list[Any]:
    return [document for document, _ in load_yaml_documents(text) if document]
