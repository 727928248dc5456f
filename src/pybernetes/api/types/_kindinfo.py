"""What is known of a kind without importing its class."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource and the kind it speaks: ``pods/eviction`` takes a policy/v1 Eviction."""

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One kind; what is served as a resource has a plural."""

    group: str
    version: str
    kind: str
    module: str
    class_name: str
    plural: str = ""
    singular: str = ""
    namespaced: bool = False
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    # Below /registry/; empty for what is never stored.
    storage_prefix: str = ""
    # "apps/v1": the version in which objects are stored.
    storage_version: str = ""
    storage_version_hash: str = ""
    # Whether this version is the one clients should choose.
    preferred: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_name(self) -> str:
        """Module and name of the class, the key of ``_index.KINDS``."""
        return f"pybernetes.api.types.{self.module}.{self.class_name}"

    def load(self) -> type[Any]:
        """The class itself; its module is imported now if it was not before."""
        module = import_module(f"pybernetes.api.types.{self.module}")
        cls: type[Any] = getattr(module, self.class_name)
        return cls
