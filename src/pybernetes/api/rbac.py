"""rbac.authorization.k8s.io: roles and their bindings.

Names are path segments, not DNS names: `system:controller:…` is one. What may be granted by whom
(escalation) is the API server's business, not an entry's: it depends on who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.rbac_v1 import (
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from pybernetes.api.validation import validate_label_selector
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    dns_label_errors,
    dns_subdomain_errors,
    path_segment_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP = "rbac.authorization.k8s.io"
SERVICE_ACCOUNT, USER, USER_GROUP = "ServiceAccount", "User", "Group"

B = TypeVar("B", RoleBinding, ClusterRoleBinding)


# --- roles ----------------------------------------------------------------------------------------


def validate_role(new: Role, old: Role | None) -> Iterator[FieldError]:
    for index, rule in enumerate(new.rules):
        yield from validate_rule(rule, Path("rules")[index], namespaced=True)


def validate_cluster_role(new: ClusterRole, old: ClusterRole | None) -> Iterator[FieldError]:
    for index, rule in enumerate(new.rules):
        yield from validate_rule(rule, Path("rules")[index], namespaced=False)
    if new.aggregation_rule is None:
        return
    path = Path("aggregationRule").clusterRoleSelectors
    if not new.aggregation_rule.cluster_role_selectors:
        yield path.required(
            "at least one clusterRoleSelector required if aggregationRule is non-nil"
        )
    for index, selector in enumerate(new.aggregation_rule.cluster_role_selectors):
        yield from validate_label_selector(selector, path[index])


def validate_rule(rule: PolicyRule, path: Path, *, namespaced: bool) -> Iterator[FieldError]:
    if not rule.verbs:
        yield path.verbs.required("verbs must contain at least one value")
    if rule.non_resource_urls:
        urls = path.nonResourceURLs
        if namespaced:
            yield urls.invalid(
                rule.non_resource_urls, "namespaced rules cannot apply to non-resource URLs"
            )
        if rule.api_groups or rule.resources or rule.resource_names:
            yield urls.invalid(
                rule.non_resource_urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            )
        return
    if not rule.api_groups:
        yield path.apiGroups.required("resource rules must supply at least one api group")
    if not rule.resources:
        yield path.resources.required("resource rules must supply at least one resource")


# --- bindings -------------------------------------------------------------------------------------


def default_binding(new: B) -> B:
    reference = new.role_ref
    if not reference.api_group:
        reference = msgspec.structs.replace(reference, api_group=GROUP)
    return msgspec.structs.replace(
        new, role_ref=reference, subjects=tuple(_default_subject(s) for s in new.subjects)
    )


def _default_subject(subject: Subject) -> Subject:
    if subject.api_group or subject.kind not in (USER, USER_GROUP):
        return subject
    return msgspec.structs.replace(subject, api_group=GROUP)


def validate_role_binding(new: RoleBinding, old: RoleBinding | None) -> Iterator[FieldError]:
    yield from _validate_binding(new.role_ref, new.subjects, kinds=("Role", "ClusterRole"))
    if old is not None and new.role_ref != old.role_ref:
        yield Path("roleRef").invalid(new.role_ref, "cannot change roleRef")


def validate_cluster_role_binding(
    new: ClusterRoleBinding, old: ClusterRoleBinding | None
) -> Iterator[FieldError]:
    yield from _validate_binding(new.role_ref, new.subjects, kinds=("ClusterRole",))
    if old is not None and new.role_ref != old.role_ref:
        yield Path("roleRef").invalid(new.role_ref, "cannot change roleRef")


def _validate_binding(
    reference: RoleRef, subjects: Sequence[Subject], *, kinds: Sequence[str]
) -> Iterator[FieldError]:
    path = Path("roleRef")
    if reference.api_group != GROUP:
        yield path.apiGroup.not_supported(reference.api_group, [GROUP])
    if reference.kind not in kinds:
        yield path.kind.not_supported(reference.kind, kinds)
    if not reference.name:
        yield path.name.required()
    else:
        for detail in path_segment_errors(reference.name):
            yield path.name.invalid(reference.name, detail)
    for index, subject in enumerate(subjects):
        yield from _validate_subject(subject, Path("subjects")[index])


def _validate_subject(subject: Subject, path: Path) -> Iterator[FieldError]:
    if not subject.name:
        yield path.name.required()
    if subject.kind == SERVICE_ACCOUNT:
        if subject.name:
            for detail in dns_subdomain_errors(subject.name):
                yield path.name.invalid(subject.name, detail)
        if subject.api_group:
            yield path.apiGroup.not_supported(subject.api_group, [""])
        if not subject.namespace:
            yield path.namespace.required()
        else:
            for detail in dns_label_errors(subject.namespace):
                yield path.namespace.invalid(subject.namespace, detail)
    elif subject.kind in (USER, USER_GROUP):
        if subject.api_group != GROUP:
            yield path.apiGroup.not_supported(subject.api_group, [GROUP])
    else:
        yield path.kind.not_supported(subject.kind, [SERVICE_ACCOUNT, USER, USER_GROUP])


def _names(subjects: Sequence[Subject], kind: str) -> str:
    found = [
        f"{s.namespace}/{s.name}" if kind == SERVICE_ACCOUNT else s.name
        for s in subjects
        if s.kind == kind
    ]
    return ", ".join(found)


# Every table of bindings has these.
_BINDING_COLUMNS: tuple[Column[Any], ...] = (
    Column("Role", lambda b: f"{b.role_ref.kind}/{b.role_ref.name}"),
    AGE,
    Column("Users", lambda b: _names(b.subjects, USER), wide=True),
    Column("Groups", lambda b: _names(b.subjects, USER_GROUP), wide=True),
    Column("ServiceAccounts", lambda b: _names(b.subjects, SERVICE_ACCOUNT), wide=True),
)

ROLES = Resource(
    group=GROUP,
    version="v1",
    kind=Role,
    plural="roles",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        validate=validate_role,
        name_errors=path_segment_errors,
        generation_follows=(),
        allow_create_on_update=True,
    ),
)

CLUSTER_ROLES = Resource(
    group=GROUP,
    version="v1",
    kind=ClusterRole,
    plural="clusterroles",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        validate=validate_cluster_role,
        name_errors=path_segment_errors,
        generation_follows=(),
        allow_create_on_update=True,
    ),
)

ROLE_BINDINGS = Resource(
    group=GROUP,
    version="v1",
    kind=RoleBinding,
    plural="rolebindings",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_binding,
        validate=validate_role_binding,
        name_errors=path_segment_errors,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    columns=_BINDING_COLUMNS,
)

CLUSTER_ROLE_BINDINGS = Resource(
    group=GROUP,
    version="v1",
    kind=ClusterRoleBinding,
    plural="clusterrolebindings",
    scope=Scope.CLUSTER,
    strategy=Strategy(
        default=default_binding,
        validate=validate_cluster_role_binding,
        name_errors=path_segment_errors,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    columns=_BINDING_COLUMNS,
)

RBAC_RESOURCES = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
