"""What happens inside a pod: probes, restarts, init containers, limits, volumes, images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.images import BOX, MISSING, WEB_1
from tests.e2e.objects import pod

if TYPE_CHECKING:
    from tests.e2e.lab import Lab

# Where every container finds who it is.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def apply(cluster: Lab, ns: str, *manifests: str) -> None:
    for manifest in manifests:
        cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=manifest)


def ready(cluster: Lab, ns: str, name: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", namespace=ns)


def container(obj: dict[str, Any]) -> dict[str, Any]:
    """The status of the only container, with something in every field that is looked at."""
    found = (obj["status"].get("containerStatuses") or [{}])[0]
    return {"restartCount": 0, "ready": False, "state": {}, "lastState": {}, **found}


def waiting_for(reason: str) -> Any:
    return lambda p: container(p)["state"].get("waiting", {}).get("reason") == reason


def in_box(cluster: Lab, ns: str, name: str, *command: str) -> str:
    return cluster.kubectl("exec", name, "--", *command, namespace=ns).out


def test_a_missing_image_is_reported_and_tried_again(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("box", MISSING))
    seen: list[str] = []
    for obj in cluster.watch("pod/box", namespace=ns):
        reason = container(obj)["state"].get("waiting", {}).get("reason")
        if reason and (not seen or seen[-1] != reason):
            seen.append(reason)
        if reason == "ImagePullBackOff":
            break
    assert seen[-2:] == ["ErrImagePull", "ImagePullBackOff"]
    message = container(obj)["state"]["waiting"]["message"]
    assert f'Back-off pulling image "{MISSING}"' in message
    told = cluster.events("box", ns)
    for words in (f'Pulling image "{MISSING}"', f'Failed to pull image "{MISSING}"', "BackOff"):
        assert words in told
    assert "ImagePullBackOff" in cluster.kubectl("get", "pods", namespace=ns).out


def test_an_image_that_must_not_be_pulled(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("box", MISSING, container={"imagePullPolicy": "Never"}))
    stuck = cluster.wait_for("pod/box", holds=waiting_for("ErrImageNeverPull"), namespace=ns)
    assert "is not present with pull policy of Never" in json.dumps(stuck["status"])
    apply(cluster, ns, pod("bad", "Not An Image"))
    cluster.wait_for("pod/bad", holds=waiting_for("InvalidImageName"), namespace=ns)


def test_a_crash_looping_pod_backs_off(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("crash", BOX, "echo dying; exit 42"))
    looping = cluster.wait_for(
        "pod/crash", namespace=ns,
        holds=lambda p: container(p)["restartCount"] >= 1 and waiting_for("CrashLoopBackOff")(p),
    )  # fmt: skip
    status = container(looping)
    assert status["lastState"]["terminated"]["exitCode"] == 42
    assert (
        "back-off 10s restarting failed container=main pod=crash"
        in (status["state"]["waiting"]["message"])
    )
    assert "CrashLoopBackOff" in cluster.kubectl("get", "pod", "crash", namespace=ns).out
    # The next time it waits twice as long.
    cluster.wait_for(
        "pod/crash", namespace=ns,
        holds=lambda p: "back-off 20s" in container(p)["state"].get("waiting", {}).get("message", ""),
    )  # fmt: skip
    assert "Back-off restarting failed container" in cluster.events("crash", ns)


@pytest.mark.parametrize(
    ("policy", "script", "phase"),
    [("Never", "exit 1", "Failed"), ("OnFailure", "exit 0", "Succeeded"), ("Never", "true", "Succeeded")],
)  # fmt: skip
def test_pods_that_end(cluster: Lab, ns: str, policy: str, script: str, phase: str) -> None:
    apply(cluster, ns, pod("box", BOX, script, spec={"restartPolicy": policy}))
    cluster.wait_for("pod/box", holds=lambda p: p["status"]["phase"] == phase, namespace=ns)


def test_init_containers_run_in_order_before_the_others(cluster: Lab, ns: str) -> None:
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    init = [
        {"name": name, "image": BOX, "command": ["sh", "-c", f"echo {name} >> /data/log"], **mounts}
        for name in ("one", "two")
    ]
    sidecar = {
        "name": "side", "image": BOX, "restartPolicy": "Always", **mounts,
        "command": ["sh", "-c", "echo side >> /data/log; touch /data/up; sleep 3600"],
        "startupProbe": {"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1},
    }  # fmt: skip
    spec = {"initContainers": [*init, sidecar], "volumes": [{"name": "data", "emptyDir": {}}]}
    apply(
        cluster,
        ns,
        pod("box", BOX, "echo main >> /data/log; sleep 3600", spec=spec, container=mounts),
    )
    ready(cluster, ns, "box")
    log = "one\ntwo\nside\nmain\n"
    assert in_box(cluster, ns, "box", "cat", "/data/log") == log
    assert "2/2" in cluster.kubectl("get", "pod", "box", namespace=ns).out
    apply(cluster, ns, pod("stuck", BOX, spec={"initContainers": [
        {"name": "fails", "image": BOX, "command": ["false"]}
    ]}))  # fmt: skip
    cluster.wait_for(
        "pod/stuck", namespace=ns,
        holds=lambda p: any(
            c.get("restartCount") for c in p["status"].get("initContainerStatuses", [])
        ),
    )  # fmt: skip
    shown = cluster.kubectl("get", "pod", "stuck", namespace=ns).out
    assert "Init:" in shown


def test_readiness_follows_its_probe(cluster: Lab, ns: str) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    apply(cluster, ns, pod("box", BOX, container={"readinessProbe": probe}))
    cluster.wait_for("pod/box", holds=lambda p: "running" in container(p)["state"], namespace=ns)
    in_box(cluster, ns, "box", "touch", "/tmp/ready")
    ready(cluster, ns, "box")
    in_box(cluster, ns, "box", "rm", "/tmp/ready")
    cluster.kubectl("wait", "--for=condition=Ready=false", "pod/box", namespace=ns)
    assert "Readiness probe failed" in cluster.events("box", ns)
    assert container(cluster.get("pod", "box", namespace=ns))["restartCount"] == 0


@pytest.mark.parametrize(
    ("probe", "break_it"),
    [
        ({"httpGet": {"path": "/index.html", "port": 8080}}, "rm -r /srv"),
        ({"tcpSocket": {"port": 8080}}, "killall httpd"),
        ({"exec": {"command": ["test", "-e", "/srv"]}}, "rm -r /srv"),
    ],
    ids=["http", "tcp", "exec"],
)
def test_a_failing_liveness_probe_restarts_the_container(
    cluster: Lab, ns: str, probe: dict[str, Any], break_it: str
) -> None:
    script = (
        "mkdir /srv; echo ok > /srv/index.html; httpd -f -p 8080 -h /srv & wait; exec sleep 3600"
    )
    timing = {"periodSeconds": 1, "failureThreshold": 1}
    startup = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "failureThreshold": 30}
    probes = {"startupProbe": startup, "livenessProbe": {**probe, **timing}}
    apply(cluster, ns, pod("box", BOX, script, container=probes))
    ready(cluster, ns, "box")
    in_box(cluster, ns, "box", "sh", "-c", break_it)
    cluster.wait_for(
        "pod/box", namespace=ns,
        holds=lambda p: container(p)["restartCount"] == 1 and container(p)["ready"],
    )  # fmt: skip
    told = cluster.events("box", ns)
    assert "Liveness probe failed" in told
    assert "Container main failed liveness probe, will be restarted" in told


def test_a_failing_startup_probe_restarts_the_container(cluster: Lab, ns: str) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    apply(cluster, ns, pod("box", BOX, container={"startupProbe": probe}))
    cluster.wait_for("pod/box", holds=lambda p: container(p)["restartCount"] > 0, namespace=ns)
    told = cluster.events("box", ns)
    assert "Startup probe failed" in told
    assert "Container main failed startup probe, will be restarted" in told


def test_hooks_and_the_grace_period(cluster: Lab, ns: str) -> None:
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo began > /shared/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /shared/log"]}},
    }
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    # A path of the host is where something of the pod outlives it.
    place = cluster.directory / f"shared-{ns}"
    volume = {"name": "shared", "hostPath": {"path": str(place), "type": "DirectoryOrCreate"}}
    script = "trap 'echo term >> /shared/log; exit 0' TERM; while :; do sleep 0.1; done"
    apply(cluster, ns, pod(
        "box", BOX, script, grace=20, container={"lifecycle": lifecycle, **mounts},
        spec={"volumes": [volume]},
    ))  # fmt: skip
    ready(cluster, ns, "box")
    cluster.kubectl("delete", "pod", "box", namespace=ns, timeout=30)
    assert (place / "log").read_text().split() == ["began", "stopping", "term"]


def test_memory_beyond_the_limit_is_an_oom_kill(cluster: Lab, ns: str) -> None:
    limits = {"resources": {"limits": {"memory": "16Mi"}}}
    # tail keeps a line that never ends in memory.
    spec = {"restartPolicy": "Never"}
    apply(cluster, ns, pod("greedy", BOX, "tail /dev/zero", container=limits, spec=spec))
    done = cluster.wait_for(
        "pod/greedy", holds=lambda p: "terminated" in container(p)["state"], namespace=ns
    )
    ended = container(done)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert done["status"]["qosClass"] == "Burstable"


def test_resources_become_cgroup_limits(cluster: Lab, ns: str) -> None:
    wanted = {"resources": {"limits": {"memory": "32Mi", "cpu": "250m"}}}
    apply(cluster, ns, pod("box", BOX, container=wanted))
    ready(cluster, ns, "box")
    script = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
        " cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null"
    )
    said = cluster.kubectl("exec", "box", "--", "sh", "-c", script, namespace=ns, check=False).out
    assert said.split()[:2] == [str(32 << 20), "25000"]


def test_a_pod_that_fits_nowhere_says_why(cluster: Lab, ns: str) -> None:
    wanted = {"resources": {"requests": {"cpu": "1000"}}}
    apply(cluster, ns, pod("big", BOX, container=wanted))
    cluster.kubectl("wait", "--for=condition=PodScheduled=false", "pod/big", namespace=ns)
    told = cluster.wait_for(
        "events", "--field-selector=reason=FailedScheduling", holds=lambda _: True, namespace=ns
    )
    assert told["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    apply(cluster, ns, pod("picky", BOX, spec={"nodeSelector": {"no": "where"}}))
    picky = cluster.wait_for(
        "pod/picky", holds=lambda p: bool(p["status"].get("conditions")), namespace=ns
    )
    assert (
        "didn't match Pod's node affinity/selector" in picky["status"]["conditions"][0]["message"]
    )


def test_volumes_show_configuration_and_follow_it(cluster: Lab, ns: str) -> None:
    cluster.kubectl("create", "cm", "conf", "--from-literal=key=one", namespace=ns)
    cluster.kubectl("create", "secret", "generic", "hush", "--from-literal=k=s3cret", namespace=ns)
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "hush", "secret": {"secretName": "hush", "defaultMode": 0o400}},
        {"name": "facts", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
    ]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    env = [
        {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}},
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(FROM_MAP)-$(WHO)"},
    ]
    apply(cluster, ns, pod(
        "box", BOX, container={"volumeMounts": mounts, "env": env}, spec={"volumes": volumes}
    ))  # fmt: skip
    ready(cluster, ns, "box")
    assert in_box(cluster, ns, "box", "cat", "/conf/key") == "one"
    assert in_box(cluster, ns, "box", "cat", "/hush/k") == "s3cret"
    assert in_box(cluster, ns, "box", "cat", "/facts/labels") == 'app="box"'
    assert in_box(cluster, ns, "box", "sh", "-c", "echo $BOTH") == "one-box\n"
    assert "tmpfs" in in_box(cluster, ns, "box", "sh", "-c", "mount | grep ' /scratch '")
    assert in_box(cluster, ns, "box", "stat", "-L", "-c", "%a", "/hush/k") == "400\n"
    assert set(in_box(cluster, ns, "box", "ls", ACCOUNT).split()) == {
        "ca.crt",
        "namespace",
        "token",
    }

    cluster.kubectl("patch", "cm", "conf", "-p", '{"data":{"key":"two"}}', namespace=ns)
    cluster.kubectl("label", "pod", "box", "new=label", namespace=ns)
    script = (
        "n=0; until [ $(cat /conf/key) = two ] && grep -q new /facts/labels;"
        " do sleep 0.1; n=$((n + 1)); [ $n -lt 900 ] || exit 1; done; cat /conf/key"
    )
    assert in_box(cluster, ns, "box", "sh", "-c", script) == "two"


def test_a_pod_waits_for_what_it_mounts(cluster: Lab, ns: str) -> None:
    volumes = {"volumes": [{"name": "conf", "configMap": {"name": "later"}}]}
    mounts = {"volumeMounts": [{"name": "conf", "mountPath": "/conf"}]}
    apply(cluster, ns, pod("box", BOX, container=mounts, spec=volumes))
    told = cluster.wait_for(
        "events", "--field-selector=reason=FailedMount", holds=lambda _: True, namespace=ns
    )
    assert 'configmap "later" not found' in told["message"]
    cluster.kubectl("create", "cm", "later", "--from-literal=a=b", namespace=ns)
    ready(cluster, ns, "box")
    apply(cluster, ns, pod("env", BOX, container={"envFrom": [{"secretRef": {"name": "none"}}]}))
    stuck = cluster.wait_for(
        "pod/env", holds=waiting_for("CreateContainerConfigError"), namespace=ns
    )
    assert 'secret "none" not found' in container(stuck)["state"]["waiting"]["message"]


def test_security_context_and_shared_namespaces(cluster: Lab, ns: str) -> None:
    spec = {
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "hostname": "called",
        "hostAliases": [{"ip": "127.0.0.9", "hostnames": ["alias"]}],
        "shareProcessNamespace": True,
    }
    inner = {
        "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    apply(cluster, ns, pod("box", BOX, spec=spec, container=inner))
    ready(cluster, ns, "box")
    script = (
        "id -u; id -g; hostname; touch /x 2>/dev/null || echo read-only; touch /data/f;"
        " stat -c %g /data/f; grep -c alias /etc/hosts; grep CapEff /proc/self/status; ps | grep -c pause"
    )
    said = in_box(cluster, ns, "box", "sh", "-c", script).split()
    assert said[:6] == ["1000", "2000", "called", "read-only", "3000", "1"]
    assert int(said[7], 16) == 0
    assert int(said[8]) >= 1


def test_host_ports_and_host_network(cluster: Lab, ns: str) -> None:
    ports = {"ports": [{"containerPort": 8080, "hostPort": 18080}], "command": ["/serve"]}
    apply(cluster, ns, pod("web", WEB_1, container=ports))
    ready(cluster, ns, "web")
    apply(cluster, ns, pod("host", BOX, spec={"hostNetwork": True}))
    ready(cluster, ns, "host")
    status = cluster.get("pod", "host", namespace=ns)["status"]
    assert status["podIP"] == status["hostIP"]
    address = f"http://{status['hostIP']}:18080/"
    assert in_box(cluster, ns, "host", "wget", "-q", "-O", "-", address) == "version 1\n"


def test_a_pod_reaches_the_api_and_is_known_by_its_token(cluster: Lab, ns: str) -> None:
    apply(cluster, ns, pod("box", BOX))
    ready(cluster, ns, "box")
    in_box(cluster, ns, "box", "nc", "-w", "5", "kubernetes.default", "443", "-e", "true")
    # This busybox has no TLS: the token is used by somebody else, through the same Service.
    token = in_box(cluster, ns, "box", "cat", f"{ACCOUNT}/token")
    ca = cluster.directory / f"{ns}.crt"
    ca.write_text(in_box(cluster, ns, "box", "cat", f"{ACCOUNT}/ca.crt"))
    cluster.needs("1.27")
    address = in_box(cluster, ns, "box", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST").strip()
    who = cluster.run(
        cluster.kubectl_path, "--kubeconfig=/dev/null", f"--server=https://{address}:443",
        f"--certificate-authority={ca}", f"--token={token}", "auth", "whoami", "-o", "json",
    ).json["status"]["userInfo"]  # fmt: skip
    assert who["username"] == f"system:serviceaccount:{ns}:default"
    assert who["extra"]["authentication.kubernetes.io/pod-name"] == ["box"]
