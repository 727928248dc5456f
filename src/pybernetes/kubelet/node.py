"""The node's own object and lease: registered at the start, kept true, renewed as a sign of life.

Written when something changed, and every five minutes; in between the lease in kube-node-lease says
that we live. `node_status` is pure and says what the status should be.

Rule: the node is Ready only if the runtime answers and says that its network is ready too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes import __version__
from pybernetes.api.conditions import condition_of
from pybernetes.api.core.nodestate import is_ready
from pybernetes.api.types.coordination_v1 import Lease, LeaseSpec
from pybernetes.api.types.core_v1 import (
    ContainerImage,
    DaemonEndpoint,
    Node,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
    ObjectReference,
)
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.apimachinery.errors import AlreadyExists, Conflict, NotFound, StatusError
from pybernetes.apimachinery.quantity import format_quantity, parse_quantity
from pybernetes.apimachinery.timestamp import format_micro_time
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pybernetes.kubelet.config import KubeletConfig
    from pybernetes.kubelet.context import NodeContext
    from pybernetes.kubelet.machine_facts import MachineFacts
    from pybernetes.kubelet.runtime.interface import ImageStatus, RuntimeStatus, RuntimeVersion

log = logging.getLogger(__name__)

KUBELET_VERSION = f"v1.37.0+p8s.{__version__}"
LEASE_NAMESPACE = "kube-node-lease"
READY = "Ready"
# While a node is not ready it looks again so soon, then half as often each time.
FIRST_LOOK = timedelta(milliseconds=100)
# A runtime that has not answered by then is down: much sooner than the lease runs out.
ANSWER_SECONDS = 10
MOST_IMAGES = 50
FIRST_LOOK_SECONDS = 0.1
# What upstream keeps back for the eviction threshold of memory.
EVICTION_MEMORY = 100 * 1024 * 1024

# (type, reason and message when there is no pressure, event when it ends)
_PRESSURES = (
    (
        "MemoryPressure",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)
_PRESSURE_EVENTS = ("NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID")


@dataclass(frozen=True, slots=True)
class RuntimeHealth:
    """What the runtime says of itself; `problem` is empty if all is well."""

    problem: str = ""

    @property
    def ready(self) -> bool:
        return not self.problem


def health_of(status: RuntimeStatus | None) -> RuntimeHealth:
    """None: it does not answer."""
    if status is None:
        return RuntimeHealth("container runtime is down")
    problems = []
    texts = {
        "RuntimeReady": "container runtime not ready",
        "NetworkReady": "container runtime network not ready",
    }
    for condition in status.conditions:
        if condition.type in texts and not condition.status:
            problems.append(
                f"{texts[condition.type]}: {condition.type}=false "
                f"reason:{condition.reason} message:{condition.message}"
            )
    if len(problems) > 1:
        return RuntimeHealth(f"[{', '.join(problems)}]")
    return RuntimeHealth(problems[0] if problems else "")


def capacity_of(config: KubeletConfig, machine: MachineFacts) -> dict[str, str]:
    return {**machine.capacity, "pods": str(config.max_pods), **config.capacity}


def allocatable_of(config: KubeletConfig, capacity: Mapping[str, str]) -> dict[str, str]:
    found = dict(capacity)
    reserved = dict(config.reserved)
    if not config.is_simulated:
        reserved.setdefault("memory", str(EVICTION_MEMORY))
    for name, amount in reserved.items():
        if name in found:
            left = parse_quantity(found[name]) - parse_quantity(amount)
            found[name] = format_quantity(max(left, parse_quantity("0")))
    return found


def node_labels(config: KubeletConfig, machine: MachineFacts) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        **config.labels,
    }


def new_node(config: KubeletConfig, machine: MachineFacts, status: NodeStatus) -> Node:
    return Node(
        metadata=ObjectMeta(
            name=config.node_name,
            labels=node_labels(config, machine),
            annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        ),
        spec=NodeSpec(
            provider_id=config.provider_id,
            taints=config.taints,
            unschedulable=True if config.unschedulable else None,
        ),
        status=status,
    )


def node_status(
    config: KubeletConfig,
    machine: MachineFacts,
    known: NodeStatus,
    health: RuntimeHealth,
    version: RuntimeVersion | None,
    images: Sequence[ImageStatus] | None,
    now: datetime,
) -> NodeStatus:
    """`images=None`: not asked for now, keep what is known."""
    capacity = capacity_of(config, machine)
    runtime = known.node_info.container_runtime_version
    if version is not None:
        runtime = f"{version.name}://{version.version}"
    return replace(
        known,
        capacity=capacity,
        allocatable=allocatable_of(config, capacity),
        addresses=(
            *(NodeAddress(type="InternalIP", address=address) for address in config.addresses),
            NodeAddress(type="Hostname", address=config.node_name),
        ),
        daemon_endpoints=NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=config.port)),
        node_info=NodeSystemInfo(
            machine_id=machine.machine_id,
            system_uuid=machine.system_uuid,
            boot_id=machine.boot_id,
            kernel_version=machine.kernel_version,
            os_image=machine.os_image,
            container_runtime_version=runtime,
            kubelet_version=KUBELET_VERSION,
            operating_system="linux",
            architecture=machine.architecture,
        ),
        images=known.images if images is None else _images(images),
        conditions=_conditions(known.conditions, health, now),
    )


def _images(images: Sequence[ImageStatus]) -> tuple[ContainerImage, ...]:
    largest = sorted(images, key=lambda image: -image.size_bytes)[:MOST_IMAGES]
    return tuple(
        ContainerImage(
            names=(*image.repo_digests, *image.repo_tags)[:5], size_bytes=image.size_bytes
        )
        for image in largest
    )


def _conditions(
    known: Sequence[NodeCondition], health: RuntimeHealth, now: datetime
) -> tuple[NodeCondition, ...]:
    wanted = [(kind, "False", reason, message) for kind, reason, message in _PRESSURES]
    if health.ready:
        wanted.append((READY, "True", "KubeletReady", "kubelet is posting ready status"))
    else:
        wanted.append((READY, "False", "KubeletNotReady", health.problem))
    moment = now.replace(microsecond=0)
    ours = []
    for kind, status, reason, message in wanted:
        old = condition_of(known, kind)
        same = old is not None and old.status == status
        ours.append(
            NodeCondition(
                type=kind,
                status=status,
                reason=reason,
                message=message,
                last_heartbeat_time=moment,
                last_transition_time=old.last_transition_time if same and old else moment,
            )
        )
    others = [c for c in known if c.type not in {kind for kind, *_ in wanted}]
    return (*others, *ours)


def without_heartbeat(status: NodeStatus) -> NodeStatus:
    """To see whether anything but the time has changed."""
    return replace(
        status, conditions=tuple(replace(c, last_heartbeat_time=None) for c in status.conditions)
    )


class NodeReporter:
    """Keeps the node's object and lease."""

    def __init__(self, context: NodeContext, machine: MachineFacts) -> None:
        self._context = context
        self._machine = machine
        self._node: Node | None = None
        self._lease: Lease | None = None
        self._version: RuntimeVersion | None = None
        self._written_at: datetime | None = None
        # The status that events have told of.
        self._told = NodeStatus()
        self.health = RuntimeHealth("container runtime is down")

    async def run(self) -> None:
        """Register, then keep everything up to date until cancelled."""
        await self._insist()
        self._say("Normal", "Starting", "Starting kubelet.")
        heartbeat = self._context.config.heartbeat.total_seconds()
        # CRI tells nobody when a runtime or its network becomes ready, so a node that is not is
        # looked at soon again, less and less often.
        wait = FIRST_LOOK_SECONDS
        while True:
            if self._node is not None and is_ready(self._node):
                wait = FIRST_LOOK_SECONDS
                await asyncio.sleep(heartbeat)
            else:
                await asyncio.sleep(min(wait, heartbeat))
                wait *= 2
            await self.look()

    async def look(self) -> None:
        """Ask the runtime, write what has changed, renew the lease."""
        try:
            await self._write_status()
            await self._renew_lease()
        except (StatusError, WireError, OSError) as error:
            log.warning("node %s: %s", self._context.config.node_name, error)

    async def _insist(self) -> None:
        delay = 0.2
        while True:
            try:
                await self._write_status()
                await self._renew_lease()
                return
            except (StatusError, WireError, OSError) as error:
                log.warning(
                    "registering node %s: %s, trying again", self._context.config.node_name, error
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)

    # --- status -----------------------------------------------------------------------------------

    async def _write_status(self) -> None:
        config, now = self._context.config, self._context.clock.now()
        health = await self._ask_runtime()
        full = self._written_at is None or now - self._written_at >= config.status_interval
        images = await self._images() if full and health.ready else None
        known = self._node
        if known is None:
            known = await self._register(health, images, now)
        status = node_status(
            config, self._machine, known.status, health, self._version, images, now
        )
        if not full and without_heartbeat(status) == without_heartbeat(known.status):
            return
        try:
            self._node = await self._context.client.update_status(replace(known, status=status))
        except (Conflict, NotFound):
            # Somebody else wrote it (or removed it): once more, on top of that.
            self._node = None
            known = await self._register(health, images, now)
            status = node_status(
                config, self._machine, known.status, health, self._version, images, now
            )
            self._node = await self._context.client.update_status(replace(known, status=status))
        self._written_at = now
        self._tell(self._told, status)
        self._told = status

    async def _ask_runtime(self) -> RuntimeHealth:
        runtime = self._context.runtime
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._version is None:
                    self._version = await runtime.version()
                status = await runtime.status()
        except (ContainerRuntimeError, TimeoutError):
            self._version = None
            self.health = health_of(None)
        else:
            self.health = health_of(status)
        return self.health

    async def _images(self) -> Sequence[ImageStatus] | None:
        try:
            return await self._context.runtime.list_images()
        except ContainerRuntimeError:
            return None

    async def _register(
        self, health: RuntimeHealth, images: Sequence[ImageStatus] | None, now: datetime
    ) -> Node:
        """The node's object, made if there is none."""
        client, config = self._context.client, self._context.config
        found = await client.get_or_none(Node, config.node_name)
        if found is None:
            status = node_status(
                config, self._machine, NodeStatus(), health, self._version, images, now
            )
            try:
                found = await client.create(new_node(config, self._machine, status))
            except AlreadyExists:
                found = await client.get(Node, config.node_name)
        labels = node_labels(config, self._machine)
        if any(found.metadata.labels.get(name) != value for name, value in labels.items()):
            patch = {"metadata": {"labels": labels}}
            found = await client.patch(Node, config.node_name, patch=patch)
        self._node = found
        return found

    def heard(self, node: Node | None) -> None:
        """What the watch says of the node."""
        if node is not None and self._node is not None:
            self._node = node

    def _tell(self, before: NodeStatus, after: NodeStatus) -> None:
        name = self._context.config.node_name
        for (kind, *_), reason in zip(_PRESSURES, _PRESSURE_EVENTS, strict=True):
            if condition_of(before.conditions, kind) is None:
                self._say("Normal", reason, f"Node {name} status is now: {reason}")
        old, new = condition_of(before.conditions, READY), condition_of(after.conditions, READY)
        if new is not None and (old is None or old.status != new.status):
            reason = "NodeReady" if new.status == "True" else "NodeNotReady"
            self._say("Normal", reason, f"Node {name} status is now: {reason}")

    def _say(self, type_: str, reason: str, message: str) -> None:
        name = self._context.config.node_name
        # Upstream's quirk, which `kubectl describe node` relies on: the uid is the name.
        reference = ObjectReference(kind="Node", name=name, uid=name)
        self._context.recorder.record(reference, type_, reason, message)

    # --- lease ------------------------------------------------------------------------------------

    async def _renew_lease(self) -> None:
        client, config = self._context.client, self._context.config
        now = format_micro_time(self._context.clock.now())
        if self._lease is None:
            self._lease = await client.get_or_none(Lease, config.node_name, LEASE_NAMESPACE)
        if self._lease is None:
            owners: tuple[OwnerReference, ...] = ()
            if self._node is not None:
                owners = (
                    OwnerReference(
                        api_version="v1",
                        kind="Node",
                        name=config.node_name,
                        uid=self._node.metadata.uid,
                    ),
                )
            lease = Lease(
                metadata=ObjectMeta(
                    name=config.node_name, namespace=LEASE_NAMESPACE, owner_references=owners
                ),
                spec=LeaseSpec(
                    holder_identity=config.node_name,
                    lease_duration_seconds=config.lease_seconds,
                    renew_time=now,
                ),
            )
            self._lease = await client.create(lease)
            return
        renewed = replace(
            self._lease,
            spec=replace(
                self._lease.spec,
                holder_identity=config.node_name,
                lease_duration_seconds=config.lease_seconds,
                renew_time=now,
            ),
        )
        try:
            self._lease = await client.update(renewed)
        except (Conflict, NotFound):
            self._lease = None
            await self._renew_lease()
