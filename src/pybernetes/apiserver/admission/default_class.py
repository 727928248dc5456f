"""DefaultStorageClass and DefaultIngressClass: who names no class gets the default one.

Of several defaults the youngest counts, so that a new one can be put in place before the old
one is taken away.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.types.networking_v1 import IngressClass
from pybernetes.api.types.storage_v1 import StorageClass
from pybernetes.apiserver.admission.plugin import Plugin
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_STORAGE_MARKS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_INGRESS_MARKS = ("ingressclass.kubernetes.io/is-default-class",)
_OLD_STORAGE = "volume.beta.kubernetes.io/storage-class"
_OLD_INGRESS = "kubernetes.io/ingress.class"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def default_of(classes: Typed[Any], marks: tuple[str, ...]) -> str:
    """The name of the default class; empty if there is none."""
    found = [
        c for c in classes.list() if any(c.metadata.annotations.get(m) == "true" for m in marks)
    ]
    found.sort(key=lambda c: c.metadata.name)
    youngest = max(found, key=lambda c: c.metadata.creation_timestamp or _LONG_AGO, default=None)
    return "" if youngest is None else youngest.metadata.name


class DefaultStorageClass(Plugin):
    def __init__(self, world: World) -> None:
        self._classes = Typed(world.catalog, StorageClass)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE:
            return
        if not attributes.is_for("", "persistentvolumeclaims"):
            return
        claim = attributes.obj
        if claim.spec.storage_class_name is not None or _OLD_STORAGE in claim.metadata.annotations:
            return
        if name := default_of(self._classes, _STORAGE_MARKS):
            attributes.obj = replace(claim, spec=replace(claim.spec, storage_class_name=name))


class DefaultIngressClass(Plugin):
    def __init__(self, world: World) -> None:
        self._classes = Typed(world.catalog, IngressClass)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation is not Operation.CREATE:
            return
        if not attributes.is_for("networking.k8s.io", "ingresses"):
            return
        ingress = attributes.obj
        if ingress.spec.ingress_class_name is not None:
            return
        if _OLD_INGRESS in ingress.metadata.annotations:
            return
        if name := default_of(self._classes, _INGRESS_MARKS):
            attributes.obj = replace(ingress, spec=replace(ingress.spec, ingress_class_name=name))
