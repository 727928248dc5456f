"""Bring up a cluster, deploy hello.yaml, and fetch it through its Service: what `make up` runs.

Everything goes through the p8s command and the API, as a user's own script would: the image is
built here from busybox, the objects are applied, and a visitor pod fetches the page once by the
Service's address and once by its DNS name.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pybernetes.api.core.podstate import is_finished
from pybernetes.api.types.apps_v1 import Deployment
from pybernetes.api.types.core_v1 import Container, Pod, PodSpec, Service
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.client.kubeconfig import client_from, load_kubeconfig
from pybernetes.testing.images import File, archive, busybox_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pybernetes.client import Client

HERE = Path(__file__).parent
IMAGE = "localhost/hello:1"
PAGE = "Hello from pybernetes.\n"
# Longer than any of the steps needs on a slow machine; a step that takes longer has failed.
PATIENCE_SECONDS = 120
# What the steps took, in order.
durations: dict[str, float] = {}


def main() -> int:
    p8s = [sys.executable, "-m", "pybernetes"]
    extra = sys.argv[1:]
    started = time.monotonic()
    if subprocess.run([*p8s, "up", *extra], check=False).returncode:
        return 1
    durations["start the cluster"] = time.monotonic() - started
    data_dir = [word for word in extra if word.startswith("--data-dir=")]
    with step("build and load the image"), tempfile.TemporaryDirectory() as directory:
        tar = Path(directory) / "hello.tar"
        tar.write_bytes(archive({IMAGE: hello_image()}))
        subprocess.run(
            [*p8s, "image", "load", *data_dir, str(tar)], check=True, stdout=subprocess.DEVNULL
        )
    where = subprocess.run(
        [*p8s, "kubeconfig", "--path", *data_dir], check=True, capture_output=True, text=True
    ).stdout.strip()
    asyncio.run(deploy(Path(where)))
    report(where, data_dir)
    return 0


def hello_image() -> Any:
    return busybox_image(
        {"/www/index.html": File(PAGE.encode())},
        command=("httpd", "-f", "-p", "8080", "-h", "/www"),
    )


async def deploy(kubeconfig: Path) -> None:
    client = client_from(load_kubeconfig([kubeconfig]))
    try:
        with step("apply examples/01-hello"):
            for document in yaml.safe_load_all((HERE / "hello.yaml").read_text()):
                await apply(client, document)
        with step("wait for two ready pods"):
            await until(client, Deployment, "hello", lambda d: d.status.ready_replicas == 2)
        service = await client.get(Service, "hello", "default")
        names = {
            "address": service.spec.cluster_ip,
            "DNS name": "hello.default.svc.cluster.local",
        }
        for what, host in names.items():
            with step(f"fetch it by the Service's {what}"):
                page = await visit(client, host)
            if page != PAGE:
                raise SystemExit(f"http://{host}/ answered {page!r} instead of {PAGE!r}")
            print(f"  http://{host}/ → {page.strip()}")
    finally:
        await client.close()


async def apply(client: Client, document: dict[str, Any]) -> None:
    """Create the object, or patch it into this form."""
    group, _, version = document["apiVersion"].rpartition("/")
    kind = await client.discover(group, version, document["kind"])
    name = document["metadata"]["name"]
    document["metadata"].setdefault("namespace", "default")
    if await client.get_or_none(kind, name, "default") is None:
        await client.create(document, kind=kind)
    else:
        await client.patch(kind, name, "default", patch=document)


async def visit(client: Client, host: str) -> str:
    """Fetch a page from inside the cluster: a pod does it and says what it got."""
    pod = Pod(
        metadata=ObjectMeta(generate_name="hello-visitor-", namespace="default"),
        spec=PodSpec(
            restart_policy="Never",
            termination_grace_period_seconds=0,
            containers=(
                Container(
                    name="wget",
                    image=IMAGE,
                    image_pull_policy="IfNotPresent",
                    command=("wget", "-q", "-O", "-", f"http://{host}/"),
                ),
            ),
        ),
    )
    made = await client.create(pod)
    name = made.metadata.name
    try:
        await until(client, Pod, name, is_finished)
        said = await client.request("GET", f"/api/v1/namespaces/default/pods/{name}/log")
    finally:
        await client.delete(Pod, name, "default", grace_seconds=0)
    return said.decode()


async def until(client: Client, kind: type[Any], name: str, holds: Callable[[Any], bool]) -> None:
    """Watch one object until something holds of it."""
    selector = f"metadata.name={name}"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            listing = await client.list(kind, "default", field_selector=selector)
            if any(holds(obj) for obj in listing.items):
                return
            async with client.watch(
                kind,
                "default",
                resource_version=listing.resource_version,
                field_selector=selector,
            ) as events:
                async for event in events:
                    if event.type in ("ADDED", "MODIFIED") and holds(event.object):
                        return
    except TimeoutError:
        raise SystemExit(
            f"{kind.__name__} {name} did not get there within {PATIENCE_SECONDS} s;"
            f" see: kubectl describe {kind.__name__.lower()} {name}"
        ) from None
    raise SystemExit(f"the watch on {kind.__name__} {name} ended")


@contextmanager
def step(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    durations[name] = time.monotonic() - started
    print(f"  ✓ {name:<38} {durations[name]:6.2f} s", flush=True)


def report(kubeconfig: str, data_dir: list[str]) -> None:
    print("\nwhat it took:")
    for name, seconds in durations.items():
        print(f"  {name:<40} {seconds:6.2f} s")
    print("\nnext:")
    if os.environ.get("KUBECONFIG") != kubeconfig:
        print(f"  export KUBECONFIG={kubeconfig}")
    print("  kubectl get pods -A")
    print("  kubectl scale deployment hello --replicas=5")
    print("  make down" if not data_dir else f"  p8s down --purge {data_dir[0]}")


if __name__ == "__main__":
    sys.exit(main())
