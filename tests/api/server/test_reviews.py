"""Asking the API server who one is and what one may do. Real: the whole server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.types.authentication_v1 import TokenRequest
from pybernetes.api.types.core_v1 import ServiceAccount
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.types.rbac_v1 import RoleBinding, RoleRef, Subject
from pybernetes.api.user import UserInfo
from tests.api.server.access import ask, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.cluster.controlplane import ControlPlane

JANE = UserInfo("jane", ("dev",))
ROOT = UserInfo("root", ("system:masters",))


@pytest.fixture
async def plane(clock: Clock, random: Random) -> AsyncIterator[ControlPlane]:
    async with running(clock, random) as plane:
        binding = RoleBinding(
            metadata=ObjectMeta(name="viewers", namespace="default"),
            role_ref=RoleRef(kind="ClusterRole", name="view"),
            subjects=(Subject(kind="Group", name="dev"),),
        )
        await plane.admin.create(binding)
        yield plane


async def create(
    plane: ControlPlane, path: str, spec: dict[str, Any], identity: UserInfo
) -> dict[str, Any]:
    status, answer = await ask(plane, "POST", path, body={"spec": spec}, identity=identity)
    assert status == 201, answer
    found: dict[str, Any] = answer["status"]
    return found


async def test_who_am_i(plane: ControlPlane) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    code, answer = await ask(plane, "POST", path, body={}, identity=JANE)
    assert code == 201
    assert answer["status"]["userInfo"] == {
        "username": "jane",
        "groups": ["dev", "system:authenticated"],
    }


async def test_may_i(plane: ControlPlane) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    wanted = {"namespace": "default", "verb": "list", "resource": "pods"}
    assert await create(plane, path, {"resourceAttributes": wanted}, JANE) == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "viewers/default" of ClusterRole "view" to'
        ' Group "dev"',
    }
    wanted["verb"] = "delete"
    assert await create(plane, path, {"resourceAttributes": wanted}, JANE) == {"allowed": False}
    version = {"path": "/version", "verb": "get"}
    assert (await create(plane, path, {"nonResourceAttributes": version}, JANE))["allowed"]


async def test_may_somebody_else(plane: ControlPlane) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    wanted = {"namespace": "default", "verb": "get", "resource": "pods"}
    spec = {"resourceAttributes": wanted, "user": "x", "groups": ["dev"]}
    assert (await create(plane, path, spec, ROOT))["allowed"]
    code, answer = await ask(plane, "POST", path, body={"spec": spec}, identity=JANE)
    assert code == 403, answer


async def test_impossible_reviews(plane: ControlPlane) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    code, answer = await ask(plane, "POST", path, body={"spec": {}}, identity=ROOT)
    assert code == 422
    causes = {cause["field"] for cause in answer["details"]["causes"]}
    assert causes == {"spec.resourceAttributes", "spec.user"}
    path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
    wanted = {"namespace": "other", "verb": "get", "resource": "pods"}
    body = {"spec": {"user": "x", "resourceAttributes": wanted}}
    code, answer = await ask(plane, "POST", path, body=body, identity=ROOT)
    assert code == 422
    assert "must match metadata.namespace" in answer["message"]


async def test_all_i_may(plane: ControlPlane) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    found = await create(plane, path, {"namespace": "default"}, JANE)
    assert found["incomplete"] is False
    assert any("pods" in rule["resources"] for rule in found["resourceRules"])
    assert any("/version" in rule["nonResourceURLs"] for rule in found["nonResourceRules"])
    elsewhere = await create(plane, path, {"namespace": "kube-system"}, JANE)
    assert not any("pods" in rule["resources"] for rule in elsewhere["resourceRules"])


async def test_whose_token_is_this(plane: ControlPlane) -> None:
    request = await plane.admin.create_subresource(
        ServiceAccount, "default", "default", "token", TokenRequest()
    )
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    found = await create(plane, path, {"token": request.status.token}, ROOT)
    assert found["authenticated"] is True
    assert found["user"]["username"] == "system:serviceaccount:default:default"
    assert "system:serviceaccounts:default" in found["user"]["groups"]
    assert found["audiences"] == ["https://kubernetes.default.svc.cluster.local"]
    vault = {"token": request.status.token, "audiences": ["vault"]}
    assert "authenticated" not in await create(plane, path, vault, ROOT)
    assert "authenticated" not in await create(plane, path, {"token": "x.y.z"}, ROOT)
