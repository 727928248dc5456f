"""storage.k8s.io: classes of volumes, and what CSI drivers say about themselves and nodes.

(The module is not called `storage`: that is the package that keeps objects.)
What a class says is said once: pods rely on volumes made by it, so nearly nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.storage_v1 import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    StorageClass,
    VolumeAttachment,
    VolumeAttributesClass,
)
from pybernetes.api.validation import (
    validate_immutable,
    validate_label_name,
    validate_label_selector,
    validate_non_negative_quantity,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_subdomain_errors, qualified_name_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pybernetes.api.types.core_v1 import TopologySelectorTerm
    from pybernetes.api.types.storage_v1 import CSINodeDriver, TokenRequest, VolumeError

GROUP = "storage.k8s.io"

DEFAULT_CLASS_ANNOTATION = "storageclass.kubernetes.io/is-default-class"
_BETA_DEFAULT_CLASS_ANNOTATION = "storageclass.beta.kubernetes.io/is-default-class"

_MAX_DRIVER_NAME = 63
_MAX_PARAMETERS, _MAX_PARAMETER_BYTES = 512, 256 * 1024
_MAX_NODE_ID = 192
_MAX_ERROR_MESSAGE = 1024
_SHORTEST_TOKEN_SECONDS = 600
_SHORTEST_UPDATE_SECONDS = 10


def validate_driver_name(name: str, path: Path) -> Iterator[FieldError]:
    if not name:
        yield path.required()
    if len(name) > _MAX_DRIVER_NAME:
        yield path.too_long(_MAX_DRIVER_NAME)
    for message in dns_subdomain_errors(name.lower()):
        yield path.invalid(name, message)


def _validate_parameters(parameters: Mapping[str, str], path: Path) -> Iterator[FieldError]:
    if len(parameters) > _MAX_PARAMETERS:
        yield path.too_long(_MAX_PARAMETERS)
        return
    if "" in parameters:
        yield path.invalid("", "field can not be empty.")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in parameters.items())
    if size > _MAX_PARAMETER_BYTES:
        yield path.too_long(_MAX_PARAMETER_BYTES)


# --- storage classes ------------------------------------------------------------------------------


def default_class(new: StorageClass) -> StorageClass:
    if new.reclaim_policy and new.volume_binding_mode:
        return new
    return replace(
        new,
        reclaim_policy=new.reclaim_policy or "Delete",
        volume_binding_mode=new.volume_binding_mode or "Immediate",
    )


def validate_class(new: StorageClass, old: StorageClass | None) -> Iterator[FieldError]:
    modes = ("Immediate", "WaitForFirstConsumer")
    if not new.provisioner:
        yield Path("provisioner").required()
    else:
        for message in qualified_name_errors(new.provisioner.lower()):
            yield Path("provisioner").invalid(new.provisioner, message)
    yield from _validate_parameters(new.parameters, Path("parameters"))
    if new.reclaim_policy and new.reclaim_policy not in ("Delete", "Retain"):
        yield Path("reclaimPolicy").not_supported(new.reclaim_policy, ["Delete", "Retain"])
    yield from validate_one_of(new.volume_binding_mode, modes, Path("volumeBindingMode"))
    yield from _validate_topologies(new.allowed_topologies, Path("allowedTopologies"))
    if old is None:
        return
    for name, is_other in (
        ("parameters", new.parameters != old.parameters),
        ("provisioner", new.provisioner != old.provisioner),
        ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
    ):
        if is_other:
            yield Path(name).forbidden(f"updates to {name} are forbidden.")
    yield from validate_immutable(
        new.volume_binding_mode, old.volume_binding_mode, Path("volumeBindingMode")
    )


def _validate_topologies(terms: Sequence[TopologySelectorTerm], path: Path) -> Iterator[FieldError]:
    said: list[object] = []
    for index, term in enumerate(terms):
        here = path[index].matchLabelExpressions
        keys: set[str] = set()
        for number, part in enumerate(term.match_label_expressions):
            if not part.values:
                yield here[number].child("values").required()
            for place, value in enumerate(part.values):
                if value in part.values[:place]:
                    yield here[number].child("values")[place].duplicate(value)
            yield from validate_label_name(part.key, here[number].child("key"))
            if part.key in keys:
                yield here[number].child("key").duplicate(part.key)
            keys.add(part.key)
        meaning = {part.key: frozenset(part.values) for part in term.match_label_expressions}
        if meaning in said:
            yield here.duplicate("")
        said.append(meaning)


def is_default_class(class_: StorageClass) -> bool:
    annotations = class_.metadata.annotations
    return "true" in (
        annotations.get(DEFAULT_CLASS_ANNOTATION),
        annotations.get(_BETA_DEFAULT_CLASS_ANNOTATION),
    )


def _class_name(class_: StorageClass) -> str:
    name = class_.metadata.name
    return f"{name} (default)" if is_default_class(class_) else name


STORAGE_CLASSES = Resource(
    group=GROUP,
    version="v1",
    kind=StorageClass,
    plural="storageclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_class, validate=validate_class, generation_follows=()),
    name_column=False,
    columns=(
        Column("Name", _class_name, format="name"),
        Column("Provisioner", lambda c: c.provisioner),
        Column("ReclaimPolicy", lambda c: c.reclaim_policy),
        Column("VolumeBindingMode", lambda c: c.volume_binding_mode),
        Column("AllowVolumeExpansion", lambda c: bool(c.allow_volume_expansion)),
        AGE,
    ),
)


# --- attributes classes ---------------------------------------------------------------------------


def validate_attributes_class(
    new: VolumeAttributesClass, old: VolumeAttributesClass | None
) -> Iterator[FieldError]:
    yield from validate_driver_name(new.driver_name, Path("driverName"))
    if not new.parameters:
        yield Path("parameters").required("must contain at least one key/value pair")
    yield from _validate_parameters(new.parameters, Path("parameters"))
    if old is not None:
        yield from validate_immutable(new.driver_name, old.driver_name, Path("driverName"))
        yield from validate_immutable(new.parameters, old.parameters, Path("parameters"))


VOLUME_ATTRIBUTES_CLASSES = Resource(
    group=GROUP,
    version="v1",
    kind=VolumeAttributesClass,
    plural="volumeattributesclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_attributes_class, generation_follows=()),
    columns=(Column("DriverName", lambda c: c.driver_name), AGE),
)


# --- attachments ----------------------------------------------------------------------------------


def validate_attachment(
    new: VolumeAttachment, old: VolumeAttachment | None
) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if old is not None:
        yield from validate_immutable(spec, old.spec, path)
        return
    yield from validate_driver_name(spec.attacher, path.attacher)
    name, inline = spec.source.persistent_volume_name, spec.source.inline_volume_spec
    text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if not name and inline is None:
        yield path.source.required(text)
    elif name and inline is not None:
        yield path.source.forbidden(text)
    if name:
        yield from validate_with(dns_subdomain_errors, name, path.source.persistentVolumeName)
    yield from validate_with(dns_subdomain_errors, spec.node_name, path.nodeName)


def validate_attachment_status(
    new: VolumeAttachment, old: VolumeAttachment | None
) -> Iterator[FieldError]:
    status, path = new.status, Path("status")
    yield from _validate_parameters(status.attachment_metadata, path.attachmentMetadata)
    yield from _validate_error(status.attach_error, path.attachError)
    yield from _validate_error(status.detach_error, path.detachError)


def _validate_error(error: VolumeError | None, path: Path) -> Iterator[FieldError]:
    if error is None:
        return
    if error.time is None:
        yield path.time.required()
    if len(error.message) > _MAX_ERROR_MESSAGE:
        yield path.message.too_long(_MAX_ERROR_MESSAGE)


VOLUME_ATTACHMENTS = Resource(
    group=GROUP,
    version="v1",
    kind=VolumeAttachment,
    plural="volumeattachments",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_attachment, generation_follows=()),
    subresources=(Status(validate=validate_attachment_status),),
    columns=(
        Column("Attacher", lambda a: a.spec.attacher, format="name"),
        Column("PV", lambda a: a.spec.source.persistent_volume_name),
        Column("Node", lambda a: a.spec.node_name),
        Column("Attached", lambda a: a.status.attached, type="boolean"),
        AGE,
    ),
)


# --- drivers --------------------------------------------------------------------------------------


def default_driver(new: CSIDriver) -> CSIDriver:
    spec = new.spec
    spec = replace(
        spec,
        attach_required=spec.attach_required is not False,
        pod_info_on_mount=bool(spec.pod_info_on_mount),
        storage_capacity=bool(spec.storage_capacity),
        fs_group_policy=spec.fs_group_policy or "ReadWriteOnceWithFSType",
        volume_lifecycle_modes=spec.volume_lifecycle_modes or ("Persistent",),
        requires_republish=bool(spec.requires_republish),
        se_linux_mount=bool(spec.se_linux_mount),
    )
    return new if spec == new.spec else replace(new, spec=spec)


def validate_driver(new: CSIDriver, old: CSIDriver | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from validate_driver_name(new.metadata.name, Path("name"))
    for name, value in (
        ("attachRequired", spec.attach_required),
        ("podInfoOnMount", spec.pod_info_on_mount),
        ("storageCapacity", spec.storage_capacity),
    ):
        if value is None:
            yield path.child(name).required()
    policies = ["ReadWriteOnceWithFSType", "None", "File"]
    if spec.fs_group_policy and spec.fs_group_policy not in policies:
        yield path.fsGroupPolicy.not_supported(spec.fs_group_policy, policies)
    for mode in spec.volume_lifecycle_modes:
        if mode not in ("Persistent", "Ephemeral"):
            yield path.volumeLifecycleModes.not_supported(mode, ["Ephemeral", "Persistent"])
    yield from _validate_tokens(spec.token_requests, path.tokenRequests)
    period = spec.node_allocatable_update_period_seconds
    if period is not None and period < _SHORTEST_UPDATE_SECONDS:
        yield path.nodeAllocatableUpdatePeriodSeconds.invalid(
            period, f"must be greater than or equal to {_SHORTEST_UPDATE_SECONDS} seconds"
        )
    if old is not None:
        yield from validate_immutable(
            spec.attach_required, old.spec.attach_required, path.attachedRequired
        )
        yield from validate_immutable(
            spec.volume_lifecycle_modes, old.spec.volume_lifecycle_modes, path.volumeLifecycleModes
        )


def _validate_tokens(tokens: Sequence[TokenRequest], path: Path) -> Iterator[FieldError]:
    seen: set[str] = set()
    for index, token in enumerate(tokens):
        here = path[index]
        if token.audience in seen:
            yield here.audience.duplicate(token.audience)
        seen.add(token.audience)
        seconds = token.expiration_seconds
        if seconds is not None and seconds < _SHORTEST_TOKEN_SECONDS:
            yield here.expirationSeconds.invalid(
                seconds, "may not specify a duration less than 10 minutes"
            )
        if seconds is not None and seconds > 1 << 32:
            yield here.expirationSeconds.invalid(
                seconds, "may not specify a duration larger than 2^32 seconds"
            )


def _audiences(driver: CSIDriver) -> str:
    return ",".join(token.audience for token in driver.spec.token_requests) or "<unset>"


CSI_DRIVERS = Resource(
    group=GROUP,
    version="v1",
    kind=CSIDriver,
    plural="csidrivers",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_driver, validate=validate_driver),
    columns=(
        Column("AttachRequired", lambda d: d.spec.attach_required, type="boolean"),
        Column("PodInfoOnMount", lambda d: d.spec.pod_info_on_mount, type="boolean"),
        Column("StorageCapacity", lambda d: d.spec.storage_capacity, type="boolean"),
        Column("TokenRequests", _audiences),
        Column("RequiresRepublish", lambda d: d.spec.requires_republish, type="boolean"),
        Column("Modes", lambda d: ",".join(d.spec.volume_lifecycle_modes)),
        AGE,
    ),
)


def validate_node(new: CSINode, old: CSINode | None) -> Iterator[FieldError]:
    path = Path("spec").drivers
    seen: set[str] = set()
    for index, driver in enumerate(new.spec.drivers):
        here = path[index]
        yield from _validate_node_driver(driver, here)
        if driver.name in seen:
            yield here.name.duplicate(driver.name)
        seen.add(driver.name)
    if old is None:
        return
    before = {driver.name: driver for driver in old.spec.drivers}
    for driver in new.spec.drivers:
        # How many volumes still fit may change; who the node is for the driver may not.
        known = before.get(driver.name)
        if known is not None and replace(driver, allocatable=known.allocatable) != known:
            yield Path("CSINodeSpec").immutable(driver)


def _validate_node_driver(driver: CSINodeDriver, path: Path) -> Iterator[FieldError]:
    yield from validate_driver_name(driver.name, path.name)
    if not driver.node_id:
        yield path.nodeID.required()
    if len(driver.node_id) > _MAX_NODE_ID:
        yield path.nodeID.invalid(driver.node_id, f"must be {_MAX_NODE_ID} characters or less")
    count = driver.allocatable.count if driver.allocatable is not None else None
    if count is not None and count < 0:
        yield path.allocatable.count.invalid(count, "must be greater than or equal to 0")
    seen: set[str] = set()
    for key in driver.topology_keys:
        if not key or key in seen:
            yield path.topologyKeys.duplicate(key) if key else path.topologyKeys.required()
        seen.add(key)
        if key:
            yield from validate_with(qualified_name_errors, key, path.topologyKeys)


CSI_NODES = Resource(
    group=GROUP,
    version="v1",
    kind=CSINode,
    plural="csinodes",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_node, generation_follows=()),
    subresources=(Status(),),
    columns=(Column("Drivers", lambda n: len(n.spec.drivers), type="integer"), AGE),
)


def validate_capacity(
    new: CSIStorageCapacity, old: CSIStorageCapacity | None
) -> Iterator[FieldError]:
    yield from validate_label_selector(new.node_topology, Path("nodeTopology"))
    yield from validate_with(dns_subdomain_errors, new.storage_class_name, Path("storageClassName"))
    if new.capacity:
        yield from validate_non_negative_quantity(new.capacity, Path("capacity"))
    if new.maximum_volume_size:
        yield from validate_non_negative_quantity(
            new.maximum_volume_size, Path("maximumVolumeSize")
        )
    if old is not None:
        yield from validate_immutable(new.node_topology, old.node_topology, Path("nodeTopology"))
        yield from validate_immutable(
            new.storage_class_name, old.storage_class_name, Path("storageClassName")
        )


CSI_STORAGE_CAPACITIES = Resource(
    group=GROUP,
    version="v1",
    kind=CSIStorageCapacity,
    plural="csistoragecapacities",
    scope=Scope.NAMESPACED,
    strategy=Strategy(validate=validate_capacity, generation_follows=()),
    columns=(
        Column("StorageClassName", lambda c: c.storage_class_name),
        Column("Capacity", lambda c: c.capacity or "<unset>"),
    ),
)

STORAGE_RESOURCES: tuple[Resource[Any], ...] = (
    CSI_DRIVERS,
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    VOLUME_ATTRIBUTES_CLASSES,
)
