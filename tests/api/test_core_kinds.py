"""The smaller kinds of core/v1: defaults, life cycle, validation. Real schema and entries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from pybernetes.api.core.bindings import BINDINGS
from pybernetes.api.core.configmaps import CONFIG_MAPS
from pybernetes.api.core.endpoints import ENDPOINTS
from pybernetes.api.core.events import EVENTS
from pybernetes.api.core.limitranges import LIMIT_RANGES
from pybernetes.api.core.namespaces import NAMESPACES
from pybernetes.api.core.nodes import NODES
from pybernetes.api.core.persistentvolumeclaims import PERSISTENT_VOLUME_CLAIMS
from pybernetes.api.core.persistentvolumes import PERSISTENT_VOLUMES
from pybernetes.api.core.podresources import pod_limits, pod_requests
from pybernetes.api.core.pods import PODS
from pybernetes.api.core.podtemplates import POD_TEMPLATES
from pybernetes.api.core.replicationcontrollers import REPLICATION_CONTROLLERS
from pybernetes.api.core.resourcequotas import RESOURCE_QUOTAS
from pybernetes.api.core.secrets import SECRETS
from pybernetes.api.resource import Part, Resource
from tests.api.coreobjects import changed, create, errors_of, read

META = {"name": "a", "namespace": "default"}
CLAIM: dict[str, Any] = {
    "metadata": META,
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    },
}
VOLUME: dict[str, Any] = {
    "metadata": {"name": "v"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/x"},
    },
}


def part(resource: Resource[Any], name: str) -> Part[Any]:
    found = resource.subresource(name)
    assert isinstance(found, Part)
    return found


# --- namespaces ---------------------------------------------------------------------------


def test_namespaces_are_made_whole() -> None:
    namespace = create(NAMESPACES, {"metadata": {"name": "a"}})
    assert namespace.metadata.labels == {"kubernetes.io/metadata.name": "a"}
    assert namespace.spec.finalizers == ("kubernetes",)
    assert namespace.status.phase == "Active"
    assert errors_of(NAMESPACES, namespace) == []


def test_the_name_label_cannot_be_taken_away() -> None:
    namespace = read(
        NAMESPACES, {"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "b"}}}
    )
    assert namespace.metadata.labels == {"kubernetes.io/metadata.name": "a"}


def test_finalizers_have_a_door_of_their_own() -> None:
    old = create(NAMESPACES, {"metadata": {"name": "a"}})
    new = NAMESPACES.strategy.prepare_update(replace(old, spec=type(old.spec)()), old)
    assert new.spec.finalizers == ("kubernetes",)


def test_namespaces_terminate_only_when_deleted() -> None:
    namespace = create(NAMESPACES, {"metadata": {"name": "a"}})
    ending = replace(namespace, status=replace(namespace.status, phase="Terminating"))
    validate = part(NAMESPACES, "status").validate
    assert [str(error) for error in validate(ending, namespace)] == [
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if "
        "`deletionTimestamp` is empty"
    ]
    deleted = replace(
        ending, metadata=replace(ending.metadata, deletion_timestamp=datetime.now(UTC))
    )
    assert list(validate(deleted, namespace)) == []


# --- configuration ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "error"),
    [
        ({"data": {"a/b": ""}}, 'data[a/b]: Invalid value: "a/b": a valid config key must'),
        (
            {"data": {"a": ""}, "binaryData": {"a": "aGk="}},
            'data[a]: Invalid value: "a": duplicate of key present in binaryData',
        ),
        (
            {"data": {"a": "x" * 1048577}},
            "[]: Too long: may not be more than 1048576 bytes",
        ),
    ],
)
def test_config_maps_refused(manifest: dict[str, Any], error: str) -> None:
    [found] = errors_of(CONFIG_MAPS, create(CONFIG_MAPS, {"metadata": META, **manifest}))
    assert found.startswith(error)


def test_immutable_config_maps() -> None:
    frozen = {"metadata": META, "data": {"a": "1"}, "immutable": True}
    old = create(CONFIG_MAPS, frozen)
    assert errors_of(
        CONFIG_MAPS, read(CONFIG_MAPS, {"metadata": META, "data": {"a": "2"}}), old
    ) == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]


def test_string_data_becomes_data() -> None:
    manifest = {"metadata": META, "data": {"a": "MQ=="}, "stringData": {"a": "hi", "b": "ho"}}
    secret = create(SECRETS, manifest)
    assert secret.data == {"a": "aGk=", "b": "aG8="}
    assert (secret.string_data, secret.type) == ({}, "Opaque")


@pytest.mark.parametrize(
    ("kind", "data", "errors"),
    [
        ("kubernetes.io/tls", {}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        ("kubernetes.io/ssh-auth", {}, ["data[ssh-privatekey]: Required value"]),
        (
            "kubernetes.io/basic-auth",
            {},
            ["data[username]: Required value", "data[password]: Required value"],
        ),
        ("kubernetes.io/basic-auth", {"username": "YQ=="}, []),
        (
            "kubernetes.io/dockerconfigjson",
            {},
            ["data[.dockerconfigjson]: Required value"],
        ),
        (
            "kubernetes.io/service-account-token",
            {},
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        ("example.com/own", {}, []),
    ],
)  # fmt: skip
def test_secrets_by_type(kind: str, data: dict[str, str], errors: list[str]) -> None:
    secret = create(SECRETS, {"metadata": META, "type": kind, "data": data})
    assert errors_of(SECRETS, secret) == errors


def test_broken_docker_config_is_not_printed() -> None:
    manifest = {"metadata": META, "type": "kubernetes.io/dockercfg", "data": {".dockercfg": "eA=="}}
    [error] = errors_of(SECRETS, create(SECRETS, manifest))
    assert error.startswith("data[.dockercfg]: Invalid value: ")
    assert "eA==" not in error


def test_the_type_of_a_secret_is_fixed() -> None:
    old = create(SECRETS, {"metadata": META})
    new = read(SECRETS, {"metadata": META, "type": "x"})
    assert errors_of(SECRETS, new, old) == ['type: Invalid value: "x": field is immutable']


# --- nodes --------------------------------------------------------------------------------


def test_nodes_may_allocate_what_they_have() -> None:
    node = read(NODES, {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}})
    assert node.status.allocatable == node.status.capacity == {"cpu": "2"}


@pytest.mark.parametrize(
    ("manifest", "range_", "ranges"),
    [
        ({"podCIDR": "10.1.0.0/24"}, "10.1.0.0/24", ("10.1.0.0/24",)),
        ({"podCIDRs": ["10.1.0.0/24", "fd00::/64"]}, "10.1.0.0/24", ("10.1.0.0/24", "fd00::/64")),
    ],
)
def test_pod_ranges_in_both_fields(
    manifest: dict[str, Any], range_: str, ranges: tuple[str, ...]
) -> None:
    spec = read(NODES, {"metadata": {"name": "n"}, "spec": manifest}).spec
    assert (spec.pod_cidr, spec.pod_cidrs) == (range_, ranges)


def test_node_updates() -> None:
    old = read(
        NODES, {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24", "providerID": "a"}}
    )
    new = read(
        NODES, {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.2.0.0/24", "providerID": "b"}}
    )
    assert errors_of(NODES, new, old) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
        'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid',
    ]


def test_taints_are_unique() -> None:
    taint = {"key": "a", "effect": "NoSchedule"}
    node = read(NODES, {"metadata": {"name": "n"}, "spec": {"taints": [taint, taint]}})
    assert errors_of(NODES, node) == [
        'spec.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}: taints must be '
        "unique by key and effect pair"
    ]


# --- endpoints, events, bindings ----------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "error"),
    [
        ({}, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
        ({"addresses": [{"ip": "x"}]}, 'subsets[0].addresses[0].ip: Invalid value: "x": must be'),
        (
            {"addresses": [{"ip": "0.0.0.0"}]},
            'subsets[0].addresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)',
        ),
        (
            {"addresses": [{"ip": "169.254.1.1"}]},
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"name": "b", "port": 2}]},
            "subsets[0].ports[0].name: Required value",
        ),
    ],
)
def test_endpoints_refused(subset: dict[str, Any], error: str) -> None:
    [found] = errors_of(ENDPOINTS, create(ENDPOINTS, {"metadata": META, "subsets": [subset]}))
    assert error in found


def test_events_stay_beside_their_object() -> None:
    event = {"metadata": META, "involvedObject": {"namespace": "other"}}
    assert errors_of(EVENTS, create(EVENTS, event)) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    assert errors_of(EVENTS, create(EVENTS, {"metadata": META, "involvedObject": {}})) == []
    new_style = {"metadata": META, "eventTime": "2026-01-01T00:00:00.000000Z"}
    assert errors_of(EVENTS, create(EVENTS, new_style)) == [
        "reportingController: Required value",
        "reportingInstance: Required value",
        "action: Required value",
        "reason: Required value",
    ]
    assert EVENTS.strategy.name_errors("Any Name!") == ()


def test_bindings() -> None:
    binding = create(BINDINGS, {"metadata": META, "target": {"kind": "Pod"}})
    assert errors_of(BINDINGS, binding) == [
        'target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"',
        "target.name: Required value",
    ]


# --- workloads ----------------------------------------------------------------------------


def test_replication_controllers_refused() -> None:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"},
    }
    spec = {"replicas": -1, "selector": {"x": "y"}, "template": template}
    controller = create(REPLICATION_CONTROLLERS, {"metadata": META, "spec": spec})
    assert errors_of(REPLICATION_CONTROLLERS, controller) == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match '
        "template `labels`",
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ]
    assert errors_of(
        REPLICATION_CONTROLLERS, create(REPLICATION_CONTROLLERS, {"metadata": META})
    ) == [
        "spec.selector: Required value",
        "spec.template: Required value",
    ]


def test_templates_have_no_ephemeral_containers() -> None:
    container = {"name": "c", "image": "i"}
    spec = {"containers": [container], "ephemeralContainers": [{**container, "name": "e"}]}
    manifest = {"metadata": META, "template": {"spec": spec}}
    assert errors_of(POD_TEMPLATES, create(POD_TEMPLATES, manifest)) == [
        "template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod "
        "template"
    ]


def _asking(name: str, cpu: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}, **more}


def test_what_a_pod_asks_for_as_a_whole() -> None:
    spec = {
        "containers": [_asking("a", "1"), _asking("b", "500m")],
        "initContainers": [
            _asking("first", "2"),
            _asking("side", "250m", restartPolicy="Always"),
            _asking("last", "1700m"),
        ],
        "overhead": {"cpu": "100m"},
    }
    pod = create(PODS, {"metadata": META, "spec": spec})
    # first alone: 2; last beside the sidecar: 1.95; all that stay: 1.75.
    assert float(pod_requests(pod)["cpu"]) == 2.1
    assert pod_limits(pod) == {}


# --- limits and quotas --------------------------------------------------------------------


def test_limit_ranges_complete_each_other() -> None:
    item = {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}
    limit_range = create(LIMIT_RANGES, {"metadata": META, "spec": {"limits": [item]}})
    [whole] = limit_range.spec.limits
    assert whole.default == {"cpu": "2"}
    assert whole.default_request == {"cpu": "2", "memory": "1Mi"}
    assert errors_of(LIMIT_RANGES, limit_range) == []


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (
            [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}],
            'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
        ),
        (
            [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}],
            'spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is '
            "greater than default limit value 1",
        ),
        (
            [{"type": "Pod", "default": {"cpu": "1"}}],
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        ([{"type": "Pod"}, {"type": "Pod"}], 'spec.limits[1].type: Duplicate value: "Pod"'),
    ],
)
def test_limit_ranges_refused(limits: list[dict[str, Any]], error: str) -> None:
    manifest = {"metadata": META, "spec": {"limits": limits}}
    assert error in errors_of(LIMIT_RANGES, create(LIMIT_RANGES, manifest))


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        ({"hard": {"pods": "5", "limits.cpu": "1", "count/deployments.apps": "2"}}, []),
        (
            {"hard": {"odd": "1"}},
            ['spec.hard[odd]: Invalid value: "odd": must be a standard resource for quota'],
        ),
        (
            {"hard": {"pods": "500m"}},
            ['spec.hard[pods]: Invalid value: "500m": must be an integer'],
        ),
        (
            {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]},
            [
                'spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes',
            ],
        ),
        (
            {"hard": {"services": "1"}, "scopes": ["Terminating"]},
            ['spec.scopes: Invalid value: ["Terminating"]: unsupported scope applied to resource'],
        ),
    ],
)
def test_quotas(spec: dict[str, Any], errors: list[str]) -> None:
    quota = create(RESOURCE_QUOTAS, {"metadata": META, "spec": spec})
    assert errors_of(RESOURCE_QUOTAS, quota) == errors


# --- storage ------------------------------------------------------------------------------


def test_claims_are_made_whole() -> None:
    claim = create(PERSISTENT_VOLUME_CLAIMS, CLAIM)
    assert (claim.spec.volume_mode, claim.status.phase) == ("Filesystem", "Pending")
    assert errors_of(PERSISTENT_VOLUME_CLAIMS, claim) == []


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (
            "spec.accessModes",
            [],
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            "spec.accessModes",
            ["ReadWriteOncePod", "ReadWriteOnce"],
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ),
        ("spec.resources", {}, "spec.resources[storage]: Required value"),
        (
            "spec.resources.requests.storage",
            "0",
            'spec.resources[storage]: Invalid value: "0": must be greater than zero',
        ),
    ],
)
def test_claims_refused(path: str, value: Any, error: str) -> None:
    claim = create(PERSISTENT_VOLUME_CLAIMS, changed(CLAIM, path, value))
    assert errors_of(PERSISTENT_VOLUME_CLAIMS, claim) == [error]


def bound(manifest: dict[str, Any], capacity: str = "1Gi") -> Any:
    claim = read(PERSISTENT_VOLUME_CLAIMS, manifest)
    status = replace(claim.status, phase="Bound", capacity={"storage": capacity})
    return replace(claim, spec=replace(claim.spec, volume_name="v"), status=status)


def test_bound_claims_only_grow() -> None:
    old = bound(CLAIM)
    assert (
        errors_of(
            PERSISTENT_VOLUME_CLAIMS,
            bound(changed(CLAIM, "spec.resources.requests.storage", "2Gi")),
            old,
        )
        == []
    )
    smaller = bound(changed(CLAIM, "spec.resources.requests.storage", "512Mi"))
    assert errors_of(PERSISTENT_VOLUME_CLAIMS, smaller, old) == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]


def test_claims_are_otherwise_fixed() -> None:
    old = create(PERSISTENT_VOLUME_CLAIMS, CLAIM)
    new = read(PERSISTENT_VOLUME_CLAIMS, changed(CLAIM, "spec.storageClassName", "slow"))
    assert errors_of(PERSISTENT_VOLUME_CLAIMS, new, old) == [
        "spec: Forbidden: spec is immutable after creation except resources.requests and "
        "volumeAttributesClassName for bound claims\n"
        '- spec.storageClassName: "fast"\n+ spec.storageClassName: "slow"\n'
    ]
    chosen = replace(old, spec=replace(old.spec, volume_name="v"))
    assert errors_of(PERSISTENT_VOLUME_CLAIMS, chosen, old) == []


def test_volumes() -> None:
    volume = create(PERSISTENT_VOLUMES, VOLUME)
    assert volume.spec.persistent_volume_reclaim_policy == "Retain"
    assert errors_of(PERSISTENT_VOLUMES, volume) == []
    nothing = create(PERSISTENT_VOLUMES, changed(VOLUME, "spec.hostPath", None))
    assert errors_of(PERSISTENT_VOLUMES, nothing) == [
        "spec: Required value: must specify a volume type"
    ]
    local = changed(changed(VOLUME, "spec.hostPath", None), "spec.local", {"path": "/x"})
    assert errors_of(PERSISTENT_VOLUMES, create(PERSISTENT_VOLUMES, local)) == [
        "spec.nodeAffinity: Required value: Local volume requires node affinity"
    ]
    moved = read(PERSISTENT_VOLUMES, changed(VOLUME, "spec.hostPath.path", "/y"))
    assert errors_of(PERSISTENT_VOLUMES, moved, volume) == [
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after "
        'creation\n- spec.hostPath.path: "/x"\n+ spec.hostPath.path: "/y"\n'
    ]
