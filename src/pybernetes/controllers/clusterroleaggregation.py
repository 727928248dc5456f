"""ClusterRoleAggregation: a role with an aggregation rule has the rules of all roles it selects.

Watches and writes cluster roles. Rules are joined in the order of the roles' names, each once; a
role never gathers itself. Whoever extends the API adds a labelled role, and `admin`, `edit` and
`view` know about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.types.rbac_v1 import ClusterRole
from pybernetes.apimachinery.meta import Key
from pybernetes.apimachinery.selector import selector_of
from pybernetes.client import mapped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from pybernetes.api.types.rbac_v1 import PolicyRule
    from pybernetes.controllers.context import ControllerContext

_AGGREGATED, _YES = "aggregated", "yes"


def gathered(role: ClusterRole, roles: Iterable[ClusterRole]) -> tuple[PolicyRule, ...]:
    """The rules that the role should have."""
    if role.aggregation_rule is None:
        return role.rules
    selectors = [selector_of(s) for s in role.aggregation_rule.cluster_role_selectors]
    rules: dict[PolicyRule, None] = {}
    for other in sorted(roles, key=lambda other: other.metadata.name):
        if other.metadata.name == role.metadata.name:
            continue
        if any(selector.matches(other.metadata.labels) for selector in selectors):
            rules.update(dict.fromkeys(other.rules))
    return tuple(rules)


class ClusterRoleAggregationController:
    name = "clusterrole-aggregation-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.name)
        self._roles = context.caches.of(ClusterRole)
        self._roles.index(_AGGREGATED, lambda role: (_YES,) if role.aggregation_rule else ())
        self.sources = (mapped(self._roles, self._gatherers),)

    def _gatherers(self, role: ClusterRole) -> list[Key]:
        """Any change may concern any role that gathers; there are three, usually."""
        return [Key("", found.metadata.name) for found in self._roles.by_index(_AGGREGATED, _YES)]

    async def reconcile(self, key: Key) -> timedelta | None:
        role = self._roles.get(key)
        if role is None or role.aggregation_rule is None:
            return None
        rules = gathered(role, self._roles)
        if set(rules) != set(role.rules):
            await self._client.update(replace(role, rules=rules))
        return None
