"""Events. Real: recorder, correlator, client. Fake: the server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pybernetes.aio.virtualtime import settled
from pybernetes.api.types.core_v1 import Event, EventSource, Node, ObjectReference, Pod
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import Forbidden
from pybernetes.client.events import (
    COMBINED_PREFIX,
    NORMAL,
    WARNING,
    EventCorrelator,
    EventRecorder,
    EventWriter,
    reference_to,
)
from pybernetes.wire.http import ConnectionClosed, Request
from tests.client.fakeserver import FakeServer, answer_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock

POD = Pod(metadata=ObjectMeta(name="web", namespace="default", uid="u1", resource_version="7"))
NODE = Node(metadata=ObjectMeta(name="n1", uid="u2"))
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def writer(server: FakeServer, clock: Clock, random: Random) -> AsyncIterator[EventWriter]:
    writer = EventWriter(server.client(), clock=clock, random=random)
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def recorder(writer: EventWriter) -> EventRecorder:
    return writer.recorder("kubelet", host="n1")


def events(server: FakeServer) -> list[dict[str, Any]]:
    return [obj for (where, *_), obj in server.objects.items() if where == "/api/v1/events"]


async def test_an_event_has_upstreams_shape(server: FakeServer, recorder: EventRecorder) -> None:
    recorder.record(POD, NORMAL, "Started", "Container started", action="Starting", related=NODE)
    await settled()
    (event,) = events(server)
    name = event["metadata"]["name"]
    assert name.startswith("web.")
    assert int(name.partition(".")[2], 16) == int(START.timestamp()) * 10**9
    del event["metadata"]
    assert event == {
        "kind": "Event",
        "apiVersion": "v1",
        "involvedObject": {
            "kind": "Pod",
            "namespace": "default",
            "name": "web",
            "uid": "u1",
            "apiVersion": "v1",
            "resourceVersion": "7",
        },
        "reason": "Started",
        "message": "Container started",
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
        "type": "Normal",
        "action": "Starting",
        "related": {"kind": "Node", "name": "n1", "uid": "u2", "apiVersion": "v1"},
        "reportingComponent": "kubelet",
        "reportingInstance": "n1",
    }


async def test_events_about_cluster_scoped_objects_live_in_default(
    server: FakeServer, recorder: EventRecorder
) -> None:
    recorder.record(NODE, NORMAL, "NodeReady", "ready")
    await settled()
    assert events(server)[0]["metadata"]["namespace"] == "default"


async def test_repeating_counts_up(server: FakeServer, recorder: EventRecorder) -> None:
    for _ in range(3):
        recorder.record(POD, WARNING, "BackOff", "Back-off restarting")
        await asyncio.sleep(60)
    (event,) = events(server)
    assert event["count"] == 3
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "2026-01-01T00:02:00Z"
    assert [request.split()[0] for request in server.requests] == ["POST", "PATCH", "PATCH"]


async def test_an_expired_event_is_said_anew(server: FakeServer, recorder: EventRecorder) -> None:
    recorder.record(POD, NORMAL, "Pulled", "pulled")
    await settled()
    server.objects.clear()
    recorder.record(POD, NORMAL, "Pulled", "pulled")
    await settled()
    assert [event["count"] for event in events(server)] == [2]


async def test_many_similar_events_become_one(server: FakeServer, recorder: EventRecorder) -> None:
    for n in range(20):
        recorder.record(POD, WARNING, "Unhealthy", f"Probe {n} failed")
    await settled()
    messages = [event["message"] for event in events(server)]
    assert messages[:9] == [f"Probe {n} failed" for n in range(9)]
    assert messages[9:] == [COMBINED_PREFIX + "Probe 19 failed"]
    assert events(server)[9]["count"] == 11
    await asyncio.sleep(601)
    recorder.record(POD, WARNING, "Unhealthy", "Probe 20 failed")
    await settled()
    assert events(server)[-1]["message"] == "Probe 20 failed"


async def test_spam_is_dropped(
    server: FakeServer, writer: EventWriter, recorder: EventRecorder
) -> None:
    for _ in range(40):
        recorder.record(POD, WARNING, "BackOff", "again")
    recorder.record(NODE, WARNING, "BackOff", "others may still speak")
    writer.recorder("scheduler").record(POD, WARNING, "FailedScheduling", "and so may others")
    await settled()
    assert events(server)[0]["count"] == 25
    assert len(events(server)) == 3
    assert writer.statistics().filtered == 15
    await asyncio.sleep(300)
    recorder.record(POD, WARNING, "BackOff", "again")
    await settled()
    # What was filtered was counted all the same.
    assert events(server)[0]["count"] == 41


async def test_recording_never_waits_and_loses_the_newest(
    server: FakeServer, writer: EventWriter, recorder: EventRecorder
) -> None:
    for n in range(1200):
        recorder.record(ObjectReference(kind="Pod", name=f"p{n}"), NORMAL, "R", "m")
    assert writer.statistics().overflowed == 200
    await settled()
    assert len(events(server)) == 1000
    assert writer.statistics().written == 1000
    names = [event["metadata"]["name"].partition(".")[2] for event in events(server)]
    assert len(set(names)) == 1000


async def test_a_server_that_is_away_is_waited_for_but_not_for_ever(
    server: FakeServer, writer: EventWriter, recorder: EventRecorder
) -> None:
    def away(_: Request) -> None:
        raise ConnectionClosed("away")

    server.interfere = away
    recorder.record(POD, NORMAL, "Pulled", "one")
    await asyncio.sleep(60)
    server.interfere = lambda _: None
    await asyncio.sleep(60)
    assert len(events(server)) == 1
    server.interfere = away
    recorder.record(POD, NORMAL, "Pulled", "two")
    await asyncio.sleep(200)
    assert writer.statistics().failed == 1


async def test_what_is_refused_is_not_tried_again(
    server: FakeServer, writer: EventWriter, recorder: EventRecorder
) -> None:
    server.interfere = lambda _: answer_of(Forbidden("events", "", "terminating"))
    recorder.record(POD, NORMAL, "Pulled", "one")
    await asyncio.sleep(60)
    assert len(server.requests) == 1
    assert writer.statistics().failed == 1


def test_the_correlator_forgets_the_least_recent() -> None:
    correlator = EventCorrelator()
    for n in range(5000):
        event = Event(
            involved_object=ObjectReference(name=f"p{n}"),
            source=EventSource(component="c"),
            metadata=ObjectMeta(name=f"e{n}"),
        )
        assert correlator.correlate(event, START + timedelta(seconds=n)) is not None
    late = correlator.correlate(event, START)
    assert late is not None
    assert late.known
    first = Event(involved_object=ObjectReference(name="p0"), source=EventSource(component="c"))
    again = correlator.correlate(first, START)
    assert again is not None
    assert not again.known


def test_references_to_anything() -> None:
    as_dict = {"kind": "Widget", "apiVersion": "x/v1", "metadata": {"name": "w", "uid": "1"}}
    assert reference_to(as_dict) == ObjectReference(
        kind="Widget", api_version="x/v1", name="w", uid="1"
    )
    part = reference_to(POD, "spec.containers{web}")
    assert part.field_path == "spec.containers{web}"
    assert reference_to(part) is part
    assert reference_to(part, "other").field_path == "other"
