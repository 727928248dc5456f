"""Roles that gather the rules of others. The decision by itself, then in a whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.api.types.rbac_v1 import AggregationRule, ClusterRole, PolicyRule
from pybernetes.controllers.clusterroleaggregation import gathered

if TYPE_CHECKING:
    from pybernetes.testing import Cluster

pytestmark = pytest.mark.cluster(nodes=0)

_TO_VIEW = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}


def rule(resource: str) -> PolicyRule:
    return PolicyRule(verbs=("get",), api_groups=("example.com",), resources=(resource,))


def role(name: str, *resources: str, labels: dict[str, str] | None = None) -> ClusterRole:
    return ClusterRole(
        metadata=ObjectMeta(name=name, labels=labels or {}),
        rules=tuple(rule(resource) for resource in resources),
    )


def test_rules_are_joined_by_name_and_once() -> None:
    selector = LabelSelector(match_labels={"a": "b"})
    gatherer = replace(
        role("all", "old", labels={"a": "b"}),
        aggregation_rule=AggregationRule(cluster_role_selectors=(selector,)),
    )
    roles = [
        role("z", "three", "one", labels={"a": "b"}),
        role("m", "one", "two", labels={"a": "b"}),
        role("n", "four", labels={"a": "c"}),
        gatherer,
    ]
    assert gathered(gatherer, roles) == (rule("one"), rule("two"), rule("three"))


async def test_who_extends_the_api_extends_the_roles(cluster: Cluster) -> None:
    extension = role("widgets", "widgets", labels=_TO_VIEW)
    await cluster.client.create(extension)
    await cluster.settled()
    for name in ("view", "edit", "admin"):
        assert rule("widgets") in (await cluster.client.get(ClusterRole, name)).rules
    await cluster.client.delete(ClusterRole, "widgets")
    await cluster.settled()
    for name in ("view", "edit", "admin"):
        assert rule("widgets") not in (await cluster.client.get(ClusterRole, name)).rules
