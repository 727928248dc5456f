"""What kubectl does with objects: create, look at, change and delete them in all its ways."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.images import BOX, WEB_1
from tests.e2e.lab import end
from tests.e2e.objects import deployment, pod

if TYPE_CHECKING:
    from tests.e2e.lab import Lab


@pytest.fixture
def web(cluster: Lab, ns: str) -> str:
    """A Deployment of two running pods; its name."""
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=deployment("web", WEB_1, replicas=2))
    cluster.roll_out("deployment/web", ns)
    return "web"


def test_get_prints_every_form(cluster: Lab, ns: str, web: str) -> None:
    def get(*arguments: str) -> str:
        return cluster.kubectl("get", *arguments, namespace=ns).out

    assert get("deploy").split()[:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    wide = get("pods", "-o", "wide").splitlines()
    assert wide[0].split("  ")[-1].strip() == "READINESS GATES"
    assert wide[1].split()[5].startswith("10.244.")
    names = get("pods", "-o", "name").split()
    assert len(names) == 2
    assert names[0].startswith("pod/web-")
    assert json.loads(get("deploy", web, "-o", "json"))["kind"] == "Deployment"
    assert yaml.safe_load(get("deploy", web, "-o", "yaml"))["metadata"]["name"] == web
    assert get("deploy", web, "-o", "jsonpath={.spec.replicas}") == "2"
    assert get("deploy", web, "-o", "jsonpath-as-json={.spec.replicas}").split() == ["[", "2", "]"]
    template = "go-template={{range .items}}{{.metadata.name}} {{end}}"
    assert get("deploy", "-o", template) == "web "
    columns = "custom-columns=N:.metadata.name,R:.spec.replicas"
    assert [line.split() for line in get("deploy", "-o", columns).splitlines()] == [
        ["N", "R"],
        ["web", "2"],
    ]
    assert "app=web" in get("pods", "--show-labels")
    assert get("pods", "-L", "app").splitlines()[0].split()[-1] == "APP"
    assert get("deploy", "--no-headers").split()[0] == "web"
    assert get("deploy", "--show-kind").splitlines()[1].startswith("deployment.apps/web")
    everything = get("all")
    for kind in ("pod/web-", "deployment.apps/web", "replicaset.apps/web-"):
        assert kind in everything
    assert get("--raw", "/readyz") == "ok"


def test_get_selects_and_sorts(cluster: Lab, ns: str) -> None:
    for name, tier in (("c", "back"), ("a", "front"), ("b", "front")):
        cluster.kubectl("create", "configmap", name, f"--from-literal=k={name}", namespace=ns)
        cluster.kubectl("label", "configmap", name, f"tier={tier}", namespace=ns)

    def names(*arguments: str) -> list[str]:
        out = cluster.kubectl("get", "cm", *arguments, "-o", "name", namespace=ns).out.split()
        return [n.removeprefix("configmap/") for n in out if n != "configmap/kube-root-ca.crt"]

    assert names("-l", "tier=front") == ["a", "b"]
    assert names("-l", "tier in (back)") == ["c"]
    assert names("-l", "tier notin (back),tier") == ["a", "b"]
    assert names("-l", "!tier") == []
    assert names("--field-selector", "metadata.name=b") == ["b"]
    assert names("--field-selector", "metadata.name!=b") == ["a", "c"]
    assert names("--sort-by=.metadata.creationTimestamp")
    assert names("--chunk-size=1") == ["a", "b", "c"]
    wrong = cluster.kubectl("get", "pods", "--field-selector", "spec.foo=1", check=False)
    assert wrong.code == 1
    assert "field label not supported: spec.foo" in wrong.err
    missing = cluster.kubectl("get", "pod", "nobody", namespace=ns, check=False)
    assert missing.err == 'Error from server (NotFound): pods "nobody" not found\n'


def test_get_watches(cluster: Lab, ns: str) -> None:
    command = cluster.kubectl_command("get", "cm", "watched", "-w", "-o", "name", namespace=ns)
    cluster.kubectl("create", "configmap", "watched", namespace=ns)
    child = cluster.start(*command)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"configmap/watched\n"
        cluster.kubectl("label", "configmap", "watched", "a=b", namespace=ns)
        assert child.stdout.readline() == b"configmap/watched\n"
        cluster.kubectl("delete", "configmap", "watched", namespace=ns)
        assert child.stdout.readline() == b"configmap/watched\n"
    finally:
        end(child)


def test_describe_tells_the_story(cluster: Lab, ns: str, web: str) -> None:
    def describe(*arguments: str) -> str:
        return cluster.kubectl("describe", *arguments, namespace=ns).out

    assert "Scaled up replica set web-" in describe("deployment", web)
    story = describe("pods", "-l", "app=web")
    for words in ("Successfully assigned", "already present on machine", "Started container web"):
        assert words in story
    cluster.kubectl("expose", "deployment", web, "--port=80", "--target-port=8080", namespace=ns)
    addresses = sorted(p["status"]["podIP"] for p in cluster.pods("app=web", ns))
    endpoints = cluster.wait_for(
        "endpoints/web", namespace=ns,
        holds=lambda e: len((e.get("subsets") or [{}])[0].get("addresses") or []) == 2,
    )  # fmt: skip
    assert sorted(a["ip"] for a in endpoints["subsets"][0]["addresses"]) == addresses
    assert all(address in describe("service", web) for address in addresses)
    node = cluster.kubectl("describe", "nodes").out
    assert "KubeletReady" in node
    assert "Allocated resources" in node
    assert "app=web" in describe("replicaset")
    for kind in ("namespace", "serviceaccount", "configmap", "secret", "endpoints"):
        cluster.kubectl("describe", kind, namespace=ns)


def test_apply_is_idempotent_and_keeps_what_others_set(cluster: Lab, ns: str) -> None:
    def apply(manifest: str, *arguments: str) -> str:
        command = ("apply", "-f", "-", *arguments)
        return cluster.kubectl(*command, namespace=ns, stdin=manifest).out

    manifest = json.loads(deployment("web", WEB_1, replicas=0))
    assert apply(json.dumps(manifest)) == "deployment.apps/web created\n"
    assert apply(json.dumps(manifest)) == "deployment.apps/web unchanged\n"
    cluster.kubectl("annotate", "deployment", "web", "other=hand", namespace=ns)
    manifest["spec"]["revisionHistoryLimit"] = 3
    manifest["metadata"]["labels"]["new"] = "yes"
    assert apply(json.dumps(manifest), "--dry-run=server").startswith("deployment.apps/web conf")
    assert cluster.get("deployment", "web", namespace=ns)["spec"]["revisionHistoryLimit"] == 10
    assert apply(json.dumps(manifest)) == "deployment.apps/web configured\n"
    web = cluster.get("deployment", "web", namespace=ns)
    assert web["spec"]["revisionHistoryLimit"] == 3
    assert web["metadata"]["annotations"]["other"] == "hand"
    del manifest["spec"]["revisionHistoryLimit"]
    del manifest["metadata"]["labels"]["new"]
    apply(json.dumps(manifest))
    web = cluster.get("deployment", "web", namespace=ns)
    assert web["spec"]["revisionHistoryLimit"] == 10
    assert "new" not in web["metadata"]["labels"]
    manifest["spec"]["replicas"] = 1
    difference = cluster.kubectl(
        "diff", "-f", "-", namespace=ns, stdin=json.dumps(manifest), check=False
    )
    assert difference.code == 1
    assert "+  replicas: 1" in difference.out


def test_apply_reads_files_of_many_documents(cluster: Lab, ns: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {a: '1'}\n"
        "---\n# nothing\n---\n"
        "apiVersion: v1\nkind: Secret\nmetadata: {name: two}\nstringData: {b: '2'}\n"
    )
    (tmp_path / "b.json").write_text(
        '{"apiVersion":"v1","kind":"List","items":'
        '[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"three"}}]}'
    )
    made = cluster.kubectl("apply", "-f", str(tmp_path), namespace=ns).out.splitlines()
    assert made == ["configmap/one created", "secret/two created", "configmap/three created"]
    assert cluster.get("secret", "two", namespace=ns)["data"] == {"b": "Mg=="}
    (tmp_path / "kustomization.yaml").write_text("namePrefix: k-\nresources: [a.yaml]\n")
    cluster.kubectl("apply", "-k", str(tmp_path), namespace=ns)
    assert cluster.get("cm", "k-one", namespace=ns)["data"] == {"a": "1"}
    cluster.kubectl("delete", "-k", str(tmp_path), namespace=ns)
    # kubectl says "error when deleting" for what another file named as well.
    (tmp_path / "kustomization.yaml").unlink()
    cluster.kubectl("delete", "-f", str(tmp_path), namespace=ns)
    left = cluster.kubectl("get", "cm,secret", "-o", "name", namespace=ns).out
    assert left == "configmap/kube-root-ca.crt\n"


def test_apply_prunes(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")

    def apply(*names: str) -> str:
        objects = [
            {"apiVersion": "v1", "kind": "ConfigMap",
             "metadata": {"name": name, "namespace": ns, "labels": {"set": "a"}}}
            for name in names
        ]  # fmt: skip
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        command = (
            "apply",
            "-f",
            "-",
            "--prune",
            "-l",
            "set=a",
            "--prune-allowlist=core/v1/ConfigMap",
        )
        return cluster.kubectl(*command, namespace=ns, stdin=manifest).out

    apply("one", "two")
    assert "configmap/one pruned" in apply("two")


@pytest.mark.parametrize(
    ("arguments", "kind", "path", "value"),
    [
        (("deployment", "x", f"--image={BOX}", "--replicas=0"), "deployment", "spec.replicas", 0),
        (("job", "x", f"--image={BOX}", "--", "true"), "job", "spec.backoffLimit", 6),
        (("cronjob", "x", f"--image={BOX}", "--schedule=0 0 1 1 *"), "cronjob", "spec.schedule", "0 0 1 1 *"),
        (("configmap", "x", "--from-literal=a=b"), "configmap", "data.a", "b"),
        (("secret", "generic", "x", "--from-literal=a=b"), "secret", "data.a", "Yg=="),
        (("serviceaccount", "x"), "serviceaccount", "metadata.name", "x"),
        (("service", "clusterip", "x", "--tcp=80:80"), "service", "spec.type", "ClusterIP"),
        (("service", "nodeport", "x", "--tcp=80:80"), "service", "spec.type", "NodePort"),
        (("service", "loadbalancer", "x", "--tcp=80:80"), "service", "spec.type", "LoadBalancer"),
        (("service", "externalname", "x", "--external-name=a.b"), "service", "spec.externalName", "a.b"),
        (("role", "x", "--verb=get", "--resource=pods"), "role", "rules.0.resources.0", "pods"),
        (("rolebinding", "x", "--role=y", "--user=z"), "rolebinding", "roleRef.name", "y"),
        (("quota", "x", "--hard=pods=5"), "resourcequota", "spec.hard.pods", "5"),
        (("poddisruptionbudget", "x", "--selector=a=b", "--min-available=1"), "pdb", "spec.minAvailable", 1),
        (("ingress", "x", "--rule=a.b/=svc:80"), "ingress", "spec.rules.0.host", "a.b"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_create_generates(
    cluster: Lab, ns: str, arguments: tuple[str, ...], kind: str, path: str, value: object
) -> None:
    if kind in ("cronjob", "pdb"):
        cluster.needs("1.27")
    cluster.kubectl("create", *arguments, namespace=ns)
    found = cluster.get(kind, "x", namespace=ns)
    for step in path.split("."):
        found = found[int(step) if step.isdigit() else step]
    assert found == value
    again = cluster.kubectl("create", *arguments, namespace=ns, check=False)
    assert "already exists" in again.err


def test_create_token_and_cluster_objects(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    token = cluster.kubectl("create", "token", "default", "--duration=10m", namespace=ns).out
    server = cluster.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").out
    ca = cluster.directory / "ca.crt"
    ca.write_text(_certificate_authority(cluster))
    said = cluster.run(
        cluster.kubectl_path, "--kubeconfig=/dev/null", f"--server={server}",
        f"--certificate-authority={ca}", f"--token={token.strip()}",
        "auth", "whoami", "-o", "json",
    )  # fmt: skip
    assert said.json["status"]["userInfo"]["username"] == f"system:serviceaccount:{ns}:default"
    cluster.kubectl("create", "clusterrole", ns, "--verb=get", "--resource=nodes")
    cluster.kubectl("create", "clusterrolebinding", ns, f"--clusterrole={ns}", "--user=x")
    cluster.kubectl("create", "priorityclass", ns, "--value=7")
    cluster.kubectl("delete", "clusterrole,clusterrolebinding,priorityclass", ns)


def test_patches_in_three_ways(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    cluster.kubectl("create", "-f", "-", namespace=ns, stdin=deployment("web", WEB_1, replicas=0))

    def patch(kind: str, body: object) -> dict[str, Any]:
        command = ("patch", "deployment", "web", f"--type={kind}", "-p", json.dumps(body))
        cluster.kubectl(*command, namespace=ns)
        found: dict[str, Any] = cluster.get("deployment", "web", namespace=ns)
        return found

    def containers(found: dict[str, Any]) -> list[str]:
        return [c["name"] for c in found["spec"]["template"]["spec"]["containers"]]

    second = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": BOX}]}}}}
    assert containers(patch("strategic", second)) == ["b", "web"]
    assert containers(patch("merge", second)) == ["b"]
    operations = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/metadata/labels/x~1y", "value": "z"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "c"},
    ]
    found = patch("json", operations)
    assert containers(found) == ["c"]
    assert found["metadata"]["labels"]["x/y"] == "z"
    scale = ("--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":3}}')
    cluster.kubectl("patch", "deployment", "web", *scale, "--dry-run=server", namespace=ns)
    wrong = cluster.kubectl(
        "patch", "deployment", "web", "--type=json", "-p", '[{"op":"remove","path":"/nowhere"}]',
        namespace=ns, check=False,
    )  # fmt: skip
    assert wrong.code == 1


def test_edits_and_replaces(cluster: Lab, ns: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=key=before", namespace=ns)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/before/after/ "$1"\n')
    editor.chmod(0o755)
    edited = cluster.kubectl("edit", "cm", "c", namespace=ns, env={"EDITOR": str(editor)})
    assert edited.out == "configmap/c edited\n"
    found = cluster.get("cm", "c", namespace=ns)
    assert found["data"] == {"key": "after"}

    stale = json.dumps(found)
    found["data"] = {"key": "replaced"}
    cluster.kubectl("replace", "-f", "-", namespace=ns, stdin=json.dumps(found))
    assert cluster.get("cm", "c", namespace=ns)["data"] == {"key": "replaced"}
    refused = cluster.kubectl("replace", "-f", "-", namespace=ns, stdin=stale, check=False)
    assert "the object has been modified" in refused.err
    del found["metadata"]["resourceVersion"]
    uid = found["metadata"].pop("uid")
    cluster.kubectl("replace", "--force", "-f", "-", namespace=ns, stdin=json.dumps(found))
    assert cluster.get("cm", "c", namespace=ns)["metadata"]["uid"] != uid


def test_edit_is_told_what_is_invalid(cluster: Lab, ns: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "-f", "-", namespace=ns, stdin=deployment("web", WEB_1, replicas=0))
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/replicas: 0/replicas: -1/" "$1"\n')
    editor.chmod(0o755)
    refused = cluster.kubectl(
        "edit", "deployment", "web", namespace=ns, env={"EDITOR": str(editor)}, check=False
    )
    assert refused.code == 1
    assert 'deployments.apps "web" is invalid' in refused.err
    # The reason is what the editor is opened with the second time.
    stored = re.search(r'stored to "(.+)"', refused.err)
    assert stored is not None
    kept = Path(stored[1])
    assert "must be greater than or equal to 0" in kept.read_text()
    kept.unlink()


def test_labels_and_annotates(cluster: Lab, ns: str) -> None:
    cluster.kubectl("create", "configmap", "c", namespace=ns)

    def change(*arguments: str, check: bool = True) -> str:
        return cluster.kubectl(*arguments, namespace=ns, check=check).text

    change("label", "cm", "c", "a=1", "b=2")
    assert "already has a value" in change("label", "cm", "c", "a=3", check=False)
    change("label", "cm", "c", "a=3", "b-", "--overwrite")
    change("annotate", "cm", "--all", "n=1")
    change("annotate", "cm", "c", "n-", "m=x y")
    metadata = cluster.get("cm", "c", namespace=ns)["metadata"]
    assert metadata["labels"] == {"a": "3"}
    assert metadata["annotations"] == {"m": "x y"}
    assert "a valid label must be" in change("label", "cm", "c", "a=not valid", check=False)


def test_deletes_cascading_orphaning_and_by_selector(cluster: Lab, ns: str, web: str) -> None:
    cluster.kubectl("delete", "deployment", web, "--cascade=orphan", namespace=ns)
    assert len(cluster.pods("app=web", ns)) == 2
    (owned,) = cluster.get("rs", "-l", "app=web", namespace=ns)["items"]
    assert not owned["metadata"].get("ownerReferences")
    # Waits until the pods are gone, because they block their owner.
    cluster.kubectl("delete", "rs", "-l", "app=web", "--cascade=foreground", namespace=ns)
    assert cluster.pods("app=web", ns) == []
    cluster.kubectl("create", "cm", "c", namespace=ns)
    assert "deleted" in cluster.kubectl("delete", "cm", "c", "--now", namespace=ns).out
    gone = cluster.kubectl("delete", "cm", "c", namespace=ns, check=False)
    assert "not found" in gone.err
    assert cluster.kubectl("delete", "cm", "c", "--ignore-not-found", namespace=ns).text == ""


def test_deletes_gracefully_and_by_force(cluster: Lab, ns: str) -> None:
    """A pod that ignores SIGTERM is given its grace period, unless somebody says otherwise."""
    stubborn = pod("slow", BOX, "trap '' TERM; while :; do sleep 1; done", grace=600)
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=stubborn)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/slow", namespace=ns)
    cluster.kubectl("delete", "pod", "slow", "--wait=false", namespace=ns)
    leaving = cluster.get("pod", "slow", namespace=ns)
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 600
    assert "Terminating" in cluster.kubectl("get", "pod", "slow", namespace=ns).out
    cluster.kubectl("delete", "pod", "slow", "--grace-period=1", namespace=ns, timeout=30)
    assert cluster.kubectl("get", "pods", "-o", "name", namespace=ns).out == ""
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=stubborn)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/slow", namespace=ns)
    forced = cluster.kubectl("delete", "pod", "slow", "--force", namespace=ns, timeout=30)
    assert "force deleted" in forced.text


def test_deletes_a_namespace_with_all_it_holds(cluster: Lab, ns: str, web: str) -> None:
    cluster.kubectl("create", "cm", "c", namespace=ns)
    cluster.kubectl("delete", "namespace", ns, "--timeout=60s")
    missing = cluster.kubectl("get", "namespace", ns, check=False)
    assert "NotFound" in missing.err
    # The fixture deletes it once more.
    cluster.kubectl("create", "namespace", ns)


def test_waits(cluster: Lab, ns: str, web: str) -> None:
    cluster.needs("1.27")

    def wait(*arguments: str, check: bool = True) -> str:
        return cluster.kubectl("wait", *arguments, namespace=ns, check=check).text

    assert "condition met" in wait("--for=condition=Available", "deployment/web")
    assert "condition met" in wait("--for=jsonpath={.status.readyReplicas}=2", "deployment/web")
    assert wait("--for=condition=Ready", "pods", "--all").count("condition met") == 2
    assert "timed out" in wait(
        "--for=condition=Missing", "deployment/web", "--timeout=1s", check=False
    )
    assert "deleted" not in wait("--for=delete", "pod/nobody", check=False)


def test_explains_and_lists(cluster: Lab) -> None:
    cluster.needs("1.27")
    explained = cluster.kubectl("explain", "deployment.spec.strategy.rollingUpdate").out
    assert "maxUnavailable" in explained
    assert "VERSION:    v1" in explained
    assert "maxSurge" in cluster.kubectl("explain", "deployment.spec", "--recursive").out
    wrong = cluster.kubectl("explain", "pod.spec.nothing", check=False)
    assert 'field "nothing" does not exist' in wrong.err
    lines = cluster.kubectl("api-resources", "-o", "wide").out.splitlines()
    (pods,) = [line.split() for line in lines if line.startswith("pods ")]
    assert pods[:5] == ["pods", "po", "v1", "true", "Pod"]
    named = cluster.kubectl("api-resources", "--namespaced=false", "-o", "name").out.split()
    assert "nodes" in named
    assert "pods" not in named
    assert "po " in cluster.kubectl("api-resources", "--api-group=").out


def test_says_who_and_what_may_be_done(cluster: Lab, ns: str) -> None:
    cluster.needs("1.27")
    who = cluster.kubectl("auth", "whoami", "-o", "json").json["status"]["userInfo"]
    assert who["groups"] == ["system:masters", "system:authenticated"]
    account = f"--as=system:serviceaccount:{ns}:default"
    denied = cluster.kubectl("auth", "can-i", "get", "pods", account, namespace=ns, check=False)
    assert (denied.code, denied.out) == (1, "no\n")
    cluster.kubectl(
        "create", "rolebinding", "see", "--clusterrole=view", f"--serviceaccount={ns}:default",
        namespace=ns,
    )  # fmt: skip
    # The authorizer follows its own watch; it is asked until it has seen the binding.
    cluster.wait_for("rolebinding/see", holds=lambda _: True, namespace=ns)
    assert cluster.kubectl("auth", "can-i", "get", "pods", account, namespace=ns).out == "yes\n"
    assert "pods" in cluster.kubectl("auth", "can-i", "--list", account, namespace=ns).out
    refused = cluster.kubectl("delete", "pod", "x", account, namespace=ns, check=False)
    assert "Forbidden" in refused.err
    assert f'User "system:serviceaccount:{ns}:default" cannot delete resource "pods"' in refused.err


def test_events(cluster: Lab, ns: str, web: str) -> None:
    cluster.needs("1.27")
    told = cluster.kubectl("events", "--for=deployment/web", namespace=ns).out
    assert "ScalingReplicaSet" in told
    warnings = cluster.kubectl("get", "events", "--field-selector=type=Warning", namespace=ns)
    assert "No resources found" in warnings.err or "Unhealthy" in warnings.out
    sorted_by_time = cluster.kubectl("get", "events", "--sort-by=.lastTimestamp", namespace=ns)
    assert "Scheduled" in sorted_by_time.out


def test_version_and_cluster_info(cluster: Lab) -> None:
    version = cluster.kubectl("version", "-o", "json").json["serverVersion"]
    assert (version["major"], version["minor"]) == ("1", "37")
    dumped = cluster.kubectl("cluster-info", "dump", "--namespaces=kube-system").out
    assert '"kind": "NodeList"' in dumped
    for path in ("healthz", "livez", "readyz"):
        assert "ok" in cluster.kubectl("get", "--raw", f"/{path}?verbose").out
    assert "apiserver_request_total" in cluster.kubectl("get", "--raw", "/metrics").out


def _certificate_authority(cluster: Lab) -> str:
    import base64

    encoded = cluster.kubectl(
        "config", "view", "--raw", "-o",
        "jsonpath={.clusters[0].cluster.certificate-authority-data}",
    ).out  # fmt: skip
    return base64.b64decode(encoded).decode() if encoded else os.devnull
