"""Node selectors: which nodes a pod or a volume may be on (field: nodeSelectorTerms).

Terms are alternatives; the requirements of one term must all hold. A term without requirements
matches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.api.types.core_v1 import (
        Node,
        NodeSelector,
        NodeSelectorRequirement,
        NodeSelectorTerm,
        Pod,
    )


def matches_node_selector(selector: NodeSelector, node: Node) -> bool:
    return any(matches_term(term, node) for term in selector.node_selector_terms)


def matches_term(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(_holds(r, node.metadata.labels) for r in term.match_expressions) and all(
        _holds(r, fields) for r in term.match_fields
    )


def required_selector(pod: Pod) -> NodeSelector | None:
    """The required node affinity of a pod."""
    affinity = pod.spec.affinity
    terms = affinity.node_affinity if affinity else None
    return terms.required_during_scheduling_ignored_during_execution if terms else None


def may_be_on(pod: Pod, node: Node) -> bool:
    """Whether the node satisfies the pod's nodeSelector and required node affinity."""
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    required = required_selector(pod)
    return required is None or matches_node_selector(required, node)


def _holds(requirement: NodeSelectorRequirement, values: Mapping[str, str]) -> bool:
    value = values.get(requirement.key)
    operator = requirement.operator
    if operator == "In":
        return value is not None and value in requirement.values
    if operator == "NotIn":
        return value is None or value not in requirement.values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator in ("Gt", "Lt") and value is not None and len(requirement.values) == 1:
        try:
            mine, bound = int(value), int(requirement.values[0])
        except ValueError:
            return False
        return mine > bound if operator == "Gt" else mine < bound
    return False
