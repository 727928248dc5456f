"""NodeRestriction: a node writes its own Node, the status of its own pods, and mirror pods.

The Node authorizer says which kinds a node may write; this says which objects, and what in
them: no taints off itself, no labels that administrators rely on, no pod that would hand it
somebody's secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import Pod
from pybernetes.api.user import NODES
from pybernetes.apimachinery.errors import Conflict, NotFound
from pybernetes.apiserver.admission.plugin import MIRROR_POD, Plugin, refused
from pybernetes.apiserver.authz.node import node_of
from pybernetes.apiserver.authz.references import (
    ACCOUNTS,
    CLAIMS,
    CONFIG_MAPS,
    RESOURCE_CLAIMS,
    SECRETS,
    references_of,
)
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import HARDLY_ANY, Typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pybernetes.api.types.core_v1 import Node
    from pybernetes.apiserver.admission.world import World
    from pybernetes.apiserver.hooks import Attributes

_RESTRICTED = "node-restriction.kubernetes.io"
# Labels of the kubernetes.io namespaces that a kubelet may set on its node.
_KUBELET_LABELS = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_KUBELET_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")

_REFERENCES = {
    ACCOUNTS: "a service account",
    SECRETS: "secrets",
    CONFIG_MAPS: "configmaps",
    CLAIMS: "persistentvolumeclaims",
    RESOURCE_CLAIMS: "resourceclaims",
}


class NodeRestriction(Plugin):
    def __init__(self, world: World) -> None:
        self._pods = Typed(world.catalog, Pod, keep=HARDLY_ANY)

    # Before the plugins behind it fill anything in: a mirror pod is judged as it was sent.
    async def mutate(self, attributes: Attributes) -> None:
        user = attributes.user
        if NODES not in user.groups or not user.name.startswith("system:node:"):
            return
        node = node_of(user)
        if not node:
            raise refused(attributes, f'could not determine node from user "{user.name}"')
        judge = _JUDGES.get((attributes.group, attributes.resource))
        if judge is not None:
            judge(self, attributes, node)

    # -- pods

    def _judge_pod(self, attributes: Attributes, node: str) -> None:
        subresource, operation = attributes.subresource, attributes.operation
        if subresource == "":
            if operation is Operation.CREATE:
                self._judge_new_pod(attributes, node)
            elif operation is Operation.DELETE:
                self._check_own_pod(attributes, node, "can only delete pods")
            return
        if subresource == "status":
            self._check_own_pod(attributes, node, "can only update pod status for pods")
            if attributes.obj.metadata.labels != attributes.old.metadata.labels:
                raise refused(attributes, f'node "{node}" cannot update labels through pod status')
        elif subresource == "eviction":
            self._check_own_pod(attributes, node, "can only evict pods")
        else:
            raise refused(
                attributes,
                f'unexpected pod subresource "{subresource}", only "status" and "eviction" are'
                " allowed",
            )

    def _check_own_pod(self, attributes: Attributes, node: str, what: str) -> None:
        pod: Pod | None = attributes.old
        if pod is None:  # an eviction is of another kind
            pod = self._pods.get(attributes.name, attributes.namespace)
        if pod is None:
            raise NotFound("pods", attributes.name)
        if pod.spec.node_name != node:
            raise refused(attributes, f'node "{node}" {what} with spec.nodeName set to itself')

    def _judge_new_pod(self, attributes: Attributes, node: str) -> None:
        pod: Pod = attributes.obj
        if MIRROR_POD not in pod.metadata.annotations:
            raise refused(
                attributes,
                f'pod does not have "{MIRROR_POD}" annotation, node "{node}" can only create'
                " mirror pods",
            )
        if pod.spec.node_name != node:
            raise refused(
                attributes, f'node "{node}" can only create pods with spec.nodeName set to itself'
            )
        for owner in pod.metadata.owner_references:
            if (owner.kind, owner.name) != ("Node", node) or not owner.controller:
                raise refused(
                    attributes,
                    f'node "{node}" can only create pods with an owner reference set to itself',
                )
        for resource, _ in references_of(pod.metadata.name, pod.spec):
            raise refused(
                attributes,
                f'node "{node}" can not create pods that reference {_REFERENCES[resource]}',
            )

    # -- its own Node

    def _judge_node(self, attributes: Attributes, node: str) -> None:
        name = attributes.name or attributes.obj.metadata.name
        if name != node:
            raise refused(attributes, f'node "{node}" is not allowed to modify node "{name}"')
        if attributes.operation is Operation.CREATE:
            lacking = forbidden_labels(attributes.obj.metadata.labels)
            if lacking:
                raise refused(
                    attributes,
                    f'node "{node}" is not allowed to set the following labels: {_list(lacking)}',
                )
        elif attributes.operation is Operation.UPDATE:
            self._judge_node_update(attributes, node, attributes.obj, attributes.old)

    def _judge_node_update(self, attributes: Attributes, node: str, new: Node, old: Node) -> None:
        if new.spec.taints != old.spec.taints:
            raise refused(attributes, f'node "{node}" is not allowed to modify taints')
        if new.metadata.owner_references != old.metadata.owner_references:
            raise refused(attributes, f'node "{node}" is not allowed to modify ownerReferences')
        changed = modified_labels(new.metadata.labels, old.metadata.labels)
        if lacking := forbidden_labels(dict.fromkeys(changed, "")):
            raise refused(
                attributes, f'node "{node}" is not allowed to modify labels: {_list(lacking)}'
            )

    # -- tokens, leases

    def _judge_token(self, attributes: Attributes, node: str) -> None:
        if attributes.subresource != "token":
            return
        reference = attributes.obj.spec.bound_object_ref
        if reference is None or (reference.api_version, reference.kind) != ("v1", "Pod"):
            raise refused(attributes, "node requested token not bound to a pod")
        if not reference.uid:
            raise refused(attributes, "node requested token with a pod binding without a uid")
        pod = self._pods.get(reference.name, attributes.namespace)
        if pod is None:
            raise NotFound("pods", reference.name)
        if pod.metadata.uid != reference.uid:
            raise Conflict(
                "pods",
                reference.name,
                f"the UID in the bound object reference ({reference.uid}) does not match the UID"
                " in record. The object might have been deleted and then recreated",
            )
        if pod.spec.node_name != node:
            raise refused(
                attributes, "node requested token bound to a pod scheduled on a different node"
            )

    def _judge_lease(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != "kube-node-lease":
            raise refused(
                attributes, 'can only access leases in the "kube-node-lease" system namespace'
            )
        if (attributes.name or attributes.obj.metadata.name) != node:
            raise refused(
                attributes, "can only access node lease with the same name as the requesting node"
            )

    def _judge_csi_node(self, attributes: Attributes, node: str) -> None:
        if (attributes.name or attributes.obj.metadata.name) != node:
            raise refused(
                attributes, "can only access CSINode with the same name as the requesting node"
            )


_JUDGES: dict[tuple[str, str], Any] = {
    ("", "pods"): NodeRestriction._judge_pod,
    ("", "nodes"): NodeRestriction._judge_node,
    ("", "serviceaccounts"): NodeRestriction._judge_token,
    ("coordination.k8s.io", "leases"): NodeRestriction._judge_lease,
    ("storage.k8s.io", "csinodes"): NodeRestriction._judge_csi_node,
}


# --- labels, purely -------------------------------------------------------------------------------


def modified_labels(new: Mapping[str, str], old: Mapping[str, str]) -> set[str]:
    return {key for key in {*new, *old} if new.get(key) != old.get(key)}


def forbidden_labels(labels: Iterable[str]) -> list[str]:
    """Those that a kubelet may not set on its node, in order."""
    return sorted(key for key in labels if _is_forbidden(key))


def _is_forbidden(key: str) -> bool:
    namespace = key.partition("/")[0] if "/" in key else ""
    if _within(namespace, _RESTRICTED):
        return True
    if not (_within(namespace, "kubernetes.io") or _within(namespace, "k8s.io")):
        return False
    if key in _KUBELET_LABELS:
        return False
    return not any(_within(namespace, allowed) for allowed in _KUBELET_NAMESPACES)


def _within(namespace: str, domain: str) -> bool:
    return namespace == domain or namespace.endswith(f".{domain}")


def _list(names: list[str]) -> str:
    return ", ".join(names)
