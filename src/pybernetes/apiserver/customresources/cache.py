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

    def load(self, items: Iterable[KeyValue], revision: int) -> None:
        self._is_loading = True
        try:
            super().load(items, revision)
        finally:
            self._is_loading = False

    def _entry(self, path: str, revision: int, value: bytes) -> Entry | None:
        if self._is_loading:
            value = self._renewed(value)
        return super()._entry(path, revision, value)

    def _renewed(self, value: bytes) -> bytes:
        """A stored value by the rules of today; as it is if it cannot be read."""
        try:
            content: Any = msgspec.json.decode(value)
            if not isinstance(content, dict):
                return value
            whole = self._rules.filled_in(self._rules.without_unknown(content, []))
            known = content.get("apiVersion") == self._stored.api_version
            if whole is content and known:
                return value
            obj = replace(
                object_of(whole), kind=self._stored.kind_name, api_version=self._stored.api_version
            )
            return encode(obj)
        except (ValueError, RecursionError):
            return value


def _fields_of(versions: tuple[CustomResource, ...]) -> Callable[[bytes], Mapping[str, str]]:
    readers = {name: read for one in versions for name, read in one.selectable_fields.items()}

    def fields_of(value: bytes) -> Mapping[str, str]:
        if not readers:
            return {}
        obj: CustomObject = object_of(msgspec.json.decode(value))
        return {name: read(obj) for name, read in readers.items()}

    return fields_of
