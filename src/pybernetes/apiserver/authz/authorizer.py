"""The cluster's authorizer: administrators, then nodes, then RBAC.

Members of `system:masters` may do everything, whatever the roles say: it is the way in when
access control itself is broken, and nobody but the CA can put somebody into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.user import MASTERS, NODES
from pybernetes.apiserver.authz.rbac import ALLOWED, Rbac

if TYPE_CHECKING:
    from pybernetes.apiserver.authz.node import NodeAuthorizer
    from pybernetes.apiserver.hooks import Access, Decision


class ClusterAuthorizer:
    def __init__(self, rbac: Rbac, nodes: NodeAuthorizer | None = None) -> None:
        self.rbac = rbac
        self._nodes = nodes

    async def authorize(self, access: Access) -> Decision:
        return self.decide(access)

    def decide(self, access: Access) -> Decision:
        groups = access.user.groups
        if MASTERS in groups:
            return ALLOWED
        refusal = None
        if self._nodes is not None and NODES in groups:
            refusal = self._nodes.decide(access)
            if refusal.allowed:
                return refusal
        decision = self.rbac.decide(access)
        if refusal is not None and not decision.allowed and refusal.reason:
            return refusal
        return decision

    def explain(self, access: Access) -> Decision:
        """The same, with the reason for a permission too: for reviews."""
        decision = self.decide(access)
        if decision is ALLOWED and MASTERS not in access.user.groups:
            return self.rbac.explain(access)
        return decision
