"""autoscaling: horizontal pod autoscalers, stored as v2.

v1 knows one metric, the use of CPU. What else an autoscaler says travels in annotations of its
v1 form (`api/autoscalingv1.py`), so that writing back what was read there loses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.autoscalingv1 import from_v2, to_v2, with_default_target
from pybernetes.api.resource import AGE, Column, Conversion, Resource, Scope, Status, Strategy
from pybernetes.api.types import autoscaling_v1 as v1
from pybernetes.api.types.autoscaling_v2 import (
    CrossVersionObjectReference,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior,
    HPAScalingPolicy,
    HPAScalingRules,
    MetricIdentifier,
    MetricSpec,
    MetricTarget,
    ResourceMetricSource,
)
from pybernetes.api.validation import (
    NOT_POSITIVE,
    validate_label_selector,
    validate_non_negative,
    validate_non_negative_quantity,
    validate_with,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import path_segment_errors
from pybernetes.apimachinery.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.autoscaling_v2 import (
        ContainerResourceMetricSource,
        ExternalMetricSource,
        MetricStatus,
        ObjectMetricSource,
        PodsMetricSource,
    )

GROUP = "autoscaling"

LONGEST_STABILIZATION_SECONDS = 3600
LONGEST_PERIOD_SECONDS = 1800

# The wire name of what goes with each type of metric.
_BODIES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


# --- defaults -------------------------------------------------------------------------------------

_FAST_UP = HPAScalingRules(
    stabilization_window_seconds=0,
    select_policy="Max",
    policies=(
        HPAScalingPolicy(type="Pods", value=4, period_seconds=15),
        HPAScalingPolicy(type="Percent", value=100, period_seconds=15),
    ),
)
# How long a smaller wish must last is the controller's setting, unless it is said here.
_CALM_DOWN = HPAScalingRules(
    select_policy="Max",
    policies=(HPAScalingPolicy(type="Percent", value=100, period_seconds=15),),
)
DEFAULT_METRIC = MetricSpec(
    type="Resource",
    resource=ResourceMetricSource(
        name="cpu", target=MetricTarget(type="Utilization", average_utilization=80)
    ),
)


def default_autoscaler(new: HorizontalPodAutoscaler) -> HorizontalPodAutoscaler:
    spec = new.spec
    behavior = spec.behavior
    if behavior is not None:
        behavior = HorizontalPodAutoscalerBehavior(
            scale_up=_rules(behavior.scale_up, _FAST_UP),
            scale_down=_rules(behavior.scale_down, _CALM_DOWN),
        )
    spec = replace(
        spec,
        min_replicas=1 if spec.min_replicas is None else spec.min_replicas,
        metrics=spec.metrics or (DEFAULT_METRIC,),
        behavior=behavior,
    )
    return new if spec == new.spec else replace(new, spec=spec)


def _rules(given: HPAScalingRules | None, usual: HPAScalingRules) -> HPAScalingRules:
    if given is None:
        return usual
    window = given.stabilization_window_seconds
    return HPAScalingRules(
        select_policy=given.select_policy or usual.select_policy,
        policies=given.policies or usual.policies,
        stabilization_window_seconds=(
            usual.stabilization_window_seconds if window is None else window
        ),
        tolerance=given.tolerance,
    )


# --- validation -----------------------------------------------------------------------------------


def validate_autoscaler(
    new: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler | None
) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    # Scaling to zero needs a gate that is off; who had it on may keep the object.
    had_zero = old is not None and old.spec.min_replicas == 0
    least = 0 if had_zero else 1
    if spec.min_replicas is not None and spec.min_replicas < least:
        yield path.minReplicas.invalid(
            spec.min_replicas, f"must be greater than or equal to {least}"
        )
    if spec.max_replicas < 1:
        yield path.maxReplicas.invalid(spec.max_replicas, "must be greater than 0")
    if spec.min_replicas is not None and spec.max_replicas < spec.min_replicas:
        yield path.maxReplicas.invalid(
            spec.max_replicas, "must be greater than or equal to `minReplicas`"
        )
    yield from _validate_reference(spec.scale_target_ref, path.scaleTargetRef)
    for index, metric in enumerate(spec.metrics):
        yield from _validate_metric(metric, path.metrics[index])
    if spec.min_replicas == 0 and not any(m.object or m.external for m in spec.metrics):
        yield path.metrics.forbidden(
            "must specify at least one Object or External metric to support scaling to"
            " zero replicas"
        )
    if spec.behavior is not None:
        yield from _validate_rules(spec.behavior.scale_up, path.behavior.scaleUp)
        yield from _validate_rules(spec.behavior.scale_down, path.behavior.scaleDown)


def validate_autoscaler_status(
    new: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler | None
) -> Iterator[FieldError]:
    path = Path("status")
    yield from validate_non_negative(new.status.current_replicas, path.currentReplicas)
    yield from validate_non_negative(new.status.desired_replicas, path.desiredReplicas)


def _validate_reference(reference: CrossVersionObjectReference, path: Path) -> Iterator[FieldError]:
    for name, value in (("kind", reference.kind), ("name", reference.name)):
        if not value:
            yield path.child(name).required()
        else:
            yield from validate_with(path_segment_errors, value, path.child(name))


def _validate_metric(metric: MetricSpec, path: Path) -> Iterator[FieldError]:
    if not metric.type:
        yield path.type.required("must specify a metric source type")
    if metric.type not in _BODIES:
        yield path.type.not_supported(metric.type, tuple(_BODIES))
    present: list[str] = []
    # Only the first body is looked at: of several, all but one are wrong anyway.
    for name, errors in _bodies(metric, path):
        if not present:
            yield from errors
        present.append(name)
    expected = _BODIES.get(metric.type, "")
    if expected and expected not in present:
        yield path.child(expected).required("must populate information for the given metric source")
    if len(present) != 1:
        for name in present:
            if name != expected:
                yield path.child(name).forbidden("must populate the given metric source only")


def _bodies(metric: MetricSpec, path: Path) -> Iterator[tuple[str, Iterator[FieldError]]]:
    """What is there of a metric, by wire name, with what is wrong with it."""
    if metric.object is not None:
        yield "object", _validate_object(metric.object, path.object)
    if metric.external is not None:
        yield "external", _validate_external(metric.external, path.external)
    if metric.pods is not None:
        yield "pods", _validate_pods(metric.pods, path.pods)
    if metric.resource is not None:
        yield "resource", _validate_resource(metric.resource, path.resource)
    if metric.container_resource is not None:
        source = metric.container_resource
        yield "containerResource", _validate_container(source, path.containerResource)


def _validate_object(source: ObjectMetricSource, path: Path) -> Iterator[FieldError]:
    yield from _validate_reference(source.described_object, path.describedObject)
    yield from _validate_identifier(source.metric, path.metric)
    yield from _validate_target(source.target, path.target)
    if not source.target.value and not source.target.average_value:
        yield path.target.averageValue.required("must set either a target value or averageValue")


def _validate_external(source: ExternalMetricSource, path: Path) -> Iterator[FieldError]:
    yield from _validate_identifier(source.metric, path.metric)
    yield from _validate_target(source.target, path.target)
    target = source.target
    if not target.value and not target.average_value:
        yield path.target.averageValue.required(
            "must set either a target value for metric or a per-pod target"
        )
    if target.value and target.average_value:
        yield path.target.value.forbidden(
            "may not set both a target value for metric and a per-pod target"
        )


def _validate_pods(source: PodsMetricSource, path: Path) -> Iterator[FieldError]:
    yield from _validate_identifier(source.metric, path.metric)
    yield from _validate_target(source.target, path.target)
    if not source.target.average_value or parse_quantity(source.target.average_value) <= 0:
        yield path.target.averageValue.required("must specify a positive target averageValue")


def _validate_resource(source: ResourceMetricSource, path: Path) -> Iterator[FieldError]:
    if not source.name:
        yield path.name.required("must specify a resource name")
    yield from _validate_use(source.target, path.target)


def _validate_container(source: ContainerResourceMetricSource, path: Path) -> Iterator[FieldError]:
    if not source.name:
        yield path.name.required("must specify a resource name")
    if not source.container:
        yield path.container.required("must specify a container")
    yield from _validate_use(source.target, path.target)


def _validate_use(target: MetricTarget, path: Path) -> Iterator[FieldError]:
    """The target of a resource: so much, or so much of what was asked for."""
    yield from _validate_target(target, path)
    if target.average_utilization is None and not target.average_value:
        yield path.averageUtilization.required(
            "must set either a target raw value or a target utilization"
        )
    if target.average_utilization is not None and target.average_value:
        yield path.averageValue.forbidden(
            "may not set both a target raw value and a target utilization"
        )


def _validate_target(target: MetricTarget, path: Path) -> Iterator[FieldError]:
    if not target.type:
        yield path.type.required("must specify a metric target type")
    if target.type not in ("Utilization", "Value", "AverageValue"):
        yield path.type.invalid(target.type, "must be either Utilization, Value, or AverageValue")
    for name, value in (("value", target.value), ("averageValue", target.average_value)):
        if value and parse_quantity(value) <= 0:
            yield path.child(name).invalid(value, "must be positive")
    if target.average_utilization is not None and target.average_utilization < 1:
        yield path.averageUtilization.invalid(target.average_utilization, "must be greater than 0")


def _validate_identifier(metric: MetricIdentifier, path: Path) -> Iterator[FieldError]:
    if not metric.name:
        yield path.name.required("must specify a metric name")
    else:
        yield from validate_with(path_segment_errors, metric.name, path.name)
    yield from validate_label_selector(metric.selector, path.selector)


def _validate_rules(rules: HPAScalingRules | None, path: Path) -> Iterator[FieldError]:
    if rules is None:
        return
    window = rules.stabilization_window_seconds
    if window is not None and window < 0:
        yield path.stabilizationWindowSeconds.invalid(
            window, "must be greater than or equal to zero"
        )
    if window is not None and window > LONGEST_STABILIZATION_SECONDS:
        yield path.stabilizationWindowSeconds.invalid(
            window, f"must be less than or equal to {LONGEST_STABILIZATION_SECONDS}"
        )
    if rules.select_policy and rules.select_policy not in ("Disabled", "Max", "Min"):
        yield path.selectPolicy.not_supported(rules.select_policy, ["Disabled", "Max", "Min"])
    if not rules.policies:
        yield path.policies.required("must specify at least one Policy")
    for index, policy in enumerate(rules.policies):
        yield from _validate_policy(policy, path.policies[index])
    if rules.tolerance:
        yield from validate_non_negative_quantity(rules.tolerance, path.tolerance)


def _validate_policy(policy: HPAScalingPolicy, path: Path) -> Iterator[FieldError]:
    if policy.type not in ("Percent", "Pods"):
        yield path.type.not_supported(policy.type, ["Percent", "Pods"])
    if policy.value <= 0:
        yield path.value.invalid(policy.value, NOT_POSITIVE)
    if policy.period_seconds <= 0:
        yield path.periodSeconds.invalid(policy.period_seconds, NOT_POSITIVE)
    if policy.period_seconds > LONGEST_PERIOD_SECONDS:
        yield path.periodSeconds.invalid(
            policy.period_seconds, f"must be less than or equal to {LONGEST_PERIOD_SECONDS}"
        )


# --- columns --------------------------------------------------------------------------------------

_SHOWN_METRICS = 2
_UNKNOWN = "<unknown>"


def _targets(autoscaler: HorizontalPodAutoscaler) -> str | None:
    metrics, statuses = autoscaler.spec.metrics, autoscaler.status.current_metrics
    texts = [
        _target_text(metric, statuses[index] if index < len(statuses) else None)
        for index, metric in enumerate(metrics)
    ]
    if not texts:
        return None
    text = ", ".join(texts[:_SHOWN_METRICS])
    hidden = len(texts) - _SHOWN_METRICS
    return f"{text} + {hidden} more..." if hidden > 0 else text


def _target_text(metric: MetricSpec, status: MetricStatus | None) -> str:
    """`present/wished`, with the name of the resource before, of one metric."""
    name = _BODIES.get(metric.type, "")
    attribute = "container_resource" if name == "containerResource" else name
    source = getattr(metric, attribute, None) if attribute else None
    if source is None:
        return "<unknown type>"
    now = getattr(status, attribute, None)
    target, current = source.target, None if now is None else now.current
    if metric.type in ("Resource", "ContainerResource"):
        if target.average_value:
            present = (current and current.average_value) or _UNKNOWN
            return f"{source.name}: {present}/{target.average_value}"
        present = _percent(None if current is None else current.average_utilization, _UNKNOWN)
        return f"{source.name}: {present}/{_percent(target.average_utilization, '<auto>')}"
    if metric.type == "Pods" or target.average_value:
        present = (current and current.average_value) or _UNKNOWN
        text = f"{present}/{target.average_value}"
        return text if metric.type == "Pods" else f"{text} (avg)"
    return f"{(current and current.value) or _UNKNOWN}/{target.value}"


def _percent(value: int | None, missing: str) -> str:
    return missing if value is None else f"{value}%"


def _reference(autoscaler: HorizontalPodAutoscaler) -> str:
    reference = autoscaler.spec.scale_target_ref
    return f"{reference.kind}/{reference.name}"


def _least_pods(autoscaler: HorizontalPodAutoscaler) -> str:
    least = autoscaler.spec.min_replicas
    return "<unset>" if least is None else str(least)


COLUMNS: tuple[Column[HorizontalPodAutoscaler], ...] = (
    Column("Reference", _reference),
    Column("Targets", _targets),
    Column("MinPods", _least_pods),
    Column("MaxPods", lambda a: a.spec.max_replicas),
    Column("Replicas", lambda a: a.status.current_replicas),
    AGE,
)


# --- entries --------------------------------------------------------------------------------------

AUTOSCALERS = Resource(
    group=GROUP,
    version="v2",
    kind=HorizontalPodAutoscaler,
    plural="horizontalpodautoscalers",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_autoscaler, validate=validate_autoscaler),
    subresources=(Status(validate=validate_autoscaler_status),),
    columns=COLUMNS,
)


def _validate_v1(
    new: v1.HorizontalPodAutoscaler, old: v1.HorizontalPodAutoscaler | None
) -> Iterator[FieldError]:
    return validate_autoscaler(to_v2(new), None if old is None else to_v2(old))


def _validate_v1_status(
    new: v1.HorizontalPodAutoscaler, old: v1.HorizontalPodAutoscaler | None
) -> Iterator[FieldError]:
    return validate_autoscaler_status(to_v2(new), None if old is None else to_v2(old))


def _from_v1(new: v1.HorizontalPodAutoscaler) -> HorizontalPodAutoscaler:
    return default_autoscaler(to_v2(new))


def _as_v1(column: Column[HorizontalPodAutoscaler]) -> Column[v1.HorizontalPodAutoscaler]:
    cell = column.cell
    assert cell is not None
    return Column(column.name, lambda a: cell(to_v2(a)), type=column.type)


AUTOSCALERS_V1 = Resource(
    group=GROUP,
    version="v1",
    kind=v1.HorizontalPodAutoscaler,
    plural="horizontalpodautoscalers",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=with_default_target, validate=_validate_v1),
    subresources=(Status(validate=_validate_v1_status),),
    columns=tuple(_as_v1(column) for column in COLUMNS),
    conversion=Conversion(HorizontalPodAutoscaler, _from_v1, from_v2),
)

AUTOSCALING_RESOURCES: tuple[Resource[Any], ...] = (AUTOSCALERS, AUTOSCALERS_V1)
