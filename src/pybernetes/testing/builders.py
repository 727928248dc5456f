"""Objects with a sane value in every field that matters, so that a test shows only what it is about.

Each builder gives a typed object; everything not named comes from the API's defaults when the
object is created in a cluster, or is what a running cluster would have written where a test uses
the object directly.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from pybernetes.api.types.apps_v1 import Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec
from pybernetes.api.types.core_v1 import (
    ConfigMap,
    Container,
    ContainerPort,
    Namespace,
    Node,
    NodeAddress,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    Pod,
    PodCondition,
    PodIP,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
    ResourceRequirements,
    Secret,
    Service,
    ServicePort,
    ServiceSpec,
    Taint,
    Toleration,
)
from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta, OwnerReference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# When everything that is built here was created: virtual time starts at the same moment.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

_UIDS = count(1)


def metadata(name: str, namespace: str = "default", **fields: Any) -> ObjectMeta:
    """With a uid of its own and a creation time; `fields` are those of ObjectMeta."""
    fields.setdefault("uid", f"uid-{next(_UIDS)}")
    fields.setdefault("creation_timestamp", EPOCH)
    return ObjectMeta(name=name, namespace=namespace, **fields)


def container(
    name: str = "main", *, image: str = "registry.test/app:1", **fields: Any
) -> Container:
    """`requests` and `limits` may be given directly, `ports` as numbers."""
    resources = ResourceRequirements(
        requests=fields.pop("requests", {}), limits=fields.pop("limits", {})
    )
    ports = tuple(
        ContainerPort(container_port=port, protocol="TCP") if isinstance(port, int) else port
        for port in fields.pop("ports", ())
    )
    return Container(name=name, image=image, resources=resources, ports=ports, **fields)


def pod(
    name: str = "pod",
    namespace: str = "default",
    *,
    labels: Mapping[str, str] | None = None,
    node: str = "",
    phase: str = "",
    ready: bool | None = None,
    ip: str = "",
    requests: Mapping[str, str] | None = None,
    containers: Sequence[Container] | None = None,
    owner: OwnerReference | None = None,
    priority: int | None = None,
    meta: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Pod:
    """A pod with one container; `spec`, `meta` and `status` fields win over what is made here."""
    if containers is None:
        containers = [container(requests=dict(requests or {}))]
    said: dict[str, Any] = {"phase": phase or ("Running" if ready is not None else "Pending")}
    if ready is not None:
        verdict = "True" if ready else "False"
        said["conditions"] = tuple(
            PodCondition(type=kind, status=verdict, last_transition_time=EPOCH)
            for kind in ("Ready", "ContainersReady")
        )
    if ip:
        said |= {"pod_ip": ip, "pod_ips": (PodIP(ip=ip),)}
    spec.setdefault("scheduler_name", "default-scheduler")
    return Pod(
        metadata=metadata(
            name,
            namespace,
            labels=dict(labels or {}),
            owner_references=(owner,) if owner else (),
            **dict(meta or {}),
        ),
        spec=PodSpec(containers=tuple(containers), node_name=node, priority=priority, **spec),
        status=PodStatus(**{**said, **dict(status or {})}),
    )


def template(labels: Mapping[str, str], **spec: Any) -> PodTemplateSpec:
    """A pod template with one container."""
    containers = tuple(spec.pop("containers", (container(),)))
    return PodTemplateSpec(
        metadata=ObjectMeta(labels=dict(labels)), spec=PodSpec(containers=containers, **spec)
    )


def node(
    name: str = "node",
    *,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Taint] = (),
    ready: bool = True,
    unschedulable: bool | None = None,
    address: str = "",
    pod_cidr: str = "",
    resources: Mapping[str, str] | None = None,
) -> Node:
    """A node that is ready and has room."""
    room = {"cpu": cpu, "memory": memory, "pods": pods, **dict(resources or {})}
    addresses = (NodeAddress(type="InternalIP", address=address),) if address else ()
    return Node(
        metadata=metadata(name, "", labels={"kubernetes.io/hostname": name, **dict(labels or {})}),
        spec=NodeSpec(
            taints=tuple(taints),
            unschedulable=unschedulable,
            pod_cidr=pod_cidr,
            pod_cidrs=(pod_cidr,) if pod_cidr else (),
        ),
        status=NodeStatus(
            capacity=room,
            allocatable=room,
            addresses=addresses,
            conditions=(
                NodeCondition(
                    type="Ready",
                    status="True" if ready else "False",
                    reason="KubeletReady" if ready else "KubeletNotReady",
                    last_heartbeat_time=EPOCH,
                    last_transition_time=EPOCH,
                ),
            ),
        ),
    )


def replica_set(
    name: str = "rs",
    namespace: str = "default",
    *,
    replicas: int = 1,
    labels: Mapping[str, str] | None = None,
    owner: OwnerReference | None = None,
    meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> ReplicaSet:
    wanted = dict(labels or {"app": name})
    return ReplicaSet(
        metadata=metadata(
            name,
            namespace,
            labels=wanted,
            owner_references=(owner,) if owner else (),
            **dict(meta or {}),
        ),
        spec=ReplicaSetSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=wanted),
            template=spec.pop("template", template(wanted)),
            **spec,
        ),
    )


def deployment(
    name: str = "web",
    namespace: str = "default",
    *,
    replicas: int = 1,
    labels: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Deployment:
    wanted = dict(labels or {"app": name})
    return Deployment(
        metadata=metadata(name, namespace, labels=wanted, **dict(meta or {})),
        spec=DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=wanted),
            template=spec.pop("template", template(wanted)),
            **spec,
        ),
    )


def service(
    name: str = "web",
    namespace: str = "default",
    *,
    selector: Mapping[str, str] | None = None,
    port: int = 80,
    target_port: int | str = 8080,
    cluster_ip: str = "",
    meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Service:
    """One TCP port; `selector` defaults to `app: <name>`."""
    ports = spec.pop(
        "ports", (ServicePort(name="http", protocol="TCP", port=port, target_port=target_port),)
    )
    return Service(
        metadata=metadata(name, namespace, **dict(meta or {})),
        spec=ServiceSpec(
            selector=dict({"app": name} if selector is None else selector),
            ports=tuple(ports),
            cluster_ip=cluster_ip,
            **spec,
        ),
    )


def namespace(name: str, **meta: Any) -> Namespace:
    return Namespace(metadata=metadata(name, "", **meta))


def config_map(name: str = "config", namespace: str = "default", **data: str) -> ConfigMap:
    return ConfigMap(metadata=metadata(name, namespace), data=data)


def secret(name: str = "secret", namespace: str = "default", **data: str) -> Secret:
    """`data` values are base64 already, as the API has them."""
    return Secret(metadata=metadata(name, namespace), data=data, type="Opaque")


def taint(key: str, value: str = "", effect: str = "NoSchedule") -> Taint:
    return Taint(key=key, value=value, effect=effect)


def toleration(key: str = "", value: str = "", effect: str = "", **fields: Any) -> Toleration:
    """Without a value the key only has to exist."""
    operator = "Equal" if value else "Exists"
    return Toleration(key=key, value=value, effect=effect, operator=operator, **fields)


def owned_by(owner: Any) -> OwnerReference:
    """The reference by which `owner` controls an object."""
    return OwnerReference(
        api_version=owner.api_version,
        kind=owner.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
