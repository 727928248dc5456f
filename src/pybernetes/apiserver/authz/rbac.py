"""RBAC: what the roles that are bound to somebody allow.

Bindings are indexed by subject as they change; the rules of everything bound to one user (name
and groups) are joined into one `Grants` for the cluster and one per namespace asked about, and
kept until any role or binding changes. A decision is then a few look-ups.

Only permissions are granted, nothing is ever denied: no match is no opinion. A binding to a role
that does not exist grants nothing and is named in the refusal, as upstream does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.rbac import SERVICE_ACCOUNT, USER
from pybernetes.api.types.rbac_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from pybernetes.api.user import service_account_user
from pybernetes.apiserver.authz.rules import Grants, rule_allows
from pybernetes.apiserver.hooks import Decision, Verdict
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.rbac_v1 import PolicyRule, RoleRef, Subject
    from pybernetes.api.user import UserInfo
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.apiserver.hooks import Access
    from pybernetes.apiserver.watchcache import Event

# (kind, name) as a binding finds a user: service accounts go by their user name.
SubjectKey = tuple[str, str]

ALLOWED = Decision(Verdict.ALLOW)
SILENT = Decision(Verdict.NO_OPINION)

# Joined grants kept, over all users and namespaces; beyond it all are made anew.
_KEPT = 10_000

_Grants = tuple[Grants, tuple[str, ...]]


def subject_key(subject: Subject, namespace: str) -> SubjectKey:
    if subject.kind == SERVICE_ACCOUNT:
        account = service_account_user(subject.namespace or namespace, subject.name)
        return (USER, account.name)
    return (subject.kind, subject.name)


def keys_of_user(user: UserInfo) -> Iterator[SubjectKey]:
    yield (USER, user.name)
    for group in user.groups:
        yield ("Group", group)


class _BindingIndex:
    """Keys of bindings of one kind by the subjects they name."""

    def __init__(self, bindings: Typed[RoleBinding] | Typed[ClusterRoleBinding]) -> None:
        self._bindings = bindings
        self._by_subject: dict[tuple[str, SubjectKey], set[str]] = {}
        self._subjects: dict[str, tuple[tuple[str, SubjectKey], ...]] = {}
        self._filled = False

    def update(self, event: Event) -> None:
        if not self._filled:
            return
        key = event.entry.key
        for subject in self._subjects.pop(key, ()):
            keys = self._by_subject[subject]
            keys.discard(key)
            if not keys:
                del self._by_subject[subject]
        if not event.deleted:
            binding = self._bindings.at(key)
            if binding is not None:
                self._add(key, binding)

    def _add(self, key: str, binding: RoleBinding | ClusterRoleBinding) -> None:
        namespace = binding.metadata.namespace
        subjects = tuple((namespace, subject_key(s, namespace)) for s in binding.subjects)
        self._subjects[key] = subjects
        for subject in subjects:
            self._by_subject.setdefault(subject, set()).add(key)

    def of(self, user: UserInfo, namespace: str) -> list[RoleBinding | ClusterRoleBinding]:
        """The bindings that name the user or a group of theirs, in key order."""
        if not self._filled:
            self._filled = True
            for binding in self._bindings.list():
                metadata = binding.metadata
                key = (
                    f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
                )
                self._add(key, binding)
        found: set[str] = set()
        for subject in keys_of_user(user):
            found |= self._by_subject.get((namespace, subject), frozenset())
        bindings = [self._bindings.at(key) for key in sorted(found)]
        return [binding for binding in bindings if binding is not None]


class Rbac:
    """The authorizer, and what reviews and escalation checks ask about roles."""

    def __init__(self, catalog: Catalog) -> None:
        self._roles, self._cluster_roles = Typed(catalog, Role), Typed(catalog, ClusterRole)
        bindings, cluster_bindings = Typed(catalog, RoleBinding), Typed(catalog, ClusterRoleBinding)
        self._bindings = _BindingIndex(bindings)
        self._cluster_bindings = _BindingIndex(cluster_bindings)
        # (user name, groups, namespace) → joined rules; "" stands for the whole cluster.
        self._grants: dict[tuple[str, tuple[str, ...], str], _Grants] = {}
        self._roles.follow(self._forget)
        self._cluster_roles.follow(self._forget)
        bindings.follow(self._bindings.update)
        bindings.follow(self._forget)
        cluster_bindings.follow(self._cluster_bindings.update)
        cluster_bindings.follow(self._forget)

    async def authorize(self, access: Access) -> Decision:
        return self.decide(access)

    def decide(self, access: Access) -> Decision:
        user, namespace = access.user, access.namespace
        everywhere = self._joined(user, "")
        if everywhere[0].allows(access):
            return ALLOWED
        problems = everywhere[1]
        if namespace:
            here = self._joined(user, namespace)
            if here[0].allows(access):
                return ALLOWED
            problems += here[1]
        return _refusal(problems) if problems else SILENT

    def explain(self, access: Access) -> Decision:
        """The same, saying which binding it was: for reviews."""
        for binding, rules in self._bound(access.user, access.namespace):
            if any(rule_allows(rule, access) for rule in rules):
                return Decision(
                    Verdict.ALLOW, f"RBAC: allowed by {_described(binding, access.user)}"
                )
        return self.decide(access)

    def rules_of(self, user: UserInfo, namespace: str) -> tuple[list[PolicyRule], list[str]]:
        """All rules that hold for a user in a namespace, and what could not be resolved."""
        rules = [rule for _, found in self._bound(user, namespace) for rule in found]
        problems = [*self._joined(user, "")[1]]
        if namespace:
            problems += self._joined(user, namespace)[1]
        return rules, problems

    def rules_at(self, reference: RoleRef, namespace: str) -> tuple[PolicyRule, ...] | None:
        """The rules of a role; None if there is no such role."""
        if reference.kind == "ClusterRole":
            cluster_role = self._cluster_roles.get(reference.name)
            return None if cluster_role is None else cluster_role.rules
        role = self._roles.get(reference.name, namespace)
        return None if role is None else role.rules

    # -- joining

    def _forget(self, event: Event) -> None:
        self._grants.clear()

    def _joined(self, user: UserInfo, namespace: str) -> _Grants:
        key = (user.name, user.groups, namespace)
        known = self._grants.get(key)
        if known is None:
            if len(self._grants) >= _KEPT:
                self._grants.clear()
            known = self._grants[key] = self._join(user, namespace)
        return known

    def _join(self, user: UserInfo, namespace: str) -> _Grants:
        grants, problems = Grants(), []
        index = self._bindings if namespace else self._cluster_bindings
        for binding in index.of(user, namespace):
            rules = self.rules_at(binding.role_ref, namespace)
            if rules is None:
                reference = binding.role_ref
                kind = f"{reference.kind.lower()}.rbac.authorization.k8s.io"
                problems.append(f'{kind} "{reference.name}" not found')
                continue
            for rule in rules:
                grants.add(rule)
        return grants, tuple(problems)

    def _bound(
        self, user: UserInfo, namespace: str
    ) -> Iterator[tuple[RoleBinding | ClusterRoleBinding, tuple[PolicyRule, ...]]]:
        for binding in self._cluster_bindings.of(user, ""):
            yield binding, self.rules_at(binding.role_ref, "") or ()
        if namespace:
            for binding in self._bindings.of(user, namespace):
                yield binding, self.rules_at(binding.role_ref, namespace) or ()


def _refusal(problems: tuple[str, ...]) -> Decision:
    text = problems[0] if len(problems) == 1 else f"[{', '.join(dict.fromkeys(problems))}]"
    return Decision(Verdict.NO_OPINION, f"RBAC: {text}")


def _described(binding: RoleBinding | ClusterRoleBinding, user: UserInfo) -> str:
    metadata, reference = binding.metadata, binding.role_ref
    wanted = set(keys_of_user(user))
    subject = next(s for s in binding.subjects if subject_key(s, metadata.namespace) in wanted)
    to = f'{subject.kind} "{subject.name}"'
    if subject.kind == SERVICE_ACCOUNT:
        to = f'{subject.kind} "{subject.name}/{subject.namespace or metadata.namespace}"'
    name = f"{metadata.name}/{metadata.namespace}" if metadata.namespace else metadata.name
    return f'{binding.kind} "{name}" of {reference.kind} "{reference.name}" to {to}'
