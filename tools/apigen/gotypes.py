"""What the published schema does not say about the Go types behind it.

OpenAPI tells neither a pointer from a value nor an empty string from an absent one, but both are
visible in what a server answers: a Go struct value is always written (``status: {}``), a pointer
to an empty string stays (``storageClassName: ""``). These tables are short because the rules of
``model.py`` cover the rest; a Kubernetes upgrade has to look here when it adds such a field.
"""

from __future__ import annotations

# Optional by schema, but a struct value in Go: always there and always written.
# `metadata`, and `spec` and `status` of top-level kinds, need no entry.
STRUCT_VALUES: dict[str, tuple[str, ...]] = {
    "apiextensions_v1.CustomResourceDefinitionStatus": ("acceptedNames",),
    "apps_v1.DaemonSetSpec": ("updateStrategy",),
    "apps_v1.DeploymentSpec": ("strategy",),
    "apps_v1.ReplicaSetSpec": ("template",),
    "apps_v1.StatefulSetSpec": ("updateStrategy",),
    "authentication_v1.SelfSubjectReviewStatus": ("userInfo",),
    "authentication_v1.TokenReviewStatus": ("user",),
    "batch_v1.JobTemplateSpec": ("spec",),
    "core_v1.Container": ("resources",),
    "core_v1.ContainerStatus": ("lastState", "state"),
    "core_v1.EphemeralContainer": ("resources",),
    "core_v1.Event": ("source",),
    "core_v1.NodeDaemonEndpoints": ("kubeletEndpoint",),
    "core_v1.NodeStatus": ("daemonEndpoints", "nodeInfo"),
    "core_v1.PersistentVolumeClaimSpec": ("resources",),
    "core_v1.PodTemplate": ("template",),
    "core_v1.PodTemplateSpec": ("spec",),
    "core_v1.ServiceStatus": ("loadBalancer",),
    "discovery_v1.Endpoint": ("conditions",),
    "events_v1.Event": ("deprecatedSource", "regarding"),
    "meta_v1.APIGroup": ("preferredVersion",),
    "networking_v1.IngressServiceBackend": ("port",),
    "networking_v1.IngressStatus": ("loadBalancer",),
    "networking_v1.NetworkPolicySpec": ("podSelector",),
    "resource_v1.AllocationResult": ("devices",),
    "resource_v1.ResourceClaimSpec": ("devices",),
    "resource_v1.ResourceClaimTemplateSpec": ("spec",),
    "resource_v1beta1.AllocationResult": ("devices",),
    "resource_v1beta1.ResourceClaimSpec": ("devices",),
    "resource_v1beta1.ResourceClaimTemplateSpec": ("spec",),
    "resource_v1beta2.AllocationResult": ("devices",),
    "resource_v1beta2.ResourceClaimSpec": ("devices",),
    "resource_v1beta2.ResourceClaimTemplateSpec": ("spec",),
}

# Top-level fields named like struct values that are pointers after all.
STRUCT_POINTERS: dict[str, tuple[str, ...]] = {
    "resource_v1alpha3.ResourcePoolStatusRequest": ("status",),
}

# Optional strings that are pointers in Go and whose empty value says something else than absence.
STRING_POINTERS: dict[str, tuple[str, ...]] = {
    "batch_v1.CronJobSpec": ("timeZone",),
    "batch_v1.JobStatus": ("failedIndexes",),
    "core_v1.GRPCAction": ("service",),
    "core_v1.HostPathVolumeSource": ("type",),
    "core_v1.PersistentVolumeClaimSpec": ("storageClassName", "volumeAttributesClassName"),
    "core_v1.PersistentVolumeClaimStatus": ("currentVolumeAttributesClassName",),
    "core_v1.PersistentVolumeSpec": ("volumeAttributesClassName",),
    "core_v1.PodDNSConfigOption": ("value",),
    "core_v1.TypedLocalObjectReference": ("apiGroup",),
    "core_v1.TypedObjectReference": ("apiGroup", "namespace"),
    "discovery_v1.EndpointPort": ("appProtocol", "name"),
    "networking_v1.IngressClassParametersReference": ("apiGroup",),
    "networking_v1.IngressSpec": ("ingressClassName",),
    "resource_v1.DeviceAttribute": ("string", "version"),
    "resource_v1beta1.DeviceAttribute": ("string", "version"),
    "resource_v1beta2.DeviceAttribute": ("string", "version"),
}

# Integers of a status are counts whose absence is zero, except these pointers.
STATUS_INT_POINTERS: dict[str, tuple[str, ...]] = {
    "apps_v1.DeploymentStatus": ("terminatingReplicas",),
    "apps_v1.ReplicaSetStatus": ("terminatingReplicas",),
    "autoscaling_v1.HorizontalPodAutoscalerStatus": ("currentCPUUtilizationPercentage",),
    "autoscaling_v2.MetricValueStatus": ("averageUtilization",),
    "batch_v1.JobStatus": ("ready", "terminating"),
    "core_v1.NodeSwapStatus": ("capacity",),
    "resource_v1alpha3.PoolStatus": (
        "allocatedDevices",
        "availableDevices",
        "resourceSliceCount",
        "totalDevices",
        "unavailableDevices",
    ),
    "resource_v1alpha3.ResourcePoolStatusRequestStatus": ("poolCount",),
}

# Integers outside a status that are counts as well: compared with one of a status everywhere.
INT_VALUES: dict[str, tuple[str, ...]] = {
    "meta_v1.ObjectMeta": ("generation",),
    "meta_v1.Condition": ("observedGeneration",),
    "core_v1.PodCondition": ("observedGeneration",),
}

# Optional by schema, but without `omitempty` in Go: written even when zero.
ALWAYS_WRITTEN: dict[str, tuple[str, ...]] = {
    "apps_v1.ControllerRevision": ("revision",),
    "scheduling_v1.PriorityClass": ("value",),
}

# Optional numbers and booleans outside a status that Go holds as values: zero says nothing, and
# a writer's zero is dropped on decoding, as Go's `omitempty` would drop it on the way back.
ZERO_IS_ABSENT: dict[str, tuple[str, ...]] = {
    "apiextensions_v1.CustomResourceColumnDefinition": ("priority",),
    "apiextensions_v1.CustomResourceDefinitionCondition": ("observedGeneration",),
    "apiextensions_v1.CustomResourceDefinitionSpec": ("preserveUnknownFields",),
    "apiextensions_v1.CustomResourceDefinitionVersion": ("deprecated",),
    "apiextensions_v1.JSONSchemaProps": (
        "exclusiveMaximum",
        "exclusiveMinimum",
        "nullable",
        "uniqueItems",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ),
    "apiregistration_v1.APIServiceSpec": ("insecureSkipTLSVerify",),
    "apiserverinternal_v1alpha1.StorageVersionCondition": ("observedGeneration",),
    "apps_v1.DaemonSetSpec": ("minReadySeconds",),
    "apps_v1.DeploymentSpec": ("minReadySeconds", "paused"),
    "apps_v1.ReplicaSetSpec": ("minReadySeconds",),
    "apps_v1.StatefulSetSpec": ("minReadySeconds",),
    "authentication_v1.TokenReviewStatus": ("authenticated",),
    "authorization_v1.SubjectAccessReviewStatus": ("denied",),
    "autoscaling_v1.ScaleSpec": ("replicas",),
    "core_v1.AWSElasticBlockStoreVolumeSource": ("partition", "readOnly"),
    "core_v1.AzureFilePersistentVolumeSource": ("readOnly",),
    "core_v1.AzureFileVolumeSource": ("readOnly",),
    "core_v1.CSIPersistentVolumeSource": ("readOnly",),
    "core_v1.CephFSPersistentVolumeSource": ("readOnly",),
    "core_v1.CephFSVolumeSource": ("readOnly",),
    "core_v1.CinderPersistentVolumeSource": ("readOnly",),
    "core_v1.CinderVolumeSource": ("readOnly",),
    "core_v1.Container": ("stdin", "stdinOnce", "tty"),
    "core_v1.ContainerImage": ("sizeBytes",),
    "core_v1.ContainerPort": ("hostPort",),
    "core_v1.ContainerStateTerminated": ("signal",),
    "core_v1.EphemeralContainer": ("stdin", "stdinOnce", "tty"),
    "core_v1.Event": ("count",),
    "core_v1.EventSeries": ("count",),
    "core_v1.FCVolumeSource": ("readOnly",),
    "core_v1.FlexPersistentVolumeSource": ("readOnly",),
    "core_v1.FlexVolumeSource": ("readOnly",),
    "core_v1.GCEPersistentDiskVolumeSource": ("partition", "readOnly"),
    "core_v1.GlusterfsVolumeSource": ("readOnly",),
    "core_v1.ISCSIPersistentVolumeSource": ("chapAuthDiscovery", "chapAuthSession", "readOnly"),
    "core_v1.ISCSIVolumeSource": ("chapAuthDiscovery", "chapAuthSession", "readOnly"),
    "core_v1.NFSVolumeSource": ("readOnly",),
    "core_v1.NodeSpec": ("unschedulable",),
    "core_v1.PersistentVolumeClaimVolumeSource": ("readOnly",),
    "core_v1.PodCondition": ("observedGeneration",),
    "core_v1.PodSpec": ("hostIPC", "hostNetwork", "hostPID"),
    "core_v1.PortworxVolumeSource": ("readOnly",),
    "core_v1.Probe": (
        "failureThreshold",
        "initialDelaySeconds",
        "periodSeconds",
        "successThreshold",
        "timeoutSeconds",
    ),
    "core_v1.QuobyteVolumeSource": ("readOnly",),
    "core_v1.RBDPersistentVolumeSource": ("readOnly",),
    "core_v1.RBDVolumeSource": ("readOnly",),
    "core_v1.ReplicationControllerSpec": ("minReadySeconds",),
    "core_v1.ScaleIOPersistentVolumeSource": ("readOnly", "sslEnabled"),
    "core_v1.ScaleIOVolumeSource": ("readOnly", "sslEnabled"),
    "core_v1.ServicePort": ("nodePort",),
    "core_v1.ServiceSpec": ("healthCheckNodePort", "publishNotReadyAddresses"),
    "core_v1.StorageOSPersistentVolumeSource": ("readOnly",),
    "core_v1.StorageOSVolumeSource": ("readOnly",),
    "core_v1.VolumeMount": ("readOnly",),
    "core_v1.VolumeMountStatus": ("readOnly",),
    "events_v1.Event": ("deprecatedCount",),
    "flowcontrol_v1.FlowSchemaSpec": ("matchingPrecedence",),
    "flowcontrol_v1.QueuingConfiguration": ("handSize", "queueLengthLimit", "queues"),
    "flowcontrol_v1.ResourcePolicyRule": ("clusterScope",),
    "meta_v1.Condition": ("observedGeneration",),
    "meta_v1.ObjectMeta": ("generation",),
    "meta_v1.StatusDetails": ("retryAfterSeconds",),
    "networking_v1.ServiceBackendPort": ("number",),
    "resource_v1.DeviceSubRequest": ("count",),
    "resource_v1.ExactDeviceRequest": ("count",),
    "resource_v1beta1.DeviceRequest": ("count",),
    "resource_v1beta1.DeviceSubRequest": ("count",),
    "resource_v1beta2.DeviceSubRequest": ("count",),
    "resource_v1beta2.ExactDeviceRequest": ("count",),
    "scheduling_v1.PriorityClass": ("globalDefault",),
}
