"""apps: deployments, replica sets, stateful sets, daemon sets and their recorded revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.core.poddefaults import default_pod_template
from pybernetes.api.core.podspec import validate_pod_template
from pybernetes.api.core.volumedefaults import default_claim_spec
from pybernetes.api.ownership import controller_of
from pybernetes.api.resource import AGE, Column, Resource, Scale, Scope, Status, Strategy
from pybernetes.api.types.apps_v1 import (
    ControllerRevision,
    DaemonSet,
    DaemonSetUpdateStrategy,
    Deployment,
    DeploymentStrategy,
    ReplicaSet,
    RollingUpdateDaemonSet,
    RollingUpdateDeployment,
    RollingUpdateStatefulSetStrategy,
    StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetUpdateStrategy,
)
from pybernetes.api.validation import (
    validate_count_or_percent,
    validate_immutable,
    validate_label_selector,
    validate_non_negative,
    validate_not_above_hundred_percent,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.intstr import is_percent
from pybernetes.apimachinery.selector import SelectorError, selector_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import PersistentVolumeClaim, PodTemplateSpec
    from pybernetes.api.types.meta_v1 import LabelSelector

GROUP = "apps"
QUARTER = "25%"
REVISIONS_KEPT = 10
PROGRESS_SECONDS = 600
_SPEC = Path("spec")
_GENERATION = ("spec",)


# --- what they share ------------------------------------------------------------------------------


def validate_selector_and_template(
    selector: LabelSelector, template: PodTemplateSpec, *, kind: str
) -> Iterator[FieldError]:
    """A selector that names the pods made from the template, which restart for ever.

    `kind` is upstream's word for the owner in the refusal of deadlines.
    """
    path = _SPEC.selector
    template_path = _SPEC.template
    if not selector.match_labels and not selector.match_expressions:
        yield path.required()
    else:
        yield from validate_label_selector(selector, path)
    try:
        matches = selector_of(selector).matches(template.metadata.labels)
    except SelectorError:
        matches = True
    if not matches or not (selector.match_labels or selector.match_expressions):
        yield template_path.metadata.labels.invalid(
            template.metadata.labels, "`selector` does not match template `labels`"
        )
    yield from validate_pod_template(template, template_path)
    policy = template.spec.restart_policy
    if policy != "Always":
        yield template_path.spec.restartPolicy.not_supported(policy, ["Always"])
    if template.spec.active_deadline_seconds is not None:
        yield template_path.spec.activeDeadlineSeconds.forbidden(
            f"activeDeadlineSeconds in {kind} is not Supported"
        )


def container_names(template: PodTemplateSpec) -> str:
    return ",".join(container.name for container in template.spec.containers)


def container_images(template: PodTemplateSpec) -> str:
    return ",".join(container.image for container in template.spec.containers)


def template_columns(*, selector: bool = True) -> tuple[Column[Any], ...]:
    """What -o wide shows of everything that has a pod template."""
    columns: tuple[Column[Any], ...] = (
        Column("Containers", lambda o: container_names(o.spec.template), wide=True),
        Column("Images", lambda o: container_images(o.spec.template), wide=True),
    )
    if not selector:
        return columns
    return (*columns, Column("Selector", lambda o: o.spec.selector, wide=True))


# --- Deployment -----------------------------------------------------------------------------------


def default_deployment(new: Deployment) -> Deployment:
    spec = new.spec
    strategy = spec.strategy
    if not strategy.type:
        strategy = DeploymentStrategy(type="RollingUpdate", rolling_update=strategy.rolling_update)
    if strategy.type == "RollingUpdate":
        given = strategy.rolling_update or RollingUpdateDeployment()
        rolling = RollingUpdateDeployment(
            max_unavailable=QUARTER if given.max_unavailable is None else given.max_unavailable,
            max_surge=QUARTER if given.max_surge is None else given.max_surge,
        )
        strategy = DeploymentStrategy(type=strategy.type, rolling_update=rolling)
    spec = msgspec.structs.replace(
        spec,
        replicas=1 if spec.replicas is None else spec.replicas,
        strategy=strategy,
        template=default_pod_template(spec.template),
        revision_history_limit=_or(spec.revision_history_limit, REVISIONS_KEPT),
        progress_deadline_seconds=_or(spec.progress_deadline_seconds, PROGRESS_SECONDS),
    )
    return msgspec.structs.replace(new, spec=spec)


def validate_deployment(new: Deployment, old: Deployment | None) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_non_negative(spec.replicas, _SPEC.replicas)
    yield from validate_selector_and_template(spec.selector, spec.template, kind="ReplicaSet")
    yield from _validate_strategy(spec.strategy)
    yield from validate_non_negative(spec.min_ready_seconds, _SPEC.minReadySeconds)
    yield from validate_non_negative(spec.revision_history_limit, _SPEC.revisionHistoryLimit)
    deadline = spec.progress_deadline_seconds
    if deadline is not None:
        yield from validate_non_negative(deadline, _SPEC.progressDeadlineSeconds)
        if deadline <= (spec.min_ready_seconds or 0):
            yield _SPEC.progressDeadlineSeconds.invalid(
                deadline, "must be greater than minReadySeconds"
            )
    if old is not None:
        yield from validate_immutable(spec.selector, old.spec.selector, _SPEC.selector)


def _validate_strategy(strategy: DeploymentStrategy) -> Iterator[FieldError]:
    path = _SPEC.strategy
    if strategy.type == "Recreate":
        if strategy.rolling_update is not None:
            yield path.rollingUpdate.forbidden(
                "may not be specified when strategy `type` is 'Recreate'"
            )
        return
    if strategy.type != "RollingUpdate":
        yield path.not_supported(strategy, ["Recreate", "RollingUpdate"])
        return
    rolling = strategy.rolling_update
    if rolling is None:
        yield path.rollingUpdate.required("this should be defaulted and never be nil")
        return
    here = path.rollingUpdate
    yield from validate_count_or_percent(rolling.max_unavailable, here.maxUnavailable)
    yield from validate_count_or_percent(rolling.max_surge, here.maxSurge)
    if is_zero(rolling.max_unavailable) and is_zero(rolling.max_surge):
        yield here.maxUnavailable.invalid(
            rolling.max_unavailable, "may not be 0 when `maxSurge` is 0"
        )
    yield from validate_not_above_hundred_percent(rolling.max_unavailable, here.maxUnavailable)


DEPLOYMENTS = Resource(
    group=GROUP,
    version="v1",
    kind=Deployment,
    plural="deployments",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_deployment,
        validate=validate_deployment,
        generation_follows=("spec", "metadata.annotations"),
    ),
    subresources=(Status(), Scale()),
    columns=(
        Column("Ready", lambda d: f"{d.status.ready_replicas}/{d.spec.replicas}"),
        Column("Up-to-date", lambda d: d.status.updated_replicas),
        Column("Available", lambda d: d.status.available_replicas),
        AGE,
        *template_columns(),
    ),
)


# --- ReplicaSet -----------------------------------------------------------------------------------


def default_replica_set(new: ReplicaSet) -> ReplicaSet:
    spec = msgspec.structs.replace(
        new.spec,
        replicas=1 if new.spec.replicas is None else new.spec.replicas,
        template=default_pod_template(new.spec.template),
    )
    return msgspec.structs.replace(new, spec=spec)


def validate_replica_set(new: ReplicaSet, old: ReplicaSet | None) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_non_negative(spec.replicas, _SPEC.replicas)
    yield from validate_non_negative(spec.min_ready_seconds, _SPEC.minReadySeconds)
    yield from validate_selector_and_template(spec.selector, spec.template, kind="ReplicaSet")
    if old is not None:
        yield from validate_immutable(spec.selector, old.spec.selector, _SPEC.selector)


REPLICA_SETS = Resource(
    group=GROUP,
    version="v1",
    kind=ReplicaSet,
    plural="replicasets",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_replica_set,
        validate=validate_replica_set,
        generation_follows=_GENERATION,
    ),
    subresources=(Status(), Scale()),
    columns=(
        Column("Desired", lambda r: r.spec.replicas, type="integer"),
        Column("Current", lambda r: r.status.replicas, type="integer"),
        Column("Ready", lambda r: r.status.ready_replicas, type="integer"),
        AGE,
        *template_columns(),
    ),
    selectable_fields={"status.replicas": lambda r: str(r.status.replicas)},
)


# --- StatefulSet ----------------------------------------------------------------------------------


def default_stateful_set(new: StatefulSet) -> StatefulSet:
    spec = new.spec
    strategy = spec.update_strategy
    kind = strategy.type or "RollingUpdate"
    rolling = strategy.rolling_update
    if kind == "RollingUpdate":
        given = rolling or RollingUpdateStatefulSetStrategy()
        rolling = msgspec.structs.replace(
            given,
            partition=given.partition or 0,
            max_unavailable=1 if given.max_unavailable is None else given.max_unavailable,
        )
    policy = spec.persistent_volume_claim_retention_policy
    spec = msgspec.structs.replace(
        spec,
        replicas=1 if spec.replicas is None else spec.replicas,
        pod_management_policy=spec.pod_management_policy or "OrderedReady",
        update_strategy=StatefulSetUpdateStrategy(type=kind, rolling_update=rolling),
        revision_history_limit=_or(spec.revision_history_limit, REVISIONS_KEPT),
        template=default_pod_template(spec.template),
        persistent_volume_claim_retention_policy=StatefulSetPersistentVolumeClaimRetentionPolicy(
            when_deleted=(policy and policy.when_deleted) or "Retain",
            when_scaled=(policy and policy.when_scaled) or "Retain",
        ),
        volume_claim_templates=tuple(_default_claim(c) for c in spec.volume_claim_templates),
    )
    return msgspec.structs.replace(new, spec=spec)


def _default_claim(claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
    status = msgspec.structs.replace(claim.status, phase=claim.status.phase or "Pending")
    return msgspec.structs.replace(claim, spec=default_claim_spec(claim.spec), status=status)


def validate_stateful_set(new: StatefulSet, old: StatefulSet | None) -> Iterator[FieldError]:
    spec = new.spec
    policies = ("OrderedReady", "Parallel")
    if spec.pod_management_policy not in policies:
        yield _SPEC.podManagementPolicy.invalid(
            spec.pod_management_policy, "must be 'OrderedReady' or 'Parallel'"
        )
    yield from _validate_update_strategy(spec.update_strategy)
    yield from validate_non_negative(spec.replicas, _SPEC.replicas)
    yield from validate_non_negative(spec.min_ready_seconds, _SPEC.minReadySeconds)
    yield from validate_non_negative(spec.revision_history_limit, _SPEC.revisionHistoryLimit)
    if spec.ordinals is not None:
        yield from validate_non_negative(spec.ordinals.start, _SPEC.ordinals.start)
    policy = spec.persistent_volume_claim_retention_policy
    if policy is not None:
        path = _SPEC.persistentVolumeClaimRetentionPolicy
        for value, here in (
            (policy.when_deleted, path.whenDeleted),
            (policy.when_scaled, path.whenScaled),
        ):
            if value not in ("Retain", "Delete"):
                yield here.not_supported(value, ["Delete", "Retain"])
    yield from validate_selector_and_template(spec.selector, spec.template, kind="StatefulSet")
    if old is not None and _fixed_part(new) != _fixed_part(old):
        yield _SPEC.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',"
            " 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy'"
            " and 'minReadySeconds' are forbidden"
        )


def _fixed_part(stateful_set: StatefulSet) -> tuple[object, ...]:
    spec = stateful_set.spec
    return (
        spec.selector,
        spec.volume_claim_templates,
        spec.service_name,
        spec.pod_management_policy,
    )


def _validate_update_strategy(strategy: StatefulSetUpdateStrategy) -> Iterator[FieldError]:
    path = _SPEC.updateStrategy
    rolling = strategy.rolling_update
    if strategy.type == "OnDelete":
        if rolling is not None:
            yield path.rollingUpdate.invalid(
                rolling, "only allowed for updateStrategy 'RollingUpdate'"
            )
    elif strategy.type == "RollingUpdate":
        if rolling is None:
            return
        here = path.rollingUpdate
        yield from validate_non_negative(rolling.partition, here.partition)
        yield from validate_count_or_percent(rolling.max_unavailable, here.maxUnavailable)
        if is_zero(rolling.max_unavailable):
            yield here.maxUnavailable.invalid(rolling.max_unavailable, "cannot be 0")
        yield from validate_not_above_hundred_percent(rolling.max_unavailable, here.maxUnavailable)
    else:
        yield path.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'")


STATEFUL_SETS = Resource(
    group=GROUP,
    version="v1",
    kind=StatefulSet,
    plural="statefulsets",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_stateful_set,
        validate=validate_stateful_set,
        generation_follows=_GENERATION,
    ),
    subresources=(Status(), Scale()),
    columns=(
        Column("Ready", lambda s: f"{s.status.ready_replicas}/{s.spec.replicas}"),
        AGE,
        *template_columns(selector=False),
    ),
)


# --- DaemonSet ------------------------------------------------------------------------------------


def default_daemon_set(new: DaemonSet) -> DaemonSet:
    spec = new.spec
    kind = spec.update_strategy.type or "RollingUpdate"
    rolling = spec.update_strategy.rolling_update
    if kind == "RollingUpdate":
        given = rolling or RollingUpdateDaemonSet()
        rolling = RollingUpdateDaemonSet(
            max_unavailable=1 if given.max_unavailable is None else given.max_unavailable,
            max_surge=0 if given.max_surge is None else given.max_surge,
        )
    spec = msgspec.structs.replace(
        spec,
        update_strategy=DaemonSetUpdateStrategy(type=kind, rolling_update=rolling),
        revision_history_limit=_or(spec.revision_history_limit, REVISIONS_KEPT),
        template=default_pod_template(spec.template),
    )
    return msgspec.structs.replace(new, spec=spec)


def validate_daemon_set(new: DaemonSet, old: DaemonSet | None) -> Iterator[FieldError]:
    spec = new.spec
    yield from validate_selector_and_template(spec.selector, spec.template, kind="DaemonSet")
    yield from validate_non_negative(spec.min_ready_seconds, _SPEC.minReadySeconds)
    yield from validate_non_negative(spec.revision_history_limit, _SPEC.revisionHistoryLimit)
    yield from _validate_daemon_strategy(spec.update_strategy)
    if old is not None:
        yield from validate_immutable(spec.selector, old.spec.selector, _SPEC.selector)


def _validate_daemon_strategy(strategy: DaemonSetUpdateStrategy) -> Iterator[FieldError]:
    path = _SPEC.updateStrategy
    if strategy.type == "OnDelete":
        return
    if strategy.type != "RollingUpdate":
        yield path.not_supported(strategy, ["RollingUpdate", "OnDelete"])
        return
    rolling = strategy.rolling_update
    if rolling is None:
        yield path.rollingUpdate.required()
        return
    here = path.rollingUpdate
    for value, where in (
        (rolling.max_unavailable, here.maxUnavailable),
        (rolling.max_surge, here.maxSurge),
    ):
        yield from validate_count_or_percent(value, where)
        yield from validate_not_above_hundred_percent(value, where)
    surges = not is_zero(rolling.max_surge)
    if surges and not is_zero(rolling.max_unavailable):
        yield here.maxSurge.invalid(
            rolling.max_surge, "may not be set when maxUnavailable is non-zero"
        )
    if not surges and is_zero(rolling.max_unavailable):
        yield here.maxUnavailable.required("cannot be 0 when maxSurge is 0")


DAEMON_SETS = Resource(
    group=GROUP,
    version="v1",
    kind=DaemonSet,
    plural="daemonsets",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        default=default_daemon_set,
        validate=validate_daemon_set,
        generation_follows=_GENERATION,
    ),
    subresources=(Status(),),
    columns=(
        Column("Desired", lambda d: d.status.desired_number_scheduled, type="integer"),
        Column("Current", lambda d: d.status.current_number_scheduled, type="integer"),
        Column("Ready", lambda d: d.status.number_ready, type="integer"),
        Column("Up-to-date", lambda d: d.status.updated_number_scheduled, type="integer"),
        Column("Available", lambda d: d.status.number_available, type="integer"),
        Column("Node Selector", lambda d: d.spec.template.spec.node_selector or None),
        AGE,
        *template_columns(),
    ),
)


# --- ControllerRevision ---------------------------------------------------------------------------


def validate_revision(
    new: ControllerRevision, old: ControllerRevision | None
) -> Iterator[FieldError]:
    if new.data is None:
        yield Path("data").required("data is mandatory")
    yield from validate_non_negative(new.revision, Path("revision"))
    if old is not None:
        yield from validate_immutable(new.data, old.data, Path("data"))


def _controller_name(revision: ControllerRevision) -> str | None:
    """`statefulset.apps/web`."""
    owner = controller_of(revision)
    if owner is None:
        return None
    group = owner.api_version.partition("/")[0] if "/" in owner.api_version else ""
    kind = f"{owner.kind}.{group}" if group else owner.kind
    return f"{kind.lower()}/{owner.name}"


CONTROLLER_REVISIONS = Resource(
    group=GROUP,
    version="v1",
    kind=ControllerRevision,
    plural="controllerrevisions",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_revision, generation_follows=()),
    columns=(
        Column("Controller", _controller_name),
        Column("Revision", lambda r: r.revision),
        AGE,
    ),
)

APPS_RESOURCES = (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
)


def is_zero(value: int | str | None) -> bool:
    """0 or 0%."""
    if isinstance(value, str):
        return is_percent(value) and int(value[:-1]) == 0
    return value == 0


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
