"""Objects of every group through the server: made, read in every version, written again.

Real: the server, the registry, the store in memory. Not there: policy on writes (no admission),
so that what is seen is the kinds' own doing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.api.registry import RESOURCES
from pybernetes.apiserver import ApiServer
from tests.api import (
    test_admissionregistration,
    test_apiextensions,
    test_apps,
    test_autoscaling,
    test_batch,
    test_flowcontrol,
    test_networking,
    test_policies,
    test_rbac,
    test_resourceapi,
    test_storageapi,
)
from tests.api.server.conftest import TABLE, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore

# By group and plural; made in each version that is served.
MANIFESTS: dict[str, dict[str, Any]] = {
    "apps/deployments": test_apps.BASE,
    "apps/replicasets": test_apps.BASE,
    "apps/statefulsets": test_apps.BASE,
    "apps/daemonsets": test_apps.BASE,
    "batch/jobs": {**test_batch.JOB, "metadata": {"name": "work"}},
    "batch/cronjobs": test_batch.CRON,
    "rbac.authorization.k8s.io/roles": test_rbac.ROLE,
    "rbac.authorization.k8s.io/rolebindings": test_rbac.BINDING,
    "networking.k8s.io/networkpolicies": test_networking.POLICY,
    "networking.k8s.io/ingresses": test_networking.INGRESS,
    "networking.k8s.io/ingressclasses": test_networking.CLASS,
    "networking.k8s.io/servicecidrs": {
        "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.97.0.0/16"]},
    },
    "networking.k8s.io/ipaddresses": {
        "metadata": {"name": "10.97.0.1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}},
    },
    "policy/poddisruptionbudgets": test_policies.BUDGET,
    "discovery.k8s.io/endpointslices": test_policies.SLICE,
    "scheduling.k8s.io/priorityclasses": test_policies.CLASS,
    "scheduling.k8s.io/podgroups": test_policies.GROUP,
    "scheduling.k8s.io/workloads": test_policies.WORKLOAD,
    "coordination.k8s.io/leases": test_policies.LEASE,
    "coordination.k8s.io/leasecandidates": test_policies.CANDIDATE,
    "storagemigration.k8s.io/storageversionmigrations": test_policies.MIGRATION,
    "storage.k8s.io/storageclasses": test_storageapi.CLASS,
    "storage.k8s.io/csidrivers": test_storageapi.DRIVER,
    "storage.k8s.io/csinodes": test_storageapi.NODE,
    "storage.k8s.io/csistoragecapacities": test_storageapi.CAPACITY,
    "storage.k8s.io/volumeattachments": test_storageapi.ATTACHMENT,
    "storage.k8s.io/volumeattributesclasses": test_storageapi.ATTRIBUTES,
    "node.k8s.io/runtimeclasses": test_flowcontrol.RUNTIME,
    "flowcontrol.apiserver.k8s.io/flowschemas": test_flowcontrol.SCHEMA,
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations": test_flowcontrol.LEVEL,
    "admissionregistration.k8s.io/validatingwebhookconfigurations": (
        test_admissionregistration.CONFIGURATION
    ),
    "admissionregistration.k8s.io/mutatingwebhookconfigurations": (
        test_admissionregistration.CONFIGURATION
    ),
    "admissionregistration.k8s.io/validatingadmissionpolicies": test_admissionregistration.POLICY,
    "admissionregistration.k8s.io/validatingadmissionpolicybindings": (
        test_admissionregistration.BINDING
    ),
    "admissionregistration.k8s.io/mutatingadmissionpolicies": test_admissionregistration.MUTATION,
    "apiextensions.k8s.io/customresourcedefinitions": test_apiextensions.DEFINITION,
    "resource.k8s.io/deviceclasses": {"metadata": {"name": "gpu"}, "spec": {}},
}
# Whose fields differ between versions.
ONE_VERSION: dict[str, dict[str, Any]] = {
    "autoscaling/v2/horizontalpodautoscalers": test_autoscaling.MANIFEST,
    "resource.k8s.io/v1/resourceclaims": test_resourceapi.CLAIM,
    "resource.k8s.io/v1/resourceslices": test_resourceapi.SLICE,
}
SERVED = [entry for entry in RESOURCES if not entry.feature_gate]
CASES = [
    pytest.param(entry, manifest, id=f"{entry.api_version}/{entry.plural}")
    for entry in SERVED
    for manifest in [
        MANIFESTS.get(f"{entry.group}/{entry.plural}")
        or ONE_VERSION.get(f"{entry.api_version}/{entry.plural}")
    ]
    if manifest is not None
]


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    async with ApiServer(store, clock, random) as server:
        api = Api(server)
        yield api
        await api.close()


@pytest.mark.parametrize(("entry", "manifest"), CASES)
async def test_every_version_shows_what_one_of_them_made(
    api: Api, entry: Any, manifest: dict[str, Any]
) -> None:
    def place(version: str) -> str:
        where = "namespaces/default/" if entry.is_namespaced else ""
        return f"/apis/{entry.group}/{version}/{where}{entry.plural}"

    metadata = {"name": manifest["metadata"]["name"]}
    body = {
        **manifest,
        "apiVersion": entry.api_version,
        "kind": entry.kind_name,
        "metadata": metadata,
    }
    made = await api.post(f"{place(entry.version)}?fieldValidation=Strict", body)
    assert made.status == 201, made.body
    name = metadata["name"]
    for other in SERVED:
        if (other.group, other.plural) != (entry.group, entry.plural):
            continue
        path = f"{place(other.version)}/{name}"
        shown = (await api.get(path)).json
        assert shown["apiVersion"] == other.api_version
        if other is entry:
            assert shown == made.json
        # What was read may be written back, and is then what it was.
        written = await api.put(path, shown)
        assert written.status == 200, written.body
        assert written.json == shown
        row = (await api.get(path, accept=TABLE)).json["rows"][0]["cells"]
        assert str(row[0]).startswith(name)
        status = next((sub for sub in other.subresources if sub.name == "status"), None)
        if status is not None and other.plural != "podcertificaterequests":
            assert (await api.put(f"{path}/status", shown)).status == 200
    generation = made.json["metadata"].get("generation")
    assert generation == (1 if entry.strategy.generation_follows else None)
    assert (await api.delete(f"{place(entry.version)}/{name}")).status == 200


async def test_autoscalers_made_with_v1_are_read_with_v2(api: Api) -> None:
    body = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "maxReplicas": 5,
        },
    }
    path = "namespaces/default/horizontalpodautoscalers"
    made = await api.post(f"/apis/autoscaling/v1/{path}", body)
    assert made.status == 201, made.body
    assert made.json["spec"]["targetCPUUtilizationPercentage"] == 80
    shown = (await api.get(f"/apis/autoscaling/v2/{path}/web")).json
    assert shown["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    (item,) = (await api.get(f"/apis/autoscaling/v1/{path}")).json["items"]
    assert item["spec"] == made.json["spec"]


async def test_refusals_of_other_versions_name_the_fields_of_the_stored(api: Api) -> None:
    body = {
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 0},
    }
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    refused = await api.post(path, body)
    assert refused.status == 422
    assert "spec.maxReplicas: Invalid value: 0: must be greater than 0" in refused.message
