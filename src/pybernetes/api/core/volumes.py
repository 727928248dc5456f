"""Validation of volumes in pods, and of sources they share with persistent volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pybernetes.api.core.downwardapi import (
    VOLUME_FIELDS,
    validate_field_ref,
    validate_resource_field_ref,
)
from pybernetes.api.core.persistentvolumeclaims import validate_claim_spec
from pybernetes.api.core.volumedefaults import VOLUME_SOURCES
from pybernetes.api.types._struct import wire_name
from pybernetes.api.validation import validate_dns_label, validate_with
from pybernetes.apimachinery.names import dns_subdomain_errors
from pybernetes.apimachinery.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pybernetes.api.types.core_v1 import (
        CSIVolumeSource,
        DownwardAPIVolumeFile,
        EmptyDirVolumeSource,
        EphemeralVolumeSource,
        HostPathVolumeSource,
        ImageVolumeSource,
        KeyToPath,
        NFSVolumeSource,
        PersistentVolumeClaimVolumeSource,
        ProjectedVolumeSource,
        ServiceAccountTokenProjection,
        Volume,
        VolumeProjection,
    )
    from pybernetes.apimachinery.fielderror import FieldError, Path

_WIRE_NAMES = {name: wire_name(name) for name in VOLUME_SOURCES}
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"


def validate_volumes(volumes: Sequence[Volume], pod_name: str, path: Path) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        if not volume.name:
            yield path[index].name.required()
        else:
            yield from validate_dns_label(volume.name, path[index].name)
        if volume.name in names:
            yield path[index].name.duplicate(volume.name)
        names.add(volume.name)
        yield from _validate_source(volume, pod_name, path[index])


def _validate_source(volume: Volume, pod_name: str, path: Path) -> Iterator[FieldError]:
    first = True
    for name in VOLUME_SOURCES:
        source = getattr(volume, name)
        if source is None:
            continue
        here = path.child(_WIRE_NAMES[name])
        if not first:
            yield here.forbidden("may not specify more than 1 volume type")
            continue
        first = False
        validate = _SOURCES.get(name)
        if validate is not None:
            yield from validate(source, here)
        if name == "ephemeral" and pod_name:
            claim = f"{pod_name}-{volume.name}"
            for message in dns_subdomain_errors(claim):
                yield path.name.invalid(volume.name, f'PVC name "{claim}": {message}')
    if first:
        yield path.required("must specify a volume type")


def validate_no_backsteps(value: str, path: Path) -> Iterator[FieldError]:
    if ".." in value.split("/"):
        yield path.invalid(value, "must not contain '..'")


def validate_descending_path(value: str, path: Path) -> Iterator[FieldError]:
    """A path that stays below where it starts."""
    if value.startswith("/"):
        yield path.invalid(value, "must be a relative path")
    yield from validate_no_backsteps(value, path)


def validate_host_path(source: HostPathVolumeSource, path: Path) -> Iterator[FieldError]:
    if not source.path:
        yield path.child("path").required()
    else:
        yield from validate_no_backsteps(source.path, path.child("path"))
    if source.type is not None and source.type not in _HOST_PATH_TYPES:
        yield path.type.not_supported(source.type, _HOST_PATH_TYPES)


def validate_nfs(source: NFSVolumeSource, path: Path) -> Iterator[FieldError]:
    if not source.server:
        yield path.server.required()
    if not source.path:
        yield path.child("path").required()
    elif not source.path.startswith("/"):
        yield path.child("path").invalid(source.path, "must be an absolute path")


def _validate_empty_dir(source: EmptyDirVolumeSource, path: Path) -> Iterator[FieldError]:
    if source.size_limit and parse_quantity(source.size_limit) < 0:
        yield path.sizeLimit.forbidden("SizeLimit field must be a valid resource quantity")


def _validate_mode(mode: int | None, path: Path) -> Iterator[FieldError]:
    if mode is not None and not 0 <= mode <= 0o777:
        yield path.invalid(mode, _BAD_MODE)


def _validate_file_path(value: str, path: Path) -> Iterator[FieldError]:
    """Where a file of a volume goes: not out of it, and not among its own hidden files."""
    yield from validate_descending_path(value, path)
    if value.startswith("..") and not value.startswith("../"):
        yield path.invalid(value, "must not start with '..'")


def _validate_items(items: Sequence[KeyToPath], path: Path) -> Iterator[FieldError]:
    for index, item in enumerate(items):
        here = path[index]
        if not item.key:
            yield here.child("key").required()
        if not item.path:
            yield here.child("path").required()
        else:
            yield from _validate_file_path(item.path, here.child("path"))
        yield from _validate_mode(item.mode, here.mode)


def _validate_secret(source: Any, path: Path) -> Iterator[FieldError]:
    if not source.secret_name:
        yield path.secretName.required()
    yield from _validate_mode(source.default_mode, path.defaultMode)
    yield from _validate_items(source.items, path.child("items"))


def _validate_config_map(source: Any, path: Path) -> Iterator[FieldError]:
    if not source.name:
        yield path.name.required()
    yield from _validate_mode(source.default_mode, path.defaultMode)
    yield from _validate_items(source.items, path.child("items"))


def _validate_claim(source: PersistentVolumeClaimVolumeSource, path: Path) -> Iterator[FieldError]:
    if not source.claim_name:
        yield path.claimName.required()


def _validate_downward_file(file: DownwardAPIVolumeFile, path: Path) -> Iterator[FieldError]:
    if not file.path:
        yield path.child("path").required()
    else:
        yield from _validate_file_path(file.path, path.child("path"))
    if file.field_ref is not None:
        yield from validate_field_ref(file.field_ref, VOLUME_FIELDS, path.fieldRef)
        if file.resource_field_ref is not None:
            yield path.invalid(
                "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
            )
    elif file.resource_field_ref is not None:
        yield from validate_resource_field_ref(
            file.resource_field_ref, path.resourceFieldRef, in_volume=True
        )
    else:
        yield path.required("one of fieldRef and resourceFieldRef is required")
    yield from _validate_mode(file.mode, path.mode)


def _validate_downward_api(source: Any, path: Path) -> Iterator[FieldError]:
    yield from _validate_mode(source.default_mode, path.defaultMode)
    for index, file in enumerate(source.items):
        yield from _validate_downward_file(file, path.child("items")[index])


def _validate_csi(source: CSIVolumeSource, path: Path) -> Iterator[FieldError]:
    yield from validate_driver_name(source.driver, path.driver)
    secret = source.node_publish_secret_ref
    if secret is not None and not secret.name:
        yield path.nodePublishSecretRef.name.required()


def validate_driver_name(driver: str, path: Path) -> Iterator[FieldError]:
    if not driver:
        yield path.required()
        return
    if len(driver) > 63:
        yield path.too_long(63)
    yield from validate_with(lambda name: dns_subdomain_errors(name.lower()), driver, path)


def _validate_ephemeral(source: EphemeralVolumeSource, path: Path) -> Iterator[FieldError]:
    path = path.volumeClaimTemplate
    if source.volume_claim_template is None:
        yield path.required()
    else:
        yield from validate_claim_spec(source.volume_claim_template.spec, path.spec)


def _validate_image(source: ImageVolumeSource, path: Path) -> Iterator[FieldError]:
    if not source.reference:
        yield path.reference.required()
    if source.pull_policy not in ("Always", "IfNotPresent", "Never"):
        yield path.pullPolicy.not_supported(source.pull_policy, ("Always", "IfNotPresent", "Never"))


def _validate_projected(source: ProjectedVolumeSource, path: Path) -> Iterator[FieldError]:
    yield from _validate_mode(source.default_mode, path.defaultMode)
    taken: set[str] = set()
    for index, projection in enumerate(source.sources):
        yield from _validate_projection(projection, taken, path.sources[index])


def _validate_projection(
    projection: VolumeProjection, taken: set[str], path: Path
) -> Iterator[FieldError]:
    sources: tuple[tuple[str, Any], ...] = (
        ("secret", projection.secret),
        ("configMap", projection.config_map),
        ("downwardAPI", projection.downward_api),
        ("serviceAccountToken", projection.service_account_token),
        ("clusterTrustBundle", projection.cluster_trust_bundle),
        ("podCertificate", projection.pod_certificate),
    )
    given = [pair for pair in sources if pair[1] is not None]
    for name, _ in given[1:]:
        yield path.child(name).forbidden("may not specify more than 1 volume type per source")
    if not given:
        return
    name, source = given[0]
    here = path.child(name)
    if name in ("secret", "configMap"):
        if not source.name:
            yield here.name.required()
        yield from _validate_items(source.items, here.child("items"))
        for item in source.items:
            yield from _validate_free(item.path, taken, here)
    elif name == "downwardAPI":
        for index, file in enumerate(source.items):
            yield from _validate_downward_file(file, here.child("items")[index])
            yield from _validate_free(file.path, taken, here)
    elif name == "serviceAccountToken":
        yield from _validate_token(source, here)
        yield from _validate_free(source.path, taken, here)
    elif name == "clusterTrustBundle":
        if bool(source.name) == bool(source.signer_name):
            yield here.required("one of name or signerName is required")
        if not source.path:
            yield here.child("path").required()
        else:
            yield from _validate_file_path(source.path, here.child("path"))
        yield from _validate_free(source.path, taken, here)
    else:
        for value in (
            source.credential_bundle_path,
            source.key_path,
            source.certificate_chain_path,
        ):
            yield from _validate_free(value, taken, here)


def _validate_free(value: str, taken: set[str], path: Path) -> Iterator[FieldError]:
    if value and value in taken:
        yield path.invalid(value, "conflicting duplicate paths")
    taken.add(value)


def _validate_token(source: ServiceAccountTokenProjection, path: Path) -> Iterator[FieldError]:
    seconds = source.expiration_seconds
    if seconds is not None:
        if seconds < 600:
            yield path.expirationSeconds.invalid(
                seconds, "may not specify a duration less than 10 minutes"
            )
        if seconds > 1 << 32:
            yield path.expirationSeconds.invalid(
                seconds, "may not specify a duration larger than 2^32 seconds"
            )
    if not source.path:
        yield path.child("path").required()
    else:
        yield from _validate_file_path(source.path, path.child("path"))


_SOURCES: dict[str, Callable[[Any, Path], Iterator[FieldError]]] = {
    "host_path": validate_host_path,
    "empty_dir": _validate_empty_dir,
    "secret": _validate_secret,
    "config_map": _validate_config_map,
    "persistent_volume_claim": _validate_claim,
    "downward_api": _validate_downward_api,
    "projected": _validate_projected,
    "nfs": validate_nfs,
    "csi": _validate_csi,
    "ephemeral": _validate_ephemeral,
    "image": _validate_image,
}
