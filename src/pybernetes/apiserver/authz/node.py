"""The Node authorizer: a node may do what its own pods need, and no more.

A node (`system:node:<name>` in `system:nodes`) reads the secrets, config maps, claims and
volumes that pods bound to it refer to, gets tokens for their accounts, watches its own pods and
its own Node object, and writes its lease. Everything else it may do for all objects alike is a
short list of rules. What it may write into its objects is NodeRestriction's business.

The graph behind it is kept up with the pods: a pod's references are read once, when it is
bound. It is built when the first node asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import PersistentVolume, PersistentVolumeClaim, Pod
from pybernetes.api.types.storage_v1 import VolumeAttachment
from pybernetes.api.user import NODES
from pybernetes.apimachinery.selector import parse_field_selector
from pybernetes.apiserver.authz.references import (
    ACCOUNTS,
    CLAIMS,
    CONFIG_MAPS,
    RESOURCE_CLAIMS,
    SECRETS,
    references_of,
)
from pybernetes.apiserver.authz.rules import Grants
from pybernetes.apiserver.bootstrap.rule import EVENTS, READ, can
from pybernetes.apiserver.hooks import Access, Decision, Verdict
from pybernetes.apiserver.typed import HARDLY_ANY, Typed

if TYPE_CHECKING:
    from pybernetes.api.user import UserInfo
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.apiserver.watchcache import Event

_PREFIX = "system:node:"
_STORAGE, _COORDINATION, _RESOURCE = "storage.k8s.io", "coordination.k8s.io", "resource.k8s.io"

# What a node may do whatever the object; the rest is in `_judge`.
NODE_RULES = (
    can("create", "tokenreviews", group="authentication.k8s.io"),
    can("create", "subjectaccessreviews localsubjectaccessreviews", group="authorization.k8s.io"),
    can(READ, "services"),
    *EVENTS,
    can("create get list watch", "certificatesigningrequests", group="certificates.k8s.io"),
    can(READ, "csidrivers", group=_STORAGE),
    can(READ, "runtimeclasses", group="node.k8s.io"),
    can(READ, "clustertrustbundles", group="certificates.k8s.io"),
    can("create", "podcertificaterequests", group="certificates.k8s.io"),
    can(READ, "podcertificaterequests", group="certificates.k8s.io"),
)

ALLOWED = Decision(Verdict.ALLOW)

# What the JSON of a bound pod contains; some others do too, which costs a look.
_BOUND = b'"nodeName":"'

# (resource, namespace, name)
_Target = tuple[str, str, str]


def node_of(user: UserInfo) -> str:
    """The name of the node; empty if the user is none."""
    if user.name.startswith(_PREFIX) and NODES in user.groups:
        return user.name.removeprefix(_PREFIX)
    return ""


class NodeGraph:
    """What the pods of each node refer to."""

    def __init__(self, catalog: Catalog) -> None:
        self._pods = Typed(catalog, Pod, keep=HARDLY_ANY)
        self._claims = Typed(catalog, PersistentVolumeClaim)
        self._volumes = Typed(catalog, PersistentVolume)
        self._attachments = Typed(catalog, VolumeAttachment)
        # Key of a bound pod → its node and what it refers to.
        self._known: dict[str, tuple[str, frozenset[_Target]]] = {}
        # (node, target) → how many pods of the node refer to it.
        self._count: dict[tuple[str, _Target], int] = {}
        self._filled = False
        self._pods.follow(self._on_change)

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        for entry in self._pods.entries():
            if _BOUND in entry.value:
                self._add(entry.key, self._pods.decode(entry))

    def _on_change(self, event: Event) -> None:
        if not self._filled:
            return
        entry = event.entry
        if event.deleted:
            self._remove(entry.key)
            return
        # A bound pod's references are settled, but for containers added to debug it.
        if entry.key in self._known and b'"ephemeralContainers"' not in entry.value:
            return
        if _BOUND not in entry.value:
            return
        self._remove(entry.key)
        self._add(entry.key, self._pods.decode(entry))

    def _add(self, key: str, pod: Pod) -> None:
        node, namespace = pod.spec.node_name, pod.metadata.namespace
        if not node:
            return
        targets = frozenset(
            (resource, namespace, name)
            for resource, name in references_of(pod.metadata.name, pod.spec)
            if name
        )
        self._known[key] = (node, targets)
        for target in targets:
            self._count[node, target] = self._count.get((node, target), 0) + 1

    def _remove(self, key: str) -> None:
        node, targets = self._known.pop(key, ("", frozenset()))
        for target in targets:
            left = self._count[node, target] - 1
            if left:
                self._count[node, target] = left
            else:
                del self._count[node, target]

    def refers(self, node: str, resource: str, namespace: str, name: str) -> bool:
        self._fill()
        return (node, (resource, namespace, name)) in self._count

    def has_pod(self, node: str, namespace: str, name: str) -> bool:
        self._fill()
        return self._known.get(f"{namespace}/{name}", ("",))[0] == node

    def has_volume(self, node: str, name: str) -> bool:
        volume = self._volumes.get(name)
        claim = None if volume is None else volume.spec.claim_ref
        return claim is not None and self.refers(node, CLAIMS, claim.namespace, claim.name)

    def has_attachment(self, node: str, name: str) -> bool:
        attachment = self._attachments.get(name)
        return attachment is not None and attachment.spec.node_name == node

    def check_invariants(self) -> None:
        count: dict[tuple[str, _Target], int] = {}
        for node, targets in self._known.values():
            for target in targets:
                count[node, target] = count.get((node, target), 0) + 1
        assert count == self._count


class NodeAuthorizer:
    def __init__(self, graph: NodeGraph) -> None:
        self._graph = graph
        self._rules = Grants(NODE_RULES)

    async def authorize(self, access: Access) -> Decision:
        return self.decide(access)

    def decide(self, access: Access) -> Decision:
        user = access.user
        if NODES not in user.groups:
            return _SILENT
        node = node_of(user)
        if not node:
            return _no(f"unknown node for user {_quoted(user.name)}")
        if access.is_resource and (judge := _JUDGES.get((access.group, access.resource))):
            return judge(self._graph, node, access)
        return ALLOWED if self._rules.allows(access) else _SILENT


_SILENT = Decision(Verdict.NO_OPINION)


def _no(reason: str) -> Decision:
    return Decision(Verdict.NO_OPINION, reason)


def _quoted(text: str) -> str:
    return f'"{text}"'


# --- one function per resource that is judged by what belongs to the node -------------------------


def _related(graph: NodeGraph, node: str, access: Access) -> Decision:
    if not access.name:
        return _no("No Object name found")
    if graph.refers(node, access.resource, access.namespace, access.name):
        return ALLOWED
    return _unrelated(node)


def _unrelated(node: str) -> Decision:
    return _no(f"no relationship found between node '{node}' and this object")


def _judge_readable(graph: NodeGraph, node: str, access: Access) -> Decision:
    """Secrets and config maps: read, or watch by name."""
    if access.verb not in ("get", "list", "watch"):
        return _no("can only read resources of this type")
    if access.subresource:
        return _no("cannot read subresource")
    if not access.name:
        return _no("No Object name found")
    return _related(graph, node, access)


def _judge_claim(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.subresource == "status":
        if access.verb in ("update", "patch"):
            return _related(graph, node, access)
        return _no("can only update the status of this type")
    return _judge_gettable(graph, node, access)


def _judge_gettable(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb != "get":
        return _no("can only get individual resources of this type")
    if access.subresource:
        return _no("cannot get subresource")
    return _related(graph, node, access)


def _judge_volume(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb != "get" or access.subresource:
        return _no("can only get individual resources of this type")
    return ALLOWED if graph.has_volume(node, access.name) else _unrelated(node)


def _judge_attachment(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb != "get" or access.subresource:
        return _no("can only get individual resources of this type")
    return ALLOWED if graph.has_attachment(node, access.name) else _unrelated(node)


def _judge_account(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.subresource == "token":
        if access.verb != "create":
            return _no("can only create tokens for individual service accounts")
    elif access.subresource or access.verb != "get":
        return _no("can only get individual resources of this type")
    return _related(graph, node, access)


def _judge_lease(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb not in ("get", "create", "update", "patch", "delete"):
        return _no("can only get, create, update, patch, or delete a node lease")
    if access.namespace != "kube-node-lease":
        return _no('can only access leases in the "kube-node-lease" system namespace')
    if access.verb != "create" and access.name != node:
        return _no("can only access node lease with the same name as the requesting node")
    return ALLOWED


def _judge_csi_node(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb not in ("get", "create", "update", "patch", "delete"):
        return _no("can only get, create, update, patch, or delete a CSINode")
    if access.subresource:
        return _no("cannot authorize CSINode subresources")
    if access.verb != "create" and access.name != node:
        return _no("can only access CSINode with the same name as the requesting node")
    return ALLOWED


def _judge_node(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.subresource == "status":
        return ALLOWED if access.verb in ("update", "patch") else _SILENT
    if access.subresource:
        return _SILENT
    if access.verb in ("create", "update", "patch"):
        return ALLOWED
    if access.verb in ("get", "list", "watch"):
        if access.name == node:
            return ALLOWED
        if not access.name:
            return _no(f"node '{node}' cannot read all nodes, only its own Node object")
        return _no(f"node '{node}' cannot read '{access.name}', only its own Node object")
    return _SILENT


def _judge_pod(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.subresource == "status":
        return ALLOWED if access.verb in ("update", "patch") else _SILENT
    if access.subresource == "eviction":
        return ALLOWED if access.verb == "create" else _SILENT
    if access.subresource:
        return _SILENT
    if access.verb in ("create", "delete"):
        return ALLOWED
    if access.verb == "get":
        if graph.has_pod(node, access.namespace, access.name):
            return ALLOWED
        return _unrelated(node)
    if access.verb in ("list", "watch"):
        if access.name and graph.has_pod(node, access.namespace, access.name):
            return ALLOWED
        if _selects_node(access.field_selector, node):
            return ALLOWED
        return _no("can only list/watch pods with spec.nodeName field selector")
    return _SILENT


def _selects_node(selector: str, node: str) -> bool:
    if not selector:
        return False
    try:
        return parse_field_selector(selector).required_value("spec.nodeName") == node
    except ValueError:
        return False


def _judge_slice(graph: NodeGraph, node: str, access: Access) -> Decision:
    if access.verb == "deletecollection" or access.verb in ("list", "watch"):
        if _selects_node(access.field_selector, node):
            return ALLOWED
        return _no(
            "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
        )
    if access.verb in ("create", "get", "update", "patch", "delete") and not access.subresource:
        return ALLOWED
    return _SILENT


_JUDGES = {
    ("", SECRETS): _judge_readable,
    ("", CONFIG_MAPS): _judge_readable,
    ("", CLAIMS): _judge_claim,
    ("", ACCOUNTS): _judge_account,
    ("", "persistentvolumes"): _judge_volume,
    ("", "nodes"): _judge_node,
    ("", "pods"): _judge_pod,
    (_STORAGE, "volumeattachments"): _judge_attachment,
    (_STORAGE, "csinodes"): _judge_csi_node,
    (_COORDINATION, "leases"): _judge_lease,
    (_RESOURCE, RESOURCE_CLAIMS): _judge_gettable,
    (_RESOURCE, "resourceslices"): _judge_slice,
}
