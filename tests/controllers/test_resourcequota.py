"""Quotas in a whole cluster: what the controller adds up and what admission lets in agree."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pybernetes.api.quota import places_of
from pybernetes.api.types.core_v1 import ConfigMap, Pod, ResourceQuota, ResourceQuotaSpec
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import Forbidden
from pybernetes.controllers.resourcequota import total
from pybernetes.testing.builders import EPOCH, config_map, pod

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=0)


def quota(**hard: str) -> ResourceQuota:
    names = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}
    return ResourceQuota(
        metadata=ObjectMeta(name="q", namespace="default"), spec=ResourceQuotaSpec(hard=names)
    )


async def used(cluster: Cluster) -> dict[str, str]:
    await cluster.run_for(seconds=1)
    return (await cluster.client.get(ResourceQuota, "q", "default")).status.used


def test_what_is_used() -> None:
    limited = quota(pods="5", requests_cpu="1", services="1")
    pods = [
        (("", "pods"), pod("a", requests={"cpu": "100m"})),
        (("", "pods"), pod("b", requests={"cpu": "200m"})),
        (("", "pods"), pod("c", requests={"cpu": "1"}, phase="Failed")),
    ]
    assert total(limited, pods, EPOCH) == {"pods": "2", "requests.cpu": "300m", "services": "0"}


def test_what_must_be_looked_at() -> None:
    names = [
        "pods",
        "limits.cpu",
        "services.nodeports",
        "requests.storage",
        "gold.storageclass.storage.k8s.io/requests.storage",
        "count/deployments.apps",
        "configmaps",
    ]
    assert places_of(names) == {
        ("", "pods"),
        ("", "services"),
        ("", "persistentvolumeclaims"),
        ("apps", "deployments"),
        ("", "configmaps"),
    }


async def test_a_quota_knows_what_is_there(cluster: Cluster) -> None:
    await cluster.client.create(pod("before"))
    await cluster.client.create(quota(pods="3", count__configmaps="9"))
    found = await used(cluster)
    assert found["pods"] == "1"
    maps = len((await cluster.client.list(ConfigMap, "default")).items)
    await cluster.client.create(config_map("more"))
    assert (await used(cluster))["count/configmaps"] == str(maps + 1)
    await cluster.client.create(pod("second"))
    await cluster.client.delete(Pod, "before", "default", grace_seconds=0)
    assert (await used(cluster))["pods"] == "1"


async def test_what_goes_makes_room(cluster: Cluster) -> None:
    await cluster.client.create(quota(pods="2"))
    await cluster.run_for(seconds=1)
    wishes = [cluster.client.create(pod(f"p{n}")) for n in range(6)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    made = [result for result in results if isinstance(result, Pod)]
    assert len(made) == 2
    assert sum(isinstance(result, Forbidden) for result in results) == 4
    assert await used(cluster) == {"pods": "2"}
    await cluster.client.delete(made[0], grace_seconds=0)
    assert await used(cluster) == {"pods": "1"}
    await cluster.client.create(pod("now"))


async def test_a_failed_write_is_not_counted_for_ever(cluster: Cluster) -> None:
    await cluster.client.create(quota(pods="2"))
    await cluster.run_for(seconds=1)
    await cluster.client.create(pod("taken"))
    with pytest.raises(Exception, match="already exists"):
        await cluster.client.create(pod("taken"))
    await cluster.client.create(pod("other"))
    assert await used(cluster) == {"pods": "2"}
