"""The first hour with a cluster, told with every kubectl there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import BOX, WEB_1, WEB_2
from tests.e2e.kubectls import VERSIONS

if TYPE_CHECKING:
    from tests.e2e.lab import Lab

pytestmark = pytest.mark.parametrize("kubectl_version", VERSIONS, indirect=True)


def test_deploys_serves_updates_and_cleans_up(cluster: Lab, ns: str, kubectl_version: str) -> None:
    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return cluster.kubectl(*arguments, namespace=ns, stdin=stdin).out

    made = kubectl("apply", "-f", "-", stdin=json.dumps(_web()))
    assert made == "deployment.apps/web created\n"
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web")
    assert kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    # Made by a controller: soon, not at once.
    cluster.wait_for("endpoints/web", holds=lambda found: bool(found["subsets"]), namespace=ns)
    assert kubectl("get", "endpoints", "web", "-o", "name") == "endpoints/web\n"

    kubectl("run", "visitor", f"--image={BOX}", "--restart=Never", "--", "sleep", "3600")
    kubectl("wait", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
    fetch = ("exec", "visitor", "--", "wget", "-q", "-O", "-", f"http://web.{ns}/")
    assert kubectl(*fetch) == "version 1\n"

    lines = kubectl("get", "pods", "-l", "app=web").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line.split()[1:3] for line in lines[1:]] == [["1/1", "Running"]] * 2
    assert "Successfully assigned" in kubectl("describe", "pods", "-l", "app=web")

    kubectl("set", "image", "deployment/web", f"web={WEB_2}")
    kubectl("rollout", "status", "deployment/web")
    assert kubectl(*fetch) == "version 2\n"
    kubectl("rollout", "undo", "deployment/web")
    kubectl("rollout", "status", "deployment/web")
    assert kubectl(*fetch) == "version 1\n"
    assert [line.split()[0] for line in kubectl(
        "rollout", "history", "deployment/web"
    ).strip().splitlines()[2:]] == ["2", "3"]  # fmt: skip

    kubectl("scale", "deployment", "web", "--replicas=1")
    kubectl("label", "deployment", "web", "tier=front")
    kubectl("annotate", "deployment", "web", "note=kept")
    kubectl("patch", "deployment", "web", "-p", '{"spec":{"minReadySeconds":1}}')
    web = json.loads(kubectl("get", "deployment", "web", "-o", "json"))
    assert web["spec"]["replicas"] == 1
    assert web["spec"]["minReadySeconds"] == 1
    assert web["metadata"]["labels"]["tier"] == "front"
    assert web["metadata"]["annotations"]["note"] == "kept"

    kubectl("delete", "deployment,service", "web", "--timeout=60s")
    # An old kubectl calls it an error if they have gone already.
    gone = ("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")
    cluster.kubectl(*gone, namespace=ns, check=False)
    assert kubectl("get", "pods", "-l", "app=web", "-o", "name") == ""


def test_knows_the_server(cluster: Lab, kubectl_version: str) -> None:
    assert "Kubernetes control plane" in cluster.kubectl("cluster-info").out
    assert "1.37.0+p8s" in cluster.kubectl("version", "-o", "json").out
    resources = cluster.kubectl("api-resources").out
    assert "deployments" in resources
    # Until 1.26 kubectl showed the group, later group and version.
    assert "apps/v1" in cluster.kubectl("api-versions").out.split()
    assert "containers" in cluster.kubectl("explain", "pod.spec").out
    assert cluster.kubectl("auth", "can-i", "create", "pods").out == "yes\n"


def _web() -> dict[str, object]:
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": WEB_1,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }
