"""NamespaceLifecycle: nothing is made where there is no namespace, or where one is going away.

The namespaces that the cluster itself lives in cannot be deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Namespace
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

IMMORTAL = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


class NamespaceLifecycle(Plugin):
    def __init__(self, world: World) -> None:
        self._namespaces = Typed(world.catalog, Namespace)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.is_for("", "namespaces"):
            if attributes.operation is Operation.DELETE and attributes.name in IMMORTAL:
                raise refused(attributes, "this namespace may not be deleted")
            return
        namespace = attributes.namespace
        if not namespace or attributes.operation is Operation.DELETE:
            return
        if attributes.group == "authorization.k8s.io":
            # Asking about a namespace does not tell whether it is there.
            return
        present = self._namespaces.get(namespace)
        if present is None:
            raise NotFound("namespaces", namespace)
        if attributes.operation is Operation.CREATE and present.metadata.deletion_timestamp:
            raise refused(
                attributes,
                f"unable to create new content in namespace {namespace} because it is being"
                " terminated",
                causes=[
                    {
                        "reason": "NamespaceTerminating",
                        "message": f"namespace {namespace} is being terminated",
                        "field": "metadata.namespace",
                    }
                ],
            )
