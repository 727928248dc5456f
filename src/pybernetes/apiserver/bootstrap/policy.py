"""The default roles and bindings, as data: upstream's, by name and content, and one of ours.

Each role is a tuple of rules; `can` writes one in a line. A cluster administrator may add to
these objects or protect one with the annotation `rbac.authorization.kubernetes.io/autoupdate:
"false"`; what is missing of an unprotected one is put back at every start (`reconcile`).

`admin`, `edit` and `view` have no rules of their own here: they gather them by label, from
these roles and from those of whoever extends the API.
"""

from __future__ import annotations

from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.api.types.rbac_v1 import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from pybernetes.apiserver.bootstrap.controllerroles import CONTROLLER_ROLES
from pybernetes.apiserver.bootstrap.rule import (
    CHANGE,
    EVENTS,
    LOOK,
    READ,
    can,
    can_get,
    own_lease,
)

AUTO_UPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {AUTO_UPDATE: "true"}
_GROUP = "rbac.authorization.k8s.io"
_TO = "rbac.authorization.k8s.io/aggregate-to-"

_PUBLIC = ("/livez", "/readyz", "/healthz", "/version", "/version/")
_WORKLOADS = (
    "deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
)

# --- roles of the whole cluster -------------------------------------------------------------------

CLUSTER_ROLES: dict[str, tuple[PolicyRule, ...]] = {
    "cluster-admin": (
        can("*", "*", group="*"),
        PolicyRule(verbs=("*",), non_resource_urls=("*",)),
    ),
    "system:discovery": (
        can_get(*_PUBLIC, "/openapi", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*"),
    ),
    "system:public-info-viewer": (can_get(*_PUBLIC),),
    "system:monitoring": (
        can_get(
            "/metrics",
            "/metrics/slis",
            "/livez",
            "/readyz",
            "/healthz",
            "/livez/*",
            "/readyz/*",
            "/healthz/*",
            "/statusz",
            "/flagz",
        ),
    ),
    "system:basic-user": (
        can(
            "create",
            "selfsubjectaccessreviews selfsubjectrulesreviews",
            group="authorization.k8s.io",
        ),
        can("create", "selfsubjectreviews", group="authentication.k8s.io"),
    ),
    "system:aggregate-to-admin": (
        can("create", "localsubjectaccessreviews", group="authorization.k8s.io"),
        can(f"{READ} {CHANGE}", "roles rolebindings", group=_GROUP),
    ),
    "system:aggregate-to-edit": (
        can(READ, "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
        can("impersonate", "serviceaccounts"),
        can(CHANGE, "pods pods/attach pods/proxy pods/exec pods/portforward"),
        can("create", "pods/eviction"),
        can(
            CHANGE,
            "configmaps events persistentvolumeclaims replicationcontrollers"
            " replicationcontrollers/scale secrets serviceaccounts services services/proxy",
        ),
        can("create", "serviceaccounts/token"),
        can(CHANGE, f"daemonsets deployments/rollback {_WORKLOADS}", group="apps"),
        can(CHANGE, "horizontalpodautoscalers", group="autoscaling"),
        can(CHANGE, "cronjobs jobs", group="batch"),
        can(CHANGE, "poddisruptionbudgets", group="policy"),
        can(CHANGE, "ingresses networkpolicies", group="networking.k8s.io"),
        can(CHANGE, "leases", group="coordination.k8s.io"),
        can(CHANGE, "resourceclaims resourceclaimtemplates", group="resource.k8s.io"),
    ),
    "system:aggregate-to-view": (
        can(
            READ,
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods"
            " replicationcontrollers replicationcontrollers/scale serviceaccounts services"
            " services/status",
        ),
        can(
            READ,
            "bindings events limitranges namespaces/status pods/log pods/status"
            " replicationcontrollers/status resourcequotas resourcequotas/status",
        ),
        can(READ, "namespaces"),
        can(READ, "endpointslices", group="discovery.k8s.io"),
        can(
            READ,
            "controllerrevisions daemonsets daemonsets/status deployments/status"
            f" replicasets/status statefulsets/status {_WORKLOADS}",
            group="apps",
        ),
        can(READ, "horizontalpodautoscalers horizontalpodautoscalers/status", group="autoscaling"),
        can(READ, "cronjobs cronjobs/status jobs jobs/status", group="batch"),
        can(READ, "poddisruptionbudgets poddisruptionbudgets/status", group="policy"),
        can(READ, "ingresses ingresses/status networkpolicies", group="networking.k8s.io"),
        can(READ, "leases", group="coordination.k8s.io"),
        can(
            READ,
            "resourceclaims resourceclaims/status resourceclaimtemplates",
            group="resource.k8s.io",
        ),
    ),
    # Bound to nobody: the Node authorizer gives nodes the same, narrowed down to what is theirs.
    "system:node": (
        can("create", "tokenreviews", group="authentication.k8s.io"),
        can(
            "create", "localsubjectaccessreviews subjectaccessreviews", group="authorization.k8s.io"
        ),
        can(READ, "services"),
        can(f"create patch update {READ}", "nodes"),
        can("patch update", "nodes/status"),
        *EVENTS,
        can(f"create delete {READ}", "pods"),
        can("patch update", "pods/status"),
        can("create", "pods/eviction"),
        can(READ, "configmaps secrets"),
        can("get", "persistentvolumeclaims persistentvolumes"),
        can("get patch update", "persistentvolumeclaims/status"),
        can("get", "endpoints"),
        can(f"create {READ}", "certificatesigningrequests", group="certificates.k8s.io"),
        can("create delete get patch update", "leases", group="coordination.k8s.io"),
        can("get", "volumeattachments", group="storage.k8s.io"),
        can("create", "serviceaccounts/token"),
        can(READ, "csidrivers", group="storage.k8s.io"),
        can("create delete get patch update", "csinodes", group="storage.k8s.io"),
        can(READ, "runtimeclasses", group="node.k8s.io"),
        can("get", "resourceclaims", group="resource.k8s.io"),
        can(
            f"create delete deletecollection patch update {READ}",
            "resourceslices",
            group="resource.k8s.io",
        ),
    ),
    "system:node-problem-detector": (
        can("get", "nodes"),
        can("patch", "nodes/status"),
        *EVENTS,
    ),
    "system:kubelet-api-admin": (
        can("get list watch proxy", "nodes"),
        can(
            "*",
            "nodes/proxy nodes/log nodes/metrics nodes/stats nodes/configz nodes/healthz nodes/pods",
        ),
    ),
    "system:node-bootstrapper": (
        can("create get list watch", "certificatesigningrequests", group="certificates.k8s.io"),
    ),
    "system:auth-delegator": (
        can("create", "tokenreviews", group="authentication.k8s.io"),
        can("create", "subjectaccessreviews", group="authorization.k8s.io"),
    ),
    "system:kube-aggregator": (can(READ, "services endpoints"),),
    "system:kube-controller-manager": (
        *EVENTS,
        can("create", "leases", group="coordination.k8s.io"),
        own_lease("kube-controller-manager"),
        can("create", "secrets serviceaccounts"),
        can("delete", "secrets"),
        can("get", "namespaces secrets serviceaccounts configmaps"),
        can("update", "secrets serviceaccounts"),
        can("create", "tokenreviews", group="authentication.k8s.io"),
        can("create", "subjectaccessreviews", group="authorization.k8s.io"),
        # All controllers share one set of watches, kinds defined later included.
        can("list watch", "*", group="*"),
        can("create", "serviceaccounts/token"),
    ),
    "system:kube-dns": (can(LOOK, "endpoints services"),),
    "system:persistent-volume-provisioner": (
        can("get list watch create delete", "persistentvolumes"),
        can("get list watch update", "persistentvolumeclaims"),
        can(READ, "storageclasses", group="storage.k8s.io"),
        can("watch", "events"),
        *EVENTS,
    ),
    "system:volume-scheduler": (
        can("get list watch patch update", "persistentvolumes"),
        can(READ, "storageclasses", group="storage.k8s.io"),
        can("get list watch patch update", "persistentvolumeclaims"),
    ),
    "system:service-account-issuer-discovery": (
        can_get("/.well-known/openid-configuration", "/openid/v1/jwks"),
    ),
    "system:node-proxier": (
        can(LOOK, "services endpoints"),
        can(READ, "nodes"),
        *EVENTS,
        can(LOOK, "endpointslices", group="discovery.k8s.io"),
        can(LOOK, "servicecidrs", group="networking.k8s.io"),
    ),
    "system:kube-scheduler": (
        *EVENTS,
        can("create", "leases", group="coordination.k8s.io"),
        own_lease("kube-scheduler"),
        can(READ, "nodes"),
        can("get list watch delete", "pods"),
        can("create", "bindings pods/binding"),
        can("patch update", "pods/status"),
        can(READ, "replicationcontrollers services"),
        can(READ, "replicasets statefulsets", group="apps"),
        can(READ, "poddisruptionbudgets", group="policy"),
        can(READ, "persistentvolumeclaims persistentvolumes namespaces"),
        can("create", "tokenreviews", group="authentication.k8s.io"),
        can("create", "subjectaccessreviews", group="authorization.k8s.io"),
        can(
            READ,
            "csinodes csidrivers csistoragecapacities volumeattachments",
            group="storage.k8s.io",
        ),
        can(READ, "deviceclasses resourceslices", group="resource.k8s.io"),
        can("get list watch update patch", "resourceclaims", group="resource.k8s.io"),
        can(
            "update patch", "resourceclaims/status resourceclaims/binding", group="resource.k8s.io"
        ),
    ),
    # Upstream has people approve serving certificates of nodes; ours are approved by rule.
    "pybernetes:selfnodeserver": (
        can("create", "certificatesigningrequests/selfnodeserver", group="certificates.k8s.io"),
    ),
    # A node agent is kubelet, proxy, pod network and DNS under one identity: beyond what the Node
    # authorizer lets a kubelet do it looks at what the other three follow.
    "pybernetes:node-network": (
        can(LOOK, "endpoints namespaces nodes services"),
        can(LOOK, "endpointslices", group="discovery.k8s.io"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        can("create", "certificatesigningrequests/nodeclient", group="certificates.k8s.io"),
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        can("create", "certificatesigningrequests/selfnodeclient", group="certificates.k8s.io"),
    ),
    **{
        f"system:certificates.k8s.io:{name}-approver": (
            can("approve", "signers", group="certificates.k8s.io", names=f"kubernetes.io/{name}"),
        )
        for name in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving")
    },
    "system:certificates.k8s.io:legacy-unknown-approver": (
        can(
            "approve", "signers", group="certificates.k8s.io", names="kubernetes.io/legacy-unknown"
        ),
    ),
}

# Roles that gather the rules of others, by the label suffix of what they gather.
AGGREGATED = {"admin": "admin", "edit": "edit", "view": "view"}

# Which role is gathered by which.
_GATHERED_BY = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
}

# --- who is bound to what -------------------------------------------------------------------------

_ACCOUNT, _USER, _IN_GROUP = "ServiceAccount", "User", "Group"

CLUSTER_BINDINGS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "cluster-admin": ("cluster-admin", ((_IN_GROUP, "system:masters"),)),
    "system:monitoring": ("system:monitoring", ((_IN_GROUP, "system:monitoring"),)),
    "system:discovery": ("system:discovery", ((_IN_GROUP, "system:authenticated"),)),
    "system:basic-user": ("system:basic-user", ((_IN_GROUP, "system:authenticated"),)),
    "system:public-info-viewer": (
        "system:public-info-viewer",
        ((_IN_GROUP, "system:authenticated"), (_IN_GROUP, "system:unauthenticated")),
    ),
    "system:node-proxier": ("system:node-proxier", ((_USER, "system:kube-proxy"),)),
    "system:kube-controller-manager": (
        "system:kube-controller-manager",
        ((_USER, "system:kube-controller-manager"),),
    ),
    "system:kube-dns": ("system:kube-dns", ((_ACCOUNT, "kube-dns"),)),
    "system:kube-scheduler": ("system:kube-scheduler", ((_USER, "system:kube-scheduler"),)),
    "system:volume-scheduler": ("system:volume-scheduler", ((_USER, "system:kube-scheduler"),)),
    "system:node": ("system:node", ()),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        ((_IN_GROUP, "system:serviceaccounts"),),
    ),
    "pybernetes:node-network": ("pybernetes:node-network", ((_IN_GROUP, "system:nodes"),)),
    "pybernetes:node-autoapprove-serving": (
        "pybernetes:selfnodeserver",
        ((_IN_GROUP, "system:nodes"),),
    ),
    # How machines join, named as kubeadm names it: a bootstrap token may ask for a certificate,
    # the first one and each renewal are approved without a person.
    "kubeadm:kubelet-bootstrap": (
        "system:node-bootstrapper",
        ((_IN_GROUP, "system:bootstrappers"),),
    ),
    "kubeadm:node-autoapprove-bootstrap": (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        ((_IN_GROUP, "system:bootstrappers"),),
    ),
    "kubeadm:node-autoapprove-certificate-rotation": (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        ((_IN_GROUP, "system:nodes"),),
    ),
    **{
        f"system:controller:{name}": (f"system:controller:{name}", ((_ACCOUNT, name),))
        for name in CONTROLLER_ROLES
    },
}

# --- roles in namespaces --------------------------------------------------------------------------

_AUTHENTICATION = "extension-apiserver-authentication"
_LOCK = "system::leader-locking-"

# By namespace, then name.
ROLES: dict[str, dict[str, tuple[PolicyRule, ...]]] = {
    "kube-system": {
        f"{_AUTHENTICATION}-reader": (can(READ, "configmaps", names=_AUTHENTICATION),),
        "system:controller:bootstrap-signer": (can(READ, "secrets"),),
        "system:controller:cloud-provider": (can("create get list watch", "configmaps"),),
        "system:controller:token-cleaner": (can("get list watch delete", "secrets"), *EVENTS),
        **{
            f"{_LOCK}{name}": (
                can("watch", "configmaps"),
                can("get update", "configmaps", names=name),
            )
            for name in ("kube-controller-manager", "kube-scheduler")
        },
    },
    "kube-public": {
        "system:controller:bootstrap-signer": (
            can(READ, "configmaps"),
            can("update", "configmaps", names="cluster-info"),
            *EVENTS,
        ),
        # For machines that join: the CA, before they can show who they are, and the settings.
        "kubeadm:bootstrap-signer-clusterinfo": (can("get", "configmaps", names="cluster-info"),),
        "pybernetes:join": (can("get", "configmaps", names="p8s-cluster"),),
    },
}

# By namespace, then name: the role of the same namespace, and subjects.
BINDINGS: dict[str, dict[str, tuple[str, tuple[tuple[str, str], ...]]]] = {
    "kube-system": {
        f"system::{_AUTHENTICATION}-reader": (
            f"{_AUTHENTICATION}-reader",
            ((_USER, "system:kube-controller-manager"), (_USER, "system:kube-scheduler")),
        ),
        **{
            f"{_LOCK}{name}": (
                f"{_LOCK}{name}",
                ((_USER, f"system:{name}"), (_ACCOUNT, name)),
            )
            for name in ("kube-controller-manager", "kube-scheduler")
        },
        **{
            f"system:controller:{name}": (f"system:controller:{name}", ((_ACCOUNT, name),))
            for name in ("bootstrap-signer", "cloud-provider", "token-cleaner")
        },
    },
    "kube-public": {
        "system:controller:bootstrap-signer": (
            "system:controller:bootstrap-signer",
            ((_ACCOUNT, "bootstrap-signer"),),
        ),
        "kubeadm:bootstrap-signer-clusterinfo": (
            "kubeadm:bootstrap-signer-clusterinfo",
            ((_USER, "system:anonymous"),),
        ),
        "pybernetes:join": (
            "pybernetes:join",
            ((_IN_GROUP, "system:bootstrappers"), (_IN_GROUP, "system:nodes")),
        ),
    },
}

# --- as objects -----------------------------------------------------------------------------------


def default_cluster_roles() -> list[ClusterRole]:
    roles = [
        ClusterRole(metadata=_metadata(name), rules=rules)
        for name, rules in (*CLUSTER_ROLES.items(), *_controller_roles())
    ]
    for name, suffix in AGGREGATED.items():
        selector = LabelSelector(match_labels={f"{_TO}{suffix}": "true"})
        roles.append(
            ClusterRole(
                metadata=_metadata(name),
                rules=_gathered(suffix),
                aggregation_rule=AggregationRule(cluster_role_selectors=(selector,)),
            )
        )
    return roles


def _controller_roles() -> list[tuple[str, tuple[PolicyRule, ...]]]:
    return [(f"system:controller:{name}", rules) for name, rules in CONTROLLER_ROLES.items()]


def _gathered(suffix: str) -> tuple[PolicyRule, ...]:
    """What the aggregation controller will find: there from the start, so that nobody waits."""
    rules: dict[PolicyRule, None] = {}
    for name in sorted(name for name, by in _GATHERED_BY.items() if by == suffix):
        found = _gathered(name) if name in AGGREGATED else CLUSTER_ROLES[name]
        rules.update(dict.fromkeys(found))
    return tuple(rules)


def default_cluster_role_bindings() -> list[ClusterRoleBinding]:
    return [
        ClusterRoleBinding(
            metadata=_metadata(name),
            role_ref=RoleRef(api_group=_GROUP, kind="ClusterRole", name=role),
            subjects=tuple(_subject(kind, who) for kind, who in subjects),
        )
        for name, (role, subjects) in CLUSTER_BINDINGS.items()
    ]


def default_roles() -> list[Role]:
    return [
        Role(metadata=_metadata(name, namespace), rules=rules)
        for namespace, roles in ROLES.items()
        for name, rules in roles.items()
    ]


def default_role_bindings() -> list[RoleBinding]:
    return [
        RoleBinding(
            metadata=_metadata(name, namespace),
            role_ref=RoleRef(api_group=_GROUP, kind="Role", name=role),
            subjects=tuple(_subject(kind, who) for kind, who in subjects),
        )
        for namespace, bindings in BINDINGS.items()
        for name, (role, subjects) in bindings.items()
    ]


def _metadata(name: str, namespace: str = "") -> ObjectMeta:
    labels = _LABELS
    if name in _GATHERED_BY:
        labels = {**labels, f"{_TO}{_GATHERED_BY[name]}": "true"}
    return ObjectMeta(name=name, namespace=namespace, labels=labels, annotations=_ANNOTATIONS)


def _subject(kind: str, name: str) -> Subject:
    if kind == _ACCOUNT:
        return Subject(kind=kind, name=name, namespace="kube-system")
    return Subject(kind=kind, name=name, api_group=_GROUP)
