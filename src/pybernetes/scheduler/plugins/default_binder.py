"""DefaultBinder: says through the API on which node a pod is to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Binding, ObjectReference, Pod
from pybernetes.api.types.meta_v1 import ObjectMeta

if TYPE_CHECKING:
    from pybernetes.client import Client


class DefaultBinder:
    name = "DefaultBinder"

    async def bind(self, client: Client, pod: Pod, node: str) -> bool:
        name, namespace = pod.metadata.name, pod.metadata.namespace
        binding = Binding(
            # The uid keeps a pod of the same name made meanwhile from being bound instead.
            metadata=ObjectMeta(name=name, namespace=namespace, uid=pod.metadata.uid),
            target=ObjectReference(kind="Node", name=node),
        )
        await client.create_subresource(Pod, name, namespace, "binding", binding)
        return True
