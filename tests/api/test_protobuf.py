"""Protobuf bodies: the published examples of every kind, bodies of our own making, and noise."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybernetes.api.codec import from_dict
from pybernetes.api.schemas import schema_of
from pybernetes.api.types._index import info_of_kind
from pybernetes.api.types.core_v1 import Pod
from pybernetes.apimachinery.protobuf import MAGIC, ProtobufError, decode_protobuf
from pybernetes.apimachinery.schema import decode_strict
from tests.api.published import (
    example,
    example_names,
    kind_of,
    needs_examples,
    protobuf_example,
)


def varint(number: int) -> bytes:
    result = bytearray()
    number &= 2**64 - 1
    while number >= 0x80:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def field(number: int, value: int | bool | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, *fields: bytes) -> bytes:
    type_meta = field(1, api_version) + field(2, kind)
    return MAGIC + field(1, type_meta) + field(2, b"".join(fields)) + field(3, "") + field(4, "")


@needs_examples
@pytest.mark.parametrize("name", example_names())
def test_published_examples_read_like_their_json(name: str) -> None:
    value = example(name)
    decoded = decode_protobuf(protobuf_example(name))
    assert decoded == value
    info = info_of_kind(*kind_of(value))
    assert info is not None
    assert from_dict(info.load(), decoded) == from_dict(info.load(), value)


def test_zeros_that_go_writes_say_nothing_after_decoding() -> None:
    """A pod as client-go sends it: every plain value is there, set or not."""
    metadata = field(1, "web") + b"".join(field(number, "") for number in (2, 3, 4, 5, 6))
    metadata += field(7, 0) + field(8, b"")
    probe = field(1, b"") + b"".join(field(number, 0) for number in (2, 3, 4, 5, 6))
    container = field(1, "web") + field(2, "web:1") + field(5, "") + field(10, probe)
    container += field(8, b"") + field(16, False) + field(17, False) + field(18, False)
    spec = field(2, container) + field(3, "") + field(11, False) + field(4, 0)
    decoded = decode_protobuf(
        body("v1", "Pod", field(1, metadata), field(2, spec), field(3, field(1, "")))
    )
    schema = schema_of("", "v1", "Pod")
    assert schema is not None
    strict = decode_strict(decoded, schema)
    assert (strict.unknown, strict.errors) == ((), ())
    pod = from_dict(Pod, strict.value)
    assert pod.metadata.creation_timestamp is None
    assert pod.metadata.generation == 0
    assert pod.spec.host_network is None
    # A pointer in Go: its zero was set by somebody.
    assert pod.spec.termination_grace_period_seconds == 0
    (only,) = pod.spec.containers
    assert only.liveness_probe is not None
    assert only.liveness_probe.timeout_seconds is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(field(1, field(7, -5)), {"metadata": {"generation": -5}}, id="negative"),
        pytest.param(
            field(1, field(11, field(1, "a") + field(2, "b")) + field(11, field(1, "c"))),
            {"metadata": {"labels": {"a": "b", "c": ""}}},
            id="map entry without value",
        ),
        pytest.param(
            field(1, field(8, b"")), {"metadata": {"creationTimestamp": None}}, id="no time"
        ),
        pytest.param(
            field(1, field(8, field(1, 0))),
            {"metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"}},
            id="the epoch is a time",
        ),
        pytest.param(field(999, "new") + field(998, 1), {}, id="fields of later versions"),
        pytest.param(
            field(1, field(1, "a")) + field(1, field(1, "b")),
            {"metadata": {"name": "b"}},
            id="the last one counts",
        ),
    ],
)
def test_values(fields: bytes, expected: dict[str, Any]) -> None:
    assert decode_protobuf(body("v1", "Pod", fields)) == {
        "kind": "Pod",
        "apiVersion": "v1",
        **expected,
    }


def test_numbers_may_come_packed() -> None:
    security = field(14, field(4, varint(1) + varint(300)))
    pod = decode_protobuf(body("v1", "Pod", field(2, security)))
    assert pod["spec"]["securityContext"] == {"supplementalGroups": [1, 300]}
    security = field(14, field(4, 1) + field(4, 300))
    assert decode_protobuf(body("v1", "Pod", field(2, security))) == pod


def test_options_are_understood_under_any_group() -> None:
    for api_version in ("v1", "apps/v1", "meta.k8s.io/v1"):
        decoded = decode_protobuf(body(api_version, "DeleteOptions", field(1, 0)))
        assert decoded == {
            "kind": "DeleteOptions",
            "apiVersion": api_version,
            "gracePeriodSeconds": 0,
        }


def test_a_body_without_kind_takes_the_one_of_the_request() -> None:
    data = MAGIC + field(1, b"") + field(2, field(1, field(1, "web")))
    assert decode_protobuf(data, api_version="v1", kind="Pod") == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "web"},
    }
    with pytest.raises(ProtobufError, match="does not say what kind"):
        decode_protobuf(data)


def test_an_object_inside_may_be_protobuf_itself() -> None:
    inner = body("v1", "Pod", field(1, field(1, "web")))
    decoded = decode_protobuf(body("v1", "List", field(2, field(1, inner))), api_version="v1")
    assert decoded["items"] == [{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}}]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "expected prefix", id="empty"),
        pytest.param(b'{"kind":"Pod"}', "expected prefix", id="json"),
        pytest.param(MAGIC, "does not say what kind", id="nothing"),
        pytest.param(MAGIC + b"\x0a\xff\xff\xff\x0f", "unexpected end", id="length beyond the end"),
        pytest.param(MAGIC + b"\x0a", "unexpected end", id="no length"),
        pytest.param(MAGIC + b"\x80" * 20, "too long", id="endless number"),
        pytest.param(MAGIC + b"\x0b", "wire type 3", id="group"),
        pytest.param(MAGIC + b"\x02\x00", "field number is zero", id="field zero"),
        pytest.param(body("v1", "Nothing"), 'no kind "Nothing"', id="unknown kind"),
        pytest.param(body("v1", "Pod", field(1, 5)), "number stands where bytes", id="number"),
        pytest.param(
            body("v1", "Pod", field(1, field(7, "x"))), "bytes stand where a number", id="bytes"
        ),
        pytest.param(body("v1", "Pod", field(1, field(1, b"\xff"))), "not UTF-8", id="not text"),
        pytest.param(
            body("v1", "Pod", field(1, field(8, field(1, 2**62)))),
            "meta.v1.ObjectMeta.creationTimestamp",
            id="time out of range",
        ),
        pytest.param(
            body("apps/v1", "ControllerRevision", field(2, field(1, "{"))),
            "apps.v1.ControllerRevision.data",
            id="broken json inside",
        ),
        pytest.param(
            MAGIC + field(1, field(1, "v1") + field(2, "Pod")) + field(3, "gzip"),
            "content encoding 'gzip'",
            id="encoded",
        ),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(data: bytes, problem: str) -> None:
    with pytest.raises(ProtobufError, match=problem):
        decode_protobuf(data)


def test_nesting_has_a_limit() -> None:
    inner = body("v1", "Pod")
    for _ in range(1000):
        inner = body("v1", "List", field(2, field(1, inner)))
    with pytest.raises(ProtobufError, match="nested too deeply"):
        decode_protobuf(inner)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, body("v1", "Pod", noise)):
        with contextlib.suppress(ProtobufError):
            assert isinstance(decode_protobuf(data), dict)


@needs_examples
def test_damaged_examples_are_refused_or_read() -> None:
    chance = random.Random(1)
    for name in ("core.v1.Pod", "core.v1.Service", "apps.v1.Deployment"):
        good = protobuf_example(name)
        for _ in range(30):
            bad = bytearray(good)
            for _ in range(chance.randint(1, 5)):
                bad[chance.randrange(4, len(bad))] = chance.randrange(256)
            with contextlib.suppress(ProtobufError):
                decode_protobuf(bytes(bad[: chance.randint(4, len(bad))]))
