"""`p8s up` and what belongs to it: started once, started wrongly, started in every way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import traces
from tests.e2e.images import BOX, WEB_1
from tests.e2e.lab import P8S, end
from tests.e2e.objects import deployment, pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.e2e.lab import Lab

REPOSITORY = Path(__file__).parents[2]
# Where `make up` puts a cluster, as everybody's `p8s up` does.
USUAL_DATA_DIR = Path("/var/lib/pybernetes")


@pytest.fixture
def lab(labs: Callable[[], AbstractContextManager[Lab]]) -> Iterator[Lab]:
    with labs() as made:
        yield made


def test_up_says_what_it_did_and_what_is_next(cluster: Lab) -> None:
    """The session's cluster runs already: a second `up` says so and changes nothing."""
    before = cluster.server_pid()
    again = cluster.p8s("up")
    assert f"is running already (pid {before})" in again.out
    assert f"export KUBECONFIG={cluster.data_dir}/kubeconfig" not in again.out
    assert "kubectl get pods -A" in again.out
    assert cluster.server_pid() == before
    different = cluster.p8s("up", "--port=7000", check=False)
    assert different.code == 1
    assert "runs with other settings" in different.err
    assert cluster.server_pid() == before


def test_status_and_logs_and_kubeconfig(cluster: Lab) -> None:
    status = cluster.p8s("status", check=False).out
    assert f"running, pid {cluster.server_pid()}" in status
    assert "nodes     1 of 1 ready" in status
    assert " ready" in cluster.p8s("logs", "--tail=-1").out
    path = cluster.p8s("kubeconfig", "--path").out.strip()
    assert path == str(cluster.data_dir / "kubeconfig")
    assert cluster.p8s("kubeconfig").out == Path(path).read_text()
    assert (Path(path).stat().st_mode & 0o777) == 0o600
    listed = cluster.p8s("image", "ls").out
    assert WEB_1 in listed


def test_what_cannot_start_says_what_to_do(lab: Lab) -> None:
    taken = lab.start(
        sys.executable, "-c",
        "import socket, sys; s = socket.create_server(('127.0.0.1', 6443)); print('up', flush=True);"
        " sys.stdin.read()",
        stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert taken.stdout is not None
        assert taken.stdout.readline() == b"up\n"
        refused = lab.p8s("up", check=False)
        assert refused.code == 1
        assert "port 6443 is in use by another program" in refused.err
        assert "choose another port with --port" in refused.err
        assert not (lab.data_dir / "server.pid").exists()
    finally:
        end(taken)
    nobody = lab.run("unshare", "--user", *P8S, "up", f"--data-dir={lab.data_dir}", check=False)
    assert nobody.code == 1
    assert "real containers need root; run this with sudo" in nobody.err
    assert "p8s up --simulate" in nobody.err
    for arguments, words in (
        (("up", "--service-cidr=10.96.0.0/33"), "is not a network such as"),
        (("up", "--service-cidr=10.244.0.0/16"), "overlap; choose two ranges apart"),
        (("up", "--port=70000"), "choose one from 1 to 65535"),
        (("up", "--nodes=2"), "--nodes goes with --simulate or --isolated"),
        (("image", "load", "nothing.tar"), "start one with: p8s up"),
    ):
        refused = lab.p8s(*arguments, check=False)
        assert refused.code == 1
        assert words in refused.err
        assert "Traceback" not in refused.err
    nothing = lab.p8s("down")
    assert "there is no cluster" in nothing.out
    assert lab.p8s("status", check=False).code == 3


def test_without_containerd_it_says_what_to_install(lab: Lab) -> None:
    """A machine that has ip and nft, and neither containerd nor runc."""
    programs = lab.directory / "programs"
    programs.mkdir()
    for name in ("ip", "nft"):
        (programs / name).symlink_to(shutil.which(name) or name)
    # Root's usual directories are searched as well; here they are empty.
    hidden = 'mount -t tmpfs none /usr/sbin; mount --bind /dev/null /usr/bin/containerd; exec "$@"'
    if Path("/usr/sbin").resolve() == Path("/usr/bin").resolve() or not shutil.which("unshare"):
        pytest.skip("here all programs are in one directory")
    ran = lab.run(
        "unshare", "--mount", "sh", "-c", hidden, "sh",
        *P8S, "up", f"--data-dir={lab.data_dir}",
        env={"PATH": str(programs) + ":/bin"}, check=False,
    )  # fmt: skip
    assert ran.code == 1
    assert "must be installed: apt-get install" in ran.err
    assert "runc" in ran.err


def test_simulated_nodes_need_no_root_and_no_containers(lab: Lab) -> None:
    started = lab.run(
        "unshare", "--user", *P8S, "up", "--simulate", "--nodes=3", f"--data-dir={lab.data_dir}"
    )
    assert "ready after" in started.out
    nodes = lab.get("nodes")["items"]
    assert [n["metadata"]["name"] for n in nodes] == ["node-0", "node-1", "node-2"]
    lab.kubectl("create", "deployment", "web", "--image=anything", "--replicas=30")
    lab.roll_out("deployment/web", "default")
    used = {p["spec"]["nodeName"] for p in lab.pods("app=web", "default")}
    assert used == {"node-0", "node-1", "node-2"}
    lab.kubectl("delete", "pods", "--all", "--wait=false")
    lab.roll_out("deployment/web", "default")
    lab.kubectl("logs", "deployment/web")
    assert traces.interfaces(lab.namespace) == ["lo"]
    # The same user takes it down.
    lab.run("unshare", "--user", *P8S, "down", "--purge", f"--data-dir={lab.data_dir}")
    assert not lab.data_dir.exists()


def test_two_clusters_live_side_by_side(
    cluster: Lab, lab: Lab, ns: str, image_archives: list[Path]
) -> None:
    """Another cluster comes and goes, and this one's containers do not notice."""
    cluster.kubectl("apply", "-f", "-", namespace=ns, stdin=deployment("web", WEB_1))
    cluster.roll_out("deployment/web", ns)
    (before,) = cluster.pods("app=web", ns)
    lab.p8s("up", "--port=7443", "--node-name=other")
    for path in image_archives:
        lab.p8s("image", "load", str(path))
    lab.kubectl("apply", "-f", "-", stdin=deployment("web", WEB_1))
    lab.roll_out("deployment/web", "default")
    assert [n["metadata"]["name"] for n in lab.get("nodes")["items"]] == ["other"]
    other = lab.directory / "simulated"
    lab.run(*P8S, "up", "--simulate", "--port=8443", f"--data-dir={other}")
    try:
        (node,) = lab.kubectl(
            "get", "nodes", "-o", "name", f"--kubeconfig={other}/kubeconfig"
        ).out.split()
        assert node == "node/node-0"
    finally:
        lab.run(*P8S, "down", "--purge", f"--data-dir={other}")
    lab.p8s("down", "--purge")
    (after,) = cluster.pods("app=web", ns)
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    cluster.kubectl("exec", before["metadata"]["name"], "--", "true", namespace=ns)


def test_isolated_nodes_talk_through_services(lab: Lab, image_archives: list[Path]) -> None:
    """Two real nodes in namespaces of their own: pods on both answer through one Service."""
    there = set(os.listdir("/run/netns"))
    lab.p8s("up", "--isolated", "--nodes=2")
    names = [n["metadata"]["name"] for n in lab.get("nodes")["items"]]
    assert names == ["node-0", "node-1"]
    lab.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
    for path in image_archives:
        assert "node-0, node-1" in lab.p8s("image", "load", str(path)).out
    spread = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}},
            }
        ]
    }
    names_itself = {"command": ["sh", "-c", "hostname > /www/index.html; exec /serve"]}
    manifest = deployment("web", WEB_1, replicas=2, container=names_itself, pod=spread)
    lab.kubectl("apply", "-f", "-", stdin=manifest)
    lab.roll_out("deployment/web", "default")
    pods = lab.pods("app=web", "default")
    assert {p["spec"]["nodeName"] for p in pods} == set(names)
    lab.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    for name in names:
        lab.kubectl("apply", "-f", "-", stdin=pod(f"on-{name}", BOX, spec={"nodeName": name}))
    lab.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    everybody = {p["metadata"]["name"] for p in pods}
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do wget -q -O - http://web/; done"
    for name in names:
        came = lab.kubectl("exec", f"on-{name}", "--", "sh", "-c", script).out.split()
        assert set(came) == everybody, name
        for other in pods:
            address = f"http://{other['status']['podIP']}:8080/"
            direct = lab.kubectl("exec", f"on-{name}", "--", "wget", "-q", "-O", "-", address)
            assert direct.out.strip() == other["metadata"]["name"]
    assert lab.kubectl("logs", "on-node-1").out == ""
    # No way out of any of the namespaces.
    routes = lab.kubectl("exec", "on-node-0", "--", "wget", "-q", "-O", "-", "http://192.0.2.1/",
                         check=False, timeout=30)  # fmt: skip
    assert routes.code != 0
    made = set(os.listdir("/run/netns")) - there
    inside = {name for name in made if re.fullmatch(r"p8s-[0-9a-f]{8}-(hub|node-\d+)", name)}
    assert len(inside) >= 3
    lab.p8s("down", "--purge")
    left = inside & set(os.listdir("/run/netns"))
    assert not left
    assert traces.interfaces(lab.namespace) == ["lo"]


def test_make_up_and_make_down(lab: Lab) -> None:
    """The first line of the README, as it stands."""
    if USUAL_DATA_DIR.exists():
        pytest.skip(f"somebody's cluster is in {USUAL_DATA_DIR}")
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    current = subprocess.run(
        ["make", "-q", ".venv/.installed"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if current.returncode:
        pytest.skip("the virtualenv is older than pyproject.toml; make test would mend it")
    try:
        up = lab.run("make", "--no-print-directory", "-C", str(REPOSITORY), "up", timeout=200)
        assert up.out.count("Hello from pybernetes.") == 2
        assert re.search(r"hello\.default\.svc\.cluster\.local/ → Hello", up.out)
        assert "what it took:" in up.out
        assert f"export KUBECONFIG={USUAL_DATA_DIR}/kubeconfig" in up.out
        kubeconfig = f"--kubeconfig={USUAL_DATA_DIR}/kubeconfig"
        pods = lab.kubectl("get", "pods", "-A", kubeconfig).out
        assert pods.count("hello-") == 2
        # Twice does no harm.
        again = lab.run("make", "--no-print-directory", "-C", str(REPOSITORY), "up", timeout=200)
        assert again.out.count("Hello from pybernetes.") == 2
        found = traces.look(lab.namespace, USUAL_DATA_DIR)
    finally:
        lab.run("make", "--no-print-directory", "-C", str(REPOSITORY), "down", timeout=100)
    assert traces.left(found, lab.namespace, USUAL_DATA_DIR) == []
