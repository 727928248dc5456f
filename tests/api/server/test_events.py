"""Events are one thing with two faces. Real: the registry's entries, the server, the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybernetes.api import codec
from pybernetes.api.core.events import EVENTS as CORE_EVENTS
from pybernetes.api.events import EVENTS, from_core, to_core
from pybernetes.api.types.core_v1 import EventSource, ObjectReference
from pybernetes.api.types.events_v1 import Event, EventSeries
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apiserver import ApiServer
from tests.api.server.conftest import TABLE, Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.storage import MemoryStore

OLD = "/api/v1/namespaces/default/events"
NEW = "/apis/events.k8s.io/v1/namespaces/default/events"

words = st.text("ab", max_size=3)


@given(
    st.builds(
        Event,
        metadata=st.builds(ObjectMeta, name=words),
        event_time=st.sampled_from(["", "2026-01-01T00:00:00.000000Z"]),
        series=st.none() | st.builds(EventSeries, count=st.integers(0, 9)),
        reporting_controller=words,
        reporting_instance=words,
        action=words,
        reason=words,
        regarding=st.builds(ObjectReference, name=words),
        related=st.none() | st.builds(ObjectReference, name=words),
        note=words,
        type=words,
        deprecated_source=st.builds(EventSource, component=words),
        deprecated_count=st.none() | st.integers(0, 9),
    )
)
@settings(max_examples=50, deadline=None)
def test_conversion_loses_nothing(event: Event) -> None:
    assert from_core(to_core(event)) == event
    assert codec.encode(to_core(from_core(to_core(event)))) == codec.encode(to_core(event))


@pytest.fixture
async def api(store: MemoryStore, clock: Clock, random: Random) -> AsyncIterator[Api]:
    async with ApiServer(store, clock, random, resources=(CORE_EVENTS, EVENTS)) as server:
        api = Api(server)
        yield api
        await api.close()


def event(**more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/me",
        "reportingInstance": "me-1",
        "action": "Testing",
        "reason": "Tested",
        "type": "Normal",
        "note": "all is well",
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
        **more,
    }


async def test_both_faces_show_the_same_event(api: Api) -> None:
    created = await api.post(NEW, event())
    assert created.status == 201, created.body
    old = (await api.get(f"{OLD}/e")).json
    assert (old["message"], old["involvedObject"]["name"]) == ("all is well", "web")
    assert old["reportingComponent"] == "example.com/me"
    for path in (OLD, NEW):
        rows = (await api.get(path, accept=TABLE)).json["rows"]
        assert rows[0]["cells"][1:4] == ["Normal", "Tested", "pod/web"]
    assert (await api.get(f"{NEW}?fieldSelector=regarding.name=web")).names == ["e"]
    assert (await api.get(f"{OLD}?fieldSelector=involvedObject.name=web")).names == ["e"]
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}}
    assert (await api.patch(f"{NEW}/e", series)).status == 200
    assert (await api.get(f"{OLD}/e")).json["series"]["count"] == 2


async def test_the_newer_face_asks_for_more(api: Api) -> None:
    bare = {"metadata": {"name": "e"}, "regarding": {"namespace": "default"}}
    answer = await api.post(NEW, bare)
    assert answer.status == 422
    fields = {cause["field"] for cause in answer.json["details"]["causes"]}
    assert {"eventTime", "type"} <= fields
    old = await api.post(NEW, event(deprecatedCount=3))
    assert "needs to be unset" in old.message
    assert (await api.post(OLD, {"metadata": {"name": "e"}, "involvedObject": {}})).status == 201
