"""ReplicationController: the ReplicaSet of the first days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.poddefaults import default_pod_template
from pybernetes.api.core.podspec import validate_pod_template
from pybernetes.api.core.podtemplates import container_images, container_names
from pybernetes.api.resource import AGE, Column, Resource, Scale, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import PodSpec, ReplicationController
from pybernetes.api.validation import NEGATIVE, validate_non_negative
from pybernetes.apimachinery.fielderror import Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

_SPEC, _STATUS = Path("spec"), Path("status")


def default_replication_controller(new: ReplicationController) -> ReplicationController:
    spec = new.spec
    changes: dict[str, Any] = {}
    if spec.replicas is None:
        changes["replicas"] = 1
    template = spec.template
    if template is not None:
        labels = template.metadata.labels
        if labels and not spec.selector:
            changes["selector"] = labels
        if labels and not new.metadata.labels:
            new = replace(new, metadata=replace(new.metadata, labels=labels))
        whole = default_pod_template(template)
        if whole is not template:
            changes["template"] = whole
    return replace(new, spec=replace(spec, **changes)) if changes else new


def validate_replication_controller(
    new: ReplicationController, old: ReplicationController | None
) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_non_negative(spec.min_ready_seconds, _SPEC.minReadySeconds)
    if not spec.selector:
        yield _SPEC.selector.required()
    if spec.replicas is None:
        yield _SPEC.replicas.required()
    else:
        yield from validate_non_negative(spec.replicas, _SPEC.replicas)
    path = _SPEC.template
    if spec.template is None:
        yield path.required()
        return
    labels = spec.template.metadata.labels
    if spec.selector and not spec.selector.items() <= labels.items():
        yield path.metadata.labels.invalid(labels, "`selector` does not match template `labels`")
    yield from validate_pod_template(spec.template, path)
    if spec.template.spec.restart_policy not in ("", "Always"):
        yield path.spec.restartPolicy.not_supported(spec.template.spec.restart_policy, ("Always",))
    if spec.template.spec.active_deadline_seconds is not None:
        yield path.spec.activeDeadlineSeconds.forbidden(
            "activeDeadlineSeconds in ReplicaSet is not Supported"
        )


def _validate_status(
    new: ReplicationController, old: ReplicationController | None
) -> Iterator[FieldError]:
    status = new.status
    counts = {
        "replicas": status.replicas,
        "fullyLabeledReplicas": status.fully_labeled_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "observedGeneration": status.observed_generation,
    }
    for wire_name, count in counts.items():
        if count < 0:
            yield _STATUS.child(wire_name).invalid(count, NEGATIVE)
    for wire_name in ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"):
        if counts[wire_name] > status.replicas:
            yield _STATUS.child(wire_name).invalid(
                counts[wire_name], "cannot be greater than status.replicas"
            )
    if status.available_replicas > status.ready_replicas:
        yield _STATUS.availableReplicas.invalid(
            status.available_replicas, "cannot be greater than readyReplicas"
        )


def _pod_spec(controller: ReplicationController) -> PodSpec:
    template = controller.spec.template
    return PodSpec() if template is None else template.spec


REPLICATION_CONTROLLERS = Resource(
    group="",
    version="v1",
    kind=ReplicationController,
    plural="replicationcontrollers",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_replication_controller,
        validate=validate_replication_controller,
        # Old clients expect the pods to stay when they delete the controller.
        default_propagation="Orphan",
    ),
    subresources=(Status(validate=_validate_status), Scale()),
    columns=(
        Column("Desired", lambda rc: rc.spec.replicas or 0, type="integer"),
        Column("Current", lambda rc: rc.status.replicas, type="integer"),
        Column("Ready", lambda rc: rc.status.ready_replicas, type="integer"),
        AGE,
        Column("Containers", lambda rc: container_names(_pod_spec(rc)), wide=True),
        Column("Images", lambda rc: container_images(_pod_spec(rc)), wide=True),
        Column("Selector", lambda rc: rc.spec.selector, wide=True),
    ),
    selectable_fields={"status.replicas": lambda rc: str(rc.status.replicas)},
)
