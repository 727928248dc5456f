"""Revisions of pod templates, kept as ControllerRevision objects: what stateful and daemon sets share.

A revision holds the template as a patch of its owner, so that `kubectl rollout undo` can apply it as
it is. The revision with the owner's present template is the newest: it has the highest number, also
when an old template comes back. Revisions in use are never removed; of the others as many are kept
as `revisionHistoryLimit` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pybernetes.api import codec
from pybernetes.api.ownership import owner_reference
from pybernetes.api.types.apps_v1 import ControllerRevision
from pybernetes.api.types.core_v1 import PodTemplateSpec
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import AlreadyExists, NotFound
from pybernetes.apimachinery.names import safe_suffix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pybernetes.client import Client

# Which revision a pod was made from.
REVISION_LABEL = "controller-revision-hash"
# More collisions than this of one template are a mistake of ours.
MOST_COLLISIONS = 16


class _Spec(Protocol):
    @property
    def template(self) -> PodTemplateSpec: ...


class Revisioned(Protocol):
    """An owner of pods whose templates are kept."""

    @property
    def kind(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def metadata(self) -> ObjectMeta: ...
    @property
    def spec(self) -> _Spec: ...


@dataclass(frozen=True, slots=True)
class History:
    """The revisions of an owner, told apart."""

    present: ControllerRevision
    # Oldest first.
    others: tuple[ControllerRevision, ...]

    def named(self, name: str) -> ControllerRevision | None:
        return next((r for r in (self.present, *self.others) if r.metadata.name == name), None)


def template_hash(template: PodTemplateSpec, collisions: int) -> str:
    """A short name for a template; `collisions` makes another one of the same template.

    FNV-1a over the encoded template, as upstream; the encoding differs, so the names do too.
    """
    value = 0x811C9DC5
    for byte in codec.encode((template, collisions)):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return safe_suffix(str(value))


def data_of(template: PodTemplateSpec) -> dict[str, Any]:
    """The patch that gives an owner this template back."""
    return {"spec": {"template": {**codec.to_dict(template), "$patch": "replace"}}}


def template_of(revision: ControllerRevision) -> PodTemplateSpec:
    """Raises ValueError for a revision that we did not write."""
    try:
        found = dict(revision.data["spec"]["template"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"revision {revision.metadata.name} holds no pod template") from error
    found.pop("$patch", None)
    return codec.from_dict(PodTemplateSpec, found)


def by_number(revisions: Iterable[ControllerRevision]) -> list[ControllerRevision]:
    return sorted(revisions, key=lambda r: (r.revision, _created(r), r.metadata.name))


def find_present(
    template: PodTemplateSpec, revisions: Iterable[ControllerRevision]
) -> ControllerRevision | None:
    """The revision with this template; of several the newest."""
    equal = [r for r in revisions if _has_template(r, template)]
    return by_number(equal)[-1] if equal else None


def superfluous(
    history: History, in_use: Collection[str], limit: int | None
) -> Sequence[ControllerRevision]:
    """Old revisions that nobody uses and the history need not keep, oldest first."""
    if limit is None:
        return ()
    unused = [r for r in history.others if r.metadata.name not in in_use]
    return unused[: max(len(unused) - limit, 0)]


async def bring_up_to_date(
    client: Client,
    owner: Revisioned,
    known: Sequence[ControllerRevision],
    *,
    collisions: int,
    labels: Mapping[str, str],
    hash_label: str,
) -> tuple[History, int]:
    """The history with the present template as its newest revision, and the collision count.

    `labels` are those of a new revision; `hash_label` is the one that carries the template's hash.
    """
    template = owner.spec.template
    ordered = by_number(known)
    number = (ordered[-1].revision if ordered else 0) + 1
    present = find_present(template, ordered)
    if present is None:
        present, collisions = await _create(
            client, owner, number, collisions=collisions, labels=labels, hash_label=hash_label
        )
    elif present is not ordered[-1] and present.revision != number:
        present = await client.update(msgspec.structs.replace(present, revision=number))
    others = tuple(r for r in ordered if r.metadata.uid != present.metadata.uid)
    return History(present, others), collisions


async def clean_up(client: Client, revisions: Iterable[ControllerRevision]) -> None:
    for revision in revisions:
        try:
            await client.delete(revision)
        except NotFound:
            continue


async def _create(
    client: Client,
    owner: Revisioned,
    number: int,
    *,
    collisions: int,
    labels: Mapping[str, str],
    hash_label: str,
) -> tuple[ControllerRevision, int]:
    """Make the revision, under another name if a different template has taken the first one."""
    for _ in range(MOST_COLLISIONS):
        wanted = _new_revision(owner, number, collisions, labels, hash_label)
        try:
            return await client.create(wanted), collisions
        except AlreadyExists:
            name, namespace = wanted.metadata.name, wanted.metadata.namespace
            there = await client.get_or_none(ControllerRevision, name, namespace)
            if there is not None and _is_ours(there, owner):
                return there, collisions
            collisions += 1
    raise AlreadyExists("controllerrevisions", f"{owner.metadata.name}", group="apps")


def _new_revision(
    owner: Revisioned,
    number: int,
    collisions: int,
    labels: Mapping[str, str],
    hash_label: str,
) -> ControllerRevision:
    template = owner.spec.template
    suffix = template_hash(template, collisions)
    return ControllerRevision(
        metadata=ObjectMeta(
            name=f"{owner.metadata.name}-{suffix}",
            namespace=owner.metadata.namespace,
            labels={**labels, hash_label: suffix},
            annotations=dict(owner.metadata.annotations),
            owner_references=(owner_reference(owner),),
        ),
        data=data_of(template),
        revision=number,
    )


def _is_ours(revision: ControllerRevision, owner: Revisioned) -> bool:
    uids = {r.uid for r in revision.metadata.owner_references if r.controller}
    return owner.metadata.uid in uids and _has_template(revision, owner.spec.template)


def _has_template(revision: ControllerRevision, template: PodTemplateSpec) -> bool:
    try:
        return template_of(revision) == template
    except ValueError:
        return False


def _created(revision: ControllerRevision) -> float:
    created = revision.metadata.creation_timestamp
    return created.timestamp() if created else 0.0
