"""scheduling.k8s.io betas: workloads, and groups of pods that are scheduled together.

Most of what they say is said for good; the rules are upstream's declarative ones. What gates
that are off would allow (topology constraints, groups of groups) is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.conditions import condition_of
from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.scheduling_v1beta1 import (
    DisruptionMode,
    PodGroup,
    SingleDisruptionMode,
    Workload,
)
from pybernetes.api.validation import validate_dns_label, validate_immutable, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_subdomain_errors, path_segment_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.scheduling_v1beta1 import (
        PodGroupResourceClaim,
        PodGroupSchedulingPolicy,
        PodGroupTemplate,
    )

_HIGHEST_USER_PRIORITY = 1_000_000_000
_MOST_TEMPLATES, _MOST_CLAIMS = 8, 4


def default_group(new: PodGroup) -> PodGroup:
    mode = new.spec.disruption_mode
    if mode is not None:
        return new
    single = DisruptionMode(single=SingleDisruptionMode())
    return replace(new, spec=replace(new.spec, disruption_mode=single))


def validate_group(new: PodGroup, old: PodGroup | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if spec.parent_composite_pod_group_name:
        yield path.parentCompositePodGroupName.forbidden()
    if spec.workload_ref is not None:
        reference, here = spec.workload_ref, path.workloadRef
        yield from _validate_required(reference.workload_name, here.workloadName, is_label=False)
        yield from _validate_required(reference.template_name, here.templateName)
    yield from _validate_shared(spec, path)
    if old is None:
        return
    before = old.spec
    for name, now, then in (
        ("workloadRef", spec.workload_ref, before.workload_ref),
        ("resourceClaims", spec.resource_claims, before.resource_claims),
        ("disruptionMode", spec.disruption_mode, before.disruption_mode),
        ("priorityClassName", spec.priority_class_name, before.priority_class_name),
        ("priority", spec.priority, before.priority),
    ):
        yield from validate_immutable(now, then, path.child(name))
    is_gang, was_gang = spec.scheduling_policy.gang, before.scheduling_policy.gang
    if (is_gang is None) != (was_gang is None):
        yield path.schedulingPolicy.immutable(spec.scheduling_policy)


def _validate_required(value: str, path: Path, *, is_label: bool = True) -> Iterator[FieldError]:
    if not value:
        yield path.required()
    elif is_label:
        yield from validate_dns_label(value, path)
    else:
        yield from validate_with(dns_subdomain_errors, value, path)


def _validate_shared(spec: Any, path: Path) -> Iterator[FieldError]:
    """What groups and the templates of groups have in common."""
    yield from _validate_policy(spec.scheduling_policy, path.schedulingPolicy)
    if spec.scheduling_constraints is not None:
        yield path.schedulingConstraints.forbidden()
    yield from _validate_claims(spec.resource_claims, path.resourceClaims)
    mode = spec.disruption_mode
    if mode is not None and (mode.single is None) == (mode.all is None):
        yield path.disruptionMode.invalid(mode, "must specify exactly one of: `all`, `single`")
    if spec.priority_class_name:
        yield from validate_with(
            dns_subdomain_errors, spec.priority_class_name, path.priorityClassName
        )
    if spec.priority is not None and spec.priority > _HIGHEST_USER_PRIORITY:
        yield path.priority.invalid(
            spec.priority, f"must be less than or equal to {_HIGHEST_USER_PRIORITY}"
        )
    if spec.preemption_policy:
        yield path.preemptionPolicy.forbidden()


def _validate_policy(policy: PodGroupSchedulingPolicy, path: Path) -> Iterator[FieldError]:
    if (policy.basic is None) == (policy.gang is None):
        yield path.invalid(policy, "must specify exactly one of: `basic`, `gang`")
    if policy.gang is not None and policy.gang.min_count < 1:
        if not policy.gang.min_count:
            yield path.gang.minCount.required()
        else:
            yield path.gang.minCount.invalid(
                policy.gang.min_count, "must be greater than or equal to 1"
            )


def _validate_claims(claims: Sequence[PodGroupResourceClaim], path: Path) -> Iterator[FieldError]:
    if len(claims) > _MOST_CLAIMS:
        yield path.too_many(len(claims), _MOST_CLAIMS)
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        yield from _validate_required(claim.name, path[index].name)
        if claim.name in seen:
            yield path[index].duplicate(claim.name)
        seen.add(claim.name)
        if bool(claim.resource_claim_name) == bool(claim.resource_claim_template_name):
            yield path[index].invalid(
                claim.name,
                "must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`",
            )


def validate_workload(new: Workload, old: Workload | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if spec.controller_ref is not None:
        reference, here = spec.controller_ref, path.controllerRef
        if reference.api_group:
            yield from validate_with(dns_subdomain_errors, reference.api_group, here.apiGroup)
        for name, value in (("kind", reference.kind), ("name", reference.name)):
            if not value:
                yield here.child(name).required()
            else:
                yield from validate_with(path_segment_errors, value, here.child(name))
    if spec.composite_pod_group_templates:
        yield path.compositePodGroupTemplates.forbidden()
    templates = spec.pod_group_templates
    if len(templates) > _MOST_TEMPLATES:
        yield path.podGroupTemplates.too_many(len(templates), _MOST_TEMPLATES)
    yield from _validate_templates(templates, path.podGroupTemplates)
    if old is not None:
        yield from validate_immutable(
            spec.controller_ref, old.spec.controller_ref, path.controllerRef
        )
        names = {template.name for template in templates}
        if names != {template.name for template in old.spec.pod_group_templates}:
            yield path.podGroupTemplates.immutable(sorted(names))


def _validate_templates(templates: Sequence[PodGroupTemplate], path: Path) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, template in enumerate(templates):
        here = path[index]
        yield from _validate_required(template.name, here.name)
        if template.name in seen:
            yield here.duplicate(template.name)
        seen.add(template.name)
        yield from _validate_shared(template, here)


def _policy(group: PodGroup) -> str:
    policy = group.spec.scheduling_policy
    return "Gang" if policy.gang is not None else "Basic" if policy.basic is not None else ""


def _workload(group: PodGroup) -> str:
    reference = group.spec.workload_ref
    return "" if reference is None else reference.workload_name


def _scheduled(group: PodGroup) -> str:
    condition = condition_of(group.status.conditions, "PodGroupScheduled")
    if condition is None:
        return "Pending"
    return "Scheduled" if condition.status == "True" else condition.reason or "Pending"


POD_GROUPS = Resource(
    group="scheduling.k8s.io",
    version="v1beta1",
    kind=PodGroup,
    plural="podgroups",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_group, validate=validate_group),
    subresources=(Status(),),
    columns=(
        Column("Policy", _policy),
        Column("Workload", _workload),
        Column("Status", _scheduled),
        AGE,
    ),
)

WORKLOADS = Resource(
    group="scheduling.k8s.io",
    version="v1beta1",
    kind=Workload,
    plural="workloads",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_workload),
    columns=(AGE,),
)

PODGROUP_RESOURCES: tuple[Resource[Any], ...] = (POD_GROUPS, WORKLOADS)
