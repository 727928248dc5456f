"""Pod: containers that share a place. Entry, life cycle rules, and validation as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api.core.podcolumns import POD_COLUMNS
from pybernetes.api.core.poddefaults import default_pod
from pybernetes.api.core.podresources import qos_class
from pybernetes.api.core.podspec import validate_pod_spec
from pybernetes.api.core.podupdate import (
    prepare_pod_status,
    prepare_resize,
    validate_ephemeral_update,
    validate_pod_status,
    validate_pod_update,
    validate_resize,
)
from pybernetes.api.resource import (
    Attach,
    Binding,
    EphemeralContainers,
    Eviction,
    Exec,
    Log,
    PortForward,
    Proxy,
    Resize,
    Resource,
    Scope,
    Status,
    Strategy,
)
from pybernetes.api.types.core_v1 import (
    Affinity,
    Pod,
    PodAffinityTerm,
    PodCondition,
    PodSpec,
    PodStatus,
    TopologySpreadConstraint,
    WeightedPodAffinityTerm,
)
from pybernetes.api.types.meta_v1 import LabelSelector, LabelSelectorRequirement
from pybernetes.api.validation import changed_each
from pybernetes.apimachinery.fielderror import Path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.apimachinery.fielderror import FieldError

_SPEC = Path("spec")
MIRROR = "kubernetes.io/config.mirror"

_DEPRECATED_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": (
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead'
    ),
    "failure-domain.beta.kubernetes.io/zone": (
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
    ),
    "beta.kubernetes.io/instance-type": (
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'
    ),
}


# --- life cycle ---------------------------------------------------------------------------


def _prepare_create(new: Pod) -> Pod:
    status = PodStatus(phase="Pending", qos_class=qos_class(new))
    if new.spec.scheduling_gates:
        gated = PodCondition(
            type="PodScheduled",
            status="False",
            reason="SchedulingGated",
            message="Scheduling is blocked due to non-empty scheduling gates",
        )
        status = replace(status, conditions=(gated,))
    return replace(new, spec=_with_match_label_keys(new), status=status)


def _with_match_label_keys(pod: Pod) -> PodSpec:
    """Selectors that say "as in this pod" get the pod's own values, once and for all."""
    spec, labels = pod.spec, pod.metadata.labels
    affinity = spec.affinity
    if affinity is not None:
        affinity = _bound_affinity(affinity, labels)
    constraints = changed_each(
        spec.topology_spread_constraints, lambda item: _bound_constraint(item, labels)
    )
    if affinity is spec.affinity and constraints is spec.topology_spread_constraints:
        return spec
    return replace(spec, affinity=affinity, topology_spread_constraints=constraints)


def _bound_affinity(affinity: Affinity, labels: Mapping[str, str]) -> Affinity:
    for name in ("pod_affinity", "pod_anti_affinity"):
        part = getattr(affinity, name)
        if part is None:
            continue
        required = changed_each(
            part.required_during_scheduling_ignored_during_execution,
            lambda term: _bound_term(term, labels),
        )
        preferred = changed_each(
            part.preferred_during_scheduling_ignored_during_execution,
            lambda weighted: _replaced_term(weighted, labels),
        )
        bound = replace(
            part,
            required_during_scheduling_ignored_during_execution=required,
            preferred_during_scheduling_ignored_during_execution=preferred,
        )
        if bound != part:
            affinity = replace(affinity, **{name: bound})
    return affinity


def _replaced_term(
    weighted: WeightedPodAffinityTerm, labels: Mapping[str, str]
) -> WeightedPodAffinityTerm:
    term = _bound_term(weighted.pod_affinity_term, labels)
    if term is weighted.pod_affinity_term:
        return weighted
    return replace(weighted, pod_affinity_term=term)


def _bound_term(term: PodAffinityTerm, labels: Mapping[str, str]) -> PodAffinityTerm:
    selector = _bound_selector(term.label_selector, term.match_label_keys, "In", labels)
    selector = _bound_selector(selector, term.mismatch_label_keys, "NotIn", labels)
    return term if selector is term.label_selector else replace(term, label_selector=selector)


def _bound_constraint(
    constraint: TopologySpreadConstraint, labels: Mapping[str, str]
) -> TopologySpreadConstraint:
    selector = _bound_selector(constraint.label_selector, constraint.match_label_keys, "In", labels)
    if selector is constraint.label_selector:
        return constraint
    return replace(constraint, label_selector=selector)


def _bound_selector(
    selector: LabelSelector | None,
    keys: tuple[str, ...],
    operator: str,
    labels: Mapping[str, str],
) -> LabelSelector | None:
    if selector is None:
        return None
    bound = tuple(
        LabelSelectorRequirement(key=key, operator=operator, values=(labels[key],))
        for key in keys
        if key in labels
    )
    new = tuple(part for part in bound if part not in selector.match_expressions)
    if not new:
        return selector
    return replace(selector, match_expressions=(*selector.match_expressions, *new))


def _grace_seconds(pod: Pod, asked: int | None) -> int:
    """A pod that runs nowhere (yet or any more) need not be waited for."""
    if not pod.spec.node_name or pod.status.phase in ("Failed", "Succeeded"):
        return 0
    seconds = pod.spec.termination_grace_period_seconds if asked is None else asked
    # A negative number, from the time when it was not refused, means at once but orderly.
    return 1 if (seconds or 0) < 0 else seconds or 0


# --- validation ---------------------------------------------------------------------------


def validate_pod(new: Pod, old: Pod | None) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_pod_spec(spec, _SPEC, pod_name=new.metadata.name)
    if MIRROR in new.metadata.annotations and not spec.node_name:
        yield (
            Path("metadata")
            .annotations.key(MIRROR)
            .invalid(
                new.metadata.annotations[MIRROR],
                "must set spec.nodeName if mirror pod annotation is set",
            )
        )
    for where, containers in (
        (_SPEC.containers, spec.containers),
        (_SPEC.initContainers, spec.init_containers),
    ):
        for index, container in enumerate(containers):
            if container.image != container.image.strip():
                yield where[index].image.invalid(
                    container.image, "must not have leading or trailing whitespace"
                )
    if old is not None:
        yield from validate_pod_update(new, old)
        return
    if spec.ephemeral_containers:
        yield _SPEC.ephemeralContainers.forbidden("cannot be set on create")
    if spec.scheduling_gates and spec.node_name:
        yield _SPEC.nodeName.forbidden("cannot be set until all schedulingGates have been cleared")


def _warn(new: Pod, old: Pod | None) -> Iterator[str]:
    if old is not None and new.spec == old.spec:
        return
    spec = new.spec
    for key in spec.node_selector:
        if key in _DEPRECATED_NODE_LABELS:
            yield f"spec.nodeSelector[{key}]: {_DEPRECATED_NODE_LABELS[key]}"
    if (spec.termination_grace_period_seconds or 0) < 0:
        yield (
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and "
            "will be treated as 1"
        )
    for where, containers in (
        ("spec.initContainers", spec.init_containers),
        ("spec.containers", spec.containers),
    ):
        for index, container in enumerate(containers):
            seen: set[str] = set()
            for number, variable in enumerate(container.env):
                if variable.name in seen:
                    yield (
                        f"{where}[{index}].env[{number}]: hides previous definition of "
                        f'"{variable.name}", which may be dropped when using apply'
                    )
                seen.add(variable.name)


# --- entry --------------------------------------------------------------------------------


def _truth(value: bool | None) -> str:
    return "true" if value else "false"


PODS = Resource(
    group="",
    version="v1",
    kind=Pod,
    plural="pods",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_pod,
        prepare_create=_prepare_create,
        validate=validate_pod,
        warn=_warn,
        grace_seconds=_grace_seconds,
    ),
    subresources=(
        Status(prepare=prepare_pod_status, validate=validate_pod_status),
        EphemeralContainers(validate=validate_ephemeral_update),
        Resize(prepare=prepare_resize, validate=validate_resize),
        Binding(),
        Eviction(),
        Log(),
        Exec(),
        Attach(),
        PortForward(),
        Proxy(),
    ),
    columns=POD_COLUMNS,
    selectable_fields={
        "spec.nodeName": lambda pod: pod.spec.node_name,
        "spec.restartPolicy": lambda pod: pod.spec.restart_policy,
        "spec.schedulerName": lambda pod: pod.spec.scheduler_name,
        "spec.serviceAccountName": lambda pod: pod.spec.service_account_name,
        "spec.hostNetwork": lambda pod: _truth(pod.spec.host_network),
        "status.phase": lambda pod: pod.status.phase,
        "status.podIP": lambda pod: pod.status.pod_ips[0].ip if pod.status.pod_ips else "",
        "status.podIPs": lambda pod: pod.status.pod_ips[0].ip if pod.status.pod_ips else "",
        "status.nominatedNodeName": lambda pod: pod.status.nominated_node_name,
    },
)
