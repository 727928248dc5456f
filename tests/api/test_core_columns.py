"""What `kubectl get` shows of pods, services, nodes: pure functions of made-up objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api.core.endpoints import ENDPOINTS
from pybernetes.api.core.events import EVENTS
from pybernetes.api.core.nodes import NODES
from pybernetes.api.core.persistentvolumeclaims import PERSISTENT_VOLUME_CLAIMS
from pybernetes.api.core.podcolumns import ready_text, restarts_text, status_text
from pybernetes.api.core.resourcequotas import RESOURCE_QUOTAS
from pybernetes.api.core.services import SERVICES
from pybernetes.api.types.core_v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from tests.api.coreobjects import read

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def running(name: str = "a", **fields: Any) -> ContainerStatus:
    fields.setdefault("ready", True)
    return ContainerStatus(
        name=name, state=ContainerState(running=ContainerStateRunning()), **fields
    )


def waiting(reason: str, name: str = "a", **fields: Any) -> ContainerStatus:
    state = ContainerState(waiting=ContainerStateWaiting(reason=reason))
    return ContainerStatus(name=name, state=state, **fields)


def ended(
    code: int = 0, reason: str = "", *, signal: int | None = None, name: str = "a"
) -> ContainerStatus:
    terminated = ContainerStateTerminated(exit_code=code, reason=reason, signal=signal)
    return ContainerStatus(name=name, state=ContainerState(terminated=terminated))


def pod(
    *statuses: ContainerStatus,
    phase: str = "Running",
    init: tuple[ContainerStatus, ...] = (),
    sidecars: tuple[str, ...] = (),
    ready: bool = True,
    **fields: Any,
) -> Pod:
    conditions = (PodCondition(type="Ready", status="True"),) if ready else ()
    fields.setdefault("conditions", conditions)
    return Pod(
        spec=PodSpec(
            containers=tuple(Container(name=status.name) for status in statuses),
            init_containers=tuple(
                Container(
                    name=status.name,
                    restart_policy="Always" if status.name in sidecars else "",
                )
                for status in init
            ),
        ),
        status=PodStatus(
            phase=phase, container_statuses=statuses, init_container_statuses=init, **fields
        ),
    )


@pytest.mark.parametrize(
    ("shown", "example"),
    [
        ("Running", pod(running())),
        ("Pending", pod(phase="Pending")),
        ("Evicted", pod(phase="Failed", reason="Evicted")),
        ("CrashLoopBackOff", pod(waiting("CrashLoopBackOff"))),
        ("ErrImagePull", pod(running("a"), waiting("ErrImagePull", "b"), phase="Pending")),
        ("Completed", pod(ended(0, "Completed"), phase="Succeeded")),
        ("Error", pod(ended(1, "Error"), phase="Failed")),
        ("ExitCode:3", pod(ended(3), phase="Failed")),
        ("Signal:9", pod(ended(137, signal=9), phase="Failed")),
        ("Running", pod(ended(0, "Completed"), running("b"))),
        ("NotReady", pod(ended(0, "Completed"), running("b"), ready=False)),
        ("Error", pod(ended(0, "Completed"), ended(1, "Error", name="b"), phase="Failed")),
        ("Init:0/2", pod(phase="Pending", init=(running("i"), waiting("", "j")))),
        ("Init:1/2", pod(phase="Pending", init=(ended(0, name="i"), running("j")))),
        ("Init:0/1", pod(phase="Pending", init=(waiting("PodInitializing", "i"),))),
        (
            "Init:ImagePullBackOff",
            pod(phase="Pending", init=(waiting("ImagePullBackOff", "i"),)),
        ),
        ("Init:Error", pod(phase="Pending", init=(ended(1, "Error", name="i"),))),
        ("Init:ExitCode:2", pod(phase="Pending", init=(ended(2, name="i"),))),
        (
            "Running",
            pod(running(), init=(running("s", started=True),), sidecars=("s",)),
        ),
        (
            "SchedulingGated",
            pod(
                phase="Pending",
                conditions=(
                    PodCondition(type="PodScheduled", status="False", reason="SchedulingGated"),
                ),
            ),
        ),
    ],
)
def test_pod_status(shown: str, example: Pod) -> None:
    assert status_text(example) == shown


@pytest.mark.parametrize(
    ("phase", "reason", "shown"),
    [
        ("Running", "", "Terminating"),
        ("Failed", "", "Failed"),
        ("Running", "NodeLost", "Unknown"),
    ],
)
def test_pods_on_their_way_out(phase: str, reason: str, shown: str) -> None:
    leaving = replace(pod(phase=phase, reason=reason), metadata=ObjectMeta(deletion_timestamp=NOW))
    assert status_text(leaving) == shown


def test_ready_counts_sidecars() -> None:
    assert ready_text(pod(running(), waiting("x", "b"))) == "1/2"
    both = pod(
        running(),
        init=(running("s", started=True), ended(0, name="i")),
        sidecars=("s",),
    )
    assert ready_text(both) == "2/2"


def test_restarts_tell_when() -> None:
    last = ContainerState(
        terminated=ContainerStateTerminated(finished_at=NOW - timedelta(minutes=5))
    )
    assert restarts_text(pod(running(restart_count=3, last_state=last)), NOW) == "3 (5m ago)"
    assert restarts_text(pod(running()), NOW) == "0"
    initializing = pod(phase="Pending", init=(waiting("CrashLoopBackOff", "i", restart_count=2),))
    assert restarts_text(initializing, NOW) == "2"


def row(resource: Any, manifest: dict[str, Any]) -> dict[str, object]:
    obj = read(resource, manifest)
    return {column.name: column.value(obj, NOW) for column in resource.columns}


@pytest.mark.parametrize(
    ("spec", "status", "external", "ports"),
    [
        ({"ports": [{"port": 80}]}, {}, "<none>", "80/TCP"),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
            {},
            "<none>",
            "80:30080/TCP",
        ),
        ({"type": "LoadBalancer", "ports": []}, {}, "<pending>", "<none>"),
        (
            {"type": "LoadBalancer", "externalIPs": ["1.2.3.4"]},
            {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}},
            "5.6.7.8,1.2.3.4",
            "<none>",
        ),
        ({"type": "ExternalName", "externalName": "a.b"}, {}, "a.b", "<none>"),
        ({"externalIPs": ["1.2.3.4"]}, {}, "1.2.3.4", "<none>"),
    ],
)
def test_services(spec: dict[str, Any], status: dict[str, Any], external: str, ports: str) -> None:
    shown = row(SERVICES, {"metadata": {"name": "a"}, "spec": spec, "status": status})
    assert (shown["External-IP"], shown["Port(s)"]) == (external, ports)


def test_nodes() -> None:
    shown = row(
        NODES,
        {
            "metadata": {
                "name": "n",
                "labels": {
                    "node-role.kubernetes.io/worker": "",
                    "kubernetes.io/role": "control-plane",
                },
            },
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0"},
            },
        },
    )
    assert shown["Status"] == "NotReady,SchedulingDisabled"
    assert shown["Roles"] == "control-plane,worker"
    assert shown["Internal-IP"] == "10.0.0.1"
    assert shown["External-IP"] is None
    assert shown["OS-Image"] == "<unknown>"


def test_endpoints_are_shortened() -> None:
    addresses = [{"ip": f"10.0.0.{n}"} for n in range(1, 6)]
    subsets = [{"addresses": addresses, "ports": [{"port": 80}]}]
    shown = row(ENDPOINTS, {"metadata": {"name": "a"}, "subsets": subsets})
    assert shown["Endpoints"] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."


def test_events_by_their_last_sighting() -> None:
    event = {
        "metadata": {"name": "e", "namespace": "d"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "d"},
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T11:00:00Z",
        "lastTimestamp": "2026-01-01T11:59:00Z",
        "message": " hello\n",
    }
    shown = row(EVENTS, event)
    assert (shown["Object"], shown["Source"], shown["Count"]) == ("pod/web", "kubelet, n", 1)
    assert (shown["Message"], shown["Last Seen"]) == ("hello", NOW - timedelta(minutes=1))
    series = {"count": 7, "lastObservedTime": "2026-01-01T12:00:00.000000Z"}
    new_style = {**event, "series": series, "eventTime": "2026-01-01T11:00:00.000000Z"}
    shown = row(EVENTS, new_style)
    assert (shown["Count"], shown["Last Seen"]) == (7, NOW)


def test_claims_and_quotas() -> None:
    claim = {
        "metadata": {"name": "c"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteMany"]},
        "status": {
            "phase": "Bound",
            "capacity": {"storage": "1024Mi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        },
    }
    shown = row(PERSISTENT_VOLUME_CLAIMS, claim)
    assert (shown["Capacity"], shown["Access Modes"]) == ("1Gi", "RWO,RWX")
    quota = {
        "metadata": {"name": "q"},
        "status": {"hard": {"pods": "5", "limits.cpu": "2"}, "used": {"pods": "1"}},
    }
    shown = row(RESOURCE_QUOTAS, quota)
    assert (shown["Request"], shown["Limit"]) == ("pods: 1/5", "limits.cpu: 0/2")
