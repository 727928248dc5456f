"""Secrets that ask for a token. The cluster is real, and so is what it makes of the token."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.types.authentication_v1 import TokenReview, TokenReviewSpec
from pybernetes.api.types.core_v1 import Secret, ServiceAccount
from pybernetes.testing.builders import metadata

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=0)


def asking(account: str = "robot") -> Secret:
    annotations = {"kubernetes.io/service-account.name": account}
    return Secret(
        metadata=metadata("robot-token", annotations=annotations),
        type="kubernetes.io/service-account-token",
    )


async def who(cluster: Cluster, token: str) -> str:
    review = TokenReview(spec=TokenReviewSpec(token=token))
    status = (await cluster.client.create(review)).status
    return status.user.username if status.authenticated and status.user else ""


async def test_a_secret_gets_a_token_that_lives_with_it(cluster: Cluster) -> None:
    (account,) = await cluster.apply(ServiceAccount(metadata=metadata("robot")))
    await cluster.apply(asking())
    await cluster.run_for(seconds=1)
    found = await cluster.get(Secret, "robot-token")
    assert set(found.data) >= {"token", "namespace"}
    assert base64.b64decode(found.data["namespace"]) == b"default"
    uid = found.metadata.annotations["kubernetes.io/service-account.uid"]
    assert uid == account.metadata.uid
    token = base64.b64decode(found.data["token"]).decode()
    assert await who(cluster, token) == "system:serviceaccount:default:robot"
    await cluster.run_for(hours=3)
    assert await who(cluster, token) == "system:serviceaccount:default:robot"
    await cluster.client.delete(found)
    assert await who(cluster, token) == ""


async def test_a_token_goes_with_its_account(cluster: Cluster) -> None:
    await cluster.apply(ServiceAccount(metadata=metadata("robot")), asking())
    await cluster.run_for(seconds=1)
    await cluster.client.delete(ServiceAccount, "robot", "default")
    await cluster.run_for(seconds=1)
    assert await cluster.client.get_or_none(Secret, "robot-token", "default") is None


async def test_a_secret_for_nobody_goes(cluster: Cluster) -> None:
    await cluster.apply(asking("nobody"))
    await cluster.run_for(seconds=1)
    assert await cluster.client.get_or_none(Secret, "robot-token", "default") is None


async def test_a_token_that_is_taken_out_is_given_anew(cluster: Cluster) -> None:
    await cluster.apply(ServiceAccount(metadata=metadata("robot")), asking())
    await cluster.run_for(seconds=1)
    await cluster.client.patch(
        Secret, "robot-token", "default", patch={"data": {"token": None, "mine": "eA=="}}
    )
    await cluster.run_for(seconds=1)
    assert set((await cluster.get(Secret, "robot-token")).data) >= {"token", "namespace", "mine"}
