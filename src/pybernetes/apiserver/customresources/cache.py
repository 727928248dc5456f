"""The watch cache of a custom resource: what is stored is made whole when it is loaded.

A definition may have changed since an object was stored: another storage version, another schema.
Objects are brought to the present rules once, when the cache is filled, so that reading stays
a matter of bytes; what is written later has gone through them already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pybernetes.apiserver.customresources.object import CustomObject, encode, object_of
from pybernetes.apiserver.watch import Dispatcher
from pybernetes.apiserver.watchcache import REGISTRY, WatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pybernetes.apiserver.customresources.served import CustomResource, Rules
    from pybernetes.apiserver.entry import Entry
    from pybernetes.storage import KeyValue


class CustomCache(WatchCache):
    """All instances of a definition, in its storage version."""

    def __init__(
        self, stored: CustomResource, rules: Rules, versions: tuple[CustomResource, ...]
    ) -> None:
        super().__init__(
            f"{REGISTRY}{stored.storage_prefix}/",
            stored.kind_name,
            stored.api_version,
            Dispatcher(_fields_of(versions)),
        )
        self._rules = rules
        self._stored = stored
        self._is_loading = False
        # What a webhook made of values of other versions, by path and revision.
        self.converted: dict[tuple[str, int], bytes] = {}

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        self._is_loading = True
        try:
            super().load(items, revision)
        finally:
            self._is_loading = False

    def _entry(self, path: str, revision: int, value: bytes) -> Entry | None:
        if self._is_loading:
            value = self._renewed(path, revision, value)
        return super()._entry(path, revision, value)

    def _renewed(self, path: str, revision: int, value: bytes) -> bytes:
        """A stored value by the rules of today; as it is if it cannot be read."""
        value = self.converted.pop((path, revision), value)
        try:
            content: Any = msgspec.json.decode(value)
            return self.whole(content, value) if isinstance(content, dict) else value
        except (ValueError, RecursionError):
            return value

    def whole(self, content: dict[str, Any], value: bytes | None = None) -> bytes:
        """Plain values by the rules of this version, as bytes: `value` if those say the same."""
        whole = self._rules.filled_in(self._rules.without_unknown(content, []))
        if value is not None and whole is content and self.is_of_version(content):
            return value
        obj = object_of(whole)
        metadata = replace(obj.metadata, resource_version="")
        kind, api_version = self._stored.kind_name, self._stored.api_version
        return encode(replace(obj, metadata=metadata, kind=kind, api_version=api_version))

    def is_of_version(self, content: dict[str, Any]) -> bool:
        return bool(content.get("apiVersion") == self._stored.api_version)


def _fields_of(versions: tuple[CustomResource, ...]) -> Callable[[bytes], Mapping[str, str]]:
    readers = {name: read for one in versions for name, read in one.selectable_fields.items()}

    def fields_of(value: bytes) -> Mapping[str, str]:
        if not readers:
            return {}
        obj: CustomObject = object_of(msgspec.json.decode(value))
        return {name: read(obj) for name, read in readers.items()}

    return fields_of
