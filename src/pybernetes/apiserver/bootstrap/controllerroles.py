"""What each controller may do: `system:controller:<name>`, bound to the account of that name.

Names are upstream's, so that a policy or an audit rule written for Kubernetes fits. A controller
writes with these; what it reads comes from caches that are shared by all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.apiserver.bootstrap.rule import EVENTS, LOOK, READ, can

if TYPE_CHECKING:
    from pybernetes.api.types.rbac_v1 import PolicyRule

_CERTIFICATES, _RBAC = "certificates.k8s.io", "rbac.authorization.k8s.io"
_STORAGE, _CLAIMS = "storage.k8s.io", "resource.k8s.io"

CONTROLLER_ROLES: dict[str, tuple[PolicyRule, ...]] = {
    "attachdetach-controller": (
        can(LOOK, "persistentvolumes persistentvolumeclaims"),
        can("get list watch", "nodes"),
        can("patch update", "nodes/status"),
        can(LOOK, "pods"),
        *EVENTS,
        can("get create delete list watch", "volumeattachments", group=_STORAGE),
        can(READ, "csidrivers csinodes", group=_STORAGE),
    ),
    "clusterrole-aggregation-controller": (
        # Gathering rules is granting them: it must be able to grant everything.
        can("escalate get list patch update watch", "clusterroles", group=_RBAC),
    ),
    "cronjob-controller": (
        can("get list update watch", "cronjobs", group="batch"),
        can("create delete get list patch update watch", "jobs", group="batch"),
        can("update", "cronjobs/status cronjobs/finalizers", group="batch"),
        can("delete list", "pods"),
        *EVENTS,
    ),
    "daemon-set-controller": (
        can(READ, "daemonsets", group="apps"),
        can("update", "daemonsets/status daemonsets/finalizers", group="apps"),
        can(LOOK, "nodes"),
        can("create delete list patch watch", "pods"),
        can("create", "pods/binding"),
        can("create delete get list patch update watch", "controllerrevisions", group="apps"),
        *EVENTS,
    ),
    "deployment-controller": (
        can("get list update watch", "deployments", group="apps"),
        can("update", "deployments/status deployments/finalizers", group="apps"),
        can("create delete get list patch update watch", "replicasets", group="apps"),
        can("get list update watch", "pods"),
        *EVENTS,
    ),
    "disruption-controller": (
        can(READ, "deployments replicasets statefulsets", group="apps"),
        can(READ, "replicationcontrollers"),
        can(READ, "poddisruptionbudgets", group="policy"),
        can("update", "poddisruptionbudgets/status", group="policy"),
        can("get list watch", "pods"),
        can("patch update", "pods/status"),
        can("get", "*/scale", group="*"),
        *EVENTS,
    ),
    "endpoint-controller": (
        can(READ, "pods services"),
        can("create delete get list update", "endpoints"),
        can("create", "endpoints/restricted"),
        *EVENTS,
    ),
    "endpointslice-controller": (
        can(READ, "nodes pods services"),
        can("update", "services/finalizers"),
        can("create delete get list update", "endpointslices", group="discovery.k8s.io"),
        can("create", "endpointslices/restricted", group="discovery.k8s.io"),
        *EVENTS,
    ),
    "endpointslicemirroring-controller": (
        can(READ, "endpoints services"),
        can("update", "services/finalizers endpoints/finalizers"),
        can("create delete get list update", "endpointslices", group="discovery.k8s.io"),
        can("create", "endpointslices/restricted", group="discovery.k8s.io"),
        *EVENTS,
    ),
    "ephemeral-volume-controller": (
        can("update", "pods/finalizers"),
        can(READ, "pods"),
        can("create get list watch", "persistentvolumeclaims"),
        *EVENTS,
    ),
    "expand-controller": (
        can("get list patch update watch", "persistentvolumes"),
        can("get list watch", "persistentvolumeclaims"),
        can("patch update", "persistentvolumeclaims/status"),
        can(READ, "storageclasses", group=_STORAGE),
        *EVENTS,
    ),
    "generic-garbage-collector": (
        can("delete get list patch update watch", "*", group="*"),
        *EVENTS,
    ),
    "horizontal-pod-autoscaler": (
        can(READ, "horizontalpodautoscalers", group="autoscaling"),
        can("update", "horizontalpodautoscalers/status", group="autoscaling"),
        can("get update", "*/scale", group="*"),
        can("list", "pods"),
        can("list", "pods", group="metrics.k8s.io"),
        can("get list", "*", group="custom.metrics.k8s.io external.metrics.k8s.io"),
        *EVENTS,
    ),
    "job-controller": (
        can("get list patch update watch", "jobs", group="batch"),
        can("update", "jobs/status jobs/finalizers", group="batch"),
        can("create delete list patch watch", "pods"),
        *EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        can("get", "configmaps", names="kube-apiserver-legacy-service-account-token-tracking"),
        can("delete patch", "secrets"),
    ),
    "namespace-controller": (
        can("delete get list watch", "namespaces"),
        can("update", "namespaces/finalize namespaces/status"),
        # Whatever there is in a namespace that is being deleted.
        can("delete deletecollection get list", "*", group="*"),
    ),
    "node-controller": (
        can("delete get list patch update watch", "nodes"),
        can("patch update", "nodes/status"),
        can("patch update", "pods/status"),
        can("delete list get", "pods"),
        can("create delete get list update", "clustercidrs", group="networking.k8s.io"),
        *EVENTS,
    ),
    "persistent-volume-binder": (
        can("create delete get list update watch", "persistentvolumes"),
        can("update", "persistentvolumes/status"),
        can("get list update watch", "persistentvolumeclaims"),
        can("update", "persistentvolumeclaims/status"),
        can("create delete get list watch", "pods"),
        can(READ, "storageclasses", group=_STORAGE),
        can("get list", "nodes"),
        can("get list watch create delete", "services endpoints"),
        can("get list", "secrets"),
        *EVENTS,
    ),
    "pod-garbage-collector": (
        can("delete list watch", "pods"),
        can("get list", "nodes"),
        can("patch", "pods/status"),
    ),
    "pv-protection-controller": (can("get list update watch", "persistentvolumes"), *EVENTS),
    "pvc-protection-controller": (
        can("get list update watch", "persistentvolumeclaims"),
        can(READ, "pods"),
        *EVENTS,
    ),
    "replicaset-controller": (
        can("get list update watch", "replicasets", group="apps"),
        can("update", "replicasets/status replicasets/finalizers", group="apps"),
        can("create delete list patch watch", "pods"),
        *EVENTS,
    ),
    "replication-controller": (
        can("get list update watch", "replicationcontrollers"),
        can("update", "replicationcontrollers/status replicationcontrollers/finalizers"),
        can("create delete list patch watch", "pods"),
        *EVENTS,
    ),
    "resource-claim-controller": (
        can(READ, "pods"),
        can("update", "pods/finalizers"),
        can("create delete get list watch", "resourceclaims", group=_CLAIMS),
        can("patch update", "resourceclaims/status", group=_CLAIMS),
        can("patch update", "pods/status"),
        *EVENTS,
    ),
    "resourcequota-controller": (
        can("list watch", "*", group="*"),
        can("update", "resourcequotas/status"),
        *EVENTS,
    ),
    "root-ca-cert-publisher": (can("create update", "configmaps"), *EVENTS),
    "route-controller": (
        can(LOOK, "nodes"),
        can("patch", "nodes/status"),
        *EVENTS,
    ),
    "service-account-controller": (can("create", "serviceaccounts"), *EVENTS),
    # Upstream's has no role of its own: it acts as the whole controller manager.
    "service-account-token-controller": (
        can("get", "serviceaccounts"),
        can("update delete", "secrets"),
    ),
    "service-controller": (
        can(READ, "services"),
        can("patch update", "services/status"),
        can(LOOK, "nodes"),
        *EVENTS,
    ),
    "statefulset-controller": (
        can(READ, "statefulsets", group="apps"),
        can("update", "statefulsets/status statefulsets/finalizers", group="apps"),
        can("create delete get list patch update watch", "pods"),
        can("create delete get list patch update watch", "controllerrevisions", group="apps"),
        can("create delete get list patch update watch", "persistentvolumeclaims"),
        *EVENTS,
    ),
    "ttl-after-finished-controller": (can("delete get list watch", "jobs", group="batch"), *EVENTS),
    "ttl-controller": (can("list patch update watch", "nodes"), *EVENTS),
    "certificate-controller": (
        can("delete get list watch", "certificatesigningrequests", group=_CERTIFICATES),
        can(
            "update",
            "certificatesigningrequests/approval certificatesigningrequests/status",
            group=_CERTIFICATES,
        ),
        can(
            "approve sign",
            "signers",
            group=_CERTIFICATES,
            names="kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving"
            " kubernetes.io/kube-apiserver-client kubernetes.io/legacy-unknown",
        ),
        can("create", "subjectaccessreviews", group="authorization.k8s.io"),
        *EVENTS,
    ),
    "validatingadmissionpolicy-status-controller": (
        can(READ, "validatingadmissionpolicies", group="admissionregistration.k8s.io"),
        can(
            "get patch update",
            "validatingadmissionpolicies/status",
            group="admissionregistration.k8s.io",
        ),
        *EVENTS,
    ),
    "device-taint-eviction-controller": (
        can("get list watch delete", "pods"),
        can("patch update", "pods/status"),
        can(LOOK, "resourceclaims resourceslices devicetaintrules deviceclasses", group=_CLAIMS),
        *EVENTS,
    ),
}
