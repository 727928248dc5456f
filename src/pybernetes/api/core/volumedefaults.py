"""What the API fills into volumes of pods and into persistent volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.image import default_pull_policy
from pybernetes.api.types.core_v1 import (
    EmptyDirVolumeSource,
    EphemeralVolumeSource,
    HostPathVolumeSource,
    PersistentVolumeClaimSpec,
    ProjectedVolumeSource,
    TypedLocalObjectReference,
    TypedObjectReference,
    Volume,
    VolumeProjection,
)
from pybernetes.api.validation import changed_each, rounded_amounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.api.types.core_v1 import DownwardAPIVolumeFile

DEFAULT_MODE = 0o644
TOKEN_SECONDS = 3600

# What a volume or persistent volume can be: every field of Volume but its name.
VOLUME_SOURCES = tuple(name for name in Volume.__struct_fields__ if name != "name")


def default_volume(volume: Volume) -> Volume:
    for name in VOLUME_SOURCES:
        source = getattr(volume, name)
        if source is not None:
            break
    else:
        return replace(volume, empty_dir=EmptyDirVolumeSource())
    changes = {}
    # Nearly always there is one source; validation refuses more, after they are whole.
    for name, change in _SOURCE_DEFAULTS.items():
        source = getattr(volume, name)
        if source is not None and (changed := change(source)) is not source:
            changes[name] = changed
    return replace(volume, **changes) if changes else volume


def _with_mode(source: Any) -> Any:
    return source if source.default_mode is not None else replace(source, default_mode=DEFAULT_MODE)


def _downward_file(file: DownwardAPIVolumeFile) -> DownwardAPIVolumeFile:
    changes: dict[str, Any] = {}
    if file.field_ref is not None and not file.field_ref.api_version:
        changes["field_ref"] = replace(file.field_ref, api_version="v1")
    if file.resource_field_ref is not None and not file.resource_field_ref.divisor:
        changes["resource_field_ref"] = replace(file.resource_field_ref, divisor="0")
    return replace(file, **changes) if changes else file


def _downward_items(source: Any) -> Any:
    items = changed_each(source.items, _downward_file)
    return source if items is source.items else replace(source, items=items)


def _projection(projection: VolumeProjection) -> VolumeProjection:
    token = projection.service_account_token
    if token is not None and token.expiration_seconds is None:
        token = replace(token, expiration_seconds=TOKEN_SECONDS)
        return replace(projection, service_account_token=token)
    if projection.downward_api is not None:
        downward = _downward_items(projection.downward_api)
        if downward is not projection.downward_api:
            return replace(projection, downward_api=downward)
    return projection


def _projected(source: ProjectedVolumeSource) -> ProjectedVolumeSource:
    sources = changed_each(source.sources, _projection)
    if sources is not source.sources:
        source = replace(source, sources=sources)
    whole: ProjectedVolumeSource = _with_mode(source)
    return whole


def default_host_path(source: HostPathVolumeSource) -> HostPathVolumeSource:
    return source if source.type is not None else replace(source, type="")


def default_claim_spec(spec: PersistentVolumeClaimSpec) -> PersistentVolumeClaimSpec:
    changes: dict[str, Any] = {}
    if not spec.volume_mode:
        changes["volume_mode"] = "Filesystem"
    resources = spec.resources
    limits, requests = rounded_amounts(resources.limits), rounded_amounts(resources.requests)
    if limits is not resources.limits or requests is not resources.requests:
        changes["resources"] = replace(resources, limits=limits, requests=requests)
    # A source of the same namespace is written in both of its places.
    if spec.data_source is not None and spec.data_source_ref is None:
        changes["data_source_ref"] = TypedObjectReference(
            api_group=spec.data_source.api_group,
            kind=spec.data_source.kind,
            name=spec.data_source.name,
        )
    reference = spec.data_source_ref
    if spec.data_source is None and reference is not None and not reference.namespace:
        changes["data_source"] = TypedLocalObjectReference(
            api_group=reference.api_group, kind=reference.kind, name=reference.name
        )
    return replace(spec, **changes) if changes else spec


def _ephemeral(source: EphemeralVolumeSource) -> EphemeralVolumeSource:
    template = source.volume_claim_template
    if template is None:
        return source
    spec = default_claim_spec(template.spec)
    if spec is template.spec:
        return source
    return replace(source, volume_claim_template=replace(template, spec=spec))


def _image(source: Any) -> Any:
    if source.pull_policy:
        return source
    return replace(source, pull_policy=default_pull_policy(source.reference))


def filler(**values: object) -> Callable[[Any], Any]:
    """A default that sets these fields where they are empty or absent."""

    def fill(source: Any) -> Any:
        missing = {
            name: value for name, value in values.items() if getattr(source, name) in ("", None)
        }
        return replace(source, **missing) if missing else source

    return fill


default_iscsi = filler(iscsi_interface="default")
default_rbd = filler(pool="rbd", user="admin", keyring="/etc/ceph/keyring")
default_azure_disk = filler(
    caching_mode="ReadWrite", fs_type="ext4", read_only=False, kind="Shared"
)
default_scale_io = filler(storage_mode="ThinProvisioned", fs_type="xfs")

# What a volume and a persistent volume have in common.
SHARED_SOURCE_DEFAULTS: dict[str, Callable[[Any], Any]] = {
    "host_path": default_host_path,
    "iscsi": default_iscsi,
    "rbd": default_rbd,
    "azure_disk": default_azure_disk,
    "scale_io": default_scale_io,
}

_SOURCE_DEFAULTS: dict[str, Callable[[Any], Any]] = {
    **SHARED_SOURCE_DEFAULTS,
    "secret": _with_mode,
    "config_map": _with_mode,
    "downward_api": lambda source: _with_mode(_downward_items(source)),
    "projected": _projected,
    "ephemeral": _ephemeral,
    "image": _image,
}
