"""The generated types: real classes, the published examples of every kind, nothing faked."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from pybernetes.api.codec import decode, encode, from_dict, to_dict
from pybernetes.api.types._index import (
    KINDS,
    info_at,
    info_of,
    info_of_kind,
    served_kinds,
)
from pybernetes.api.types.apps_v1 import ControllerRevision, Deployment, DeploymentStatus
from pybernetes.api.types.core_v1 import (
    Container,
    ContainerStatus,
    PersistentVolumeClaimSpec,
    Pod,
    PodSpec,
)
from pybernetes.api.types.meta_v1 import Condition, ObjectMeta
from pybernetes.api.types.policy_v1 import PodDisruptionBudget
from tests.api.published import FACTS, example, example_names, kind_of, needs_examples

if TYPE_CHECKING:
    from pathlib import Path

# Where an object of a top-level kind is part of another: Go writes no kind there.
EMBEDDED = {
    "admission.k8s.io.v1.AdmissionReview": ("response", "status"),
    "apps.v1.StatefulSet": ("spec", "volumeClaimTemplates", 0),
    "policy.v1.Eviction": ("deleteOptions",),
}


def without_embedded_kind(name: str, value: Any) -> Any:
    inner = value
    for step in EMBEDDED.get(name, ()):
        inner = inner[step]
    if name in EMBEDDED:
        del inner["kind"], inner["apiVersion"]
    return value


@needs_examples
@pytest.mark.parametrize("name", example_names())
def test_published_examples_come_back_as_they_were(name: str) -> None:
    value = example(name)
    info = info_of_kind(*kind_of(value))
    assert info is not None
    kind = info.load()
    typed = from_dict(kind, value)
    assert without_embedded_kind(name, to_dict(typed)) == value
    assert decode(kind, encode(typed)) == typed


@pytest.mark.parametrize("info", KINDS.values(), ids=lambda info: info.qualified_name)
def test_every_kind_can_be_made_from_nothing(info: Any) -> None:
    kind = info.load()
    made = to_dict(kind())
    # A watch event is a kind by publication only: it carries objects and has no kind itself.
    if info.kind != "WatchEvent":
        assert list(made.items())[:2] == [("kind", info.kind), ("apiVersion", info.api_version)]
    assert decode(kind, encode(kind())) == kind()
    assert info_of(kind) is info


def test_metadata_follows_kind_and_version() -> None:
    text = encode(Pod(metadata=ObjectMeta(name="web"))).decode()
    assert text.startswith('{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"')


def test_empty_optional_fields_are_not_written() -> None:
    assert to_dict(PodSpec()) == {"containers": []}


def test_required_fields_are_written() -> None:
    assert to_dict(ContainerStatus(name="web")) == {
        "name": "web",
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    }


def test_struct_values_are_there_and_written() -> None:
    deployment = Deployment()
    assert deployment.spec.template.spec.containers == ()
    assert to_dict(deployment) == {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {},
        "spec": {
            "selector": {},
            "template": {"metadata": {}, "spec": {"containers": []}},
            "strategy": {},
        },
        "status": {},
    }
    assert to_dict(Container(name="web")) == {"name": "web", "resources": {}}


def test_counts_of_a_status_are_zero_when_nobody_set_them() -> None:
    assert DeploymentStatus().ready_replicas == 0
    assert DeploymentStatus().terminating_replicas is None
    assert to_dict(DeploymentStatus(ready_replicas=0)) == {}


def test_a_number_written_without_omitempty_stays() -> None:
    assert to_dict(ControllerRevision())["revision"] == 0


def test_an_empty_storage_class_differs_from_none() -> None:
    assert "storageClassName" not in to_dict(PersistentVolumeClaimSpec())
    assert to_dict(PersistentVolumeClaimSpec(storage_class_name=""))["storageClassName"] == ""


def test_times_are_aware_and_written_in_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    condition = Condition(type="Ready", last_transition_time=moment)
    assert to_dict(condition)["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert from_dict(Condition, to_dict(condition)).last_transition_time == moment


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"metadata": null, "spec": null}', id="structs"),
        pytest.param(b'{"spec": {"containers": null, "nodeSelector": null}}', id="containers"),
        pytest.param(b'{"metadata": {"creationTimestamp": null}}', id="time"),
        pytest.param(b'{"spec": {"nodeName": null}}', id="string"),
    ],
)
def test_null_is_absent(text: bytes) -> None:
    assert decode(Pod, text) == Pod()
    assert from_dict(Pod, msgspec.json.decode(text)) == Pod()


def test_a_wrong_type_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected `str`"):
        decode(Pod, b'{"metadata": {"name": 1, "uid": null}}')


def test_objects_cannot_be_changed_in_place() -> None:
    pod = Pod()
    with pytest.raises(AttributeError):
        pod.metadata.name = "web"  # type: ignore[misc]
    assert replace(pod, metadata=ObjectMeta(name="web")).metadata.name == "web"


def test_plain_values_share_nothing_with_the_object() -> None:
    pod = Pod(metadata=ObjectMeta(labels={"app": "web"}))
    to_dict(pod)["metadata"]["labels"]["app"] = "changed"
    assert pod.metadata.labels == {"app": "web"}


def test_kinds_are_found_by_class_kind_and_plural() -> None:
    info = info_of(Deployment)
    assert info is info_of_kind("apps", "v1", "Deployment")
    assert info is info_at("apps", "v1", "deployments")
    assert (info.short_names, info.list_kind, info.namespaced) == (
        ("deploy",),
        "DeploymentList",
        True,
    )
    assert (info.storage_prefix, info.storage_version) == ("deployments", "apps/v1")
    assert [sub.name for sub in info.subresources] == ["scale", "status"]
    assert info.load() is Deployment
    assert info_at("", "v1", "nodes").storage_prefix == "minions"  # type: ignore[union-attr]


def test_what_is_not_a_kind_has_no_facts() -> None:
    with pytest.raises(LookupError, match="PodSpec is not a kind"):
        info_of(PodSpec)
    assert info_of_kind("", "v1", "Nothing") is None
    assert info_of(PodDisruptionBudget).plural == "poddisruptionbudgets"


def test_served_kinds_start_with_the_core_group() -> None:
    kinds = served_kinds()
    assert kinds[0].group == ""
    assert len(kinds) == len({(info.group, info.version, info.plural) for info in kinds}) == 100


def test_the_index_imports_no_types() -> None:
    code = (
        "import sys, pybernetes.api.types._index as i;"
        "assert 'pybernetes.api.types.core_v1' not in sys.modules;"
        "i.info_of_kind('', 'v1', 'Pod').load();"
        "assert 'pybernetes.api.types.core_v1' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_examples
def test_what_is_committed_is_what_apigen_writes(tmp_path: Path) -> None:
    from tools.apigen.__main__ import PACKAGE, generate

    generate(FACTS, tmp_path)
    for path in sorted(tmp_path.rglob("*.*")):
        committed = PACKAGE / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), f"{committed} is out of date"
