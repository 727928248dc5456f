"""Controllers with real containers under them: rollouts, scaling, healing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from tests.e2e.images import BOX, WEB_1, WEB_2
from tests.e2e.objects import deployment, pod
from tests.e2e.visitor import Visitor

if TYPE_CHECKING:
    from tests.e2e.lab import Lab


def apply(cluster: Lab, ns: str, *manifests: str) -> None:
    for manifest in manifests:
        cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=manifest)


def test_a_rolling_update_loses_no_request(cluster: Lab, ns: str) -> None:
    """Requests through the Service all the time, while every pod is replaced, twice."""
    apply(cluster, ns, deployment("web", WEB_1, replicas=3))
    cluster.roll_out("deployment/web", ns)
    cluster.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080", namespace=ns)
    address = cluster.get("service", "web", namespace=ns)["spec"]["clusterIP"]
    with Visitor(cluster, address, 80) as visitor:
        visitor.wait_for("version 1")
        cluster.kubectl("set", "image", "deployment/web", f"web={WEB_2}", namespace=ns)
        cluster.roll_out("deployment/web", ns)
        visitor.wait_for("version 2")
        cluster.kubectl("rollout", "restart", "deployment/web", namespace=ns)
        cluster.roll_out("deployment/web", ns)
    assert visitor.failures == []
    assert visitor.answers["version 1"] > 10
    assert visitor.answers["version 2"] > 10


def test_rollout_history_undo_pause_and_restart(cluster: Lab, ns: str) -> None:
    def rollout(*arguments: str) -> str:
        return cluster.kubectl("rollout", *arguments, namespace=ns).out

    def image() -> str:
        containers = cluster.get("deployment", "web", namespace=ns)["spec"]["template"]["spec"]
        return str(containers["containers"][0]["image"])

    apply(cluster, ns, deployment("web", WEB_1))
    cluster.roll_out("deployment/web", ns)
    cause = "kubernetes.io/change-cause=second"
    cluster.kubectl("set", "image", "deployment/web", f"*={WEB_2}", namespace=ns)
    cluster.kubectl("annotate", "deployment/web", cause, namespace=ns)
    cluster.roll_out("deployment/web", ns)
    history = rollout("history", "deployment/web").strip().splitlines()
    assert history[1].split() == ["REVISION", "CHANGE-CAUSE"]
    assert [line.split() for line in history[2:]] == [["1", "<none>"], ["2", "second"]]
    assert WEB_2 in rollout("history", "deployment/web", "--revision=2")
    rollout("undo", "deployment/web")
    cluster.roll_out("deployment/web", ns)
    assert image() == WEB_1
    rollout("undo", "deployment/web", "--to-revision=2")
    cluster.roll_out("deployment/web", ns)
    assert image() == WEB_2

    rollout("pause", "deployment/web")
    cluster.kubectl("set", "image", "deployment/web", f"web={WEB_1}", namespace=ns)
    cluster.wait_for(
        "deployment/web", namespace=ns,
        holds=lambda d: d["status"].get("observedGeneration") == d["metadata"]["generation"],
    )  # fmt: skip
    assert cluster.get("deployment", "web", namespace=ns)["status"].get("updatedReplicas", 0) == 0
    rollout("resume", "deployment/web")
    cluster.roll_out("deployment/web", ns)
    # The pods of the revision before may still be on their way out.
    (before,) = there(cluster.pods("app=web", ns))
    rollout("restart", "deployment/web")
    cluster.roll_out("deployment/web", ns)
    after = there(cluster.pods("app=web", ns))
    assert [p["metadata"]["name"] for p in after] != [before["metadata"]["name"]]


def test_a_rollout_that_cannot_succeed_says_so(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, deployment("web", WEB_1, replicas=2, spec={"progressDeadlineSeconds": 3}))
    cluster.roll_out("deployment/web", ns)
    cluster.kubectl("set", "image", "deployment/web", "web=localhost/missing:1", namespace=ns)
    stuck = cluster.kubectl("rollout", "status", "deployment/web", namespace=ns, check=False)
    assert stuck.code == 1
    assert "exceeded its progress deadline" in stuck.text
    web = cluster.get("deployment", "web", namespace=ns)
    # A quarter may be away, which is none of two: both old pods still serve.
    assert web["status"]["readyReplicas"] == 2
    cluster.kubectl("rollout", "undo", "deployment/web", namespace=ns)
    cluster.roll_out("deployment/web", ns)


def test_scales_from_one_to_twenty_and_back(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("other", BOX), deployment("web", WEB_1))
    cluster.roll_out("deployment/web", ns)
    cluster.kubectl("scale", "deployment/web", "--replicas=20", namespace=ns)
    cluster.wait_for_replicas("deployment/web", 20, ns)
    pods = cluster.pods("app=web", ns)
    assert len({p["status"]["podIP"] for p in pods}) == 20
    refused = ("scale", "deployment/web", "--replicas=3", "--current-replicas=7")
    assert cluster.kubectl(*refused, namespace=ns, check=False).code == 1
    cluster.kubectl("scale", "deployment/web", "--replicas=1", namespace=ns)
    cluster.wait_for_replicas("deployment/web", 1, ns, "replicas")
    gone = {p["metadata"]["name"] for p in pods}
    while len(left := cluster.pods("app=web", ns)) > 1:
        leaving = next(p for p in left if "deletionTimestamp" in p["metadata"])
        name = leaving["metadata"]["name"]
        # An old kubectl calls it an error if the pod has gone meanwhile.
        cluster.kubectl("wait", "--for=delete", f"pod/{name}", namespace=ns, check=False)
    assert left[0]["metadata"]["name"] in gone


def test_a_deleted_pod_is_replaced(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, deployment("web", WEB_1, replicas=2))
    cluster.roll_out("deployment/web", ns)
    names = {p["metadata"]["name"] for p in cluster.pods("app=web", ns)}
    victim = min(names)
    cluster.kubectl("delete", "pod", victim, namespace=ns)
    cluster.wait_for_replicas("deployment/web", 2, ns)
    now = {p["metadata"]["name"] for p in cluster.pods("app=web", ns)}
    assert victim not in now
    assert len(now) == 2


def test_a_container_killed_from_outside_is_restarted(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("box", BOX, "exec sleep 7200"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/box", namespace=ns)
    before = cluster.get("pod", "box", namespace=ns)["status"]
    os.kill(pid_in(cluster, before["containerStatuses"][0]["containerID"]), signal.SIGKILL)
    after = cluster.wait_for(
        "pod/box", namespace=ns,
        holds=lambda p: status_of(p)["restartCount"] == 1 and status_of(p)["ready"],
    )  # fmt: skip
    assert status_of(after)["lastState"]["terminated"]["exitCode"] == 137
    assert after["status"]["podIP"] == before["podIP"]


def test_a_sandbox_killed_from_outside_is_made_anew(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("box", BOX, "exec sleep 7201"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/box", namespace=ns)
    before = cluster.get("pod", "box", namespace=ns)
    pid = pid_in(cluster, status_of(before)["containerID"])
    os.kill(pause_of(pid), signal.SIGKILL)
    cluster.wait_for(
        "pod/box", namespace=ns,
        holds=lambda p: status_of(p)["restartCount"] == 1 and status_of(p)["ready"],
    )  # fmt: skip
    assert cluster.kubectl("exec", "box", "--", "hostname", namespace=ns).out == "box\n"


def test_a_service_leads_to_ready_pods_by_address_name_and_node_port(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, deployment("web", WEB_1, replicas=2), pod("box", BOX))
    cluster.roll_out("deployment/web", ns)
    cluster.kubectl(
        "expose", "deployment", "web", "--port=80", "--target-port=8080", "--type=NodePort",
        namespace=ns,
    )  # fmt: skip
    cluster.kubectl("wait", "--for=condition=Ready", "pod/box", namespace=ns)
    service = cluster.get("service", "web", namespace=ns)["spec"]
    node_port = service["ports"][0]["nodePort"]
    (node,) = cluster.get("nodes")["items"]
    host = node["status"]["addresses"][0]["address"]
    for place in (
        service["clusterIP"],
        "web",
        f"web.{ns}",
        f"web.{ns}.svc.cluster.local",
        f"{host}:{node_port}",
    ):
        fetch = ("exec", "box", "--", "wget", "-q", "-O", "-", f"http://{place}/")
        assert cluster.kubectl(*fetch, namespace=ns).out == "version 1\n", place
    lookup = ("exec", "box", "--", "nslookup", f"web.{ns}.svc.cluster.local")
    assert service["clusterIP"] in cluster.kubectl(*lookup, namespace=ns).out
    cluster.kubectl("scale", "deployment/web", "--replicas=0", namespace=ns)
    cluster.kubectl("wait", "--for=delete", "pod", "-l", "app=web", namespace=ns, check=False)
    assert cluster.pods("app=web", ns) == []
    fetch = ("exec", "box", "--", "wget", "-q", "-O", "-", "http://web/")
    refused = cluster.kubectl(*fetch, namespace=ns, check=False)
    assert "refused" in refused.text


def test_a_headless_service_names_its_pods(cluster: Lab, ns: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}},
    }
    stateful = json.loads(deployment("db", WEB_1, replicas=2))
    stateful["kind"] = "StatefulSet"
    stateful["spec"]["serviceName"] = "db"
    apply(cluster, ns, json.dumps(service), json.dumps(stateful), pod("box", BOX))
    cluster.roll_out("statefulset/db", ns)
    names = [p["metadata"]["name"] for p in cluster.pods("app=db", ns)]
    assert names == ["db-0", "db-1"]
    cluster.kubectl("wait", "--for=condition=Ready", "pod/box", namespace=ns)
    fetch = ("exec", "box", "--", "wget", "-q", "-O", "-", "http://db-1.db:8080/")
    assert cluster.kubectl(*fetch, namespace=ns).out == "version 1\n"


def test_jobs_and_daemon_sets(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    cluster.kubectl(
        "create", "job", "sum", f"--image={BOX}", "--", "expr", "1", "+", "2", namespace=ns
    )
    cluster.kubectl("wait", "--for=condition=Complete", "job/sum", "--timeout=60s", namespace=ns)
    assert cluster.kubectl("logs", "job/sum", namespace=ns).out == "3\n"
    cluster.kubectl("create", "cronjob", "often", f"--image={BOX}", "--schedule=0 0 1 1 *", "--",
                    "echo", "now", namespace=ns)  # fmt: skip
    cluster.kubectl("create", "job", "now", "--from=cronjob/often", namespace=ns)
    cluster.kubectl("wait", "--for=condition=Complete", "job/now", "--timeout=60s", namespace=ns)
    daemon = json.loads(deployment("each", WEB_1))
    daemon["kind"] = "DaemonSet"
    del daemon["spec"]["replicas"]
    apply(cluster, ns, json.dumps(daemon))
    cluster.roll_out("daemonset/each", ns)
    status = cluster.get("daemonset", "each", namespace=ns)["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"]) == (1, 1)
    cluster.kubectl("set", "image", "daemonset/each", f"each={WEB_2}", namespace=ns)
    cluster.roll_out("daemonset/each", ns)


def test_autoscale_makes_an_autoscaler(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, deployment("web", WEB_1, replicas=0))
    cluster.kubectl("autoscale", "deployment", "web", "--max=5", "--cpu-percent=50", namespace=ns)
    assert cluster.get("hpa", "web", namespace=ns)["spec"]["maxReplicas"] == 5


def test_cordon_drain_and_uncordon(cluster: Lab, ns: str) -> None:
    (node,) = cluster.get("nodes")["items"]
    name = node["metadata"]["name"]
    apply(cluster, ns, deployment("web", WEB_1))
    cluster.roll_out("deployment/web", ns)
    try:
        cluster.kubectl(
            "drain", name, "--pod-selector=app=web,pod-template-hash", "--timeout=60s",
            "--ignore-daemonsets",
        )  # fmt: skip
        waiting = cluster.wait_for(
            "pods", "-l", "app=web", namespace=ns,
            holds=lambda p: any(
                c["type"] == "PodScheduled" and c["status"] == "False"
                for c in p["status"].get("conditions", [])
            ),
        )  # fmt: skip
        (condition,) = waiting["status"]["conditions"]
        assert "0/1 nodes are available: 1 node(s) were unschedulable" in condition["message"]
    finally:
        cluster.kubectl("uncordon", name)
    cluster.roll_out("deployment/web", ns)


def there(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that nobody has deleted."""
    return [p for p in pods if "deletionTimestamp" not in p["metadata"]]


def status_of(obj: dict[str, Any]) -> dict[str, Any]:
    """The status of a pod's only container, also before there is one."""
    found = (obj["status"].get("containerStatuses") or [{}])[0]
    return {"restartCount": 0, "ready": False, **found}


def pid_in(cluster: Lab, container_id: str) -> int:
    """The process of a container, found by the cgroup it is in."""
    from tests.e2e.traces import processes_in_cgroup

    (pid, *_) = processes_in_cgroup(container_id.removeprefix("containerd://"))
    return pid


def pause_of(pid: int) -> int:
    """The process that holds the namespaces of a container's pod."""
    from tests.e2e.traces import same_network

    for other in same_network(pid):
        with open(f"/proc/{other}/cmdline", "rb") as file:
            if file.read().startswith(b"/pause"):
                return other
    raise AssertionError(f"nobody holds the namespaces of process {pid}")
