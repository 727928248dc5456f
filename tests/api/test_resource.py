"""Entries of the registry: real classes and facts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pybernetes.api.resource import AGE, Column, Resource, Scale, Scope, Status
from pybernetes.api.types.apps_v1 import Deployment
from pybernetes.api.types.core_v1 import ConfigMap
from pybernetes.api.types.meta_v1 import ObjectMeta

NOW = datetime(2026, 1, 1, tzinfo=UTC)

DEPLOYMENTS = Resource(
    group="apps",
    version="v1",
    kind=Deployment,
    plural="deployments",
    scope=Scope.NAMESPACED,
    subresources=(Status(), Scale()),
)


def test_what_an_entry_leaves_out_is_taken_from_the_facts() -> None:
    assert DEPLOYMENTS.singular == "deployment"
    assert DEPLOYMENTS.short_names == ("deploy",)
    assert DEPLOYMENTS.storage_prefix == "deployments"
    assert "deletecollection" in DEPLOYMENTS.verbs
    assert (DEPLOYMENTS.api_version, DEPLOYMENTS.group_resource) == ("apps/v1", "deployments.apps")


def test_subresources_are_found_by_name() -> None:
    assert DEPLOYMENTS.subresource("scale") == Scale()
    assert DEPLOYMENTS.subresource("log") is None


@pytest.mark.parametrize(
    ("plural", "scope"),
    [
        pytest.param("configmap", Scope.NAMESPACED, id="plural"),
        pytest.param("configmaps", Scope.CLUSTER, id="scope"),
    ],
)
def test_an_entry_cannot_contradict_the_facts(plural: str, scope: Scope) -> None:
    with pytest.raises(ValueError, match="the facts say"):
        Resource(group="", version="v1", kind=ConfigMap, plural=plural, scope=scope)


def test_an_entry_cannot_invent_subresources() -> None:
    with pytest.raises(ValueError, match=r"no subresources \['status'\]"):
        Resource(
            group="",
            version="v1",
            kind=ConfigMap,
            plural="configmaps",
            scope=Scope.NAMESPACED,
            subresources=(Status(),),
        )


def test_cells_may_ask_for_the_time() -> None:
    plain: Column[ConfigMap] = Column("Data", lambda config: len(config.data))
    timed: Column[ConfigMap] = Column("Now", cell_at=lambda _, now: now)
    assert (plain.value(ConfigMap(data={"a": "b"}), NOW), timed.value(ConfigMap(), NOW)) == (1, NOW)
    assert AGE.value(ConfigMap(), NOW) == "<unknown>"
    assert AGE.value(ConfigMap(metadata=ObjectMeta(creation_timestamp=NOW)), NOW) == NOW
