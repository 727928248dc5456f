"""What access control costs: CPU per decision, per authentication, per start.

    python -m benchmarks.access       prints one JSON object

Everything runs in this process on a control plane in memory, with 1,000 roles and bindings of
200 namespaces beside the default policy. Figures are microseconds of CPU per operation, and
milliseconds for the first objects of an empty and of an unchanged store.
"""

from __future__ import annotations

import asyncio
import json
import time
from random import Random
from typing import TYPE_CHECKING, Any

from pybernetes.aio.clock import SystemClock
from pybernetes.api.types.authentication_v1 import TokenRequest
from pybernetes.api.types.core_v1 import Namespace, ServiceAccount
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.rbac_v1 import PolicyRule, Role, RoleBinding, RoleRef, Subject
from pybernetes.api.user import UserInfo
from pybernetes.apiserver.authn.bearer import BearerAuthenticator
from pybernetes.apiserver.authn.certificate import CertificateAuthenticator
from pybernetes.apiserver.hooks import Access
from pybernetes.cluster.access import AccessOptions
from pybernetes.cluster.controlplane import ControlPlane, ControlPlaneOptions, control_plane
from pybernetes.storage import MemoryStore
from pybernetes.testing import builders
from pybernetes.wire.http import Body, Headers, Peer, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 20_000
NAMESPACES = 200
ROLES = 5


async def per_operation(operation: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> float:
    """Microseconds of CPU."""
    await operation()
    start = time.process_time()
    for _ in range(rounds):
        await operation()
    return round((time.process_time() - start) / rounds * 1e6, 3)


async def fill(plane: ControlPlane) -> None:
    for number in range(NAMESPACES):
        namespace = f"team-{number}"
        await plane.admin.create(Namespace(metadata=ObjectMeta(name=namespace)))
        await plane.admin.create(
            ServiceAccount(metadata=ObjectMeta(name="default", namespace=namespace))
        )
        for role in range(ROLES):
            metadata = ObjectMeta(name=f"role-{role}", namespace=namespace)
            rule = PolicyRule(
                verbs=("get", "list"), api_groups=("",), resources=(f"r{role}", "pods")
            )
            await plane.admin.create(Role(metadata=metadata, rules=(rule,)))
            subjects = (Subject(kind="Group", name=f"group-{number}"),)
            reference = RoleRef(kind="Role", name=metadata.name)
            await plane.admin.create(
                RoleBinding(metadata=metadata, role_ref=reference, subjects=subjects)
            )


def request(*, subject: tuple[tuple[str, str], ...] = (), token: str = "") -> Request:
    headers = Headers([("authorization", f"Bearer {token}")] if token else [])
    return Request("GET", "/api", "", headers, Body(), Peer(subject=subject))


async def measure() -> dict[str, Any]:
    results: dict[str, Any] = {}
    store = MemoryStore()
    options = ControlPlaneOptions(
        controllers=False, scheduler=False, access=AccessOptions(advertise_address="10.0.0.1")
    )
    for name in ("start_empty_ms", "start_unchanged_ms"):
        start = time.process_time()
        async with control_plane(store, clock=SystemClock(), random=Random(1), options=options):
            results[name] = round((time.process_time() - start) * 1e3, 1)
    async with control_plane(
        store, clock=SystemClock(), random=Random(1), options=options
    ) as plane:
        await fill(plane)
        results |= await measure_decisions(plane)
        results |= await measure_identities(plane)
        results |= await measure_writes(plane)
    return results


async def measure_decisions(plane: ControlPlane) -> dict[str, Any]:
    authorize = plane.server.authorizer.authorize
    user = UserInfo("jane", ("group-7", "system:authenticated"))
    here = Access(user, "list", namespace="team-7", version="v1", resource="pods")
    refused = Access(user, "delete", namespace="team-7", version="v1", resource="pods")
    scheduler = UserInfo("system:kube-scheduler", ("system:authenticated",))
    binding = Access(
        scheduler, "create", namespace="a", version="v1", resource="pods", subresource="binding"
    )
    await plane.admin.create(builders.pod("web", "team-7", node="n1"))
    node = UserInfo("system:node:n1", ("system:nodes", "system:authenticated"))
    own = Access(node, "get", namespace="team-7", version="v1", resource="pods", name="web")
    return {
        "authorize_in_namespace_us": await per_operation(lambda: authorize(here)),
        "authorize_refused_us": await per_operation(lambda: authorize(refused)),
        "authorize_in_cluster_us": await per_operation(lambda: authorize(binding)),
        "authorize_node_us": await per_operation(lambda: authorize(own)),
    }


async def measure_identities(plane: ControlPlane) -> dict[str, Any]:
    certificates = CertificateAuthenticator()
    shown = request(subject=(("organizationName", "dev"), ("commonName", "jane")))
    answer = await plane.admin.create_subresource(
        ServiceAccount, "default", "team-0", "token", TokenRequest()
    )
    bearer = next(
        member
        for member in plane.server.authenticator._members  # type: ignore[union-attr]  # its union
        if isinstance(member, BearerAuthenticator)
    )
    carried = request(token=answer.status.token)

    async def cold() -> None:
        bearer._accounts._verified.clear()
        await bearer.authenticate(carried)

    return {
        "certificate_us": await per_operation(lambda: certificates.authenticate(shown)),
        "token_warm_us": await per_operation(lambda: bearer.authenticate(carried)),
        "token_cold_us": await per_operation(cold, 500),
        "token_issue_us": await per_operation(
            lambda: plane.admin.create_subresource(
                ServiceAccount, "default", "team-0", "token", TokenRequest()
            ),
            500,
        ),
    }


async def measure_writes(plane: ControlPlane) -> dict[str, Any]:
    """A whole create through the chain: to be compared with a server that admits everything."""
    numbers = iter(range(10_000_000))

    async def create_pod() -> None:
        await plane.admin.create(builders.pod(f"p{next(numbers)}", "team-1"))

    async def create_service() -> None:
        await plane.admin.create(builders.service(f"s{next(numbers)}", "team-1"))

    return {
        "create_pod_us": await per_operation(create_pod, 1000),
        "create_service_us": await per_operation(create_service, 1000),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure()), indent=2))
