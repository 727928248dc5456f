"""ServiceAccount: every active namespace has the service account `default`.

Watches namespaces and service accounts; creates service accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Namespace, ServiceAccount
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists
from pybernetes.apimachinery.meta import Key
from pybernetes.client import keys_of, mapped

if TYPE_CHECKING:
    from datetime import timedelta

    from pybernetes.controllers.context import ControllerContext

DEFAULT_NAME = "default"


class ServiceAccountController:
    name = "service-account-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._namespaces = context.caches.of(Namespace)
        self._accounts = context.caches.of(ServiceAccount)
        self.sources = (
            keys_of(self._namespaces),
            mapped(self._accounts, lambda account: [Key("", account.metadata.namespace)]),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.status.phase == "Terminating":
            return None
        if Key(key.name, DEFAULT_NAME) in self._accounts:
            return None
        account = ServiceAccount(metadata=ObjectMeta(name=DEFAULT_NAME, namespace=key.name))
        try:
            await self._client.create(account)
        except AlreadyExists:
            # The cache will show it in a moment.
            return None
        return None
