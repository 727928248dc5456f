"""Kinds as clients address them: where one is served, and how its bytes are read.

The same client and caches work on generated classes (`Pod`), on kinds known only
at run time (custom resources, as plain dictionaries), and on the metadata of any
kind alone (what garbage collection needs: decoding skips the rest). Wherever a
`Kind` is wanted, a generated class will do.

Rule: what was decoded is never changed. Structs are frozen; dictionaries must be
treated as if they were.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec
from msgspec.structs import force_setattr

from pybernetes.api import codec
from pybernetes.api.types._index import info_of
from pybernetes.api.types._struct import Struct, always, new
from pybernetes.api.types.meta_v1 import ListMeta, ObjectMeta
from pybernetes.apimachinery.meta import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind in one version, served as one resource."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    # Raises ValueError for what does not fit.
    decode: Callable[[bytes | memoryview], T] = field(compare=False, repr=False)
    metadata_of: Callable[[T], ObjectMeta] = field(compare=False, repr=False)
    # "struct", "dict" or "metadata": caches of the same kind in two forms are two caches.
    form: str = "struct"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path below the server's root.

        A name without its namespace, or a namespace where there can be none, is a
        mistake of the caller: ValueError.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self} have no namespace, but {namespace!r} was given")
        if name and self.namespaced and not namespace:
            raise ValueError(f"the namespace of {self} {name!r} is missing")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=":"))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def key_of(self, obj: T) -> Key:
        metadata = self.metadata_of(obj)
        return Key(metadata.namespace, metadata.name)

    def owner_key_of(self, obj: T | None, owner: Kind[Any]) -> Key | None:
        """The key of the object of kind `owner` that controls `obj`, if there is one."""
        if obj is None:
            return None
        metadata = self.metadata_of(obj)
        for reference in metadata.owner_references:
            if (
                reference.controller
                and reference.kind == owner.kind
                # The version may be another: it is the same object.
                and reference.api_version.rpartition("/")[0] == owner.group
            ):
                return Key(metadata.namespace if owner.namespaced else "", reference.name)
        return None


AnyKind: TypeAlias = "type[T] | Kind[T]"


class PartialObject(Struct, frozen=True, kw_only=True):
    """The part all kinds have in common; the rest was not read."""

    kind: str = always("")
    api_version: str = always("")
    metadata: ObjectMeta = new(ObjectMeta)


class ListHead(msgspec.Struct, frozen=True, gc=False):
    """A list whose items are still bytes."""

    metadata: ListMeta = ListMeta()
    items: tuple[msgspec.Raw, ...] | None = ()


class RawEvent(msgspec.Struct, frozen=True, gc=False):
    """A line of a watch; its object is still bytes, borrowed from that line."""

    type: str
    object: msgspec.Raw


def kind_of(kind: AnyKind[T]) -> Kind[T]:
    """The Kind of a generated class; LookupError if it is none, or is not served."""
    return kind if isinstance(kind, Kind) else _typed(kind)  # type: ignore[arg-type]  # classes can be hashed


@cache
def _typed(cls: type[Any]) -> Kind[Any]:
    info = info_of(cls)
    if not info.plural:
        raise LookupError(f"{info.kind} is not served as a resource")
    return Kind(
        info.group,
        info.version,
        info.kind,
        info.plural,
        info.namespaced,
        decode=_struct_decoder(cls, info.kind, info.api_version),
        metadata_of=_metadata_attribute,
    )


def dynamic_kind(
    group: str, version: str, plural: str, *, kind: str, namespaced: bool = True
) -> Kind[dict[str, Any]]:
    """A kind whose objects are plain dictionaries, as custom resources are."""
    return Kind(
        group,
        version,
        kind,
        plural,
        namespaced,
        decode=_decode_dict,
        metadata_of=_metadata_of_dict,
        form="dict",
    )


def metadata_kind(
    group: str, version: str, plural: str, *, kind: str, namespaced: bool = True
) -> Kind[PartialObject]:
    """Any kind, of which only the metadata is read and kept."""
    api_version = f"{group}/{version}" if group else version
    return Kind(
        group,
        version,
        kind,
        plural,
        namespaced,
        decode=_struct_decoder(PartialObject, kind, api_version),
        metadata_of=_metadata_attribute,
        form="metadata",
    )


def _struct_decoder(cls: type[T], kind: str, api_version: str) -> Callable[[bytes | memoryview], T]:
    """Decode, then share what thousands of objects have in common.

    managedFields are the largest and least read part of an object and are dropped:
    an update that does not mention them leaves them as they are. The objects are
    ours alone until this returns, which is why frozen attributes may be set here.
    """
    intern = sys.intern

    def decode(data: bytes | memoryview) -> T:
        obj: Any = codec.decode(cls, data)
        force_setattr(obj, "kind", kind)
        force_setattr(obj, "api_version", api_version)
        metadata = obj.metadata
        force_setattr(metadata, "namespace", intern(metadata.namespace))
        if metadata.managed_fields:
            force_setattr(metadata, "managed_fields", ())
        decoded: T = obj
        return decoded

    return decode


def _metadata_attribute(obj: Any) -> ObjectMeta:
    metadata: ObjectMeta = obj.metadata
    return metadata


def _decode_dict(data: bytes | memoryview) -> dict[str, Any]:
    value = msgspec.json.decode(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _metadata_of_dict(obj: Mapping[str, Any]) -> ObjectMeta:
    return codec.from_dict(ObjectMeta, obj.get("metadata") or {})
