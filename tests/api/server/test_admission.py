"""Policy on writes, plugin by plugin, through the real server in memory; bounds by tables."""

from __future__ import annotations

import asyncio
import base64
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.quota import counts, exceeded, unsaid, usage_of
from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestSpec,
)
from pybernetes.api.types.core_v1 import (
    Capabilities,
    ConfigMap,
    HostPathVolumeSource,
    LimitRange,
    LimitRangeItem,
    LimitRangeSpec,
    LocalObjectReference,
    Namespace,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    Pod,
    ResourceQuota,
    ResourceQuotaSpec,
    ResourceRequirements,
    ScopedResourceSelectorRequirement,
    ScopeSelector,
    SeccompProfile,
    SecurityContext,
    Service,
    ServiceAccount,
    ServicePort,
    ServiceSpec,
    Volume,
    VolumeMount,
    VolumeResourceRequirements,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.networking_v1 import (
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassSpec,
    IngressServiceBackend,
    IngressSpec,
    ServiceBackendPort,
)
from pybernetes.api.types.node_v1 import Overhead, RuntimeClass, Scheduling
from pybernetes.api.types.scheduling_v1 import PriorityClass
from pybernetes.api.types.storage_v1 import StorageClass
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import Forbidden, Invalid, NotFound
from pybernetes.apiserver.admission.limit_ranger import bound_problems
from pybernetes.apiserver.admission.node_restriction import forbidden_labels
from pybernetes.apiserver.admission.podsecurity.checks import violations
from pybernetes.apiserver.admission.service_account import MOUNT_PATH, with_token
from pybernetes.testing import builders
from pybernetes.wire.http import Peer
from pybernetes.wire.memory import MemoryHttpClient
from tests.api.server.access import make_namespace, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.controlplane import ControlPlane


@pytest.fixture
async def plane(clock: Clock, random: Random) -> AsyncIterator[ControlPlane]:
    async with running(clock, random) as plane:
        yield plane


# --- NamespaceLifecycle ---------------------------------------------------------------------------


async def test_nothing_is_made_where_no_namespace_is(plane: ControlPlane) -> None:
    with pytest.raises(NotFound, match='namespaces "gone" not found'):
        await plane.admin.create(builders.config_map("c", "gone"))


async def test_nothing_is_made_in_a_namespace_that_goes(plane: ControlPlane) -> None:
    await make_namespace(plane, "going")
    made = await plane.admin.create(builders.config_map("c", "going"))
    await plane.admin.delete(Namespace, "going")
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(builders.config_map("d", "going"))
    assert refused.value.message == (
        'configmaps "d" is forbidden: unable to create new content in namespace going because it'
        " is being terminated"
    )
    assert refused.value.has_cause("NamespaceTerminating")
    # What is there may still be changed and removed.
    await plane.admin.update(replace(made, data={"a": "b"}))
    await plane.admin.delete(ConfigMap, "c", "going")


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public", "kube-node-lease"])
async def test_some_namespaces_stay(plane: ControlPlane, name: str) -> None:
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        await plane.admin.delete(Namespace, name)


# --- ServiceAccount -------------------------------------------------------------------------------


async def test_a_pod_gets_account_and_token(plane: ControlPlane) -> None:
    made = await plane.admin.create(builders.pod("web"))
    assert made.spec.service_account_name == made.spec.service_account == "default"
    [volume] = made.spec.volumes
    assert volume.name.startswith("kube-api-access-")
    assert volume.projected is not None
    assert [m.mount_path for m in made.spec.containers[0].volume_mounts] == [MOUNT_PATH]
    assert made.spec.containers[0].volume_mounts[0].read_only is True


async def test_a_pod_needs_its_account(plane: ControlPlane) -> None:
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(builders.pod("web", service_account_name="robot"))
    assert refused.value.message == (
        'pods "web" is forbidden: error looking up service account default/robot: serviceaccount'
        ' "robot" not found'
    )


async def test_a_pod_waits_for_the_first_account(plane: ControlPlane) -> None:
    await make_namespace(plane, "new")
    async with asyncio.TaskGroup() as tasks:
        pods = [tasks.create_task(plane.admin.create(builders.pod(f"p{n}", "new"))) for n in (1, 2)]
        await asyncio.sleep(0.5)
        assert not any(pod.done() for pod in pods)
        metadata = ObjectMeta(name="default", namespace="new")
        await plane.admin.create(ServiceAccount(metadata=metadata))
    assert all(pod.result().spec.service_account_name == "default" for pod in pods)


async def test_tokens_may_be_declined(plane: ControlPlane) -> None:
    made = await plane.admin.create(builders.pod("web", automount_service_account_token=False))
    assert made.spec.volumes == ()
    metadata = ObjectMeta(name="shy", namespace="default")
    await plane.admin.create(
        ServiceAccount(
            metadata=metadata,
            automount_service_account_token=False,
            image_pull_secrets=(LocalObjectReference(name="registry"),),
        )
    )
    shy = await plane.admin.create(builders.pod("shy", service_account_name="shy"))
    assert shy.spec.volumes == ()
    assert [secret.name for secret in shy.spec.image_pull_secrets] == ["registry"]
    bold = builders.pod("bold", service_account_name="shy", automount_service_account_token=True)
    assert len((await plane.admin.create(bold)).spec.volumes) == 1


def test_a_path_in_use_is_left_alone() -> None:
    mount = VolumeMount(name="mine", mount_path=MOUNT_PATH)
    mine = replace(builders.container("a"), volume_mounts=(mount,))
    spec = builders.pod(containers=[mine, builders.container("b")]).spec
    after = with_token(spec, Random(1))
    assert after.containers[0] is mine
    assert len(after.containers[1].volume_mounts) == len(after.volumes) == 1
    # Twice does no harm.
    assert with_token(after, Random(2)) == after


# --- DefaultTolerationSeconds, Priority -----------------------------------------------------------


async def test_five_minutes_on_a_node_that_is_away(plane: ControlPlane) -> None:
    made = await plane.admin.create(builders.pod("web"))
    assert [(t.key, t.toleration_seconds) for t in made.spec.tolerations] == [
        ("node.kubernetes.io/not-ready", 300),
        ("node.kubernetes.io/unreachable", 300),
    ]
    for_ever = builders.toleration("node.kubernetes.io/not-ready", effect="NoExecute")
    patient = await plane.admin.create(builders.pod("patient", tolerations=(for_ever,)))
    assert [(t.key, t.toleration_seconds) for t in patient.spec.tolerations] == [
        ("node.kubernetes.io/not-ready", None),
        ("node.kubernetes.io/unreachable", 300),
    ]
    everything = builders.toleration()
    calm = await plane.admin.create(builders.pod("calm", tolerations=(everything,)))
    assert len(calm.spec.tolerations) == 1


async def test_a_class_becomes_a_number(plane: ControlPlane) -> None:
    plain = await plane.admin.create(builders.pod("plain"))
    assert (plain.spec.priority, plain.spec.preemption_policy) == (0, "PreemptLowerPriority")
    metadata = ObjectMeta(name="high")
    await plane.admin.create(
        PriorityClass(metadata=metadata, value=1000, preemption_policy="Never")
    )
    high = await plane.admin.create(builders.pod("high", priority_class_name="high"))
    assert (high.spec.priority, high.spec.preemption_policy) == (1000, "Never")
    critical = builders.pod("critical", priority_class_name="system-node-critical")
    assert (await plane.admin.create(critical)).spec.priority == 2_000_001_000


async def test_impossible_priorities(plane: ControlPlane) -> None:
    with pytest.raises(Forbidden, match="no PriorityClass with name x was found"):
        await plane.admin.create(builders.pod("web", priority_class_name="x"))
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(builders.pod("web", priority=7))
    assert refused.value.message == (
        'pods "web" is forbidden: the integer value of priority (7) must not be provided in pod'
        " spec; priority admission controller computed 0 from the given PriorityClass name"
    )


async def test_one_class_is_the_default(plane: ControlPlane) -> None:
    first = PriorityClass(metadata=ObjectMeta(name="first"), value=5, global_default=True)
    await plane.admin.create(first)
    made = await plane.admin.create(builders.pod("web"))
    assert (made.spec.priority_class_name, made.spec.priority) == ("first", 5)
    with pytest.raises(Forbidden, match="PriorityClass first is already marked as default"):
        await plane.admin.create(replace(first, metadata=ObjectMeta(name="second")))


# --- LimitRanger ----------------------------------------------------------------------------------


async def limit(plane: ControlPlane, **item: Any) -> None:
    limits = (LimitRangeItem(**{"type": "Container", **item}),)
    metadata = ObjectMeta(generate_name="limits-", namespace="default")
    await plane.admin.create(LimitRange(metadata=metadata, spec=LimitRangeSpec(limits=limits)))


def asking(
    requests: dict[str, str], limits: dict[str, str] | None = None, name: str = "web"
) -> Pod:
    resources = ResourceRequirements(requests=requests, limits=limits or {})
    return builders.pod(name, containers=[replace(builders.container("c"), resources=resources)])


async def test_limits_have_defaults(plane: ControlPlane) -> None:
    await limit(plane, default={"cpu": "1"}, default_request={"cpu": "500m", "memory": "1Gi"})
    made = await plane.admin.create(asking({}))
    resources = made.spec.containers[0].resources
    assert resources.limits == {"cpu": "1"}
    assert resources.requests == {"cpu": "500m", "memory": "1Gi"}
    assert made.metadata.annotations["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    )


async def test_limits_are_kept(plane: ControlPlane) -> None:
    await limit(plane, max={"cpu": "1"})
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(asking({"cpu": "500m"}, {"cpu": "2"}))
    assert refused.value.message == (
        'pods "web" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
    )


@pytest.mark.parametrize(
    ("item", "requests", "limits", "problems"),
    [
        pytest.param({"min": {"cpu": "1"}}, {"cpu": "1"}, {}, [], id="just enough"),
        pytest.param(
            {"min": {"memory": "1Gi"}},
            {"memory": "1Mi"},
            {},
            ["minimum memory usage per Container is 1Gi, but request is 1Mi"],
            id="too little",
        ),
        pytest.param(
            {"min": {"cpu": "1"}},
            {},
            {},
            ["minimum cpu usage per Container is 1.  No request is specified"],
            id="nothing said",
        ),
        pytest.param(
            {"max": {"cpu": "1"}},
            {},
            {},
            ["maximum cpu usage per Container is 1.  No limit is specified"],
            id="no limit",
        ),
        pytest.param(
            {"max_limit_request_ratio": {"cpu": "2"}},
            {"cpu": "1"},
            {"cpu": "4"},
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"],
            id="ratio",
        ),
    ],
)
def test_bounds(
    item: dict[str, Any], requests: dict[str, str], limits: dict[str, str], problems: list[str]
) -> None:
    bounds = LimitRangeItem(type="Container", **item)
    assert list(bound_problems(bounds, requests, limits)) == problems


# --- ResourceQuota --------------------------------------------------------------------------------


async def set_quota(plane: ControlPlane, **hard: str) -> ResourceQuota:
    """A quota whose status the controller has filled in."""
    names = {name.replace("_", "."): amount for name, amount in hard.items()}
    quota = await plane.admin.create(
        ResourceQuota(
            metadata=ObjectMeta(name="q", namespace="default"), spec=ResourceQuotaSpec(hard=names)
        )
    )
    used = dict.fromkeys(names, "0")
    return await plane.admin.update_status(
        replace(quota, status=replace(quota.status, hard=names, used=used))
    )


async def used(plane: ControlPlane) -> dict[str, str]:
    return (await plane.admin.get(ResourceQuota, "q", "default")).status.used


async def test_a_quota_is_counted_and_kept(plane: ControlPlane) -> None:
    await set_quota(plane, pods="2", requests_cpu="1")
    await plane.admin.create(asking({"cpu": "400m"}, name="a"))
    await plane.admin.create(asking({"cpu": "400m"}, name="b"))
    assert await used(plane) == {"pods": "2", "requests.cpu": "800m"}
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(asking({"cpu": "400m"}, name="c"))
    assert refused.value.message == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=400m,'
        " used: pods=2,requests.cpu=800m, limited: pods=2,requests.cpu=1"
    )


async def test_a_limited_resource_must_be_said(plane: ControlPlane) -> None:
    await set_quota(plane, limits_cpu="1")
    with pytest.raises(Forbidden, match=r"failed quota: q: must specify limits.cpu for: c"):
        await plane.admin.create(asking({}))


async def test_races_never_exceed(plane: ControlPlane) -> None:
    await set_quota(plane, pods="5")
    wishes = [plane.admin.create(builders.pod(f"p{n}")) for n in range(20)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(result, Pod) for result in results) == 5
    assert await used(plane) == {"pods": "5"}


async def test_a_dry_run_counts_nothing(plane: ControlPlane) -> None:
    await set_quota(plane, pods="1")
    await plane.admin.create(builders.pod("a"), dry_run=True)
    assert await used(plane) == {"pods": "0"}


async def test_a_quota_nobody_has_looked_at_admits_nothing(plane: ControlPlane) -> None:
    metadata = ObjectMeta(name="q", namespace="default")
    await plane.admin.create(
        ResourceQuota(metadata=metadata, spec=ResourceQuotaSpec(hard={"pods": "1"}))
    )
    with pytest.raises(Forbidden, match="status unknown for quota: q, resources: pods"):
        await plane.admin.create(builders.pod("a"))


def service_of(type: str, *ports: int, **spec: Any) -> Service:
    said = tuple(ServicePort(port=port) for port in ports)
    return Service(spec=ServiceSpec(type=type, ports=said, **spec))


@pytest.mark.parametrize(
    ("obj", "plural", "usage"),
    [
        pytest.param(
            asking({"cpu": "100m", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}),
            "pods",
            {
                "count/pods": "1",
                "pods": "1",
                "cpu": "100m",
                "requests.cpu": "100m",
                "memory": "1Gi",
                "requests.memory": "1Gi",
                "limits.cpu": "1",
                "limits.memory": "1Gi",
            },
            id="pod",
        ),
        pytest.param(
            builders.pod(phase="Succeeded"), "pods", {"count/pods": "1"}, id="finished pod"
        ),
        pytest.param(
            service_of("NodePort", 1, 2),
            "services",
            {"count/services": "1", "services": "1", "services.nodeports": "2"},
            id="node ports",
        ),
        pytest.param(
            service_of("LoadBalancer", 1),
            "services",
            {
                "count/services": "1",
                "services": "1",
                "services.loadbalancers": "1",
                "services.nodeports": "1",
            },
            id="load balancer",
        ),
        pytest.param(
            builders.config_map(),
            "configmaps",
            {"count/configmaps": "1", "configmaps": "1"},
            id="config map",
        ),
    ],
)
def test_what_an_object_uses(obj: Any, plural: str, usage: dict[str, str]) -> None:
    assert usage_of(obj, "", plural) == usage


@pytest.mark.parametrize(
    ("spec", "pod", "counted"),
    [
        pytest.param({}, builders.pod(), True, id="no scopes"),
        pytest.param({"scopes": ("BestEffort",)}, builders.pod(), True, id="best effort"),
        pytest.param({"scopes": ("NotBestEffort",)}, builders.pod(), False, id="not best effort"),
        pytest.param(
            {"scopes": ("Terminating",)},
            builders.pod(active_deadline_seconds=5),
            True,
            id="terminating",
        ),
        pytest.param(
            {
                "scope_selector": ScopeSelector(
                    match_expressions=(
                        ScopedResourceSelectorRequirement(
                            scope_name="PriorityClass", operator="In", values=("high",)
                        ),
                    )
                )
            },
            builders.pod(priority_class_name="high"),
            True,
            id="priority",
        ),
    ],
)
def test_which_pods_a_quota_counts(spec: dict[str, Any], pod: Pod, counted: bool) -> None:
    quota = ResourceQuota(spec=ResourceQuotaSpec(**spec))
    assert counts(quota, pod, "", "pods") is counted


def test_what_is_too_much() -> None:
    assert exceeded({"cpu": "1100m", "pods": "1"}, {"cpu": "1", "pods": "1"}) == ["cpu"]
    assert unsaid(asking({"cpu": "1"}), ["requests.cpu", "limits.cpu", "pods"]) == {
        "limits.cpu": ["c"]
    }


# --- NodeRestriction ------------------------------------------------------------------------------


def test_labels_a_kubelet_may_not_set() -> None:
    labels = [
        "mine",
        "example.com/mine",
        "kubernetes.io/hostname",
        "node.kubernetes.io/anything",
        "sub.node.kubernetes.io/anything",
        "topology.kubernetes.io/zone",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/other",
        "node-restriction.kubernetes.io/a",
        "x.node-restriction.kubernetes.io/a",
    ]
    assert forbidden_labels(labels) == [
        "kubernetes.io/other",
        "node-restriction.kubernetes.io/a",
        "node-role.kubernetes.io/control-plane",
        "x.node-restriction.kubernetes.io/a",
    ]


# --- PodSecurity ----------------------------------------------------------------------------------


def secured(**context: Any) -> Pod:
    contexts = {
        "allow_privilege_escalation": False,
        "capabilities": Capabilities(drop=("ALL",)),
        "run_as_non_root": True,
        "seccomp_profile": SeccompProfile(type="RuntimeDefault"),
        **context,
    }
    container = replace(builders.container("c"), security_context=SecurityContext(**contexts))
    return builders.pod("web", containers=[container])


def told(pod: Pod, level: str) -> list[str]:
    return [str(violation) for violation in violations(pod.spec, level)]


def with_volume(**source: Any) -> Pod:
    return builders.pod("web", volumes=(Volume(name="v", **source),))


@pytest.mark.parametrize(
    ("pod", "violation"),
    [
        pytest.param(builders.pod(), [], id="an ordinary pod"),
        pytest.param(
            secured(privileged=True),
            ['privileged (container "c" must not set securityContext.privileged=true)'],
            id="privileged",
        ),
        pytest.param(
            builders.pod(host_network=True, host_pid=True),
            ["host namespaces (hostNetwork=true, hostPID=true)"],
            id="host namespaces",
        ),
        pytest.param(
            with_volume(host_path=HostPathVolumeSource(path="/")),
            ['hostPath volumes (volume "v")'],
            id="host path",
        ),
        pytest.param(
            secured(capabilities=Capabilities(add=("NET_ADMIN", "CHOWN"))),
            [
                'non-default capabilities (container "c" must not include "NET_ADMIN" in'
                " securityContext.capabilities.add)"
            ],
            id="capabilities",
        ),
        pytest.param(
            secured(seccomp_profile=SeccompProfile(type="Unconfined")),
            [
                'seccompProfile (container "c" must not set securityContext.seccompProfile.type'
                ' to "Unconfined")'
            ],
            id="seccomp",
        ),
    ],
)
def test_baseline(pod: Pod, violation: list[str]) -> None:
    assert told(pod, "baseline") == violation


def test_restricted() -> None:
    assert told(secured(), "restricted") == []
    container = builders.container("c")
    assert told(builders.pod("web", containers=[container]), "restricted") == [
        'allowPrivilegeEscalation != false (container "c" must set'
        " securityContext.allowPrivilegeEscalation=false)",
        'unrestricted capabilities (container "c" must set'
        ' securityContext.capabilities.drop=["ALL"])',
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to'
        ' "RuntimeDefault" or "Localhost")',
    ]
    volumes = told(with_volume(host_path=HostPathVolumeSource(path="/")), "restricted")
    assert 'restricted volume types (volume "v" uses restricted volume type "hostPath")' in volumes


async def test_a_namespace_says_how_strict_it_is(plane: ControlPlane) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    await plane.admin.create(Namespace(metadata=ObjectMeta(name="safe", labels=labels)))
    metadata = ObjectMeta(name="default", namespace="safe")
    await plane.admin.create(ServiceAccount(metadata=metadata))
    await plane.admin.create(builders.pod("fine", "safe"))
    with pytest.raises(Forbidden) as refused:
        await plane.admin.create(builders.pod("wild", "safe", host_pid=True))
    assert refused.value.message == (
        'pods "wild" is forbidden: violates PodSecurity "baseline:latest": host namespaces'
        " (hostPID=true)"
    )
    wrong = {"pod-security.kubernetes.io/enforce": "strict"}
    with pytest.raises(Invalid, match="must be one of privileged, baseline, restricted"):
        await plane.admin.create(Namespace(metadata=ObjectMeta(name="odd", labels=wrong)))


async def test_a_warning_for_pods_and_what_makes_them(plane: ControlPlane) -> None:
    labels = {"pod-security.kubernetes.io/warn": "baseline"}
    await plane.admin.create(Namespace(metadata=ObjectMeta(name="warned", labels=labels)))
    metadata = ObjectMeta(name="default", namespace="warned")
    await plane.admin.create(ServiceAccount(metadata=metadata))
    template = builders.pod("web", "warned", host_network=True)
    peer = Peer(identity=UserInfo("root", ("system:masters",)))
    client = MemoryHttpClient(plane.server.handle, peer=peer)
    deployment = {
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "hostNetwork": True,
                    "containers": [{"name": "c", "image": "i"}],
                },
            },
        },
    }
    for path, body in (
        ("/api/v1/namespaces/warned/pods", codec.to_dict(template)),
        ("/apis/apps/v1/namespaces/warned/deployments", deployment),
    ):
        headers = [("content-type", "application/json")]
        data = msgspec.json.encode(body)
        response = await client.request("POST", path, headers=headers, body=data)
        assert response.status == 201, await response.read()
        assert response.headers.get("warning") == (
            '299 - "would violate PodSecurity \\"baseline:latest\\": host namespaces'
            ' (hostNetwork=true)"'
        )
        await response.read()


# --- classes --------------------------------------------------------------------------------------


async def test_the_youngest_default_class_counts(plane: ControlPlane) -> None:
    for name in ("older", "younger"):
        mark = {"storageclass.kubernetes.io/is-default-class": "true"}
        metadata = ObjectMeta(name=name, annotations=mark)
        await plane.admin.create(StorageClass(metadata=metadata, provisioner="example.com/x"))
        await asyncio.sleep(5)
    claim = PersistentVolumeClaim(
        metadata=ObjectMeta(name="c", namespace="default"),
        spec=PersistentVolumeClaimSpec(
            access_modes=("ReadWriteOnce",),
            resources=VolumeResourceRequirements(requests={"storage": "1Gi"}),
        ),
    )
    assert (await plane.admin.create(claim)).spec.storage_class_name == "younger"
    none = replace(claim.spec, storage_class_name="")
    bare = await plane.admin.create(
        replace(claim, metadata=ObjectMeta(name="d", namespace="default"), spec=none)
    )
    assert bare.spec.storage_class_name == ""


async def test_an_ingress_gets_the_default_class(plane: ControlPlane) -> None:
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    await plane.admin.create(
        IngressClass(
            metadata=ObjectMeta(name="proxy", annotations=mark),
            spec=IngressClassSpec(controller="example.com/proxy"),
        )
    )
    backend = IngressServiceBackend(name="web", port=ServiceBackendPort(number=80))
    made = await plane.admin.create(
        Ingress(
            metadata=ObjectMeta(name="i", namespace="default"),
            spec=IngressSpec(default_backend=IngressBackend(service=backend)),
        )
    )
    assert made.spec.ingress_class_name == "proxy"


async def test_a_runtime_class_brings_overhead_and_nodes(plane: ControlPlane) -> None:
    with pytest.raises(Forbidden, match='pod rejected: RuntimeClass "vm" not found'):
        await plane.admin.create(builders.pod("web", runtime_class_name="vm"))
    await plane.admin.create(
        RuntimeClass(
            metadata=ObjectMeta(name="vm"),
            handler="kata",
            overhead=Overhead(pod_fixed={"cpu": "100m"}),
            scheduling=Scheduling(node_selector={"vm": "yes"}),
        )
    )
    made = await plane.admin.create(builders.pod("web", runtime_class_name="vm"))
    assert (made.spec.overhead, made.spec.node_selector) == ({"cpu": "100m"}, {"vm": "yes"})
    clash = builders.pod("other", runtime_class_name="vm", node_selector={"vm": "no"})
    with pytest.raises(Forbidden, match="conflict: runtimeClass"):
        await plane.admin.create(clash)


# --- certificates ---------------------------------------------------------------------------------


async def test_a_certificate_request_says_who_asked(plane: ControlPlane) -> None:
    admin = await plane.admin.create(certificate_request("mine", "system:nodes"))
    assert (admin.spec.username, admin.spec.groups[0]) == ("system:apiserver", "system:masters")
    with pytest.raises(Forbidden, match="signer with system:masters group is not allowed"):
        await plane.admin.create(certificate_request("boss", "system:masters"))


def certificate_request(name: str, organization: str) -> CertificateSigningRequest:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    pem = made.public_bytes(Encoding.PEM)
    return CertificateSigningRequest(
        metadata=ObjectMeta(name=name),
        spec=CertificateSigningRequestSpec(
            request=base64.b64encode(pem).decode(),
            signer_name="kubernetes.io/kube-apiserver-client",
            usages=("client auth",),
        ),
    )
