"""The kubelet: watches the pods bound to its node and gives each a worker.

Start: register the node, wait for the runtime, see what is there already, then take on the pods. A
pod that is both in the API and in the runtime is adopted; what only the runtime knows is removed.
Runtime events go to the worker of the pod they are about.

Rule: nothing of a pod is touched before both lists (the API's and the runtime's) are complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.core.podstate import is_terminating
from pybernetes.api.types.core_v1 import Node, Pod
from pybernetes.apimachinery.errors import StatusError
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.quantity import int_value
from pybernetes.kubelet.admission import why_refused
from pybernetes.kubelet.adoption import Found
from pybernetes.kubelet.agent import Agent
from pybernetes.kubelet.context import NodeContext
from pybernetes.kubelet.images import Images
from pybernetes.kubelet.leftovers import remove_leftovers
from pybernetes.kubelet.logs import Watch
from pybernetes.kubelet.machine_facts import SIMULATED, look_at_machine
from pybernetes.kubelet.node import NodeReporter, allocatable_of, capacity_of
from pybernetes.kubelet.objects import Objects
from pybernetes.kubelet.pod_events import Changed, Condemned, Forgotten
from pybernetes.kubelet.pod_state import check_state
from pybernetes.kubelet.pod_status import NodeFacts
from pybernetes.kubelet.podcgroup import PodCgroups
from pybernetes.kubelet.rotation import LOOK_EVERY, LogRotation
from pybernetes.kubelet.runtime.interface import (
    POD_UID_LABEL,
    ContainerRuntimeError,
    ContainerState,
    EventKind,
    SandboxNotFound,
)
from pybernetes.kubelet.server import KubeletServer
from pybernetes.kubelet.static import MIRROR, is_mirror, read_manifests
from pybernetes.kubelet.stats import StatsPages
from pybernetes.kubelet.worker import PodWorker
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Caches, Client, EventRecorder
    from pybernetes.kubelet.config import KubeletConfig
    from pybernetes.kubelet.runtime.interface import (
        ContainerStatus,
        ContainerSummary,
        EventStream,
        Runtime,
        RuntimeEvent,
        SandboxStatus,
        SandboxSummary,
    )
    from pybernetes.kubelet.server import Authenticate, Authorize

log = logging.getLogger(__name__)

RUNTIME_RETRY = timedelta(seconds=1)
# After a manifest changed.
SETTLE = timedelta(milliseconds=200)
WORKER_RETRY, LAST_WORKER_RETRY = timedelta(seconds=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class KubeletStatistics:
    """How many pods and containers are in each stage."""

    pods: dict[str, int]
    containers: dict[str, int]


class Kubelet:
    """The agent of one node. `caches` is filled (its `run`) by whoever made it."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        runtime: Runtime,
        config: KubeletConfig,
        clock: Clock,
        random: Random,
        recorder: EventRecorder,
    ) -> None:
        self.config = config
        machine = SIMULATED
        if config.root_dir is not None:
            # Containers come in by mounts; nobody else has business here.
            (config.root_dir / "pods").mkdir(mode=0o700, parents=True, exist_ok=True)
            machine = look_at_machine(config.root_dir)
        capacity = capacity_of(config, machine)
        facts = NodeFacts(
            addresses=config.addresses,
            allocatable=allocatable_of(config, capacity),
            memory_bytes=int_value(capacity.get("memory", "0")),
            least_oom_score=machine.least_oom_score,
        )
        self.context = NodeContext(
            config=config,
            client=client,
            runtime=runtime,
            recorder=recorder,
            clock=clock,
            random=random,
            objects=Objects(caches),
            images=Images(runtime, clock),
            facts=facts,
            cgroups=PodCgroups(config.cgroup_root, config.pod_pids_limit)
            if config.cgroup_root and not config.is_simulated
            else None,
        )
        self._pods = caches.of(Pod, field_selector=f"spec.nodeName={config.node_name}")
        self._node = caches.of(Node, field_selector=f"metadata.name={config.node_name}")
        self.reporter = NodeReporter(self.context, machine)
        # Workers that have something to do, by the uid of their pod.
        self._workers: dict[str, PodWorker] = {}
        # What the runtime had when we came, by pod; each entry is handed out once.
        self._found: dict[str, Found] = {}
        # The static pods there are manifests of, by uid.
        self._static: dict[str, Pod] = {}
        self._group: asyncio.TaskGroup | None = None
        self._pod_cidr = ""

    # --- running ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Pods go on without us: that is for `drain` or the next start."""
        events = self.context.runtime.events()
        unsubscribe = []
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self.reporter.run(), name="node status")
                self._found = await self._look_around()
                await self._pods.wait_synced()
                unsubscribe.append(self._node.subscribe(self._node_changed))
                if self.config.static_pod_dir is not None:
                    self._read_manifests(self.config.static_pod_dir)
                    self._group.create_task(
                        self._follow_manifests(self.config.static_pod_dir), name="static pods"
                    )
                unsubscribe.append(self._pods.subscribe(self._pod_changed))
                self._group.create_task(self._remove_orphans(), name="orphans")
                self._group.create_task(self._relist_slowly(), name="relist")
                if not self.config.is_simulated:
                    self._group.create_task(self._rotate_logs(), name="log rotation")
                await self._follow(events)
        finally:
            for end in unsubscribe:
                end()
            self._group = None
            await events.aclose()

    async def _look_around(self, uid: str = "") -> dict[str, Found]:
        """Everything the runtime has (of one pod), once it answers."""
        while True:
            try:
                return await self._find(uid)
            except ContainerRuntimeError as error:
                log.warning("waiting for the container runtime: %s", error)
                await asyncio.sleep(RUNTIME_RETRY.total_seconds())

    async def _find(self, uid: str) -> dict[str, Found]:
        runtime = self.context.runtime
        labels = self.config.owner_labels | ({POD_UID_LABEL: uid} if uid else {})
        # Before the first sandbox: its cgroup is named as the driver wants it.
        self.context.cgroup_driver = (await runtime.status()).cgroup_driver or "cgroupfs"
        version = await runtime.version()
        self.context.facts = replace(self.context.facts, runtime=version.name)
        sandboxes: dict[str, list[SandboxStatus]] = {}
        for summary in await runtime.list_sandboxes(labels=labels):
            try:
                status = await runtime.sandbox_status(summary.id)
            except SandboxNotFound:
                continue
            sandboxes.setdefault(summary.uid, []).append(status)
        containers: dict[str, list[ContainerStatus]] = {}
        for container in await runtime.list_containers(labels=labels):
            if container.state is ContainerState.CREATED:
                # We died before it was started. Nobody will, and it holds its name.
                await runtime.remove_container(container.id)
                continue
            found = await runtime.container_status(container.id)
            containers.setdefault(container.pod_uid, []).append(found)
        uids = {uid for uid in (*sandboxes, *containers) if uid}
        return {uid: Found(sandboxes.get(uid, []), containers.get(uid, [])) for uid in uids}

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if self._group is None:
            return
        shown = new or old
        assert shown is not None
        if is_mirror(shown):
            self._mirror_changed(shown, new)
            return
        if new is None:
            assert old is not None
            worker = self._workers.get(old.metadata.uid)
            if worker is not None:
                worker.post(Forgotten())
            return
        worker = self._workers.get(new.metadata.uid)
        if worker is not None:
            worker.post(Changed(new))
            return
        uid = new.metadata.uid
        found = self._found.pop(uid, None)
        self._employ(PodWorker(self.context, new, found or Found(), self._refusal(new, found)))

    def _employ(self, worker: PodWorker) -> None:
        assert self._group is not None
        meta = worker.state.pod.metadata
        self._workers[meta.uid] = worker
        self._group.create_task(self._run_worker(meta.uid, worker), name=f"pod {meta.name}")

    # --- static pods ------------------------------------------------------------------------------

    def _read_manifests(self, directory: Path) -> None:
        """Begin and end static pods by what is in the directory now."""
        self._static = read_manifests(directory, self.config.node_name)
        for worker in self._workers.values():
            if worker.is_static and worker.state.pod.metadata.uid not in self._static:
                worker.post(Forgotten())
        self._begin_static_pods()

    def _begin_static_pods(self) -> None:
        """Those whose name is free: the former pod of a changed manifest ends first."""
        for uid, pod in self._static.items():
            meta = pod.metadata
            if uid not in self._workers and not self.worker_named(meta.namespace, meta.name):
                mirror = self._pods.get(Key(meta.namespace, meta.name))
                if mirror is not None and mirror.metadata.annotations.get(MIRROR) == uid:
                    # What was said of it before we came goes on from there.
                    pod = msgspec.structs.replace(pod, status=mirror.status)
                found = self._found.pop(uid, Found())
                self._employ(PodWorker(self.context, pod, found, static_on=self._own_node))

    async def _follow_manifests(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        watch = Watch(directory)
        try:
            while True:
                self._read_manifests(directory)
                await watch.wait()
                # Editors write in several steps.
                await asyncio.sleep(SETTLE.total_seconds())
        finally:
            watch.close()

    def _own_node(self) -> Node | None:
        return self._node.get(Key("", self.config.node_name))

    def _mirror_changed(self, shown: Pod, new: Pod | None) -> None:
        worker = self._workers.get(shown.metadata.annotations[MIRROR])
        if worker is not None:
            worker.mirror_changed(new)
        elif new is not None and self._group is not None:
            self._group.create_task(self._delete_mirror(new), name="mirror of nothing")

    async def _delete_mirror(self, mirror: Pod) -> None:
        try:
            await self.context.client.delete(mirror, grace_seconds=0)
        except (StatusError, WireError, OSError) as error:
            log.warning("mirror pod %s: %s", mirror.metadata.name, error)

    # --- pods -------------------------------------------------------------------------------------

    def _refusal(self, pod: Pod, found: Found | None) -> Condemned | None:
        """Why this node does not take a pod it has not begun to run."""
        if found is not None or pod.status.start_time is not None or is_terminating(pod):
            return None
        node = self._node.get(Key("", self.config.node_name))
        if node is None:
            return None
        others = [worker.state.pod for worker in self._workers.values() if worker.is_active]
        refusal = why_refused(pod, others, node)
        if refusal is None:
            return None
        text = f"Pod was rejected: {refusal.message}"
        self.context.say(pod, "Warning", refusal.reason, refusal.message)
        return Condemned(refusal.reason, text)

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        """Until the pod is gone. One pod's failure must not end its neighbours."""
        delay = WORKER_RETRY.total_seconds()
        try:
            while True:
                try:
                    await worker.run()
                    break
                except Exception:
                    log.exception("the worker of pod %s failed", worker.state.pod.metadata.name)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_WORKER_RETRY.total_seconds())
                # As after a restart of ours: what is there is adopted.
                found = (await self._look_around(uid)).get(uid, Found())
                static_on = self._own_node if worker.is_static else None
                worker = PodWorker(self.context, worker.newest, found, static_on=static_on)
                self._workers[uid] = worker
        finally:
            self._workers.pop(uid, None)
        if worker.is_static:
            self._begin_static_pods()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        self.reporter.heard(new)
        if new is None or self._group is None:
            return
        if new.spec.pod_cidr and new.spec.pod_cidr != self._pod_cidr:
            self._pod_cidr = new.spec.pod_cidr
            self._group.create_task(self._tell_pod_cidr(new.spec.pod_cidr), name="pod range")

    async def _tell_pod_cidr(self, cidr: str) -> None:
        try:
            await self.context.runtime.update_pod_cidr(cidr)
        except ContainerRuntimeError as error:
            log.warning("telling the runtime about %s: %s", cidr, error)

    # --- what the runtime says --------------------------------------------------------------------

    async def _follow(self, events: EventStream) -> None:
        async for event in events:
            if event.kind is EventKind.RESYNC:
                await self.relist()
            elif event.kind in (EventKind.STOPPED, EventKind.DELETED):
                for worker in self._concerned(event):
                    worker.look_at(event.container_id, event.sandbox_id)

    def _concerned(self, event: RuntimeEvent) -> Iterator[PodWorker]:
        if event.pod_uid:
            worker = self._workers.get(event.pod_uid)
            return iter(() if worker is None else (worker,))
        return iter(list(self._workers.values()))

    async def _relist_slowly(self) -> None:
        """Events should say everything; this is for those that were never sent."""
        while True:
            await asyncio.sleep(self.config.relist_interval.total_seconds())
            await self.relist()

    async def _rotate_logs(self) -> None:
        rotation = LogRotation(self.context)
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            await rotation.look(list(self._workers.values()))

    async def relist(self) -> None:
        """Compare what the runtime has with what each pod believes."""
        runtime = self.context.runtime
        await self.reporter.look()
        try:
            labels = self.config.owner_labels
            sandboxes = {s.id: s for s in await runtime.list_sandboxes(labels=labels)}
            containers = {c.id: c for c in await runtime.list_containers(labels=labels)}
        except ContainerRuntimeError as error:
            log.warning("listing containers: %s", error)
            return
        for worker in list(self._workers.values()):
            worker.relisted(sandboxes, containers)
        await self._remove_unknown(sandboxes, containers)

    # --- orphans ----------------------------------------------------------------------------------

    async def _remove_orphans(self) -> None:
        """Pods that were deleted while nobody was here."""
        orphans, self._found = self._found, {}
        for uid, found in orphans.items():
            log.info("removing what is left of pod %s, which is gone from the API", uid)
            for sandbox in found.sandboxes:
                await self._remove_sandbox(sandbox.id)
            for container in found.containers:
                await self._remove_container(container.id)
        if self.config.root_dir is not None:
            known = {pod.metadata.uid for pod in self._pods} | set(self._workers)
            await asyncio.to_thread(remove_leftovers, self.config, known)

    async def _remove_unknown(
        self, sandboxes: dict[str, SandboxSummary], containers: dict[str, ContainerSummary]
    ) -> None:
        """What belongs to no pod we know; such things come from crashes between two calls."""
        for sandbox in sandboxes.values():
            if sandbox.uid and not self._is_known(sandbox.uid):
                await self._remove_sandbox(sandbox.id)
        for container in containers.values():
            if container.pod_uid and not self._is_known(container.pod_uid):
                if container.state is ContainerState.RUNNING and container.sandbox_id in sandboxes:
                    continue
                await self._remove_container(container.id)

    def _is_known(self, uid: str) -> bool:
        return uid in self._workers or uid in self._found

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        try:
            await self.context.runtime.remove_sandbox(sandbox_id)
        except ContainerRuntimeError as error:
            log.warning("removing sandbox %s: %s", sandbox_id, error)

    async def _remove_container(self, container_id: str) -> None:
        try:
            await self.context.runtime.remove_container(container_id)
        except ContainerRuntimeError as error:
            log.warning("removing container %s: %s", container_id, error)

    def check_invariants(self) -> None:
        for uid, worker in self._workers.items():
            assert worker.state.pod.metadata.uid == uid
            check_state(worker.state)

    def statistics(self) -> KubeletStatistics:
        workers = self._workers.values()
        return KubeletStatistics(
            pods=dict(Counter(worker.state.stage.value for worker in workers)),
            containers=dict(
                Counter(
                    record.stage.value
                    for worker in workers
                    for record in worker.state.containers.values()
                )
            ),
        )

    # --- for others -------------------------------------------------------------------------------

    @property
    def workers(self) -> list[PodWorker]:
        return list(self._workers.values())

    def worker_named(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of the pod with that name; the newest, if a namesake is still going."""
        found = None
        for worker in self._workers.values():
            meta = worker.state.pod.metadata
            if (meta.namespace, meta.name) == (namespace, name):
                found = worker
        return found

    def server(self, *, authenticate: Authenticate, authorize: Authorize) -> KubeletServer:
        """The node's HTTPS API; whoever composes the process opens the socket for it."""
        pages = StatsPages(self)
        return KubeletServer(
            Agent(self),
            authenticate=authenticate,
            authorize=authorize,
            more={
                "/stats/summary": pages.summary,
                "/metrics/resource": pages.resource,
                "/metrics": pages.metrics,
            },
        )
