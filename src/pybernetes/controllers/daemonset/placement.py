"""On which nodes a daemon set's pods run, and what such a pod looks like. Pure.

The scheduler binds daemon pods like others; each is tied to its node by a node affinity on the
node's name, and tolerates what nodes in trouble are tainted with, for it is part of the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.core.nodeselector import may_be_on
from pybernetes.api.core.taints import NO_EXECUTE, NO_SCHEDULE, untolerated
from pybernetes.api.types.core_v1 import (
    Affinity,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    Toleration,
)
from pybernetes.controllers.history import REVISION_LABEL
from pybernetes.controllers.podcontrol import pod_from_template

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.apps_v1 import DaemonSet
    from pybernetes.api.types.core_v1 import PodSpec

GENERATION_LABEL = "pod-template-generation"
GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
_NAME_FIELD = "metadata.name"


def _tolerates(taint: str, effect: str) -> Toleration:
    return Toleration(key=f"node.kubernetes.io/{taint}", operator="Exists", effect=effect)


_TOLERATIONS = (
    _tolerates("not-ready", NO_EXECUTE),
    _tolerates("unreachable", NO_EXECUTE),
    _tolerates("disk-pressure", NO_SCHEDULE),
    _tolerates("memory-pressure", NO_SCHEDULE),
    _tolerates("pid-pressure", NO_SCHEDULE),
    _tolerates("unschedulable", NO_SCHEDULE),
)
# A pod in the node's own network works before the pod network does; often it *is* the pod network.
_NETWORK_TOLERATION = _tolerates("network-unavailable", NO_SCHEDULE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node may have: a new pod, or at least the one it has."""

    should_run: bool
    may_stay: bool


def verdict_of(daemon_set: DaemonSet, node: Node) -> Verdict:
    """A taint that only keeps new pods away lets those that run stay."""
    template = daemon_set.spec.template.spec
    if template.node_name and template.node_name != node.metadata.name:
        return Verdict(False, False)
    if not may_be_on(Pod(spec=template), node):
        return Verdict(False, False)
    tolerations = tolerations_of(template)
    if untolerated(tolerations, node.spec.taints, (NO_SCHEDULE, NO_EXECUTE)) is None:
        return Verdict(True, True)
    driven_out = untolerated(tolerations, node.spec.taints, (NO_EXECUTE,)) is not None
    return Verdict(False, not driven_out)


def tolerations_of(template: PodSpec) -> tuple[Toleration, ...]:
    added = (*_TOLERATIONS, _NETWORK_TOLERATION) if template.host_network else _TOLERATIONS
    return (*template.tolerations, *(t for t in added if t not in template.tolerations))


def new_pod(daemon_set: DaemonSet, node_name: str, revision_hash: str) -> Pod:
    labels = {REVISION_LABEL: revision_hash}
    generation = daemon_set.metadata.annotations.get(GENERATION_ANNOTATION, "")
    if generation:
        labels[GENERATION_LABEL] = generation
    pod = pod_from_template(daemon_set.spec.template, daemon_set, labels=labels)
    spec = msgspec.structs.replace(
        pod.spec,
        affinity=_tied_to(pod.spec.affinity, node_name),
        tolerations=tolerations_of(pod.spec),
    )
    return msgspec.structs.replace(pod, spec=spec)


def _tied_to(affinity: Affinity | None, node_name: str) -> Affinity:
    """The affinity with the node's name for what it required: that was looked at before."""
    required = NodeSelector(
        node_selector_terms=(
            NodeSelectorTerm(
                match_fields=(
                    NodeSelectorRequirement(key=_NAME_FIELD, operator="In", values=(node_name,)),
                )
            ),
        )
    )
    affinity = affinity or Affinity()
    node_affinity = msgspec.structs.replace(
        affinity.node_affinity or NodeAffinity(),
        required_during_scheduling_ignored_during_execution=required,
    )
    return msgspec.structs.replace(affinity, node_affinity=node_affinity)


def target_of(pod: Pod) -> str:
    """The node a daemon pod is on or meant for; empty if it is for none in particular."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity
    node_affinity = affinity.node_affinity if affinity else None
    required = (
        node_affinity.required_during_scheduling_ignored_during_execution if node_affinity else None
    )
    for term in required.node_selector_terms if required else ():
        for field in term.match_fields:
            if field.key == _NAME_FIELD and field.operator == "In" and len(field.values) == 1:
                return field.values[0]
    return ""


def by_node(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """Pods by their target, oldest first."""
    found: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=_age):
        found.setdefault(target_of(pod), []).append(pod)
    return found


def _age(pod: Pod) -> tuple[bool, float, str]:
    """Bound before unbound, then old before young."""
    created = pod.metadata.creation_timestamp
    return (
        not pod.spec.node_name,
        created.timestamp() if created else float("inf"),
        pod.metadata.name,
    )
