"""Metadata: what the server fills in, what it checks, and when a generation rises. Pure.

The same for every kind; what a kind says for itself (the form of its names, what its
generation follows) comes from its strategy. Sentences are upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.types._struct import wire_name
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    dns_label_errors,
    label_value_errors,
    qualified_name_errors,
)
from pybernetes.apiserver.customresources.object import CustomObject

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.api.types.meta_v1 import ObjectMeta, OwnerReference

METADATA = Path("metadata")
ANNOTATIONS_LIMIT = 256 * 1024

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
# Finalizers that need no domain.
_PLAIN_FINALIZERS = frozenset({ORPHAN, FOREGROUND, "kubernetes"})

# Kinds that cannot own anything, because they are gone too soon.
_NO_OWNERS = frozenset({("v1", "Event"), ("events.k8s.io/v1", "Event")})

NameErrors = Callable[[str], Sequence[str]]


# -- filling in


def begun(metadata: ObjectMeta, *, uid: str, now: datetime, generation: int) -> ObjectMeta:
    """Metadata of an object at its creation: what users cannot choose is set or dropped."""
    return replace(
        metadata,
        uid=uid,
        creation_timestamp=now,
        generation=generation,
        resource_version="",
        self_link="",
        deletion_timestamp=None,
        deletion_grace_period_seconds=None,
    )


def kept(new: ObjectMeta, old: ObjectMeta) -> ObjectMeta:
    """Metadata of an update: what it left out, and what no update changes, is the old one's."""
    return replace(
        new,
        uid=new.uid or old.uid,
        self_link="",
        generation=old.generation,
        creation_timestamp=old.creation_timestamp,
        deletion_timestamp=old.deletion_timestamp or new.deletion_timestamp,
        deletion_grace_period_seconds=(
            new.deletion_grace_period_seconds
            if new.deletion_grace_period_seconds is not None
            else old.deletion_grace_period_seconds
        ),
    )


def part_of(obj: Any, wire_path: str) -> Any:
    """The value at a wire path (`spec`, `metadata.annotations`) of a typed object or a dict."""
    for segment in wire_path.split("."):
        if obj is None:
            return None
        obj = obj.get(segment) if isinstance(obj, Mapping) else _attribute(obj, segment)
    return obj


def _attribute(obj: Any, segment: str) -> Any:
    for name in type(obj).__struct_fields__:
        if wire_name(name) == segment:
            return getattr(obj, name)
    return obj.get(segment) if isinstance(obj, CustomObject) else None


def rises(new: Any, old: Any, follows: Sequence[str]) -> bool:
    """Whether an update changes what the generation of the kind follows."""
    return any(part_of(new, path) != part_of(old, path) for path in follows)


# -- checking


def metadata_errors(
    metadata: ObjectMeta, *, is_namespaced: bool, name_errors: NameErrors
) -> Iterator[FieldError]:
    """What is wrong with the metadata of an object, new or old."""
    if metadata.generate_name:
        for message in _generate_name_errors(metadata.generate_name, name_errors):
            yield METADATA.generateName.invalid(metadata.generate_name, message)
    if not metadata.name:
        yield METADATA.name.required("name or generateName is required")
    else:
        for message in name_errors(metadata.name):
            yield METADATA.name.invalid(metadata.name, message)
    if not is_namespaced:
        if metadata.namespace:
            yield METADATA.namespace.forbidden("not allowed on this type")
    elif not metadata.namespace:
        yield METADATA.namespace.required()
    else:
        for message in dns_label_errors(metadata.namespace):
            yield METADATA.namespace.invalid(metadata.namespace, message)
    if metadata.generation < 0:
        yield METADATA.generation.invalid(metadata.generation, "must be greater than or equal to 0")
    yield from label_errors(metadata.labels, METADATA.labels)
    yield from _annotation_errors(metadata.annotations)
    yield from _owner_errors(metadata.owner_references)
    yield from _finalizer_errors(metadata.finalizers)


def _generate_name_errors(prefix: str, name_errors: NameErrors) -> Sequence[str]:
    # A prefix may end in a dash; anything that would be right before the suffix will do.
    return name_errors(prefix[:-1] + "a" if prefix.endswith("-") and len(prefix) > 1 else prefix)


def label_errors(labels: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    for key, value in labels.items():
        for message in _key_errors(key):
            yield path.invalid(key, message)
        for message in _value_errors(value):
            yield path.invalid(value, message)


# Labels repeat endlessly; their judgement is remembered, within bounds.
_good_keys: set[str] = set()
_good_values: set[str] = set()
_REMEMBERED = 4096


def _key_errors(key: str) -> Sequence[str]:
    if key in _good_keys:
        return ()
    errors = qualified_name_errors(key)
    if not errors and len(_good_keys) < _REMEMBERED:
        _good_keys.add(key)
    return errors


def _value_errors(value: str) -> Sequence[str]:
    if value in _good_values:
        return ()
    errors = label_value_errors(value)
    if not errors and len(_good_values) < _REMEMBERED:
        _good_values.add(value)
    return errors


def _annotation_errors(annotations: Mapping[str, str]) -> Iterator[FieldError]:
    size = 0
    for key, value in annotations.items():
        # Keys of annotations may have capital letters in their domain.
        for message in _key_errors(key.lower()):
            yield METADATA.annotations.invalid(key, message)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        yield METADATA.annotations.too_long(ANNOTATIONS_LIMIT)


def _owner_errors(owners: Sequence[OwnerReference]) -> Iterator[FieldError]:
    controller = ""
    for index, owner in enumerate(owners):
        path = METADATA.ownerReferences[index]
        if not owner.api_version:
            yield path.apiVersion.invalid(owner.api_version, "version must not be empty")
        if not owner.kind:
            yield path.kind.invalid(owner.kind, "must not be empty")
        if not owner.name:
            yield path.name.invalid(owner.name, "must not be empty")
        if not owner.uid:
            yield path.uid.invalid(owner.uid, "must not be empty")
        if (owner.api_version, owner.kind) in _NO_OWNERS:
            what = f"{owner.api_version}, Kind={owner.kind}"
            yield path.invalid(owner, f"{what} is disallowed from being an owner")
        if owner.controller:
            if controller:
                yield METADATA.ownerReferences.invalid(
                    owners,
                    "Only one reference can have Controller set to true. Found "
                    f'"true" in references for {controller} and {owner.name}',
                )
            controller = owner.name


def _finalizer_errors(finalizers: Sequence[str]) -> Iterator[FieldError]:
    path = METADATA.finalizers
    for index, finalizer in enumerate(finalizers):
        for message in _key_errors(finalizer):
            yield path[index].invalid(finalizer, message)
        if "/" not in finalizer and finalizer not in _PLAIN_FINALIZERS:
            yield path[index].invalid(
                finalizer, "name is neither a standard finalizer name nor is it fully qualified"
            )
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        yield path.invalid(finalizers, "finalizer orphan and foregroundDeletion cannot be both set")


_IMMUTABLE = (
    "name",
    "namespace",
    "uid",
    "creation_timestamp",
    "deletion_timestamp",
    "deletion_grace_period_seconds",
)


def metadata_update_errors(new: ObjectMeta, old: ObjectMeta) -> Iterator[FieldError]:
    """What is wrong with a change of metadata."""
    for name in _IMMUTABLE:
        value = getattr(new, name)
        if value != getattr(old, name):
            yield getattr(METADATA, wire_name(name)).immutable(value)
    if old.deletion_timestamp is not None:
        added = sorted(set(new.finalizers) - set(old.finalizers))
        if added:
            texts = " ".join(f'"{name}"' for name in added)
            yield METADATA.finalizers.forbidden(
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers [{texts}]"
            )
