"""Which objects a list, watch or deletecollection is about, and which one a field names.

A `Selection` is a namespace (or all), a label selector and a field selector. What can be
answered by a dictionary, an exact name or an indexed field, is told apart here, so that
neither lists nor watches ask an object that cannot match.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import BadRequest
from pybernetes.apimachinery.selector import (
    FieldRequirement,
    FieldSelector,
    Selector,
    SelectorError,
    parse_field_selector,
    parse_label_selector,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pybernetes.apiserver.entry import Entry, FieldsOf
    from pybernetes.apiserver.watchcache import WatchCache

EVERYTHING = parse_label_selector("")
ANY_FIELD = FieldSelector()

# Fields every object has; a kind adds its own.
COMMON_FIELDS = frozenset({"metadata.name", "metadata.namespace"})

# Fields that lists and watches ask for exactly and often: the pods of a node.
INDEXED_FIELDS = frozenset({"spec.nodeName"})


@dataclass(frozen=True, slots=True)
class Selection:
    """Hashable: watchers with equal selections share their work."""

    namespace: str = ""
    labels: Selector = field(default=EVERYTHING)
    fields: FieldSelector = field(default=ANY_FIELD)

    @property
    def is_whole(self) -> bool:
        """Whether the namespace alone decides."""
        return self.labels.empty and self.fields.empty

    def matches(self, entry: Entry, fields_of: FieldsOf) -> bool:
        """Labels and fields; the namespace has been looked at before."""
        if not self.labels.empty and not self.labels.matches(entry.labels):
            return False
        return self.fields.empty or self.fields.matches(entry.fields(fields_of))

    def named(self, name: str) -> Selection:
        """The same, of one name only."""
        requirement = FieldRequirement("metadata.name", "=", name)
        fields = FieldSelector((requirement, *self.fields.requirements))
        return Selection(self.namespace, self.labels, fields)

    @property
    def trigger(self) -> tuple[str, str]:
        """Where a watcher must be registered to hear of all that can concern it."""
        name = self.fields.required_value("metadata.name")
        if name is not None:
            if self.namespace:
                return ("key", f"{self.namespace}/{name}")
            return ("name", name)
        for indexed in INDEXED_FIELDS:
            if (value := self.fields.required_value(indexed)) is not None:
                return (indexed, value)
        return ("namespace", self.namespace)

    def select(self, cache: WatchCache, *, after: str = "") -> Iterator[Entry]:
        """The entries of a cache that are selected, in key order, with keys after `after`."""
        candidates = self._candidates(cache, after)
        if self.is_whole:
            return candidates
        fields_of = cache.dispatcher.fields_of
        return (entry for entry in candidates if self.matches(entry, fields_of))

    def _candidates(self, cache: WatchCache, after: str) -> Iterator[Entry]:
        where, value = self.trigger
        if where == "key":
            entry = cache.get(value)
            return iter(() if entry is None or entry.key <= after else (entry,))
        if where in INDEXED_FIELDS:
            prefix = f"{self.namespace}/" if self.namespace else ""
            return (
                entry
                for entry in cache.indexed(where, value)
                if entry.key > after and entry.key.startswith(prefix)
            )
        return cache.select(self.namespace, after=after)


def parse_selection(
    query: Mapping[str, str], namespace: str, *, known_fields: Collection[str]
) -> Selection:
    """Raises BadRequest with upstream's words for what cannot be parsed or selected by."""
    label_text, field_text = query.get("labelSelector", ""), query.get("fieldSelector", "")
    if not label_text and not field_text:
        return Selection(namespace)
    try:
        labels = parse_label_selector(label_text)
        fields = parse_field_selector(field_text)
    except SelectorError as error:
        raise BadRequest(str(error)) from None
    for requirement in fields.requirements:
        name = requirement.field
        if name in COMMON_FIELDS or name in known_fields:
            continue
        if known_fields:
            raise BadRequest(f"field label not supported: {name}")
        common = ", ".join(f'"{field}"' for field in sorted(COMMON_FIELDS))
        raise BadRequest(f'"{name}" is not a known field selector: only {common}')
    return Selection(namespace, labels, fields)
