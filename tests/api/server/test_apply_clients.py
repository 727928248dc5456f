"""Server-side apply as kubectl and the Python client do it, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.apiserver import ApiServer, Plugins
from pybernetes.apiserver.discovery import Discovery
from pybernetes.apiserver.fieldmanager import FieldManagement
from pybernetes.apiserver.openapi import OpenApi
from pybernetes.apiserver.server import served_by_default
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient
from pybernetes.wire.server import serve
from tests.api.server.test_openapi_kubectl import Kubectl
from tests.e2e.kubectls import default_kubectl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from random import Random

    from pybernetes.aio.clock import Clock

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

APPLY = ("apply", "--server-side", "-f", "-")


@pytest.fixture
async def url(clock: Clock, random: Random) -> AsyncIterator[str]:
    def plugins(server: ApiServer) -> Plugins:
        catalog = server.catalog
        return Plugins(
            routes=(*Discovery(catalog).routes(), *OpenApi(catalog).routes()),
            field_manager=FieldManagement(server.clock),
        )

    resources = served_by_default(None, frozenset())
    async with (
        ApiServer(
            MemoryStore(clock=clock), clock, random, resources=resources, make_plugins=plugins
        ) as server,
        serve(server.handle) as listening,
    ):
        client = MemoryHttpClient(server.handle)
        made = await client.request(
            "POST",
            "/api/v1/namespaces",
            headers=[("content-type", "application/json")],
            body=b'{"metadata": {"name": "default"}}',
        )
        assert made.status == 201, await made.read()
        await made.read()
        await client.close()
        host, port = listening.addresses[0][:2]
        yield f"http://{host}:{port}"


@pytest.fixture
async def kubectl(url: str, tmp_path: Path) -> Kubectl:
    path = await asyncio.to_thread(default_kubectl)
    if path is None:
        pytest.skip("no kubectl on this machine")
    return Kubectl(path, tmp_path, url)


def deployment(replicas: int | None = 2, **container: Any) -> dict[str, Any]:
    main = {"name": "web", "image": "busybox", "ports": [{"containerPort": 80}], **container}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [main]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": spec,
    }


async def shown(kubectl: Kubectl, *more: str) -> Any:
    return json.loads(await kubectl.well("get", "deployment", "web", "-o", "json", *more))


async def test_a_deployment_of_two_managers(kubectl: Kubectl) -> None:
    out = await kubectl.well(*APPLY, stdin=deployment())
    assert out == "deployment.apps/web serverside-applied\n"
    assert "managedFields" not in (await shown(kubectl))["metadata"]
    obj = await shown(kubectl, "--show-managed-fields")
    (entry,) = obj["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Apply")

    await kubectl.well("scale", "deployment", "web", "--replicas=5")
    code, _, error = await kubectl(*APPLY, stdin=deployment())
    assert code == 1
    # The manager is the program, and this one's name may end in its version.
    assert 'Apply failed with 1 conflict: conflict with "kubectl' in error
    assert '" with subresource "scale" using apps/v1: .spec.replicas' in error
    assert "Please review the fields above" in error
    await kubectl.well(*APPLY, "--force-conflicts", stdin=deployment())
    assert (await shown(kubectl))["spec"]["replicas"] == 2


async def test_what_is_left_out_goes(kubectl: Kubectl) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    await kubectl.well(*APPLY, stdin=deployment(env=env))
    await kubectl.well(*APPLY, stdin=deployment(env=env[1:]))
    (main,) = (await shown(kubectl))["spec"]["template"]["spec"]["containers"]
    assert main["env"] == env[1:]
    await kubectl.well(*APPLY, stdin=deployment(None))
    assert (await shown(kubectl))["spec"]["replicas"] == 1


async def test_from_client_side_apply_and_back(kubectl: Kubectl) -> None:
    labelled = deployment()
    labelled["metadata"]["labels"] = {"a": "1", "b": "2"}
    await kubectl.well("apply", "-f", "-", stdin=labelled)
    obj = await shown(kubectl, "--show-managed-fields")
    assert [e["manager"] for e in obj["metadata"]["managedFields"]] == ["kubectl-client-side-apply"]
    # What the annotation had and the configuration has not goes: kubectl takes all over.
    labelled["metadata"]["labels"] = {"a": "3"}
    await kubectl.well(*APPLY, stdin=labelled)
    obj = await shown(kubectl, "--show-managed-fields")
    assert obj["metadata"]["labels"] == {"a": "3"}
    assert [(e["manager"], e["operation"]) for e in obj["metadata"]["managedFields"]] == [
        ("kubectl", "Apply"),
        # kubectl keeps the annotation up to date under this name.
        ("kubectl-last-applied", "Apply"),
    ]
    labelled["metadata"]["labels"] = {"c": "4"}
    await kubectl.well("apply", "-f", "-", stdin=labelled)
    assert (await shown(kubectl))["metadata"]["labels"] == {"c": "4"}


async def test_config_maps_of_two_managers(kubectl: Kubectl) -> None:
    def config(**data: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}

    await kubectl.well(*APPLY, "--field-manager=one", stdin=config(k="1", l="1"))
    code, _, error = await kubectl(*APPLY, "--field-manager=two", stdin=config(k="2"))
    assert code == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .data.k' in error
    await kubectl.well(*APPLY, "--field-manager=two", "--force-conflicts", stdin=config(k="2"))
    await kubectl.well(*APPLY, "--field-manager=one", stdin=config())
    obj = json.loads(await kubectl.well("get", "configmap", "a", "-o", "json"))
    assert obj["data"] == {"k": "2"}


async def test_the_python_client_applies(url: str) -> None:
    kubernetes = pytest.importorskip("kubernetes")

    def talk() -> tuple[Any, int]:
        configuration = kubernetes.client.Configuration(host=url)
        with kubernetes.client.ApiClient(configuration) as api:
            apps = kubernetes.dynamic.DynamicClient(api).resources.get(
                api_version="apps/v1", kind="Deployment"
            )
            made = apps.server_side_apply(
                deployment(), name="web", namespace="default", field_manager="py"
            )
            try:
                apps.server_side_apply(
                    deployment(3), name="web", namespace="default", field_manager="other"
                )
            except kubernetes.client.ApiException as error:
                return made.to_dict(), error.status
            return made.to_dict(), 200

    made, status = await asyncio.to_thread(talk)
    assert made["metadata"]["managedFields"][0]["manager"] == "py"
    assert status == 409
