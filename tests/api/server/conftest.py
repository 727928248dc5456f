"""Real: the API server, the store in memory, the transport without sockets. Fake: the kinds'
entries, which are the tests' own and as plain as can be, so that what is tested here is the
server and not the kinds. Time is virtual.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pybernetes.api.resource import (
    AGE,
    Binding,
    Column,
    Eviction,
    Finalize,
    Log,
    Resource,
    Scale,
    Scope,
    Status,
    Strategy,
)
from pybernetes.api.types.apps_v1 import Deployment
from pybernetes.api.types.coordination_v1 import Lease
from pybernetes.api.types.core_v1 import ConfigMap, Namespace, Node, Pod
from pybernetes.api.types.policy_v1 import PodDisruptionBudget
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver import ApiServer
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.wire.http import ClientResponse


def pod_grace(pod: Pod, asked: int | None) -> int:
    """As upstream's: what has no node or is over goes at once."""
    if not pod.spec.node_name or pod.status.phase in ("Succeeded", "Failed"):
        return 0
    return 30 if asked is None else asked


def deployment_errors(new: Deployment, old: Deployment | None) -> Iterator[FieldError]:
    if new.spec.replicas is not None and new.spec.replicas < 0:
        replicas = Path("spec").replicas
        yield replicas.invalid(new.spec.replicas, "must be greater than or equal to 0")
    if old is not None and new.spec.selector != old.spec.selector:
        yield Path("spec").selector.immutable(new.spec.selector)


def default_deployment(new: Deployment) -> Deployment:
    if new.spec.replicas is not None:
        return new
    return replace(new, spec=replace(new.spec, replicas=1))


def with_finalizer(new: Namespace) -> Namespace:
    return replace(new, spec=replace(new.spec, finalizers=("kubernetes",)))


def core(kind: type[Any], plural: str, scope: Scope, **rest: Any) -> Resource[Any]:
    return Resource(group="", version="v1", kind=kind, plural=plural, scope=scope, **rest)


RESOURCES: tuple[Resource[Any], ...] = (
    core(
        ConfigMap,
        "configmaps",
        Scope.NAMESPACED,
        strategy=Strategy(generation_follows=()),
    ),
    core(
        Namespace,
        "namespaces",
        Scope.CLUSTER,
        strategy=Strategy(prepare_create=with_finalizer),
        subresources=(Status(), Finalize()),
    ),
    core(Node, "nodes", Scope.CLUSTER, subresources=(Status(),)),
    core(
        Pod,
        "pods",
        Scope.NAMESPACED,
        strategy=Strategy(grace_seconds=pod_grace),
        subresources=(Status(), Binding(), Eviction(), Log()),
        selectable_fields={
            "spec.nodeName": lambda pod: pod.spec.node_name,
            "status.phase": lambda pod: pod.status.phase,
        },
        columns=(Column("Status", lambda pod: pod.status.phase), AGE),
    ),
    Resource(
        group="apps",
        version="v1",
        kind=Deployment,
        plural="deployments",
        scope=Scope.NAMESPACED,
        strategy=Strategy(
            default=default_deployment,
            validate=deployment_errors,
            warn=lambda new, old: ["do not"] if "risky" in new.metadata.labels else [],
        ),
        subresources=(Status(), Scale()),
    ),
    Resource(
        group="coordination.k8s.io",
        version="v1",
        kind=Lease,
        plural="leases",
        scope=Scope.NAMESPACED,
        strategy=Strategy(allow_create_on_update=True, allow_unconditional_update=False),
        relaxed=True,
    ),
    Resource(
        group="policy",
        version="v1",
        kind=PodDisruptionBudget,
        plural="poddisruptionbudgets",
        scope=Scope.NAMESPACED,
        subresources=(Status(),),
    ),
)

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


class Answer:
    """A response that has been read."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, warnings: list[str]):
        self.status = status
        self.headers = headers
        self.body = body
        self.warnings = warnings

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        message: str = self.json["message"]
        return message

    @property
    def reason(self) -> str:
        reason: str = self.json.get("reason", "")
        return reason

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.json["items"]]


class WatchStream:
    """A watch, one event at a time."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response
        self._lines: list[bytes] = []

    async def next(self) -> Any:
        """The next event; None at the end of the stream."""
        while not self._lines:
            chunk = await anext(aiter(self.response), b"")
            if not chunk:
                return None
            self._lines = chunk.splitlines()
        return json.loads(self._lines.pop(0))

    async def types_and_names(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


class Api:
    """What a test talks through."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.client = MemoryHttpClient(server.handle)
        self._open: list[ClientResponse] = []

    async def send(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        accept: str = "",
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        fields = list(headers)
        if accept:
            fields.append(("Accept", accept))
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields.append(("Content-Type", content_type))
        response = await self.client.request(method, target, headers=fields, body=data)
        read = await response.read()
        warnings = response.headers.get_all("warning")
        return Answer(response.status, dict(response.headers.items()), read, warnings)

    async def get(self, target: str, *, accept: str = "") -> Answer:
        return await self.send("GET", target, accept=accept)

    async def post(self, target: str, body: object) -> Answer:
        return await self.send("POST", target, body)

    async def put(self, target: str, body: object) -> Answer:
        return await self.send("PUT", target, body)

    async def patch(self, target: str, body: object, content_type: str = MERGE) -> Answer:
        return await self.send("PATCH", target, body, content_type=content_type)

    async def delete(self, target: str, body: object = None) -> Answer:
        return await self.send("DELETE", target, body)

    async def watch(self, target: str, *, accept: str = "") -> WatchStream:
        joint = "&" if "?" in target else "?"
        headers = [("Accept", accept)] if accept else []
        response = await self.client.request("GET", f"{target}{joint}watch=1", headers=headers)
        assert response.status == 200, await response.read()
        self._open.append(response)
        return WatchStream(response)

    async def config_map(self, name: str, namespace: str = "default", **labels: str) -> Any:
        body = {"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}}
        answer = await self.post(f"/api/v1/namespaces/{namespace}/configmaps", body)
        assert answer.status == 201, answer.body
        return answer.json

    async def pod(self, name: str, *, node: str = "", phase: str = "", **metadata: Any) -> Any:
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "busybox"}]}
        if node:
            spec["nodeName"] = node
        body = {"metadata": {"name": name, **metadata}, "spec": spec}
        answer = await self.post(PODS, body)
        assert answer.status == 201, answer.body
        if phase:
            answer = await self.patch(f"{PODS}/{name}/status", {"status": {"phase": phase}})
            assert answer.status == 200, answer.body
        return answer.json

    async def deployment(self, name: str, **spec: Any) -> Any:
        selector = {"matchLabels": {"app": name}}
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        }
        body = {
            "metadata": {"name": name},
            "spec": {"selector": selector, "template": template, **spec},
        }
        answer = await self.post(DEPLOYMENTS, body)
        assert answer.status == 201, answer.body
        return answer.json

    async def close(self) -> None:
        for response in self._open:
            await response.close()
        await self.client.close()
        for cache in self.server.catalog.caches.values():
            cache.check_invariants()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
async def server(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[ApiServer]:
    async with ApiServer(store, clock, random, resources=RESOURCES) as server:
        yield server


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[Api]:
    api = Api(server)
    yield api
    await api.close()
