"""The labels by which whoever lists sandboxes and containers knows their pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import (
    CONTAINER_NAME_LABEL,
    POD_NAME_LABEL,
    POD_NAMESPACE_LABEL,
    POD_UID_LABEL,
)

if TYPE_CHECKING:
    from pybernetes.kubelet.runtime.interface import ContainerSpec, SandboxSpec


def pod_labels(spec: SandboxSpec) -> dict[str, str]:
    return {
        POD_NAME_LABEL: spec.name,
        POD_NAMESPACE_LABEL: spec.namespace,
        POD_UID_LABEL: spec.uid,
    }


def container_labels(spec: ContainerSpec, sandbox: SandboxSpec) -> dict[str, str]:
    return {**pod_labels(sandbox), CONTAINER_NAME_LABEL: spec.name}
