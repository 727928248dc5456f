"""events.k8s.io: the newer face of core Events. Both are stored as core v1.

The two differ in names (`regarding` is `involvedObject`, `note` is `message`) and in that
the newer one asks for more: a time, an action, and who reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.core.events import EVENTS as CORE_EVENTS
from pybernetes.api.core.events import any_name, validate_event
from pybernetes.api.resource import Column, Conversion, Resource, Scope, Strategy
from pybernetes.api.types import core_v1
from pybernetes.api.types.core_v1 import EventSource
from pybernetes.api.types.events_v1 import Event, EventSeries
from pybernetes.apimachinery.fielderror import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pybernetes.apimachinery.fielderror import FieldError

_UNSET = "needs to be unset"


def to_core(event: Event) -> core_v1.Event:
    series = event.series
    return core_v1.Event(
        metadata=event.metadata,
        involved_object=event.regarding,
        reason=event.reason,
        message=event.note,
        source=event.deprecated_source,
        first_timestamp=event.deprecated_first_timestamp,
        last_timestamp=event.deprecated_last_timestamp,
        count=event.deprecated_count,
        type=event.type,
        event_time=event.event_time,
        series=None
        if series is None
        else core_v1.EventSeries(count=series.count, last_observed_time=series.last_observed_time),
        action=event.action,
        related=event.related,
        reporting_component=event.reporting_controller,
        reporting_instance=event.reporting_instance,
    )


def from_core(event: core_v1.Event) -> Event:
    series = event.series
    return Event(
        metadata=event.metadata,
        event_time=event.event_time,
        series=None
        if series is None
        else EventSeries(count=series.count or 0, last_observed_time=series.last_observed_time),
        reporting_controller=event.reporting_component,
        reporting_instance=event.reporting_instance,
        action=event.action,
        reason=event.reason,
        regarding=event.involved_object,
        related=event.related,
        note=event.message,
        type=event.type,
        deprecated_source=event.source,
        deprecated_first_timestamp=event.first_timestamp,
        deprecated_last_timestamp=event.last_timestamp,
        deprecated_count=event.count,
    )


def validate_new_event(new: Event, old: Event | None) -> Iterator[FieldError]:
    yield from validate_event(to_core(new), None if old is None else to_core(old))
    # Events that the old recorder made may go on as they began.
    if old is not None:
        return
    if not new.event_time:
        yield Path("eventTime").required()
    if new.type not in ("Normal", "Warning"):
        yield Path("type").invalid("", f"has invalid value: {new.type}")
    if new.series is not None:
        if new.series.count < 2:
            yield Path("series").count.invalid("", "should be at least 2")
        if not new.series.last_observed_time:
            yield Path("series").lastObservedTime.required()
    for name, value in (
        ("firstTimestamp", new.deprecated_first_timestamp),
        ("lastTimestamp", new.deprecated_last_timestamp),
        ("count", new.deprecated_count),
    ):
        if value:
            yield Path(name).invalid("", _UNSET)
    if new.deprecated_source != EventSource():
        yield Path("source").invalid("", _UNSET)


def _as_core(column: Column[core_v1.Event]) -> Column[Event]:
    cell: Callable[[Any], object] | None = column.cell
    assert cell is not None
    return Column(
        column.name,
        lambda event: cell(to_core(event)),
        type=column.type,
        format=column.format,
        wide=column.wide,
    )


EVENTS = Resource(
    group="events.k8s.io",
    version="v1",
    kind=Event,
    plural="events",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        validate=validate_new_event,
        name_errors=any_name,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    name_column=False,
    columns=tuple(_as_core(column) for column in CORE_EVENTS.columns),
    selectable_fields={
        "regarding.kind": lambda event: event.regarding.kind,
        "regarding.namespace": lambda event: event.regarding.namespace,
        "regarding.name": lambda event: event.regarding.name,
        "regarding.uid": lambda event: event.regarding.uid,
        "regarding.apiVersion": lambda event: event.regarding.api_version,
        "regarding.resourceVersion": lambda event: event.regarding.resource_version,
        "regarding.fieldPath": lambda event: event.regarding.field_path,
        "reason": lambda event: event.reason,
        "reportingController": lambda event: event.reporting_controller,
        "type": lambda event: event.type,
    },
    conversion=Conversion(core_v1.Event, to_core, from_core),
    relaxed=True,
)

EVENTS_RESOURCES: tuple[Resource[Any], ...] = (EVENTS,)
