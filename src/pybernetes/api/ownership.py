"""Owner references: who controls an object, and how an owner says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pybernetes.api.types.meta_v1 import OwnerReference

if TYPE_CHECKING:
    from pybernetes.api.types.meta_v1 import ObjectMeta


class _HasMetadata(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


class _Owner(_HasMetadata, Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def api_version(self) -> str: ...


def controller_of(obj: _HasMetadata) -> OwnerReference | None:
    """The one reference that says it controls the object."""
    for reference in obj.metadata.owner_references:
        if reference.controller:
            return reference
    return None


def is_controlled_by(obj: _HasMetadata, owner: _HasMetadata) -> bool:
    """By uid: an owner of the same name that was made anew is another one."""
    reference = controller_of(obj)
    return reference is not None and reference.uid == owner.metadata.uid


def owner_reference(
    owner: _Owner, *, controller: bool = True, block_owner_deletion: bool = True
) -> OwnerReference:
    """What a dependent of `owner` carries."""
    return OwnerReference(
        api_version=owner.api_version,
        kind=owner.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=controller or None,
        block_owner_deletion=block_owner_deletion or None,
    )
