"""Decoding by schema: the real tables, the published examples, and Go's sentences."""

from __future__ import annotations

from typing import Any

import pytest

from pybernetes.api.schemas import definition, definition_names, kinds_of, schema_of
from pybernetes.apimachinery import schemadecode
from pybernetes.apimachinery.schema import (
    UNSET,
    Decoded,
    Schema,
    decode_strict,
    from_openapi,
)
from tests.api.published import example, example_names, kind_of, needs_examples


def known(group: str, version: str, kind: str) -> Schema:
    schema = schema_of(group, version, kind)
    assert schema is not None
    return schema


DEPLOYMENT = known("apps", "v1", "Deployment")
POD = known("", "v1", "Pod")


def in_pod(**spec: Any) -> Decoded:
    return decode_strict({"spec": spec}, POD)


@needs_examples
@pytest.mark.parametrize("name", example_names())
def test_published_examples_are_clean_on_both_paths(name: str) -> None:
    value = example(name)
    schema = known(*kind_of(value))
    assert decode_strict(value, schema) == Decoded(value)
    walk = schemadecode.Walk()
    assert walk.decode(value, schema, schemadecode.TOP) == value
    assert (walk.unknown, walk.errors) == ([], [])


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        pytest.param({"foo": 1}, ("foo",), id="top"),
        pytest.param(
            {"spec": {"foo": 1}, "metadata": {"x": 1}}, ("spec.foo", "metadata.x"), id="two"
        ),
        pytest.param(
            {"spec": {"containers": [{"name": "a"}, {"nam": "b"}]}},
            ("spec.containers[1].nam",),
            id="in a list",
        ),
        pytest.param({"spec": {"Containers": []}}, ("spec.Containers",), id="wrong case"),
        pytest.param({"metadata": {"labels": {"any": "key"}}}, (), id="maps take any key"),
        pytest.param(
            {"spec": {"affinity": {"nodeAffinity": {"x": {}}}}, "y": None},
            ("spec.affinity.nodeAffinity.x", "y"),
            id="also when null",
        ),
    ],
)
def test_unknown_fields_are_named_and_dropped(body: Any, unknown: tuple[str, ...]) -> None:
    decoded = decode_strict(body, POD)
    assert decoded.unknown == unknown
    assert decoded.errors == ()
    assert decode_strict(decoded.value, POD) == Decoded(decoded.value)


def test_no_more_than_a_hundred_unknown_fields_are_named() -> None:
    body = {f"field{number}": 1 for number in range(1000)}
    assert len(decode_strict(body, POD).unknown) == 100


@pytest.mark.parametrize(
    ("body", "error"),
    [
        pytest.param(
            {"spec": {"replicas": "3"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas"
            " of type int32",
            id="text for a number",
        ),
        pytest.param(
            {"spec": {"replicas": 3.5}},
            "json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas"
            " of type int32",
            id="fraction for an integer",
        ),
        pytest.param(
            {"spec": {"replicas": 2**31}},
            "json: cannot unmarshal number 2147483648 into Go struct field"
            " DeploymentSpec.spec.replicas of type int32",
            id="too large",
        ),
        pytest.param(
            {"spec": {"paused": "true"}},
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused"
            " of type bool",
            id="text for a bool",
        ),
        pytest.param(
            {"spec": {"template": {"spec": {"containers": {"name": "a"}}}}},
            "json: cannot unmarshal object into Go struct field"
            " PodSpec.spec.template.spec.containers of type []v1.Container",
            id="object for a list",
        ),
        pytest.param(
            {"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}},
            "json: cannot unmarshal number into Go struct field"
            " EnvVar.spec.template.spec.containers.env.value of type string",
            id="number for text, without indexes",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": True}}},
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels"
            " of type string",
            id="in a map, without its key",
        ),
        pytest.param(
            {"metadata": {"labels": "a=b"}},
            "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels"
            " of type map[string]string",
            id="text for a map",
        ),
        pytest.param(
            {"spec": []},
            "json: cannot unmarshal array into Go struct field Deployment.spec"
            " of type v1.DeploymentSpec",
            id="list for an object",
        ),
        pytest.param(
            [], "json: cannot unmarshal array into Go value of type v1.Deployment", id="top"
        ),
        pytest.param(
            {"metadata": {"creationTimestamp": 5}},
            "json: cannot unmarshal number into Go struct field"
            " ObjectMeta.metadata.creationTimestamp of type string",
            id="number for a time",
        ),
        pytest.param(
            {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1.5}}}},
            "json: cannot unmarshal number 1.5 into Go struct field"
            " RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
            id="fraction for int-or-string",
        ),
    ],
)
def test_wrong_types_are_told_in_the_words_of_go(body: Any, error: str) -> None:
    assert decode_strict(body, DEPLOYMENT).errors == (error,)


def test_a_bad_quantity_ends_decoding() -> None:
    decoded = in_pod(containers=[{"name": 1, "resources": {"limits": {"cpu": "lots"}}}])
    assert decoded.errors == (
        "quantities must match the regular expression "
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    )


def test_a_bad_time_says_what_was_read() -> None:
    (error,) = decode_strict({"metadata": {"creationTimestamp": "today"}}, POD).errors
    assert error.startswith('parsing time "today" as "2006-01-02T15:04:05Z07:00"')


def test_bad_base64_says_where() -> None:
    secret = known("", "v1", "Secret")
    assert decode_strict({"data": {"key": "YWJj"}}, secret) == Decoded({"data": {"key": "YWJj"}})
    assert decode_strict({"data": {"key": "YW\nJj"}}, secret).value == {"data": {"key": "YWJj"}}
    assert decode_strict({"data": {"key": "YW!j"}}, secret).errors == (
        "illegal base64 data at input byte 2",
    )


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        pytest.param(1, "1", id="number"),
        pytest.param(0.5, "500m", id="fraction"),
        pytest.param("1024Mi", "1Gi", id="text"),
        pytest.param(None, "0", id="null in a map is zero"),
    ],
)
def test_quantities_become_canonical(written: Any, stored: str) -> None:
    decoded = in_pod(overhead={"cpu": written})
    assert decoded == Decoded({"spec": {"overhead": {"cpu": stored}}})


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        pytest.param("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", id="as it is"),
        pytest.param("2026-01-02T03:04:05.9Z", "2026-01-02T03:04:05Z", id="fraction"),
        pytest.param("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z", id="zone"),
    ],
)
def test_times_become_whole_seconds_in_utc(written: str, stored: str) -> None:
    decoded = decode_strict({"metadata": {"creationTimestamp": written}}, POD)
    assert decoded == Decoded({"metadata": {"creationTimestamp": stored}})


def test_null_is_absent_and_zero_inside_containers() -> None:
    body = {
        "metadata": {"labels": {"a": None}, "annotations": None},
        "spec": {"nodeName": None, "containers": [None], "tolerations": None},
    }
    assert decode_strict(body, POD).value == {
        "metadata": {"labels": {"a": ""}},
        "spec": {"containers": [{}]},
    }


def test_a_zero_that_go_would_omit_is_absent() -> None:
    body = {"spec": {"hostNetwork": False, "enableServiceLinks": False, "priority": 0}}
    assert decode_strict(body, POD).value == {"spec": {"enableServiceLinks": False, "priority": 0}}


def test_input_is_never_changed() -> None:
    body = {"spec": {"overhead": {"cpu": 1}, "foo": 1, "hostNetwork": False}}
    decode_strict(body, POD)
    assert body == {"spec": {"overhead": {"cpu": 1}, "foo": 1, "hostNetwork": False}}


def test_depth_without_end_is_an_error() -> None:
    body: dict[str, Any] = {}
    for _ in range(100_000):
        body = {"not": body}
    props = definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert decode_strict(body, props).errors == ("exceeded max depth",)


def test_schemas_of_schemas_take_either_form() -> None:
    props = definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    good = {
        "items": [{"type": "string"}],
        "additionalProperties": False,
        "not": {"items": {"type": "object", "additionalProperties": {"type": "string"}}},
    }
    assert decode_strict(good, props) == Decoded(good)
    assert decode_strict({"additionalProperties": "x"}, props).errors == (
        "json: cannot unmarshal string into Go struct field"
        " JSONSchemaProps.additionalProperties of type bool",
    )


def test_nodes_know_how_lists_are_merged() -> None:
    ports = DEPLOYMENT.at("spec.template.spec.containers.ports")
    assert ports is not None
    assert (ports.list_type, ports.list_map_keys) == ("map", ("containerPort", "protocol"))
    assert (ports.patch_strategy, ports.patch_merge_key) == (("merge",), "containerPort")
    strategy = DEPLOYMENT.at("spec.strategy")
    assert strategy is not None
    assert strategy.patch_strategy == ("retainKeys",)
    protocol = ports.items and ports.items.child("protocol")
    assert protocol
    assert (protocol.default, protocol.enum) == ("TCP", ("SCTP", "TCP", "UDP"))
    name = ports.items and ports.items.child("name")
    assert name
    assert name.default is UNSET
    selector = DEPLOYMENT.at("spec.selector")
    assert selector is not None
    assert selector.map_type == "atomic"
    assert DEPLOYMENT.at("spec.nothing.at.all") is None


def test_every_published_definition_can_be_had() -> None:
    for name in definition_names():
        node = definition(name)
        assert node.ref == name
        if node.properties is not None:
            assert all(node.properties[field] is not None for field in node.properties)
    assert kinds_of("io.k8s.api.core.v1.Pod") == (("", "v1", "Pod"),)
    with pytest.raises(KeyError):
        definition("io.k8s.api.core.v1.Nothing")


def test_custom_resources_have_the_same_model() -> None:
    schema = from_openapi(
        {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "format": "int32", "minimum": 1, "default": 3},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "hosts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                },
            },
        }
    )
    size = schema.child("size")
    assert size is not None
    assert (size.default, size.constraints) == (3, {"minimum": 1})
    hosts = schema.child("hosts")
    assert hosts is not None
    assert hosts.list_map_keys == ("name",)
    body = {"size": 1, "port": "http", "free": {"a": 1}, "hosts": [{"name": "a", "x": 1}], "y": 2}
    decoded = decode_strict(body, schema)
    assert decoded.unknown == ("hosts[0].x", "y")
    assert decoded.value == {
        "size": 1,
        "port": "http",
        "free": {"a": 1},
        "hosts": [{"name": "a"}],
    }
