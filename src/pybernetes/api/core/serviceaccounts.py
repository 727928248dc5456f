"""ServiceAccount: who a pod is to the API."""

from __future__ import annotations

from pybernetes.api.resource import AGE, Resource, Scope, Strategy, Token
from pybernetes.api.types.core_v1 import ServiceAccount

SERVICE_ACCOUNTS = Resource(
    group="",
    version="v1",
    kind=ServiceAccount,
    plural="serviceaccounts",
    scope=Scope.NAMESPACED,
    strategy=Strategy(generation_follows=(), allow_unconditional_update=False),
    subresources=(Token(),),
    columns=(AGE,),
)
