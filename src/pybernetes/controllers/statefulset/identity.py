"""Who pod number n of a stateful set is: its name, labels, host name, volumes and claims. Pure.

The ordinal is in the name (`web-0`), and what belongs to the ordinal comes back with it: claims are
named after the claim template and the pod, and outlive the pod.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.core_v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimVolumeSource,
    Pod,
    Volume,
)
from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference
from pybernetes.controllers.history import REVISION_LABEL
from pybernetes.controllers.podcontrol import pod_from_template

if TYPE_CHECKING:
    from pybernetes.api.types.apps_v1 import StatefulSet
    from pybernetes.api.types.core_v1 import PodTemplateSpec

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_NUMBERED = re.compile(r"(.*)-(0|[1-9][0-9]*)$")

DELETE, RETAIN = "Delete", "Retain"


def pod_name(stateful_set: StatefulSet, ordinal: int) -> str:
    return f"{stateful_set.metadata.name}-{ordinal}"


def ordinal_of(stateful_set: StatefulSet, name: str) -> int | None:
    """The number in a pod's name; None if it is not a name this set gives."""
    found = _NUMBERED.match(name)
    if found is None or found[1] != stateful_set.metadata.name:
        return None
    return int(found[2])


def first_ordinal(stateful_set: StatefulSet) -> int:
    ordinals = stateful_set.spec.ordinals
    return (ordinals.start or 0) if ordinals else 0


def wished(stateful_set: StatefulSet) -> int:
    return 1 if stateful_set.spec.replicas is None else stateful_set.spec.replicas


def ordinals_of(stateful_set: StatefulSet) -> range:
    """The numbers of the pods there should be."""
    start = first_ordinal(stateful_set)
    return range(start, start + wished(stateful_set))


def revision_of(pod: Pod) -> str:
    return pod.metadata.labels.get(REVISION_LABEL, "")


def new_pod(
    stateful_set: StatefulSet, template: PodTemplateSpec, ordinal: int, revision: str
) -> Pod:
    name = pod_name(stateful_set, ordinal)
    labels = {POD_NAME: name, POD_INDEX: str(ordinal), REVISION_LABEL: revision}
    pod = pod_from_template(template, stateful_set, name=name, labels=labels)
    spec = msgspec.structs.replace(
        pod.spec,
        hostname=name,
        subdomain=stateful_set.spec.service_name,
        volumes=_volumes(stateful_set, template, ordinal),
    )
    return msgspec.structs.replace(pod, spec=spec)


def with_identity(stateful_set: StatefulSet, pod: Pod) -> Pod:
    """The pod with the labels that name it, should somebody have taken them off."""
    name, ordinal = pod.metadata.name, ordinal_of(stateful_set, pod.metadata.name)
    labels = {**pod.metadata.labels, POD_NAME: name}
    if ordinal is not None:
        labels[POD_INDEX] = str(ordinal)
    if labels == pod.metadata.labels:
        return pod
    metadata = msgspec.structs.replace(pod.metadata, labels=labels)
    return msgspec.structs.replace(pod, metadata=metadata)


def claim_name(stateful_set: StatefulSet, template: PersistentVolumeClaim, ordinal: int) -> str:
    return f"{template.metadata.name}-{pod_name(stateful_set, ordinal)}"


def claims_of(stateful_set: StatefulSet, ordinal: int) -> tuple[PersistentVolumeClaim, ...]:
    """The claims pod number `ordinal` needs, as they are created."""
    found = []
    for template in stateful_set.spec.volume_claim_templates:
        metadata = ObjectMeta(
            name=claim_name(stateful_set, template, ordinal),
            namespace=stateful_set.metadata.namespace,
            labels={**template.metadata.labels, **stateful_set.spec.selector.match_labels},
            annotations=template.metadata.annotations,
        )
        found.append(PersistentVolumeClaim(metadata=metadata, spec=template.spec))
    return tuple(found)


def _volumes(
    stateful_set: StatefulSet, template: PodTemplateSpec, ordinal: int
) -> tuple[Volume, ...]:
    """The claims as volumes; one of the template's with such a name gives way."""
    claimed = tuple(
        Volume(
            name=claim.metadata.name,
            persistent_volume_claim=PersistentVolumeClaimVolumeSource(
                claim_name=claim_name(stateful_set, claim, ordinal)
            ),
        )
        for claim in stateful_set.spec.volume_claim_templates
    )
    names = {volume.name for volume in claimed}
    return (*claimed, *(v for v in template.spec.volumes if v.name not in names))


# --- when claims go -------------------------------------------------------------------------------


def claim_owner(stateful_set: StatefulSet, pod: Pod) -> OwnerReference | None:
    """Whose end is the end of the pod's claims (persistentVolumeClaimRetentionPolicy).

    The garbage collector does the deleting: a claim is owned by the set if it goes with the set,
    and by the pod if scaling down has condemned the pod and claims go with scaling down.
    """
    policy = stateful_set.spec.persistent_volume_claim_retention_policy
    when_deleted = policy.when_deleted if policy else RETAIN
    when_scaled = policy.when_scaled if policy else RETAIN
    condemned = ordinal_of(stateful_set, pod.metadata.name) not in ordinals_of(stateful_set)
    if condemned and when_scaled == DELETE:
        return owner_reference(pod)
    if when_deleted == DELETE:
        # Condemned pods' claims too: they are kept for a set that grows again, not for none.
        return owner_reference(stateful_set)
    return None


def with_owner(
    stateful_set: StatefulSet, pod: Pod, claim: PersistentVolumeClaim
) -> PersistentVolumeClaim:
    """The claim as the retention policy wants it; the same object if it is so already.

    Owners that others gave it stay, and a claim somebody else controls is left alone.
    """
    wanted = claim_owner(stateful_set, pod)
    ours = (stateful_set.metadata.uid, pod.metadata.uid)
    others = tuple(r for r in claim.metadata.owner_references if r.uid not in ours)
    if wanted is not None and any(r.controller for r in others):
        return claim
    references = others if wanted is None else (*others, wanted)
    if references == claim.metadata.owner_references:
        return claim
    metadata = msgspec.structs.replace(claim.metadata, owner_references=references)
    return msgspec.structs.replace(claim, metadata=metadata)


def is_stale(claim: PersistentVolumeClaim, name: str, uid: str) -> bool:
    """Does the claim go with an earlier pod of that name? Then a new pod must wait for its end."""
    return any(
        r.kind == "Pod" and r.name == name and r.uid != uid for r in claim.metadata.owner_references
    )
