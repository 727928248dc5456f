"""Stateful sets: what they decide, by tables and properties, and what becomes of it in a cluster.

The cluster is real but for its containers; claims are never bound, so pods with claims stay pending
where a test needs them only to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.apps_v1 import (
    ControllerRevision,
    StatefulSet,
    StatefulSetSpec,
)
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.testing.builders import container, metadata, template

if TYPE_CHECKING:
    from pybernetes.testing import Cluster


pytestmark = pytest.mark.cluster(nodes=3)


def stateful_set(name: str = "db", *, replicas: int = 3, **spec: Any) -> StatefulSet:
    labels = {"app": name}
    return StatefulSet(
        metadata=metadata(name, labels=labels),
        spec=StatefulSetSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels=labels),
            service_name=name,
            template=spec.pop("template", template(labels)),
            **spec,
        ),
    )


def of_image(image: str) -> Any:
    return template({"app": "db"}, containers=(container(image=image),))


async def change(cluster: Cluster, **spec: Any) -> None:
    found = await cluster.get(StatefulSet, "db")
    changed = msgspec.structs.replace(found.spec, **spec)
    await cluster.client.update(msgspec.structs.replace(found, spec=changed))


def names(cluster: Cluster) -> list[str]:
    return sorted(pod.metadata.name for pod in cluster.pods("default"))


async def test_pods_come_one_after_the_other_with_names_of_their_own(cluster: Cluster) -> None:
    await cluster.apply(stateful_set())
    await cluster.run_for(minutes=1)
    assert names(cluster) == ["db-0", "db-1", "db-2"]
    pods = sorted(cluster.pods("default"), key=lambda p: p.metadata.name)
    created = [p.metadata.creation_timestamp for p in pods]
    assert created == sorted(created, key=str)
    assert pods[1].spec.hostname == "db-1"
    assert pods[1].spec.subdomain == "db"
    assert pods[1].metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert pods[1].metadata.labels["apps.kubernetes.io/pod-index"] == "1"
    status = (await cluster.get(StatefulSet, "db")).status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 3, 3)
    assert status.current_revision == status.update_revision != ""
    assert (status.current_replicas, status.updated_replicas) == (3, 3)


async def test_a_new_template_reaches_pods_from_the_last_to_the_first(cluster: Cluster) -> None:
    await cluster.apply(stateful_set())
    await cluster.run_for(minutes=1)
    await change(cluster, template=of_image("registry.test/app:2"))
    await cluster.run_for(minutes=3)
    pods = sorted(cluster.pods("default"), key=lambda p: p.metadata.name)
    assert {p.spec.containers[0].image for p in pods} == {"registry.test/app:2"}
    created = [p.metadata.creation_timestamp for p in pods]
    assert created == sorted(created, key=str, reverse=True)
    status = (await cluster.get(StatefulSet, "db")).status
    assert status.current_revision == status.update_revision
    revisions = (await cluster.client.list(ControllerRevision, "default")).items
    assert sorted(r.revision for r in revisions) == [1, 2]
