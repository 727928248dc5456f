"""Object keys: the (namespace, name) pair by which everything refers to an object.

Keys cross queues and index caches instead of objects; `str(key)` is what logs print.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class _HasNames(Protocol):
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


class _HasMetadata(Protocol):
    @property
    def metadata(self) -> _HasNames: ...


class Key(NamedTuple):
    """Namespace ("" for what is cluster-scoped) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: _HasMetadata) -> Key:
    metadata = obj.metadata
    return Key(metadata.namespace, metadata.name)


def parse_key(text: str) -> Key:
    """The inverse of str(key). Raises ValueError for more than one slash."""
    namespace, slash, name = text.partition("/")
    if "/" in name:
        raise ValueError(f"unexpected key format: {text!r}")
    return Key(namespace, name) if slash else Key("", namespace)
