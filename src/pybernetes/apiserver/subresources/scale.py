"""The scale subresource: one number of an object, in the shape all of them share.

Reads and writes an autoscaling/v1 Scale; where replicas and selector are in the object,
its entry in the registry says. A write is an update of the object with one field
changed: its generation rises, its own validation runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.resource import Scale as ScalePaths
from pybernetes.api.types._struct import wire_name
from pybernetes.api.types.autoscaling_v1 import Scale, ScaleSpec, ScaleStatus
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import Invalid, NotFound, UnsupportedMediaType
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.selector import selector_of
from pybernetes.apiserver.body import (
    BodyKind,
    check_write_options,
    content_type_of,
    read_body,
    read_object,
    typed_object,
)
from pybernetes.apiserver.customresources.object import CustomObject
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.objectmeta import part_of
from pybernetes.apiserver.respond import object_response
from pybernetes.apiserver.verbs.patch import PATCH_FORMATS, applied, parse_patch
from pybernetes.apiserver.verbs.update import Manner, rewrite
from pybernetes.apiserver.verbs.write import check_named_as_path, with_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.entry import Entry
    from pybernetes.wire.http import Response

SCALE = BodyKind(Scale)

_SCALING = Manner(subresource="scale", admitted=False)
_PATCHING = Manner(subresource="scale", admitted=False, computed=True)


def scale_of(obj: Any, paths: ScalePaths) -> Scale:
    """The Scale that an object is."""
    metadata = obj.metadata
    return Scale(
        metadata=ObjectMeta(
            name=metadata.name,
            namespace=metadata.namespace,
            uid=metadata.uid,
            resource_version=metadata.resource_version,
            creation_timestamp=metadata.creation_timestamp,
        ),
        spec=ScaleSpec(replicas=part_of(obj, paths.replicas) or 0),
        status=ScaleStatus(
            replicas=part_of(obj, paths.status_replicas) or 0,
            selector=selector_text(part_of(obj, paths.selector)),
        ),
    )


def selector_text(selector: Any) -> str:
    if selector is None or isinstance(selector, str):
        return selector or ""
    if isinstance(selector, Mapping) and not ({"matchLabels", "matchExpressions"} & set(selector)):
        return ",".join(f"{key}={selector[key]}" for key in sorted(selector))
    return str(selector_of(selector))


def scaled_to(obj: Any, paths: ScalePaths, replicas: int) -> Any:
    if isinstance(obj, CustomObject):
        return obj.with_at(tuple(paths.replicas.split(".")), replicas)
    return with_part(obj, attribute_path(obj, paths.replicas), replicas)


def attribute_path(obj: Any, wire_path: str) -> str:
    """`spec.minReplicas` as the attributes of a typed object: `spec.min_replicas`."""
    names = []
    for segment in wire_path.split("."):
        name = next(n for n in type(obj).__struct_fields__ if wire_name(n) == segment)
        names.append(name)
        obj = getattr(obj, name)
    return ".".join(names)


def _paths(served: Served) -> ScalePaths:
    paths = served.subresource("scale")
    assert isinstance(paths, ScalePaths)
    return paths


def _answer(call: Call, obj: Any, revision: int, paths: ScalePaths) -> Response:
    scale = scale_of(obj, paths)
    scale = replace(scale, metadata=replace(scale.metadata, resource_version=str(revision)))
    return object_response(call, codec.encode(scale), wanted=call.wanted)


async def get_scale(backend: Backend, call: Call, served: Served) -> Response:
    info = call.info
    entry = served.cache.get(served.key(info.namespace, info.name))
    if entry is None:
        raise NotFound(served.plural, info.name, group=served.group)
    return _answer(call, served.decode(entry), entry.revision, _paths(served))


async def update_scale(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "UpdateOptions")
    scale = await read_object(call, SCALE)
    check_named_as_path(call, served, scale.metadata)
    return await _write(backend, call, served, lambda present: scale)


async def patch_scale(backend: Backend, call: Call, served: Served) -> Response:
    check_write_options(call.query, "PatchOptions")
    apply = PATCH_FORMATS.get(content_type_of(call))
    if apply is None:
        raise UnsupportedMediaType(PATCH_FORMATS)
    operations = parse_patch(call, await read_body(call))

    def patched(present: Scale) -> Any:
        return typed_object(
            call, SCALE, applied(apply, codec.to_dict(present), operations, SCALE.schema)
        )

    return await _write(backend, call, served, patched)


async def _write(
    backend: Backend, call: Call, served: Served, wished: Callable[[Scale], Any]
) -> Response:
    paths, info = _paths(served), call.info
    first = served.cache.get(served.key(info.namespace, info.name))
    if first is None:
        raise NotFound(served.plural, info.name, group=served.group)
    present = scale_of(served.decode(first), paths)
    attributes = Attributes(
        call,
        Operation.UPDATE,
        served,
        info.namespace,
        info.name,
        "scale",
        obj=wished(present),
        old=present,
        options=call.query,
        dry_run=call.dry_run,
    )
    await backend.admission.mutate(attributes)
    _check(attributes.obj)
    await backend.admission.validate(attributes)

    def propose(old: Any, entry: Entry) -> Any:
        scale = attributes.obj
        if entry.revision != first.revision and call.info.verb == "patch":
            # Somebody else wrote meanwhile: the patch is applied to what is there now.
            scale = wished(scale_of(old, paths))
            _check(scale)
        changed = scaled_to(old, paths, scale.spec.replicas or 0)
        said = scale.metadata
        metadata = replace(changed.metadata, resource_version=said.resource_version, uid=said.uid)
        return replace(changed, metadata=metadata)

    manner = _SCALING if call.info.verb == "update" else _PATCHING
    written = await rewrite(backend, call, served, propose, manner=manner)
    return _answer(call, written.obj, written.entry.revision, paths)


def _check(scale: Any) -> None:
    replicas = scale.spec.replicas or 0
    if replicas < 0:
        problem = Path("spec").replicas.invalid(replicas, "must be greater than or equal to 0")
        raise Invalid("Scale", "autoscaling", scale.metadata.name, [problem])
