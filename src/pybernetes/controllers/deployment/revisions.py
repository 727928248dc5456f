"""Which replica set belongs to which revision of a deployment.

The replica set whose template equals the deployment's (the hash label aside) is the *new* one, all
others are *old*. Revisions are numbers in an annotation; the new one always has the highest, also
when an old template comes back (`kubectl rollout undo`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.apps_v1 import Deployment, ReplicaSet, ReplicaSetSpec
from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.controllers.history import template_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pybernetes.api.types.core_v1 import PodTemplateSpec

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
# Characters of the history annotation, the oldest numbers going first.
HISTORY_LENGTH = 2000
# Annotations of the deployment that its replica sets do not get.
NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)


@dataclass(frozen=True, slots=True)
class Sets:
    """A deployment's replica sets, told apart."""

    new: ReplicaSet | None
    # Oldest first.
    old: tuple[ReplicaSet, ...]

    @property
    def all(self) -> tuple[ReplicaSet, ...]:
        return (*self.old, self.new) if self.new is not None else self.old


def tell_apart(deployment: Deployment, replica_sets: Iterable[ReplicaSet]) -> Sets:
    """Among several with the right template the oldest is the new one, as upstream decides."""
    by_age = sorted(replica_sets, key=_age)
    wanted = _without_hash(deployment.spec.template)
    new = next((rs for rs in by_age if _without_hash(rs.spec.template) == wanted), None)
    return Sets(new, tuple(rs for rs in by_age if rs is not new))


def revision_of(obj: ReplicaSet | Deployment) -> int:
    """0 if it has none."""
    try:
        return int(obj.metadata.annotations.get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(old: Sequence[ReplicaSet]) -> int:
    return max((revision_of(rs) for rs in old), default=0) + 1


def superfluous(old: Sequence[ReplicaSet], limit: int) -> list[ReplicaSet]:
    """Beyond the newest `limit` old replica sets, those that are empty."""
    living = [rs for rs in old if rs.metadata.deletion_timestamp is None]
    living.sort(key=revision_of)
    return [rs for rs in living[: max(len(living) - limit, 0)] if _is_empty(rs)]


def _is_empty(rs: ReplicaSet) -> bool:
    """Empty by its own controller's word on its present spec."""
    return (
        rs.spec.replicas == 0
        and rs.status.replicas == 0
        and rs.status.observed_generation >= (rs.metadata.generation or 0)
    )


def annotations_for(
    deployment: Deployment, current: Mapping[str, str], revision: int
) -> dict[str, str]:
    """A replica set's annotations as they should be; a revision it had before is remembered."""
    wanted = dict(current)
    for name, value in deployment.metadata.annotations.items():
        if name not in NOT_COPIED:
            wanted[name] = value
    before = current.get(REVISION, "")
    if not before:
        wanted[REVISION] = str(revision)
    elif _number(before) < revision:
        history = [part for part in current.get(REVISION_HISTORY, "").split(",") if part]
        history.append(before)
        while len(",".join(history)) > HISTORY_LENGTH:
            del history[0]
        wanted[REVISION_HISTORY] = ",".join(history)
        wanted[REVISION] = str(revision)
    return wanted


def new_replica_set(deployment: Deployment, replicas: int, revision: int) -> ReplicaSet:
    """The replica set for the deployment's present template."""
    template = deployment.spec.template
    suffix = template_hash(template, deployment.status.collision_count or 0)
    labels = {**template.metadata.labels, HASH_LABEL: suffix}
    selector = deployment.spec.selector
    metadata = msgspec.structs.replace(template.metadata, labels=labels)
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.metadata.name}-{suffix}",
            namespace=deployment.metadata.namespace,
            labels=labels,
            annotations=annotations_for(deployment, {}, revision),
            owner_references=(owner_reference(deployment),),
        ),
        spec=ReplicaSetSpec(
            replicas=replicas,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=LabelSelector(
                match_labels={**selector.match_labels, HASH_LABEL: suffix},
                match_expressions=selector.match_expressions,
            ),
            template=msgspec.structs.replace(template, metadata=metadata),
        ),
    )


def same_template(one: PodTemplateSpec, other: PodTemplateSpec) -> bool:
    return _without_hash(one) == _without_hash(other)


def _without_hash(template: PodTemplateSpec) -> PodTemplateSpec:
    labels = template.metadata.labels
    if HASH_LABEL not in labels:
        return template
    kept = {name: value for name, value in labels.items() if name != HASH_LABEL}
    metadata = msgspec.structs.replace(template.metadata, labels=kept)
    return msgspec.structs.replace(template, metadata=metadata)


def _age(rs: ReplicaSet) -> tuple[float, str]:
    created = rs.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, rs.metadata.name)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
