"""The chain: identity, permission, deadlines, failures, and the paths beside the API."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import Forbidden, Unauthorized
from pybernetes.apiserver import ApiServer, Plugins, ServerConfig, UserInfo
from pybernetes.apiserver.hooks import Access, AdmissionChain, Decision, Route, Verdict
from pybernetes.wire.http import Peer, Request, Response
from pybernetes.wire.memory import MemoryHttpClient
from tests.api.server.conftest import CONFIG_MAPS, DEPLOYMENTS, PODS, RESOURCES, Api

if TYPE_CHECKING:
    from random import Random

    import pytest

    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.hooks import Attributes
    from pybernetes.storage import MemoryStore


class Tokens:
    """Knows one token."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        token = request.headers.get("authorization").removeprefix("Bearer ")
        if not token:
            return None
        if token != "alice":
            raise Unauthorized
        return UserInfo("alice", ("devs",))


class Notebook:
    """Allows what is in the list, and remembers what it was asked."""

    def __init__(self, *allowed: tuple[str, str, str]) -> None:
        self.allowed = set(allowed)
        self.asked: list[Access] = []

    async def authorize(self, access: Access) -> Decision:
        self.asked.append(access)
        what = access.resource if access.is_resource else access.path
        if (access.user.name, access.verb, what) in self.allowed:
            return Decision(Verdict.ALLOW)
        return Decision(Verdict.NO_OPINION)


def make_server(
    store: MemoryStore, clock: Clock, random: Random, plugins: Plugins, **config: object
) -> ApiServer:
    return ApiServer(
        store,
        clock,
        random,
        ServerConfig(**config),  # type: ignore[arg-type]  # a test's own words
        resources=RESOURCES,
        make_plugins=lambda server: plugins,
    )


async def test_who_may_do_what(store: MemoryStore, clock: Clock, random: Random) -> None:
    notebook = Notebook(("alice", "list", "configmaps"), ("alice", "get", "/version"))
    plugins = Plugins(authenticator=Tokens(), authorizer=notebook)
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        alice = (("Authorization", "Bearer alice"),)
        assert (await api.send("GET", CONFIG_MAPS, headers=alice)).status == 200
        access = notebook.asked[-1]
        assert access.user.groups == ("devs", "system:authenticated")
        assert (access.namespace, access.group, access.version) == ("default", "", "v1")
        refused = await api.send("DELETE", f"{DEPLOYMENTS}/web", headers=alice)
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert refused.message == (
            'deployments.apps "web" is forbidden: User "alice" cannot delete resource "deployments" '
            'in API group "apps" in the namespace "default"'
        )
        log = await api.send("GET", f"{PODS}/a/log", headers=alice)
        assert log.message == (
            'pods "a" is forbidden: User "alice" cannot get resource "pods/log" in API group "" in '
            'the namespace "default"'
        )
        nodes = await api.send("GET", "/api/v1/nodes", headers=alice)
        assert nodes.message == (
            'nodes is forbidden: User "alice" cannot list resource "nodes" in API group "" at the '
            "cluster scope"
        )
        assert (await api.send("GET", "/version", headers=alice)).status == 200
        metrics = await api.send("GET", "/metrics", headers=alice)
        assert metrics.message == 'forbidden: User "alice" cannot get path "/metrics"'
        nobody = await api.get(CONFIG_MAPS)
        assert nobody.message.startswith('configmaps is forbidden: User "system:anonymous" cannot')
        wrong = await api.send("GET", CONFIG_MAPS, headers=(("Authorization", "Bearer x"),))
        assert (wrong.status, wrong.message) == (401, "Unauthorized")
        await api.close()


async def test_who_may_not_create_cannot_by_putting(
    store: MemoryStore, clock: Clock, random: Random
) -> None:
    authorizer = Notebook(("alice", "update", "leases"))
    plugins = Plugins(authenticator=Tokens(), authorizer=authorizer)
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    body = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        alice = (("Authorization", "Bearer alice"),)
        refused = await api.send("PUT", f"{leases}/l", body, headers=alice)
        assert (refused.status, refused.reason) == (403, "Forbidden")
        assert 'cannot create resource "leases"' in refused.message
        authorizer.allowed.add(("alice", "create", "leases"))
        assert (await api.send("PUT", f"{leases}/l", body, headers=alice)).status == 201
        await api.close()


async def test_nobody_is_let_in_unnamed_where_that_is_off(
    store: MemoryStore, clock: Clock, random: Random
) -> None:
    async with make_server(store, clock, random, Plugins(), anonymous=False) as server:
        api = Api(server)
        assert (await api.get(CONFIG_MAPS)).status == 401
        peer = Peer(identity=UserInfo("system:kube-scheduler"))
        inside = MemoryHttpClient(server.handle, peer=peer)
        assert (await inside.request("GET", CONFIG_MAPS)).status == 200
        await api.close()


async def test_acting_as_somebody_else(store: MemoryStore, clock: Clock, random: Random) -> None:
    notebook = Notebook(
        ("alice", "impersonate", "users"),
        ("alice", "impersonate", "groups"),
        ("bob", "list", "configmaps"),
    )
    plugins = Plugins(authenticator=Tokens(), authorizer=notebook)
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        headers = (
            ("Authorization", "Bearer alice"),
            ("Impersonate-User", "bob"),
            ("Impersonate-Group", "ops"),
        )
        assert (await api.send("GET", CONFIG_MAPS, headers=headers)).status == 200
        assert notebook.asked[-1].user == UserInfo("bob", ("ops", "system:authenticated"))
        more = (*headers, ("Impersonate-Uid", "7"))
        refused = await api.send("GET", CONFIG_MAPS, headers=more)
        assert refused.status == 403
        assert refused.message == (
            'uids.authentication.k8s.io "7" is forbidden: User "alice" cannot impersonate resource '
            '"uids" in API group "authentication.k8s.io" at the cluster scope'
        )
        await api.close()


async def test_what_takes_too_long_is_cut_short(
    store: MemoryStore, clock: Clock, random: Random
) -> None:
    async def sleepy(call: Call) -> Response:
        await asyncio.sleep(3600)
        raise AssertionError

    plugins = Plugins(routes=(Route("/sleep", sleepy),))
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        loop = asyncio.get_running_loop()
        for query, seconds in (("", 60), ("?timeout=5s", 5), ("?timeout=2h", 60)):
            started = loop.time()
            answer = await api.get(f"/sleep{query}")
            assert (answer.status, answer.reason) == (504, "Timeout")
            assert loop.time() - started == seconds
        bad = await api.get("/sleep?timeout=soon")
        assert (bad.status, bad.reason) == (400, "BadRequest")
        await api.close()


async def test_our_own_failures_say_nothing_but_where_to_look(
    store: MemoryStore, clock: Clock, random: Random, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(call: Call) -> Response:
        raise KeyError("secret detail")

    plugins = Plugins(routes=(Route("/broken", broken),))
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        with caplog.at_level(logging.ERROR):
            answer = await api.get("/broken")
        assert (answer.status, answer.reason) == (500, "InternalError")
        assert "secret" not in answer.message
        assert answer.headers["audit-id"] in answer.message
        assert caplog.records[-1].__dict__["audit_id"] == answer.headers["audit-id"]
        await api.close()


class Policy:
    """Labels what is made and forbids what is called so."""

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation == "CREATE" and attributes.is_for("", "configmaps"):
            from msgspec.structs import replace

            obj = attributes.obj
            metadata = replace(obj.metadata, labels={**obj.metadata.labels, "seen": "yes"})
            attributes.obj = replace(obj, metadata=metadata)

    async def validate(self, attributes: Attributes) -> None:
        if attributes.name == "forbidden":
            verb = attributes.operation.value
            raise Forbidden(attributes.resource, attributes.name, f"no {verb} by policy")


async def test_policy_changes_and_judges(store: MemoryStore, clock: Clock, random: Random) -> None:
    plugins = Plugins(admission=AdmissionChain([Policy()]))
    async with make_server(store, clock, random, plugins) as server:
        api = Api(server)
        assert (await api.config_map("a"))["metadata"]["labels"] == {"seen": "yes"}
        refused = await api.post(CONFIG_MAPS, {"metadata": {"name": "forbidden"}})
        assert refused.status == 403
        assert refused.message == 'configmaps "forbidden" is forbidden: no CREATE by policy'
        await api.close()


async def test_audit_ids_are_taken_over(api: Api) -> None:
    answer = await api.send("GET", "/version", headers=(("Audit-Id", "mine"),))
    assert answer.headers["audit-id"] == "mine"


async def test_version(api: Api) -> None:
    version = (await api.get("/version")).json
    assert (version["major"], version["minor"]) == ("1", "37")
    assert version["gitVersion"].startswith("v1.37.0+p8s.")
    assert version["platform"].startswith("linux/")


async def test_health(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/caches", "/livez/ping"):
        answer = await api.get(path)
        assert (answer.status, answer.body) == (200, b"ok")
    verbose = await api.get("/readyz?verbose")
    assert b"[+]storage ok\n" in verbose.body
    assert verbose.body.endswith(b"readyz check passed\n")
    assert (await api.get("/readyz/nothing")).status == 404
    api.server.stop_being_ready()
    failing = await api.get("/readyz")
    assert failing.status == 500
    assert b"[-]shutdown failed: reason withheld\n" in failing.body
    assert (await api.get("/readyz?exclude=shutdown")).status == 200
    assert (await api.get("/livez")).status == 200


async def test_metrics(api: Api) -> None:
    await api.config_map("a")
    await api.get("/api/v1/nothing")
    await api.watch(CONFIG_MAPS)
    text = (await api.get("/metrics")).body.decode()
    assert (
        'apiserver_request_total{verb="POST",group="",version="v1",resource="configmaps",'
        'subresource="",code="201"} 1\n' in text
    )
    # What is not served does not become a label.
    assert "nothing" not in text
    assert 'apiserver_longrunning_requests{resource="configmaps"} 1\n' in text
    assert 'apiserver_storage_objects{resource="configmaps"} 1\n' in text
    assert 'apiserver_request_duration_seconds_bucket{verb="POST"' in text
