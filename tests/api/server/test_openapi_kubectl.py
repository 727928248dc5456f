"""What real kubectls make of discovery and OpenAPI.

Real: kubectl (Debian's of old, the first that reads version 3, the newest), HTTP on loopback,
the API server with all its kinds. Left out: TLS and access control. A kubectl that this machine
does not have is skipped.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.apiserver import ApiServer, Plugins
from pybernetes.apiserver.discovery import Discovery
from pybernetes.apiserver.openapi import OpenApi
from pybernetes.apiserver.server import served_by_default
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient
from pybernetes.wire.server import serve
from tests.e2e.kubectls import kubectl_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from random import Random

    from pybernetes.aio.clock import Clock

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

# Every kind but those behind a gate.
RESOURCES = served_by_default(None, frozenset())

VERSIONS = ("1.20", "1.27", "1.33")
KUBECTL_SECONDS = 30

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {"name": "web", "image": "busybox", "ports": [{"containerPort": 80}]},
                    {"name": "side", "image": "busybox"},
                ]
            },
        },
    },
}


class Kubectl:
    """One kubectl and a server of its own."""

    def __init__(self, path: str, home: Path, url: str) -> None:
        self._path = path
        self._environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        self._url = url

    async def __call__(self, *arguments: str, stdin: object = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            self._path,
            f"--server={self._url}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        async with asyncio.timeout(KUBECTL_SECONDS):
            out, error = await process.communicate(json.dumps(stdin).encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), error.decode()

    async def well(self, *arguments: str, stdin: object = None) -> str:
        code, out, error = await self(*arguments, stdin=stdin)
        assert code == 0, f"{arguments}: {error}"
        return out


@pytest.fixture(params=VERSIONS)
async def kubectl(
    request: pytest.FixtureRequest, clock: Clock, random: Random, tmp_path: Path
) -> AsyncIterator[Kubectl]:
    path = await asyncio.to_thread(kubectl_of, request.param)
    if path is None:
        pytest.skip(f"no kubectl {request.param} on this machine")

    def plugins(server: ApiServer) -> Plugins:
        catalog = server.catalog
        return Plugins(routes=(*Discovery(catalog).routes(), *OpenApi(catalog).routes()))

    store = MemoryStore(clock=clock)
    async with (
        ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins) as server,
        serve(server.handle) as listening,
    ):
        client = MemoryHttpClient(server.handle)
        namespace = json.dumps({"metadata": {"name": "default"}}).encode()
        made = await client.request(
            "POST",
            "/api/v1/namespaces",
            headers=[("content-type", "application/json")],
            body=namespace,
        )
        assert made.status == 201, await made.read()
        await made.read()
        await client.close()
        host, port = listening.addresses[0][:2]
        yield Kubectl(path, tmp_path, f"http://{host}:{port}")


async def test_resources_and_versions_are_listed(kubectl: Kubectl) -> None:
    names = (await kubectl.well("api-resources", "-o", "name")).split()
    wanted = {f"{r.plural}.{r.group}" if r.group else r.plural for r in RESOURCES}
    assert set(names) == wanted
    versions = (await kubectl.well("api-versions")).split()
    assert set(versions) == {r.api_version for r in RESOURCES}


async def test_fields_are_explained(kubectl: Kubectl) -> None:
    text = await kubectl.well("explain", "pods.spec.containers.image")
    assert "Name of the image" in text
    text = await kubectl.well("explain", "deploy", "--recursive")
    assert "terminationGracePeriodSeconds\t<integer>" in text
    code, _, error = await kubectl("explain", "pods.spec.nonsense")
    assert (code, error) == (1, 'error: field "nonsense" does not exist\n')
    text = await kubectl.well("explain", "events", "--api-version=events.k8s.io/v1")
    assert "regarding" in text


async def test_every_kind_is_explained(kubectl: Kubectl) -> None:
    chosen = {entry.plural: entry.api_version for entry in RESOURCES}
    for plural, api_version in list(chosen.items())[::4]:
        text = await kubectl.well("explain", plural, f"--api-version={api_version}", "--recursive")
        assert "apiVersion\t<string>" in text
        assert "<empty>" not in text


async def test_fields_are_checked_before_anything_is_made(kubectl: Kubectl) -> None:
    create = ("create", "--dry-run=server", "--validate=true", "-f", "-")
    assert "deployment.apps/web created" in await kubectl.well(*create, stdin=DEPLOYMENT)
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "repicas": 3}}
    code, _, error = await kubectl(*create, stdin=wrong)
    assert code == 1
    # Old ones look into the schema, new ones leave it to the server.
    assert 'unknown field "repicas"' in error or 'unknown field "spec.repicas"' in error
    assert await kubectl.well("get", "deployments", "-o", "name") == ""


async def test_lists_are_merged_by_their_keys(kubectl: Kubectl) -> None:
    await kubectl.well("apply", "-f", "-", stdin=DEPLOYMENT)
    changed = json.loads(json.dumps(DEPLOYMENT))
    changed["spec"]["template"]["spec"]["containers"][1]["image"] = "alpine"
    code, out, error = await kubectl("diff", "-f", "-", stdin=changed)
    assert code == 1, error
    lines = [line for line in out.splitlines() if line[:1] in "+-" and "image" in line]
    assert [line.split() for line in lines] == [
        ["-", "-", "image:", "busybox"],
        ["+", "-", "image:", "alpine"],
    ]
    await kubectl.well("apply", "-f", "-", stdin=changed)
    live = json.loads(await kubectl.well("get", "deployment", "web", "-o", "json"))
    containers = live["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in containers] == [
        ("web", "busybox"),
        ("side", "alpine"),
    ]
