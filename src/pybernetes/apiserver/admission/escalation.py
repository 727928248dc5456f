"""Nobody grants what they do not have: writes to roles and bindings.

Not a plugin upstream but part of how roles are stored. Writing a role needs all of its rules, or
the verb `escalate`; binding one needs all of its rules, or the verb `bind` on it. Setting an
aggregation rule, which may gather anything, needs everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.rbac import GROUP
from pybernetes.api.types.rbac_v1 import PolicyRule
from pybernetes.api.user import MASTERS
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.admission.plugin import Plugin, refused
from pybernetes.apiserver.authz.rules import compacted, missing, rule_text, strings_text
from pybernetes.apiserver.hooks import Access, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.rbac_v1 import ClusterRoleBinding, RoleBinding
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_ROLES = frozenset({"roles", "clusterroles"})
_BINDINGS = frozenset({"rolebindings", "clusterrolebindings"})
_EVERYTHING = (
    PolicyRule(verbs=("*",), api_groups=("*",), resources=("*",)),
    PolicyRule(verbs=("*",), non_resource_urls=("*",)),
)


class Escalation(Plugin):
    def __init__(self, world: World) -> None:
        self._authorizer = world.authorizer

    async def validate(self, attributes: Attributes) -> None:
        if attributes.group != GROUP or attributes.operation is Operation.DELETE:
            return
        if MASTERS in attributes.user.groups:
            return
        if attributes.resource in _ROLES:
            self._check_role(attributes)
        elif attributes.resource in _BINDINGS:
            self._check_binding(attributes)

    def _check_role(self, attributes: Attributes) -> None:
        new, old = attributes.obj, attributes.old
        if _only_collects(new, old):
            return
        if self._may(attributes, "escalate", attributes.resource, attributes.name):
            return
        self._check_held(attributes, new.rules)
        if getattr(new, "aggregation_rule", None) or getattr(old, "aggregation_rule", None):
            lacking = self._lacking(attributes, _EVERYTHING)
            if lacking:
                raise refused(
                    attributes, "must have cluster-admin privileges to use the aggregationRule"
                )

    def _check_binding(self, attributes: Attributes) -> None:
        new: RoleBinding | ClusterRoleBinding = attributes.obj
        old: RoleBinding | ClusterRoleBinding | None = attributes.old
        if _only_collects(new, old):
            return
        reference = new.role_ref
        resource = f"{reference.kind.lower()}s"
        if self._may(attributes, "bind", resource, reference.name):
            return
        rules = self._authorizer.rbac.rules_at(reference, attributes.namespace)
        if rules is None:
            raise NotFound(resource, reference.name, group=GROUP)
        self._check_held(attributes, rules)

    def _may(self, attributes: Attributes, verb: str, resource: str, name: str) -> bool:
        access = Access(
            attributes.user,
            verb,
            namespace=attributes.namespace,
            group=GROUP,
            version="v1",
            resource=resource,
            name=name,
        )
        return self._authorizer.decide(access).allowed

    def _lacking(self, attributes: Attributes, rules: Sequence[PolicyRule]) -> list[PolicyRule]:
        owned, _ = self._authorizer.rbac.rules_of(attributes.user, attributes.namespace)
        return missing(owned, rules)

    def _check_held(self, attributes: Attributes, rules: Sequence[PolicyRule]) -> None:
        lacking = self._lacking(attributes, rules)
        if not lacking:
            return
        user = attributes.user
        lines = "\n".join(sorted(rule_text(rule) for rule in compacted(lacking)))
        raise refused(
            attributes,
            f'user "{user.name}" (groups={strings_text(user.groups)}) is attempting to grant RBAC'
            f" permissions not currently held:\n{lines}",
        )


def _only_collects(new: Any, old: Any) -> bool:
    """Whether an update changes nothing but what garbage collection needs to.

    Labels count as much as rules do: they decide into which other roles these are gathered.
    """
    if old is None:
        return False
    was, said = old.metadata, new.metadata
    metadata = replace(
        said,
        owner_references=was.owner_references,
        finalizers=was.finalizers,
        managed_fields=was.managed_fields,
        resource_version=was.resource_version,
        generation=was.generation,
    )
    return bool(replace(new, metadata=metadata) == old)
