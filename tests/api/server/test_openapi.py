"""OpenAPI, as documents and as clients see it.

Real: the API server with every kind of the registry, over the transport without sockets. The
published facts are compared with, and the names of operations with the generated Python client.
Fake: nothing; access control is left out.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.schemas import definition, definition_names, schema_of
from pybernetes.api.types._index import served_kinds
from pybernetes.apimachinery.schema import from_openapi
from pybernetes.apiserver import ApiServer, Plugins
from pybernetes.apiserver.openapi import OpenApi
from pybernetes.apiserver.openapi.definitions import Definitions, Dialect
from pybernetes.apiserver.openapi.descriptions import TABLE, Descriptions, parse, short_name
from pybernetes.apiserver.openapi.protobuf import encode_document
from pybernetes.apiserver.server import served_by_default
from pybernetes.storage import MemoryStore
from pybernetes.wire.memory import MemoryHttpClient
from tests.api.published import FACTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from random import Random

    from pybernetes.aio.clock import Clock

# Every kind but those behind a gate.
RESOURCES = served_by_default(None, frozenset())

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
GVK = "x-kubernetes-group-version-kind"
METHODS = ("get", "put", "post", "delete", "patch")


class Asker:
    """Sends GETs and keeps what came."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.client = MemoryHttpClient(server.handle)

    async def get(self, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        response = await self.client.request("GET", target, headers=fields)
        return response.status, dict(response.headers.items()), await response.read()

    async def json(self, target: str) -> Any:
        status, _, body = await self.get(target)
        assert status == 200, body
        return json.loads(body)

    async def v3(self, path: str) -> Any:
        index = await self.json("/openapi/v3")
        return await self.json(index["paths"][path]["serverRelativeURL"])


@pytest.fixture
async def asker(clock: Clock, random: Random) -> AsyncIterator[Asker]:
    def plugins(server: ApiServer) -> Plugins:
        return Plugins(routes=OpenApi(server.catalog).routes())

    store = MemoryStore(clock=clock)
    async with ApiServer(store, clock, random, resources=RESOURCES, make_plugins=plugins) as server:
        asker = Asker(server)
        yield asker
        await asker.client.close()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


# --- version 3 ------------------------------------------------------------------------------------


async def test_the_index_names_every_group_version_served(asker: Asker) -> None:
    index = await asker.json("/openapi/v3")
    wanted = {f"apis/{r.group}/{r.version}" if r.group else f"api/{r.version}" for r in RESOURCES}
    assert set(index["paths"]) == wanted
    for path, entry in index["paths"].items():
        assert re.fullmatch(rf"/openapi/v3/{path}\?hash=[0-9A-F]{{64}}", entry["serverRelativeURL"])


async def test_every_reference_leads_somewhere(asker: Asker) -> None:
    for path in (await asker.json("/openapi/v3"))["paths"]:
        document = await asker.v3(path)
        schemas = document["components"]["schemas"]
        for reference in references(document):
            assert reference.removeprefix("#/components/schemas/") in schemas
    document = await asker.json("/openapi/v2")
    for reference in references(document):
        assert reference.removeprefix("#/definitions/") in document["definitions"]


async def test_kubectl_finds_that_the_server_checks_fields(asker: Asker) -> None:
    """It looks for the parameter at a PATCH of the kind, in the operation itself."""
    everything = await asker.json("/openapi/v2")
    single: dict[str, Any] = {}
    for entry in RESOURCES:
        if "patch" not in entry.verbs:
            continue
        path = f"apis/{entry.group}/{entry.version}" if entry.group else f"api/{entry.version}"
        if path not in single:
            single[path] = await asker.v3(path)
        wanted = {"group": entry.group, "version": entry.version, "kind": entry.kind_name}
        for document in (single[path], everything):
            patches = [o for _, m, o in operations(document) if m == "patch" and o[GVK] == wanted]
            assert patches, wanted
            for patch in patches:
                names = {parameter["name"] for parameter in patch["parameters"]}
                assert {"fieldValidation", "dryRun", "fieldManager", "force"} <= names


async def test_a_pod_is_described_as_published(asker: Asker) -> None:
    schemas = (await asker.v3("api/v1"))["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod[GVK] == [{"group": "", "kind": "Pod", "version": "v1"}]
    spec = schemas["io.k8s.api.core.v1.PodSpec"]
    containers = dict(spec["properties"]["containers"])
    assert containers.pop("description")
    assert containers == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": "name",
    }
    assert spec["properties"]["volumes"]["x-kubernetes-patch-strategy"] == "merge,retainKeys"
    assert spec["required"] == ["containers"]
    port = schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]
    assert port["protocol"]["default"] == "TCP"
    assert port["containerPort"]["type"] == "integer"
    assert port["containerPort"]["format"] == "int32"
    quantity = schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert quantity["oneOf"] == [{"type": "string"}, {"type": "number"}]
    selector = schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]
    assert selector["x-kubernetes-map-type"] == "atomic"


async def test_an_old_hash_leads_to_the_present_document(asker: Asker) -> None:
    status, headers, _ = await asker.get("/openapi/v3/api/v1?hash=0123")
    assert status == 301
    status, found, _ = await asker.get(headers["location"])
    assert status == 200
    assert "immutable" in found["cache-control"]
    status, unnamed, _ = await asker.get("/openapi/v3/api/v1")
    assert status == 200
    assert "no-cache" in unnamed["cache-control"]


@pytest.mark.parametrize("path", ["api/v2", "apis/apps", "apis/apps/v9", "apis/nobody/v1"])
async def test_what_is_not_served_is_not_described(asker: Asker, path: str) -> None:
    status, _, _ = await asker.get(f"/openapi/v3/{path}")
    assert status == 404


async def test_a_kind_that_goes_changes_its_document(asker: Asker) -> None:
    before = await asker.json("/openapi/v3")
    assert "/apis/batch/v1/cronjobs" in (await asker.v3("apis/batch/v1"))["paths"]
    served = asker.server.catalog.find("batch", "v1", "cronjobs")
    assert served is not None
    asker.server.catalog.remove(served)
    after = await asker.json("/openapi/v3")
    changed = {path for path in before["paths"] if before["paths"][path] != after["paths"][path]}
    assert changed == {"apis/batch/v1"}
    assert "/apis/batch/v1/cronjobs" not in (await asker.v3("apis/batch/v1"))["paths"]


@pytest.mark.skipif(not FACTS.is_dir(), reason="the published facts are not on this machine")
def test_every_definition_is_the_published_one() -> None:
    facts = json.loads((FACTS / "schema_1.37.json").read_bytes())
    definitions = Definitions(Dialect.V2, Descriptions({}))
    for name in definition_names():
        definitions.reference(name)
    text = json.dumps(definitions.finish())
    ours = json.loads(text.replace(Dialect.V2.value, ""))
    assert set(ours) == set(facts)
    for name, fact in facts.items():
        if "required" in fact:
            fact["required"].sort()
        assert ours[name] == fact, name


# --- both versions --------------------------------------------------------------------------------


async def test_there_is_a_path_for_everything_that_is_served(asker: Asker) -> None:
    document = await asker.json("/openapi/v2")
    found: dict[tuple[str, str], set[str]] = {}
    for path, _, operation in operations(document):
        _, _, rest = path.partition("/namespaces/{namespace}/")
        plain = rest or path.split("/", 3 if path.startswith("/api/") else 4)[-1]
        group = path.split("/")[2] if path.startswith("/apis/") else ""
        plural = plain.replace("/{name}", "").replace("/{path}", "")
        found.setdefault((group, plural), set()).add(operation["x-kubernetes-action"])
    action = {"create": "post", "update": "put"}
    for entry in RESOURCES:
        verbs = {action.get(verb, verb) for verb in entry.verbs} - {"watch"}
        assert found[entry.group, entry.plural] == verbs
        for sub in entry.subresources:
            assert found[entry.group, f"{entry.plural}/{sub.name}"]


@pytest.mark.slow
async def test_operations_are_called_as_in_generated_clients(asker: Asker) -> None:
    """The published Python client has a method for each of our operations."""
    kubernetes = pytest.importorskip("kubernetes")
    document = await asker.json("/openapi/v2")
    seen = set()
    for _, _, operation in operations(document):
        name = operation["operationId"]
        assert name not in seen
        seen.add(name)
        group, version = operation["tags"][0].split("_")
        part = group[0].upper() + group[1:] + version[0].upper() + version[1:]
        api = getattr(kubernetes.client, f"{part}Api")
        plain = name.replace(part, "", 1)
        method = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain).lower()
        assert hasattr(api, method), name


async def test_versions_differ_where_they_must(asker: Asker) -> None:
    v2 = (await asker.json("/openapi/v2"))["definitions"]
    v3 = (await asker.v3("api/v1"))["components"]["schemas"]
    name = "io.k8s.api.core.v1.PodSpec"
    affinity = v2[name]["properties"]["affinity"]
    assert affinity["$ref"] == "#/definitions/io.k8s.api.core.v1.Affinity"
    assert v3[name]["properties"]["affinity"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.api.core.v1.Affinity"}
    ]
    assert "enum" in v3[name]["properties"]["restartPolicy"]
    assert "enum" not in v2[name]["properties"]["restartPolicy"]
    assert v2["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"] == "string"


async def test_a_tag_saves_the_document(asker: Asker) -> None:
    for target in ("/openapi/v2", "/openapi/v3/apis/apps/v1"):
        status, headers, body = await asker.get(target, accept_encoding="gzip")
        assert (status, headers["content-encoding"]) == (200, "gzip")
        plain = await asker.get(target)
        assert gzip.decompress(body) == plain[2]
        status, _, body = await asker.get(target, if_none_match=headers["etag"])
        assert (status, body) == (304, b"")


async def test_few_documents_are_kept(asker: Asker) -> None:
    from pybernetes.apiserver.openapi import routes

    openapi = OpenApi(asker.server.catalog)
    made = []
    for number in range(20):
        openapi._document(("v3", "g", str(number)), lambda: made.append(1) or b"x")  # type: ignore[func-returns-value]
    assert len(openapi._documents) == routes._KEPT
    openapi._document(("v3", "g", "19"), lambda: made.append(1) or b"x")  # type: ignore[func-returns-value]
    assert len(made) == 20


@pytest.mark.slow
def test_a_start_does_not_pay() -> None:
    """Whoever composes a server gets the routes and nothing that makes documents."""
    code = (
        "import sys, pybernetes.cluster.access; "
        "print([m for m in sys.modules if m.startswith('pybernetes.apiserver.openapi.')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.split() == [b"['pybernetes.apiserver.openapi.routes']"]


# --- protobuf -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/json", 200, "application/json"),
        (PROTOBUF, 200, PROTOBUF),
        (OLD_PROTOBUF, 200, PROTOBUF),
        (f"{PROTOBUF}, application/json;q=0.9", 200, PROTOBUF),
        ("text/html", 406, ""),
    ],
)
async def test_forms(asker: Asker, accept: str, status: int, content_type: str) -> None:
    answer = await asker.get("/openapi/v2", accept=accept)
    assert answer[0] == status
    if content_type:
        assert answer[1]["content-type"] == content_type


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """A protobuf message without its schema."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 1:
            yield tag >> 3, data[place : place + 8]
            place += 8
        else:
            assert tag & 7 == 2
            size = varint()
            yield tag >> 3, data[place : place + size]
            place += size


def at(data: bytes, *path: int) -> list[bytes]:
    """All messages at a path of field numbers."""
    found = [data]
    for number in path:
        found = [v for d in found for n, v in fields(d) if n == number and isinstance(v, bytes)]
    return found


def named(data: bytes, name: str) -> bytes:
    """The value of a pair in a list of pairs."""
    for pair in at(data, 1):
        if at(pair, 1) == [name.encode()]:
            return at(pair, 2)[0]
    raise KeyError(name)


async def test_the_protobuf_form_says_the_same(asker: Asker) -> None:
    """By gnostic's field numbers: Document 9 definitions, Schema 25 properties, 22 type …"""
    document = await asker.json("/openapi/v2")
    data = (await asker.get("/openapi/v2", accept=PROTOBUF))[2]
    assert data == encode_document(document)
    assert at(data, 1) == [b"2.0"]
    assert at(data, 2, 1) == [b"Kubernetes"]
    definitions = at(data, 9)[0]
    names = [at(pair, 1)[0].decode() for pair in at(definitions, 1)]
    assert names == list(document["definitions"])
    spec = named(definitions, "io.k8s.api.core.v1.PodSpec")
    assert at(spec, 22, 1) == [b"object"]
    assert at(spec, 19) == [b"containers"]
    containers = named(at(spec, 25)[0], "containers")
    assert at(containers, 23, 1, 1) == [b"#/definitions/io.k8s.api.core.v1.Container"]
    extensions = {at(e, 1)[0].decode(): json.loads(at(e, 2, 2)[0]) for e in at(containers, 31)}
    assert extensions["x-kubernetes-patch-merge-key"] == "name"
    paths = {at(pair, 1)[0].decode(): at(pair, 2)[0] for pair in at(data, 8, 2)}
    assert list(paths) == list(document["paths"])
    patch = at(paths["/api/v1/namespaces/{namespace}/pods/{name}"], 8)[0]
    assert b"dryRun" in at(patch, 8, 1, 2, 3, 4)
    assert at(patch, 8, 1, 1, 2) == [b"body"]


def test_what_the_protobuf_form_cannot_say_is_an_error() -> None:
    with pytest.raises(KeyError):
        encode_document({"definitions": {"x": {"oneOf": []}}})


# --- custom resources, descriptions ---------------------------------------------------------------

BACKUP = {
    "type": "object",
    "description": "A backup.",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["when"],
            "properties": {
                "when": {"type": "string", "pattern": "^.+$", "default": "now"},
                "port": {"x-kubernetes-int-or-string": True},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "tags": {
                    "type": "array",
                    "items": {"type": "string"},
                    "x-kubernetes-list-type": "set",
                },
                "size": {"type": "integer", "nullable": True, "minimum": 1},
                "one": {"oneOf": [{"required": ["a"]}], "type": "object"},
            },
        }
    },
}


@pytest.mark.parametrize("dialect", Dialect)
def test_custom_resources(dialect: Dialect) -> None:
    definitions = Definitions(dialect, Descriptions({}))
    kinds = [("example.com", "v1", "Backup")]
    definitions.add_custom("com.example.v1.Backup", from_openapi(BACKUP), kinds)
    found = definitions.finish()
    backup = found["com.example.v1.Backup"]
    assert backup["description"] == "A backup."
    assert backup[GVK] == [{"group": "example.com", "kind": "Backup", "version": "v1"}]
    metadata = backup["properties"]["metadata"]["$ref"]
    assert metadata.removeprefix(dialect.value) in found
    assert found["com.example.v1.BackupList"][GVK][0]["kind"] == "BackupList"
    spec = backup["properties"]["spec"]
    assert spec["required"] == ["when"]
    properties = spec["properties"]
    assert properties["when"]["pattern"] == "^.+$"
    assert properties["tags"]["x-kubernetes-list-type"] == "set"
    assert properties["port"] == {"x-kubernetes-int-or-string": True}
    is_v3 = dialect is Dialect.V3
    assert ("default" in properties["when"]) is is_v3
    assert ("type" in properties["any"]) is is_v3
    assert ("type" in properties["size"]) is is_v3
    assert ("oneOf" in properties["one"]) is is_v3
    if not is_v3:
        encode_document({"definitions": found})


def test_descriptions_are_of_types_and_fields_that_exist() -> None:
    published = {short_name(name): name for name in definition_names()}
    text = TABLE.read_text()
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            assert section == "*" or section in published, section
            continue
        field, colon, _ = line.partition(": ")
        if section == "*" or not colon or " " in field or line.startswith("#"):
            continue
        properties = definition(published[section]).properties
        assert properties is not None, line
        assert field in properties, f"{section}: {line}"


def test_every_kind_has_a_sentence() -> None:
    descriptions = Descriptions.load()
    for info in served_kinds():
        schema = schema_of(info.group, info.version, info.kind)
        assert schema is not None
        assert descriptions.of(schema.ref).get(""), schema.ref


def test_sections_take_over_lines_and_keep_their_own() -> None:
    table = parse("[a.v1.A]\nAn A.\nx: An x.\ny: A y.\n[a.v1.B]\nx: B's x.\n= a.v1.A\n")
    assert table["a.v1.B"] == {"": "An A.", "x": "B's x.", "y": "A y."}


def test_kubectl_of_old_can_print_every_sentence() -> None:
    """It puts them through printf."""
    table = parse(TABLE.read_text())
    assert not [text for section in table.values() for text in section.values() if "%" in text]
