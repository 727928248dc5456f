"""Who the API server takes somebody for. Real: the whole server; only sockets are left out."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pybernetes.api.types.authentication_v1 import (
    BoundObjectReference,
    TokenRequest,
    TokenRequestSpec,
)
from pybernetes.api.types.core_v1 import Pod, Secret, ServiceAccount
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import BadRequest, Conflict, Invalid, NotFound
from pybernetes.apiserver.authn.bearer import token_of
from pybernetes.apiserver.authn.bootstraptoken import user_of_secret
from pybernetes.apiserver.authn.certificate import user_of_subject
from pybernetes.apiserver.authn.signingkey import SigningKey
from pybernetes.apiserver.authn.tokenrequest import TokenIssuer
from pybernetes.testing import builders
from pybernetes.wire.http import Headers
from tests.api.server.access import ask, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from random import Random

    from pybernetes.aio.clock import LoopClock
    from pybernetes.cluster.controlplane import ControlPlane

WHO = "/api/v1/namespaces/nowhere/pods"


@pytest.fixture
async def plane(clock: LoopClock, random: Random) -> AsyncIterator[ControlPlane]:
    async with running(clock, random) as plane:
        yield plane


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


async def who(plane: ControlPlane, **how: Any) -> str:
    """The user that a refusal names."""
    status, answer = await ask(plane, "GET", WHO, **how)
    assert status == 403, answer
    return str(answer["message"].split('"')[1])


async def request_token(plane: ControlPlane, account: str = "default", **spec: Any) -> TokenRequest:
    request = TokenRequest(spec=TokenRequestSpec(**spec))
    return await plane.admin.create_subresource(
        ServiceAccount, account, "default", "token", request
    )


async def test_a_certificate_names_its_user(plane: ControlPlane) -> None:
    subject = (("organizationName", "dev"), ("commonName", "jane"))
    assert await who(plane, subject=subject) == "jane"


async def test_who_shows_nothing_is_anonymous(plane: ControlPlane) -> None:
    assert await who(plane) == "system:anonymous"


async def test_anybody_may_see_the_version(plane: ControlPlane) -> None:
    status, _ = await ask(plane, "GET", "/version")
    assert status == 200


async def test_an_unknown_token_is_refused(plane: ControlPlane) -> None:
    status, answer = await ask(plane, "GET", "/version", headers=bearer("a.b.c"))
    assert status == 401
    assert answer["message"] == "Unauthorized"


def test_subject_becomes_user() -> None:
    subject = (
        ("organizationName", "a"),
        ("organizationName", "b"),
        ("organizationName", "a"),
        ("commonName", "jane"),
    )
    user = user_of_subject(subject)
    assert user is not None
    assert (user.name, user.groups) == ("jane", ("a", "b", "system:authenticated"))
    assert user_of_subject((("organizationName", "a"),)) is None


# --- service account tokens -----------------------------------------------------------------------


async def test_a_token_names_its_account(plane: ControlPlane) -> None:
    answer = await request_token(plane)
    assert await who(plane, headers=bearer(answer.status.token)) == (
        "system:serviceaccount:default:default"
    )
    assert answer.spec.expiration_seconds == 3600
    assert answer.spec.audiences == ("https://kubernetes.default.svc.cluster.local",)


async def test_a_token_expires(plane: ControlPlane, clock: LoopClock) -> None:
    token = (await request_token(plane, expiration_seconds=600)).status.token
    await who(plane, headers=bearer(token))
    await asyncio.sleep(601)
    status, _ = await ask(plane, "GET", WHO, headers=bearer(token))
    assert status == 401


async def test_a_token_dies_with_its_account(plane: ControlPlane) -> None:
    metadata = ObjectMeta(name="robot", namespace="default")
    await plane.admin.create(ServiceAccount(metadata=metadata))
    token = (await request_token(plane, "robot")).status.token
    await who(plane, headers=bearer(token))
    await plane.admin.delete(ServiceAccount, "robot", "default")
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401
    # One of the same name is another account.
    await plane.admin.create(ServiceAccount(metadata=metadata))
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401


async def test_a_token_dies_with_its_pod(plane: ControlPlane) -> None:
    pod = await plane.admin.create(builders.pod("web"))
    reference = BoundObjectReference(kind="Pod", api_version="v1", name="web", uid=pod.metadata.uid)
    token = (await request_token(plane, bound_object_ref=reference)).status.token
    await who(plane, headers=bearer(token))
    await plane.admin.delete(Pod, "web", "default", grace_seconds=0)
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401


async def test_a_token_for_somebody_else_is_no_token_here(plane: ControlPlane) -> None:
    token = (await request_token(plane, audiences=("vault",))).status.token
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401


async def test_a_forged_token_is_refused(plane: ControlPlane) -> None:
    token = (await request_token(plane)).status.token
    head, claims, signature = token.split(".")
    other = claims[:-2] + ("AA" if claims[-2:] != "AA" else "BB")
    status, _ = await ask(plane, "GET", WHO, headers=bearer(f"{head}.{other}.{signature}"))
    assert status == 401


async def test_mounted_tokens_live_long_and_say_they_do_not(
    plane: ControlPlane, clock: LoopClock
) -> None:
    pod = await plane.admin.create(builders.pod("web"))
    reference = BoundObjectReference(kind="Pod", api_version="v1", name="web", uid=pod.metadata.uid)
    answer = await request_token(plane, bound_object_ref=reference, expiration_seconds=3607)
    assert answer.status.expiration_timestamp is not None
    assert answer.status.expiration_timestamp - clock.now() <= timedelta(seconds=3607)
    claims = base64.urlsafe_b64decode(answer.status.token.split(".")[1] + "==").decode()
    assert '"warnafter":' in claims
    assert f'"uid":"{pod.metadata.uid}"' in claims


async def test_impossible_requests_for_tokens(plane: ControlPlane) -> None:
    with pytest.raises(Invalid, match="may not specify a duration less than 10 minutes"):
        await request_token(plane, expiration_seconds=60)
    with pytest.raises(NotFound, match='serviceaccounts "nobody" not found'):
        await request_token(plane, "nobody")
    reference = BoundObjectReference(kind="ConfigMap", api_version="v1", name="x")
    with pytest.raises(BadRequest, match="cannot bind token to object of type"):
        await request_token(plane, bound_object_ref=reference)
    await plane.admin.create(builders.pod("web"))
    reference = BoundObjectReference(kind="Pod", api_version="v1", name="web", uid="other")
    with pytest.raises(Conflict, match="the UID in the bound object reference"):
        await request_token(plane, bound_object_ref=reference)


async def test_older_tokens_live_as_long_as_their_secret(plane: ControlPlane) -> None:
    account = await plane.admin.get(ServiceAccount, "default", "default")
    await plane.admin.create(builders.secret("old"))
    prefix = "kubernetes.io/serviceaccount/"
    token = signing_key(plane).sign(
        {
            "iss": "kubernetes/serviceaccount",
            f"{prefix}namespace": "default",
            f"{prefix}secret.name": "old",
            f"{prefix}service-account.name": "default",
            f"{prefix}service-account.uid": account.metadata.uid,
            "sub": "system:serviceaccount:default:default",
        }
    )
    assert await who(plane, headers=bearer(token)) == "system:serviceaccount:default:default"
    await plane.admin.delete(Secret, "old", "default")
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401


def signing_key(plane: ControlPlane) -> SigningKey:
    issuer = plane.server.backend.connects["", "serviceaccounts", "token"]
    assert isinstance(issuer, TokenIssuer)
    return issuer._key


@pytest.mark.parametrize("kind", ["rsa", "P-256", "P-384"])
def test_keys_of_other_clusters(kind: str, tmp_path: Path) -> None:
    key: Any
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())
    path = tmp_path / "sa.key"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    signing = SigningKey(path)
    token = signing.sign({"sub": "x"})
    assert SigningKey(path).verify(token) == {"sub": "x"}
    assert SigningKey().verify(token) is None
    [public] = signing.jwks()["keys"]
    header = jwt.get_unverified_header(token)
    assert (header["kid"], header["alg"]) == (public["kid"], public["alg"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"sub": "system:serviceaccount:default:other"}, id="another subject"),
        pytest.param({"kubernetes.io": "x"}, id="no content"),
        pytest.param({"kubernetes.io": {"namespace": "default"}}, id="no account"),
        pytest.param({"exp": "soon"}, id="no moment"),
        pytest.param({"iss": "https://example.com"}, id="another issuer"),
    ],
)
async def test_claims_that_are_no_token(plane: ControlPlane, change: dict[str, Any]) -> None:
    good = (await request_token(plane)).status.token
    claims = signing_key(plane).verify(good)
    assert claims is not None
    token = signing_key(plane).sign({**claims, **change})
    assert (await ask(plane, "GET", WHO, headers=bearer(token)))[0] == 401


async def test_others_can_verify_our_tokens(plane: ControlPlane) -> None:
    robot = UserInfo("system:serviceaccount:default:default", ("system:serviceaccounts",))
    path = "/.well-known/openid-configuration"
    status, found = await ask(plane, "GET", path, identity=robot)
    assert (status, found["jwks_uri"]) == (200, "https://192.168.7.1:6443/openid/v1/jwks")
    status, keys = await ask(plane, "GET", "/openid/v1/jwks", identity=robot)
    token = (await request_token(plane)).status.token
    public = jwt.PyJWK(keys["keys"][0]).key
    claims = jwt.decode(
        token,
        public,
        algorithms=["ES256"],
        audience=found["issuer"],
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert claims["sub"] == robot.name
    assert (await ask(plane, "GET", path))[0] == 403


# --- bootstrap tokens -----------------------------------------------------------------------------


def bootstrap_secret(**changes: str) -> Secret:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:p8s",
        **changes,
    }
    return Secret(
        metadata=ObjectMeta(name="bootstrap-token-abcdef", namespace="kube-system"),
        type="bootstrap.kubernetes.io/token",
        data={key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    )


async def test_a_bootstrap_token_joins(plane: ControlPlane) -> None:
    await plane.admin.create(bootstrap_secret())
    token = bearer("abcdef.0123456789abcdef")
    assert await who(plane, headers=token) == "system:bootstrap:abcdef"
    wrong = bearer("abcdef.0123456789abcdeX".lower())
    assert (await ask(plane, "GET", WHO, headers=wrong))[0] == 401


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"expiration": "2020-01-01T00:00:00Z"}, id="expired"),
        pytest.param({"expiration": "soon"}, id="unreadable expiry"),
        pytest.param({"usage-bootstrap-authentication": "false"}, id="not for this"),
        pytest.param({"token-id": "zzzzzz"}, id="another id"),
        pytest.param({"auth-extra-groups": "system:masters"}, id="a group it may not give"),
    ],
)
def test_secrets_that_are_no_bootstrap_tokens(changes: dict[str, str], clock: LoopClock) -> None:
    secret = bootstrap_secret(**changes)
    assert user_of_secret(secret, "abcdef", "0123456789abcdef", clock.now()) is None


def test_groups_of_a_bootstrap_token(clock: LoopClock) -> None:
    user = user_of_secret(bootstrap_secret(), "abcdef", "0123456789abcdef", clock.now())
    assert user is not None
    assert user.groups == (
        "system:bootstrappers",
        "system:bootstrappers:p8s",
        "system:authenticated",
    )


# --- where a token stands -------------------------------------------------------------------------


def test_a_websocket_may_bring_its_token_as_a_protocol() -> None:
    encoded = base64.urlsafe_b64encode(b"a.b.c").decode().rstrip("=")
    protocol = f"base64url.bearer.authorization.k8s.io.{encoded}"
    headers = Headers(
        [("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", f"v5.channel.k8s.io, {protocol}")]
    )
    assert token_of(headers) == "a.b.c"
    assert token_of(Headers([("Authorization", "bearer x.y.z")])) == "x.y.z"
    assert token_of(Headers([("Authorization", "Basic x")])) == ""
