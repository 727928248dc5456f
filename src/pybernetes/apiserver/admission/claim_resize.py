"""PersistentVolumeClaimResize: a claim may grow only if its class says that volumes can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.storage_v1 import StorageClass
from pybernetes.apimachinery.quantity import compare
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes


class ClaimResize(Plugin):
    def __init__(self, world: World) -> None:
        self._classes = Typed(world.catalog, StorageClass)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.UPDATE:
            return
        if not attributes.is_for("", "persistentvolumeclaims"):
            return
        new = attributes.obj.spec.resources.requests.get("storage", "0")
        old = attributes.old.spec.resources.requests.get("storage", "0")
        if compare(new, old) <= 0:
            return
        found = self._classes.get(attributes.obj.spec.storage_class_name or "")
        if found is None or not found.allow_volume_expansion:
            raise refused(
                attributes,
                "only dynamically provisioned pvc can be resized and the storageclass that"
                " provisions the pvc must support resize",
            )
