"""Event: what happened to an object, for people to read. Written lazily, soon forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.resource import Column, Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import Event
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import qualified_name_errors
from pybernetes.apimachinery.timestamp import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from pybernetes.apimachinery.fielderror import FieldError

# Events about what has no namespace are kept here.
DEFAULT_NAMESPACE = "default"
_MOST_CHARACTERS = 128


def any_name(name: str) -> Sequence[str]:
    """Old recorders make names of their own; nothing is refused."""
    return ()


def validate_event(new: Event, old: Event | None) -> Iterator[FieldError]:
    about = new.involved_object.namespace
    namespace = new.metadata.namespace
    # What has no namespace of its own is told about in one of these.
    expected = (about,) if about else ("", DEFAULT_NAMESPACE, "kube-system")
    if namespace not in expected:
        yield Path("involvedObject").namespace.invalid(about, "does not match event.namespace")
    # Written by the old recorder: it knows no time, and no more is asked of it.
    if not new.event_time:
        return
    if not new.reporting_component:
        yield Path("reportingController").required()
    else:
        for message in qualified_name_errors(new.reporting_component):
            yield Path("reportingController").invalid(new.reporting_component, message)
    for wire_name, value in (
        ("reportingInstance", new.reporting_instance),
        ("action", new.action),
        ("reason", new.reason),
    ):
        if not value:
            yield Path(wire_name).required()
        elif len(value) > _MOST_CHARACTERS:
            yield Path(wire_name).invalid("", f"can have at most {_MOST_CHARACTERS} characters")
    if len(new.message) > 1024:
        yield Path("message").invalid("", "can have at most 1024 characters")


def _moment(micro_time: str) -> datetime | None:
    return parse_time(micro_time) if micro_time else None


def _first_seen(event: Event) -> datetime | str:
    return event.first_timestamp or _moment(event.event_time) or "<unknown>"


def _last_seen(event: Event) -> datetime | str:
    if event.series is not None and event.series.last_observed_time:
        return parse_time(event.series.last_observed_time)
    return event.last_timestamp or _first_seen(event)


def _object_text(event: Event) -> str:
    about = event.involved_object
    return f"{about.kind.lower()}/{about.name}"


def _source_text(event: Event) -> str:
    component = event.source.component or event.reporting_component
    host = event.source.host or (event.reporting_instance if not event.source.component else "")
    return f"{component}, {host}" if host else component


def _count(event: Event) -> int:
    if event.series is not None and event.series.count:
        return event.series.count
    return event.count or 1


EVENTS = Resource(
    group="",
    version="v1",
    kind=Event,
    plural="events",
    scope=Scope.NAMESPACED,
    strategy=Strategy(
        validate=validate_event,
        name_errors=any_name,
        generation_follows=(),
        allow_create_on_update=True,
    ),
    name_column=False,
    columns=(
        Column("Last Seen", _last_seen),
        Column("Type", lambda event: event.type),
        Column("Reason", lambda event: event.reason),
        Column("Object", _object_text),
        Column("Subobject", lambda event: event.involved_object.field_path, wide=True),
        Column("Source", _source_text, wide=True),
        Column("Message", lambda event: event.message.strip()),
        Column("First Seen", _first_seen, wide=True),
        Column("Count", _count, wide=True),
        Column("Name", lambda event: event.metadata.name, format="name", wide=True),
    ),
    selectable_fields={
        "involvedObject.kind": lambda event: event.involved_object.kind,
        "involvedObject.namespace": lambda event: event.involved_object.namespace,
        "involvedObject.name": lambda event: event.involved_object.name,
        "involvedObject.uid": lambda event: event.involved_object.uid,
        "involvedObject.apiVersion": lambda event: event.involved_object.api_version,
        "involvedObject.resourceVersion": lambda event: event.involved_object.resource_version,
        "involvedObject.fieldPath": lambda event: event.involved_object.field_path,
        "reason": lambda event: event.reason,
        "reportingComponent": lambda event: event.reporting_component,
        "source": lambda event: event.source.component or event.reporting_component,
        "type": lambda event: event.type,
    },
    relaxed=True,
)
