"""RootCa: every active namespace has the config map `kube-root-ca.crt`.

Pods verify the API server with it: it is part of the projected token volume (KEP-1205). Watches
namespaces and config maps; a config map somebody changed is put right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.types.core_v1 import ConfigMap, Namespace
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists
from pybernetes.apimachinery.meta import Key
from pybernetes.client import keys_of, mapped

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.controllers.context import ControllerContext

CONFIG_MAP = "kube-root-ca.crt"
_DESCRIPTION = {
    "kubernetes.io/description": (
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal"
        " endpoints such as the internal service IP or kubernetes.default.svc."
        " No other usage is guaranteed across distributions of Kubernetes clusters."
    )
}


class RootCaController:
    name = "root-ca-cert-publisher"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._bundle = {"ca.crt": context.options.root_ca}
        self._namespaces = context.caches.of(Namespace)
        self._config_maps = context.caches.of(
            ConfigMap, field_selector=f"metadata.name={CONFIG_MAP}"
        )
        self.sources = (
            keys_of(self._namespaces),
            mapped(self._config_maps, lambda found: [Key("", found.metadata.namespace)]),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.status.phase == "Terminating":
            return None
        known = self._config_maps.get(Key(key.name, CONFIG_MAP))
        if known is None:
            metadata = ObjectMeta(name=CONFIG_MAP, namespace=key.name, annotations=_DESCRIPTION)
            try:
                await self._client.create(ConfigMap(metadata=metadata, data=self._bundle))
            except AlreadyExists:
                return None
        elif known.data != self._bundle:
            await self._client.update(msgspec.structs.replace(known, data=self._bundle))
        return None
