"""Validation of where a pod may run: affinity, tolerations, spreading, gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.validation import (
    NOT_POSITIVE,
    validate_label_name,
    validate_label_selector,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.names import (
    dns_label_errors,
    label_value_errors,
    qualified_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.core_v1 import (
        Affinity,
        NodeAffinity,
        NodeSelector,
        NodeSelectorRequirement,
        NodeSelectorTerm,
        PodAffinity,
        PodAffinityTerm,
        PodAntiAffinity,
        PodSchedulingGate,
        Toleration,
        TopologySpreadConstraint,
    )
    from pybernetes.apimachinery.fielderror import FieldError, Path

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_BAD_WEIGHT = "must be in the range 1-100"
_NO_KEY = "can not be empty"


def validate_affinity(affinity: Affinity, path: Path) -> Iterator[FieldError]:
    if affinity.node_affinity is not None:
        yield from _validate_node_affinity(affinity.node_affinity, path.nodeAffinity)
    if affinity.pod_affinity is not None:
        yield from _validate_pod_affinity(affinity.pod_affinity, path.podAffinity)
    if affinity.pod_anti_affinity is not None:
        yield from _validate_pod_affinity(affinity.pod_anti_affinity, path.podAntiAffinity)


def _validate_node_affinity(affinity: NodeAffinity, path: Path) -> Iterator[FieldError]:
    required = affinity.required_during_scheduling_ignored_during_execution
    if required is not None:
        yield from validate_node_selector(
            required, path.requiredDuringSchedulingIgnoredDuringExecution
        )
    path = path.preferredDuringSchedulingIgnoredDuringExecution
    for index, term in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
        if not 1 <= term.weight <= 100:
            yield path[index].weight.invalid(term.weight, _BAD_WEIGHT)
        yield from validate_node_selector_term(term.preference, path[index].preference)


def validate_node_selector(selector: NodeSelector, path: Path) -> Iterator[FieldError]:
    path = path.nodeSelectorTerms
    if not selector.node_selector_terms:
        yield path.required("must have at least one node selector term")
    for index, term in enumerate(selector.node_selector_terms):
        yield from validate_node_selector_term(term, path[index])


def validate_node_selector_term(term: NodeSelectorTerm, path: Path) -> Iterator[FieldError]:
    for index, requirement in enumerate(term.match_expressions):
        yield from _validate_node_requirement(requirement, path.matchExpressions[index])
    for index, requirement in enumerate(term.match_fields):
        yield from _validate_node_field(requirement, path.matchFields[index])


def _validate_node_requirement(
    requirement: NodeSelectorRequirement, path: Path
) -> Iterator[FieldError]:
    values = requirement.values
    match requirement.operator:
        case "In" | "NotIn":
            if not values:
                yield path.child("values").required(
                    "must be specified when `operator` is 'In' or 'NotIn'"
                )
        case "Exists" | "DoesNotExist":
            if values:
                yield path.child("values").forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        case "Gt" | "Lt":
            if len(values) != 1:
                yield path.child("values").required(
                    "must be specified single value when `operator` is 'Lt' or 'Gt'"
                )
        case operator:
            yield path.operator.invalid(operator, "not a valid selector operator")
    yield from validate_label_name(requirement.key, path.child("key"))
    for index, value in enumerate(values):
        yield from validate_with(label_value_errors, value, path.child("values")[index])


def _validate_node_field(requirement: NodeSelectorRequirement, path: Path) -> Iterator[FieldError]:
    if requirement.operator in ("In", "NotIn"):
        if len(requirement.values) != 1:
            yield path.child("values").required(
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
    else:
        yield path.operator.invalid(requirement.operator, "not a valid selector operator")
    if requirement.key != "metadata.name":
        yield path.child("key").invalid(requirement.key, "not a valid field selector key")


def _validate_pod_affinity(
    affinity: PodAffinity | PodAntiAffinity, path: Path
) -> Iterator[FieldError]:
    here = path.requiredDuringSchedulingIgnoredDuringExecution
    for index, term in enumerate(affinity.required_during_scheduling_ignored_during_execution):
        yield from _validate_pod_term(term, here[index])
    here = path.preferredDuringSchedulingIgnoredDuringExecution
    for index, weighted in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
        if not 1 <= weighted.weight <= 100:
            yield here[index].weight.invalid(weighted.weight, _BAD_WEIGHT)
        yield from _validate_pod_term(weighted.pod_affinity_term, here[index].podAffinityTerm)


def _validate_pod_term(term: PodAffinityTerm, path: Path) -> Iterator[FieldError]:
    yield from validate_label_selector(term.label_selector, path.labelSelector)
    yield from validate_label_selector(term.namespace_selector, path.namespaceSelector)
    for namespace in term.namespaces:
        yield from validate_with(dns_label_errors, namespace, path.namespace)
    keys = (
        ("matchLabelKeys", term.match_label_keys),
        ("mismatchLabelKeys", term.mismatch_label_keys),
    )
    for wire_name, names in keys:
        if names and term.label_selector is None:
            yield path.child(wire_name).forbidden(
                "must not be specified when labelSelector is not set"
            )
        for index, name in enumerate(names):
            yield from validate_label_name(name, path.child(wire_name)[index])
    for index, name in enumerate(term.match_label_keys):
        if name in term.mismatch_label_keys:
            yield path.matchLabelKeys[index].invalid(
                name, "exists in both matchLabelKeys and mismatchLabelKeys"
            )
    if not term.topology_key:
        yield path.topologyKey.required(_NO_KEY)
    else:
        yield from validate_label_name(term.topology_key, path.topologyKey)


def validate_tolerations(tolerations: Sequence[Toleration], path: Path) -> Iterator[FieldError]:
    for index, toleration in enumerate(tolerations):
        yield from _validate_toleration(toleration, path[index])


def _validate_toleration(toleration: Toleration, path: Path) -> Iterator[FieldError]:
    operator, effect = toleration.operator, toleration.effect
    if toleration.key:
        yield from validate_label_name(toleration.key, path.child("key"))
    elif operator != "Exists":
        yield path.operator.invalid(
            operator,
            'operator must be Exists when `key` is empty, which means "match all values and '
            'all keys"',
        )
    if toleration.toleration_seconds is not None and effect != "NoExecute":
        yield path.effect.invalid(
            effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"
        )
    match operator:
        case "Equal" | "":
            if errors := label_value_errors(toleration.value):
                yield path.operator.invalid(toleration.value, ";".join(errors))
        case "Exists":
            if toleration.value:
                yield path.operator.invalid(
                    toleration, "value must be empty when `operator` is 'Exists'"
                )
        case "Lt" | "Gt":
            if not toleration.value.removeprefix("-").isdecimal():
                yield path.child("value").invalid(
                    toleration.value, f"must be an integer when `operator` is '{operator}'"
                )
        case _:
            yield path.operator.not_supported(operator, ("Equal", "Exists", "Gt", "Lt"))
    if effect:
        yield from validate_one_of(effect, EFFECTS, path.effect)


def validate_spread(
    constraints: Sequence[TopologySpreadConstraint], path: Path
) -> Iterator[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        here = path[index]
        when = constraint.when_unsatisfiable
        if constraint.max_skew <= 0:
            yield here.maxSkew.invalid(constraint.max_skew, NOT_POSITIVE)
        if not constraint.topology_key:
            yield here.topologyKey.required(_NO_KEY)
        else:
            yield from validate_label_name(constraint.topology_key, here.topologyKey)
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            yield here.whenUnsatisfiable.not_supported(when, ("DoNotSchedule", "ScheduleAnyway"))
        if (constraint.topology_key, when) in seen:
            place = here.child("{topologyKey, whenUnsatisfiable}")
            yield place.duplicate(f"{{{constraint.topology_key}, {when}}}")
        seen.add((constraint.topology_key, when))
        yield from _validate_spread_details(constraint, here)


def _validate_spread_details(
    constraint: TopologySpreadConstraint, path: Path
) -> Iterator[FieldError]:
    if constraint.min_domains is not None:
        if constraint.min_domains <= 0:
            yield path.minDomains.invalid(constraint.min_domains, NOT_POSITIVE)
        if constraint.when_unsatisfiable != "DoNotSchedule":
            yield path.minDomains.invalid(
                constraint.min_domains,
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "
                f"{constraint.when_unsatisfiable}",
            )
    for wire_name, policy in (
        ("nodeAffinityPolicy", constraint.node_affinity_policy),
        ("nodeTaintsPolicy", constraint.node_taints_policy),
    ):
        if policy and policy not in ("Ignore", "Honor"):
            yield path.child(wire_name).not_supported(policy, ("Ignore", "Honor"))
    yield from validate_label_selector(constraint.label_selector, path.labelSelector)
    names = constraint.match_label_keys
    if names and constraint.label_selector is None:
        yield path.matchLabelKeys.forbidden("must not be specified when labelSelector is not set")
    for index, name in enumerate(names):
        yield from validate_label_name(name, path.matchLabelKeys[index])


def validate_gates(gates: Sequence[PodSchedulingGate], path: Path) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        yield from validate_with(qualified_name_errors, gate.name, path[index])
        if gate.name in seen:
            yield path[index].duplicate(gate.name)
        seen.add(gate.name)
