"""What the parts of one kubelet share: its node's runtime, its way to the API, its voice, its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import ObjectReference

if TYPE_CHECKING:
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.api.types.core_v1 import Pod
    from pybernetes.client import Client, EventRecorder
    from pybernetes.kubelet.config import KubeletConfig
    from pybernetes.kubelet.images import Images
    from pybernetes.kubelet.objects import Objects
    from pybernetes.kubelet.pod_status import NodeFacts
    from pybernetes.kubelet.podcgroup import PodCgroups
    from pybernetes.kubelet.runtime.interface import Runtime


@dataclass(slots=True, kw_only=True)
class NodeContext:
    config: KubeletConfig
    client: Client
    runtime: Runtime
    recorder: EventRecorder
    clock: Clock
    random: Random
    objects: Objects
    images: Images
    facts: NodeFacts
    cgroup_driver: str = "cgroupfs"
    cgroups: PodCgroups | None = None
    """None: the runtime decides where containers' cgroups are."""

    def say(self, pod: Pod, type_: str, reason: str, message: str, container: str = "") -> None:
        """Record an event about a pod, or about one of its containers."""
        self.recorder.record(reference_to(pod, container), type_, reason, message)


def reference_to(pod: Pod, container: str = "") -> ObjectReference:
    return ObjectReference(
        kind="Pod",
        api_version="v1",
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        resource_version=pod.metadata.resource_version,
        field_path=_field_path(pod, container),
    )


def _field_path(pod: Pod, container: str) -> str:
    spec = pod.spec
    lists = (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    )
    for name, containers in lists:
        if any(c.name == container for c in containers):
            return f"spec.{name}{{{container}}}"
    return ""
