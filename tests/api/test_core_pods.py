"""Pods: defaults, validation, updates. Real schema, real entry; manifests as users write them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.core.pods import PODS
from pybernetes.api.core.replicationcontrollers import REPLICATION_CONTROLLERS
from pybernetes.api.resource import Part
from pybernetes.api.types.core_v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodStatus,
)
from tests.api.coreobjects import changed, create, errors_of, read

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "app:1",
                "ports": [{"name": "http", "containerPort": 80}],
                "env": [{"name": "A", "value": "1"}],
                "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "livenessProbe": {"httpGet": {"port": "http"}},
            }
        ],
        "volumes": [{"name": "data"}],
    },
}
C = "spec.containers.0"


# --- defaults -----------------------------------------------------------------------------


def test_defaults() -> None:
    spec = codec.to_dict(create(PODS, POD))["spec"]
    [container] = spec["containers"]
    assert spec["volumes"] == [{"name": "data", "emptyDir": {}}]
    assert spec["enableServiceLinks"] is True
    assert (spec["dnsPolicy"], spec["restartPolicy"]) == ("ClusterFirst", "Always")
    assert (spec["schedulerName"], spec["securityContext"]) == ("default-scheduler", {})
    assert spec["terminationGracePeriodSeconds"] == 30
    assert container["ports"] == [{"name": "http", "containerPort": 80, "protocol": "TCP"}]
    assert container["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "1Gi"},
    }
    assert container["livenessProbe"] == {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
        "httpGet": {"path": "/", "port": "http", "scheme": "HTTP"},
    }
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert container["terminationMessagePolicy"] == "File"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("app", "Always"),
        ("app:latest", "Always"),
        ("host:5000/app", "Always"),
        ("host:5000/app:1", "IfNotPresent"),
        ("app@sha256:abc", "IfNotPresent"),
        ("app:latest@sha256:abc", "Always"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    pod = create(PODS, changed(POD, f"{C}.image", image))
    assert pod.spec.containers[0].image_pull_policy == policy


def test_host_ports_follow_in_the_network_of_the_host() -> None:
    pod = create(PODS, changed(POD, "spec.hostNetwork", True))
    assert pod.spec.containers[0].ports[0].host_port == 80


def test_templates_get_less_than_pods() -> None:
    manifest = {
        "metadata": {"name": "rc", "namespace": "default"},
        "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]},
        },
    }
    controller = create(REPLICATION_CONTROLLERS, manifest)
    spec = controller.spec.template.spec
    assert spec.containers[0].resources.requests == {}
    assert spec.enable_service_links is None
    assert spec.dns_policy == "ClusterFirst"
    assert (controller.spec.replicas, controller.spec.selector) == (1, {"a": "b"})
    assert errors_of(REPLICATION_CONTROLLERS, controller) == []


def test_the_two_names_of_the_service_account_are_one() -> None:
    spec = create(PODS, changed(POD, "spec.serviceAccount", "robot")).spec
    assert (spec.service_account_name, spec.service_account) == ("robot", "robot")


def test_pod_level_resources_are_completed() -> None:
    manifest = changed(POD, "spec.resources", {"limits": {"cpu": "2", "memory": "2Gi"}})
    spec = create(PODS, manifest).spec
    assert spec.resources.requests == {"cpu": "500m", "memory": "1Gi"}


def test_volume_sources_are_completed() -> None:
    volumes = [
        {"name": "a", "secret": {"secretName": "s"}},
        {"name": "b", "hostPath": {"path": "/x"}},
        {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        {
            "name": "d",
            "ephemeral": {
                "volumeClaimTemplate": {
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}},
                    }
                }
            },
        },
        {"name": "data"},
    ]
    pod = create(PODS, changed(POD, "spec.volumes", volumes))
    a, b, c, d, _ = pod.spec.volumes
    assert a.secret.default_mode == c.projected.default_mode == 0o644
    assert b.host_path.type == ""
    assert c.projected.sources[0].service_account_token.expiration_seconds == 3600
    assert d.ephemeral.volume_claim_template.spec.volume_mode == "Filesystem"
    assert errors_of(PODS, pod) == []


# --- life cycle ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"example.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_status_on_create(resources: dict[str, Any], qos: str) -> None:
    pod = create(PODS, changed(POD, f"{C}.resources", resources))
    assert pod.status == PodStatus(phase="Pending", qos_class=qos)


def test_gated_pods_say_so() -> None:
    pod = create(PODS, changed(POD, "spec.schedulingGates", [{"name": "x.io/y"}]))
    [condition] = pod.status.conditions
    assert (condition.type, condition.reason) == ("PodScheduled", "SchedulingGated")


def test_match_label_keys_are_bound_on_create() -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {},
        "matchLabelKeys": ["app", "missing"],
    }
    pod = create(PODS, changed(POD, "spec.topologySpreadConstraints", [constraint]))
    [part] = pod.spec.topology_spread_constraints[0].label_selector.match_expressions
    assert (part.key, part.operator, part.values) == ("app", "In", ("web",))
    assert PODS.strategy.prepare_create(pod).spec == pod.spec


@pytest.mark.parametrize(
    ("node", "phase", "asked", "seconds"),
    [
        ("n", "Running", None, 30),
        ("n", "Running", 5, 5),
        ("n", "Running", -3, 1),
        ("", "Pending", None, 0),
        ("n", "Failed", 60, 0),
    ],
)
def test_grace(node: str, phase: str, asked: int | None, seconds: int) -> None:
    pod = create(PODS, changed(POD, "spec.nodeName", node or None))
    pod = replace(pod, status=PodStatus(phase=phase))
    assert PODS.strategy.grace_seconds is not None
    assert PODS.strategy.grace_seconds(pod, asked) == seconds


# --- validation ---------------------------------------------------------------------------


def test_the_example_is_valid() -> None:
    assert errors_of(PODS, create(PODS, POD)) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("spec.containers", [], "spec.containers: Required value"),
        (f"{C}.name", None, "spec.containers[0].name: Required value"),
        (
            f"{C}.name",
            "Main",
            'spec.containers[0].name: Invalid value: "Main": a lowercase RFC 1123 label must',
        ),
        (f"{C}.image", None, "spec.containers[0].image: Required value"),
        (
            f"{C}.image",
            " a",
            'spec.containers[0].image: Invalid value: " a": must not have leading or trailing',
        ),
        (
            f"{C}.imagePullPolicy",
            "Sometimes",
            'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported '
            'values: "Always", "IfNotPresent", "Never"',
        ),
        (
            f"{C}.terminationMessagePolicy",
            "X",
            'spec.containers[0].terminationMessagePolicy: Unsupported value: "X": supported '
            'values: "FallbackToLogsOnError", "File"',
        ),
        (
            f"{C}.ports.0.containerPort",
            70000,
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 "
            "and 65535, inclusive",
        ),
        (
            f"{C}.ports.0.containerPort",
            0,
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            f"{C}.ports.0.protocol",
            "ICMP",
            'spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: '
            '"SCTP", "TCP", "UDP"',
        ),
        (
            f"{C}.ports",
            [{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2, "hostPort": 8080}],
            'spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//8080"',
        ),
        (f"{C}.env", [{"value": "x"}], "spec.containers[0].env[0].name: Required value"),
        (
            f"{C}.env",
            [{"name": "a=b"}],
            'spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable',
        ),
        (
            f"{C}.env",
            [{"name": "A", "valueFrom": {}}],
            'spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of:',
        ),
        (
            f"{C}.env",
            [
                {
                    "name": "A",
                    "value": "x",
                    "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
                }
            ],
            'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when '
            "`value` is not empty",
        ),
        (
            f"{C}.env",
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}],
            'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.x": '
            "error converting fieldPath: field label not supported: spec.x",
        ),
        (
            f"{C}.env",
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}],
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "
            '"metadata.labels": supported values: "metadata.name", "metadata.namespace", '
            '"metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", '
            '"status.hostIPs", "status.podIP", "status.podIPs"',
        ),
        (
            f"{C}.env",
            [
                {
                    "name": "A",
                    "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}},
                }
            ],
            "only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            f"{C}.envFrom",
            [{}],
            'spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: '
            "`configMapRef` or `secretRef`",
        ),
        (
            f"{C}.volumeMounts.0.name",
            "other",
            'spec.containers[0].volumeMounts[0].name: Not found: "other"',
        ),
        (
            f"{C}.volumeMounts",
            [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}],
            'spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique',
        ),
        (
            f"{C}.volumeMounts.0.subPath",
            "../x",
            'spec.containers[0].volumeMounts[0].subPath: Invalid value: "../x": must not '
            "contain '..'",
        ),
        (
            f"{C}.volumeMounts.0.mountPropagation",
            "Bidirectional",
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount "
            "propagation is available only to privileged containers",
        ),
        (
            f"{C}.resources",
            {"requests": {"cpu": "2"}, "limits": {"cpu": "100m"}},
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or '
            "equal to cpu limit of 100m",
        ),
        (
            f"{C}.resources",
            {"limits": {"cpu": "-1"}},
            'spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than '
            "or equal to 0",
        ),
        (
            f"{C}.resources",
            {"limits": {"gpu": "1"}},
            'spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard '
            "resource for containers",
        ),
        (
            f"{C}.resources",
            {"limits": {"example.com/gpu": "500m"}},
            'spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must '
            "be an integer",
        ),
        (
            f"{C}.resources",
            {"requests": {"example.com/gpu": "1"}},
            "spec.containers[0].resources.limits: Required value: Limit must be set for non "
            "overcommitable resources",
        ),
        (
            f"{C}.resources",
            {"limits": {"hugepages-2Mi": "2Mi"}},
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            f"{C}.livenessProbe",
            {},
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            f"{C}.livenessProbe",
            {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}},
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 "
            "handler type",
        ),
        (
            f"{C}.livenessProbe.successThreshold",
            2,
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            f"{C}.livenessProbe.httpGet.port",
            "x--y",
            'spec.containers[0].livenessProbe.httpGet.port: Invalid value: "x--y": must not '
            "contain consecutive hyphens",
        ),
        (
            f"{C}.lifecycle",
            {"preStop": {"sleep": {"seconds": 60}}},
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative "
            "and less than terminationGracePeriodSeconds (30)",
        ),
        (
            f"{C}.securityContext",
            {"privileged": True, "allowPrivilegeEscalation": False},
            'spec.containers[0].securityContext: Invalid value: {"privileged":true,'
            '"allowPrivilegeEscalation":false}: cannot set `allowPrivilegeEscalation` to false '
            "and `privileged` to true",
        ),
        (
            "spec.initContainers",
            [{"name": "main", "image": "a"}],
            'spec.initContainers[0].name: Duplicate value: "main"',
        ),
        (
            "spec.initContainers",
            [{"name": "i", "image": "a", "lifecycle": {}}],
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers "
            "without restartPolicy=Always",
        ),
        (
            "spec.ephemeralContainers",
            [{"name": "e", "image": "a"}],
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            "spec.volumes",
            [{"name": "data", "emptyDir": {}, "secret": {"secretName": "x"}}],
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "spec.volumes",
            [{"name": "data"}, {"name": "data"}],
            'spec.volumes[1].name: Duplicate value: "data"',
        ),
        (
            "spec.volumes",
            [{"name": "data", "configMap": {"name": "x", "defaultMode": 4096}}],
            "spec.volumes[0].configMap.defaultMode: Invalid value: 4096: must be a number "
            "between 0 and 0777 (octal), both inclusive",
        ),
        (
            "spec.volumes",
            [{"name": "data", "hostPath": {"path": "/a", "type": "Odd"}}],
            'spec.volumes[0].hostPath.type: Unsupported value: "Odd": supported values: "", '
            '"BlockDevice"',
        ),
        (
            "spec.restartPolicy",
            "Perhaps",
            'spec.restartPolicy: Unsupported value: "Perhaps": supported values: "Always", '
            '"OnFailure", "Never"',
        ),
        (
            "spec.dnsPolicy",
            "None",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            "spec.activeDeadlineSeconds",
            0,
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, "
            "inclusive",
        ),
        (
            "spec.tolerations",
            [{"operator": "Equal"}],
            'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when '
            '`key` is empty, which means "match all values and all keys"',
        ),
        (
            "spec.tolerations",
            [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}],
            'spec.tolerations[0].effect: Invalid value: "NoSchedule": effect must be '
            "'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            "spec.nodeSelector",
            {"a b": "c"},
            'spec.nodeSelector: Invalid value: "a b": name part must consist of',
        ),
        (
            "spec.affinity",
            {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution."
            "nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            "spec.affinity",
            {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]."
            "topologyKey: Required value: can not be empty",
        ),
        (
            "spec.topologySpreadConstraints",
            [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}],
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            "spec.securityContext",
            {"runAsUser": -1},
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and "
            "2147483647, inclusive",
        ),
        (
            "spec.os",
            {"name": "plan9"},
            'spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"',
        ),
        (
            "spec.hostAliases",
            [{"ip": "x"}],
            'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. '
            "10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "spec.resources",
            {"requests": {"cpu": "100m"}},
            'spec.resources.requests[cpu]: Invalid value: "100m": must be greater than or equal '
            "to aggregate container requests of 500m",
        ),
        (
            "metadata.annotations",
            {"kubernetes.io/config.mirror": "x"},
            'metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set '
            "spec.nodeName if mirror pod annotation is set",
        ),
    ],
)
def test_refused_with_upstreams_text(path: str, value: Any, error: str) -> None:
    errors = errors_of(PODS, create(PODS, changed(POD, path, value)))
    assert any(error in found for found in errors), errors


def test_a_gated_pod_has_no_node() -> None:
    manifest = changed(POD, "spec.schedulingGates", [{"name": "x.io/y"}])
    errors = errors_of(PODS, create(PODS, changed(manifest, "spec.nodeName", "n")))
    assert errors == [
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"
    ]


# --- updates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{C}.image", "app:2"),
        ("spec.activeDeadlineSeconds", 10),
        ("spec.tolerations", [{"key": "a", "operator": "Exists"}]),
        ("metadata.labels", {"x": "y"}),
    ],
)
def test_what_may_change(path: str, value: Any) -> None:
    old = create(PODS, POD)
    assert errors_of(PODS, read(PODS, changed(POD, path, value)), old) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (
            f"{C}.command",
            ["x"],
            "spec: Forbidden: pod updates may not change fields other than "
            "`spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
            "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it "
            'was previously negative)\n+ spec.containers[0].command: ["x"]\n',
        ),
        (
            "spec.containers",
            [*POD["spec"]["containers"], {"name": "b", "image": "b"}],
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            "spec.schedulingGates",
            [{"name": "x.io/y"}],
            "spec.schedulingGates[0]: Forbidden: only deletion is allowed, but found new "
            "scheduling gate 'x.io/y'",
        ),
    ],
)
def test_what_may_not_change(path: str, value: Any, error: str) -> None:
    old = create(PODS, POD)
    assert errors_of(PODS, read(PODS, changed(POD, path, value)), old) == [error]


def test_deadlines_only_shrink() -> None:
    deadline = "spec.activeDeadlineSeconds"
    old = create(PODS, changed(POD, deadline, 10))
    longer = read(PODS, changed(POD, deadline, 20))
    assert errors_of(PODS, longer, old) == [
        f"{deadline}: Invalid value: 20: must be less than or equal to previous value"
    ]
    assert errors_of(PODS, read(PODS, POD), old) == [
        f"{deadline}: Invalid value: null: must not update from a positive integer to nil value"
    ]


def test_tolerations_only_grow() -> None:
    toleration = {"key": "a", "operator": "Exists", "effect": "NoExecute"}
    old = create(PODS, changed(POD, "spec.tolerations", [toleration]))
    longer = [{**toleration, "tolerationSeconds": 5}]
    assert errors_of(PODS, read(PODS, changed(POD, "spec.tolerations", longer)), old) == []
    assert errors_of(PODS, read(PODS, POD), old) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its "
        "tolerationSeconds"
    ]


def test_gated_pods_may_be_narrowed_down() -> None:
    manifest = changed(POD, "spec.schedulingGates", [{"name": "x.io/y"}])
    manifest = changed(manifest, "spec.nodeSelector", {"a": "b"})
    old = create(PODS, manifest)
    narrower = read(PODS, changed(manifest, "spec.nodeSelector", {"a": "b", "c": "d"}))
    assert errors_of(PODS, narrower, old) == []
    wider = read(PODS, changed(manifest, "spec.nodeSelector", None))
    assert len(errors_of(PODS, wider, old)) == 1


# --- subresources -------------------------------------------------------------------------


def part(name: str) -> Part[Pod]:
    found = PODS.subresource(name)
    assert isinstance(found, Part)
    return found


def with_state(pod: Pod, **state: Any) -> Pod:
    status = ContainerStatus(name="main", state=ContainerState(**state))
    return replace(pod, status=replace(pod.status, container_statuses=(status,)))


def test_ended_containers_stay_ended() -> None:
    pod = create(PODS, changed(POD, "spec.restartPolicy", "Never"))
    old = with_state(pod, terminated=ContainerStateTerminated(exit_code=1))
    new = with_state(pod, running=ContainerStateRunning())
    assert [str(error) for error in part("status").validate(new, old)] == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated "
        "state"
    ]
    assert list(part("status").validate(old, old)) == []


def test_status_keeps_both_forms_of_the_address_and_the_class() -> None:
    old = create(PODS, POD)
    new = replace(old, status=replace(old.status, pod_ip="10.0.0.1", qos_class="BestEffort"))
    status = part("status").prepare(new, old).status
    assert [ip.ip for ip in status.pod_ips] == ["10.0.0.1"]
    assert status.qos_class == "Guaranteed"


def test_ephemeral_containers_are_only_added() -> None:
    old = create(PODS, POD)
    debugged = {**POD["spec"], "ephemeralContainers": [{"name": "dbg", "image": "busybox"}]}
    new = read(PODS, {**POD, "spec": debugged})
    assert list(part("ephemeralcontainers").validate(new, old)) == []
    assert [str(error) for error in part("ephemeralcontainers").validate(old, new)] == [
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "dbg" may not be '
        "removed\n"
    ]


def test_resize_changes_resources_and_nothing_else() -> None:
    old = create(PODS, POD)
    wanted = changed(POD, f"{C}.resources.limits", {"cpu": "1", "memory": "2Gi"})
    wanted = changed(wanted, f"{C}.image", "other:2")
    new = part("resize").prepare(read(PODS, wanted), old)
    [container] = new.spec.containers
    assert container.image == "app:1"
    assert container.resources.limits == {"cpu": "1", "memory": "2Gi"}
    assert list(part("resize").validate(new, old)) == []
    less = changed(POD, f"{C}.resources", {"limits": {"cpu": "1", "memory": "2Gi"},
                                           "requests": {"cpu": "1m", "memory": "1Mi"}})  # fmt: skip
    new = part("resize").prepare(read(PODS, less), old)
    assert "Pod QOS Class may not change" in str(next(iter(part("resize").validate(new, old))))
