"""Autoscalers as autoscaling/v1 says them, and what of v2 it keeps in annotations.

The annotations are upstream's, shape and all: metrics as they looked in the first beta of v2,
the behavior with the names of Go's fields. Other clients of v1 read and write them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.types import autoscaling_v1 as v1
from pybernetes.api.types import autoscaling_v2 as v2

_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS, CURRENT_METRICS = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
CONDITIONS, BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_ANNOTATIONS = frozenset({METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR})

DEFAULT_CPU_PERCENT = 80

# For each body of a metric: where its parts are in v2, and how they are called in annotations.
# A name that begins with "target" is "current" in a status.
_SHAPES: dict[str, dict[str, tuple[str, ...]]] = {
    "object": {
        "target": ("describedObject",),
        "metricName": ("metric", "name"),
        "selector": ("metric", "selector"),
        "targetValue": ("target", "value"),
        "averageValue": ("target", "averageValue"),
    },
    "pods": {
        "metricName": ("metric", "name"),
        "selector": ("metric", "selector"),
        "targetAverageValue": ("target", "averageValue"),
    },
    "resource": {
        "name": ("name",),
        "targetAverageUtilization": ("target", "averageUtilization"),
        "targetAverageValue": ("target", "averageValue"),
    },
    "external": {
        "metricName": ("metric", "name"),
        "metricSelector": ("metric", "selector"),
        "targetValue": ("target", "value"),
        "targetAverageValue": ("target", "averageValue"),
    },
    "containerResource": {
        "name": ("name",),
        "container": ("container",),
        "targetAverageUtilization": ("target", "averageUtilization"),
        "targetAverageValue": ("target", "averageValue"),
    },
}


def _names(body: str, *, status: bool) -> dict[str, tuple[str, ...]]:
    shape = _SHAPES[body]
    if not status:
        return shape
    return {
        (name.replace("target", "current", 1) if len(path) > 1 else name): (
            ("current", path[1]) if path[0] == "target" else path
        )
        for name, path in shape.items()
    }


# --- metrics --------------------------------------------------------------------------------------


def _flat(metric: dict[str, Any], *, status: bool = False) -> dict[str, Any]:
    """A metric (or its status) of v2 as annotations have it."""
    flat: dict[str, Any] = {"type": metric.get("type", "")}
    for body in _SHAPES:
        if body not in metric:
            continue
        parts = {}
        for name, path in _names(body, status=status).items():
            value: Any = metric[body]
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            if value is not None:
                parts[name] = value
        if body == "object":
            # Values, not pointers, in Go: there is always one.
            parts.setdefault("currentValue" if status else "targetValue", "0")
        flat[body] = parts
    return flat


def _deep(flat: dict[str, Any], *, status: bool = False) -> dict[str, Any]:
    """The inverse of `_flat`."""
    metric: dict[str, Any] = {"type": flat.get("type", "")}
    for body in _SHAPES:
        given = flat.get(body)
        if not isinstance(given, dict):
            continue
        deep: dict[str, Any] = {}
        for name, path in _names(body, status=status).items():
            value = given.get(name)
            if value is None:
                continue
            place = deep
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
        _without_placeholder(deep, "current" if status else "target")
        if not status:
            deep.setdefault("target", {})["type"] = _target_type(deep["target"])
        metric[body] = deep
    return metric


def _without_placeholder(deep: dict[str, Any], part: str) -> None:
    """A zero beside an average only says that there is no value."""
    values = deep.get(part, {})
    if values.get("value") == "0" and "averageValue" in values:
        del values["value"]


def _target_type(target: dict[str, Any]) -> str:
    if "averageUtilization" in target:
        return "Utilization"
    return "AverageValue" if "averageValue" in target else "Value"


def _is_cpu_percentage(metric: v2.MetricSpec) -> bool:
    """The one metric that v1 has a field for."""
    source = metric.resource
    return (
        metric.type == "Resource"
        and source is not None
        and source.name == "cpu"
        and source.target.average_utilization is not None
    )


def _cpu_percentage(percent: int) -> v2.MetricSpec:
    target = v2.MetricTarget(type="Utilization", average_utilization=percent)
    return v2.MetricSpec(
        type="Resource", resource=v2.ResourceMetricSource(name="cpu", target=target)
    )


# --- whole autoscalers ----------------------------------------------------------------------------


def with_default_target(new: v1.HorizontalPodAutoscaler) -> v1.HorizontalPodAutoscaler:
    spec = new.spec
    percent = spec.target_cpu_utilization_percentage
    if percent is None and METRICS not in new.metadata.annotations:
        percent = DEFAULT_CPU_PERCENT
    least = 1 if spec.min_replicas is None else spec.min_replicas
    if percent == spec.target_cpu_utilization_percentage and least == spec.min_replicas:
        return new
    spec = replace(spec, target_cpu_utilization_percentage=percent, min_replicas=least)
    return replace(new, spec=spec)


def to_v2(old: v1.HorizontalPodAutoscaler) -> v2.HorizontalPodAutoscaler:
    given, spec, status = old.metadata.annotations, old.spec, old.status
    metrics = _read(given, METRICS, list[v2.MetricSpec], _deep)
    if spec.target_cpu_utilization_percentage is not None:
        metrics = (*metrics, _cpu_percentage(spec.target_cpu_utilization_percentage))
    current = _read(given, CURRENT_METRICS, list[v2.MetricStatus], _deep_status)
    if not current and status.current_cpu_utilization_percentage is not None:
        use = v2.MetricValueStatus(average_utilization=status.current_cpu_utilization_percentage)
        source = v2.ResourceMetricStatus(name="cpu", current=use)
        current = (v2.MetricStatus(type="Resource", resource=source),)
    conditions = _read(given, CONDITIONS, list[v2.HorizontalPodAutoscalerCondition], _as_it_is)
    behaviors = _read(given, BEHAVIOR, list[v2.HorizontalPodAutoscalerBehavior], _wire_names)
    rest = {key: value for key, value in given.items() if key not in _ANNOTATIONS}
    return v2.HorizontalPodAutoscaler(
        metadata=old.metadata if rest == given else replace(old.metadata, annotations=rest),
        spec=v2.HorizontalPodAutoscalerSpec(
            scale_target_ref=_reference(spec.scale_target_ref, v2.CrossVersionObjectReference),
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            metrics=metrics,
            behavior=behaviors[0] if behaviors else None,
        ),
        status=v2.HorizontalPodAutoscalerStatus(
            observed_generation=status.observed_generation,
            last_scale_time=status.last_scale_time,
            current_replicas=status.current_replicas,
            desired_replicas=status.desired_replicas,
            current_metrics=current,
            conditions=conditions,
        ),
    )


def from_v2(new: v2.HorizontalPodAutoscaler) -> v1.HorizontalPodAutoscaler:
    spec, status = new.spec, new.status
    percent = next(
        (
            metric.resource.target.average_utilization
            for metric in spec.metrics
            if _is_cpu_percentage(metric) and metric.resource is not None
        ),
        None,
    )
    # Only the first such metric has the field; more of them are others.
    others = list(spec.metrics)
    if (cpu := next(filter(_is_cpu_percentage, others), None)) is not None:
        others.remove(cpu)
    kept = {
        METRICS: [_flat(codec.to_dict(metric)) for metric in others],
        CURRENT_METRICS: [_flat(codec.to_dict(m), status=True) for m in status.current_metrics],
        CONDITIONS: [codec.to_dict(condition) for condition in status.conditions],
        BEHAVIOR: None if spec.behavior is None else _go_names(codec.to_dict(spec.behavior)),
    }
    annotations = {key: msgspec.json.encode(value).decode() for key, value in kept.items() if value}
    present = next(
        (
            metric.resource.current.average_utilization
            for metric in status.current_metrics
            if metric.resource is not None and metric.resource.name == "cpu"
        ),
        None,
    )
    metadata = new.metadata
    if annotations:
        metadata = replace(metadata, annotations={**metadata.annotations, **annotations})
    return v1.HorizontalPodAutoscaler(
        metadata=metadata,
        spec=v1.HorizontalPodAutoscalerSpec(
            scale_target_ref=_reference(spec.scale_target_ref, v1.CrossVersionObjectReference),
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
            target_cpu_utilization_percentage=percent,
        ),
        status=v1.HorizontalPodAutoscalerStatus(
            observed_generation=status.observed_generation,
            last_scale_time=status.last_scale_time,
            current_replicas=status.current_replicas,
            desired_replicas=status.desired_replicas,
            current_cpu_utilization_percentage=present,
        ),
    )


def _reference(reference: Any, kind: Any) -> Any:
    return kind(kind=reference.kind, name=reference.name, api_version=reference.api_version)


# --- annotations ----------------------------------------------------------------------------------


def _read(annotations: dict[str, str], key: str, kind: Any, change: Any) -> tuple[Any, ...]:
    """What an annotation says; nothing if it cannot be read, as upstream has it."""
    text = annotations.get(key)
    if text is None:
        return ()
    try:
        value = msgspec.json.decode(text)
        items = value if isinstance(value, list) else [value]
        return tuple(msgspec.convert([change(item) for item in items], kind))
    except (msgspec.DecodeError, AttributeError, TypeError):
        return ()


def _deep_status(flat: dict[str, Any]) -> dict[str, Any]:
    return _deep(flat, status=True)


def _as_it_is(value: Any) -> Any:
    return value


def _go_names(value: Any) -> Any:
    """`scaleUp` as `ScaleUp`, all the way down."""
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: _go_names(item) for key, item in value.items()}
    return [_go_names(item) for item in value] if isinstance(value, list) else value


def _wire_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key[:1].lower() + key[1:]: _wire_names(item)
            for key, item in value.items()
            if item is not None
        }
    return [_wire_names(item) for item in value] if isinstance(value, list) else value
