"""resource.k8s.io: devices, and claims to them (dynamic resource allocation).

Stored as v1. The second beta has the same fields; the first has a request's fields where v1 has
them under `exactly`, and a device's under `basic`, and is converted on plain values. Rules that
upstream says declaratively (how many, which form, once only) are the tables below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.resource import AGE, Column, Conversion, Resource, Scope, Status, Strategy
from pybernetes.api.sameshape import same_shape
from pybernetes.api.types import resource_v1 as v1
from pybernetes.api.types import resource_v1alpha3 as v1alpha3
from pybernetes.api.types import resource_v1beta1 as v1beta1
from pybernetes.api.types import resource_v1beta2 as v1beta2
from pybernetes.api.types._index import info_of
from pybernetes.api.validation import (
    changed_each,
    validate_dns_label,
    validate_immutable,
    validate_label_name,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_subdomain_errors, label_value_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GROUP = "resource.k8s.io"

EXACT_COUNT, ALL = "ExactCount", "All"
_MAX_DRIVER_NAME, _MAX_POOL_NAME = 63, 253
_MAX_ITEMS, _MAX_ALTERNATIVES, _MAX_RESERVATIONS = 32, 8, 256
_MAX_DEVICES, _MAX_TAINTED_DEVICES, _MAX_SHARED_COUNTERS = 128, 64, 8
_EFFECTS = ("NoExecute", "NoSchedule", "None")


def _validate_count(items: Sequence[object], most: int, path: Path) -> Iterator[FieldError]:
    if len(items) > most:
        yield path.too_many(len(items), most)


def _validate_driver(name: str, path: Path) -> Iterator[FieldError]:
    if not name:
        yield path.required()
        return
    if len(name) > _MAX_DRIVER_NAME:
        yield path.too_long(_MAX_DRIVER_NAME)
    yield from validate_with(dns_subdomain_errors, name.lower(), path)


def _validate_pool(name: str, path: Path) -> Iterator[FieldError]:
    """A pool is a node, or a path of such names."""
    if not name:
        yield path.required()
        return
    if len(name) > _MAX_POOL_NAME:
        yield path.too_long(_MAX_POOL_NAME)
    for part in name.split("/"):
        yield from validate_with(dns_subdomain_errors, part, path)


# --- claims ---------------------------------------------------------------------------------------


def _default_toleration(toleration: Any) -> Any:
    return toleration if toleration.operator else replace(toleration, operator="Equal")


def _default_exact(request: Any) -> Any:
    """An exact request or an alternative: how many, and what it puts up with."""
    mode = request.allocation_mode or EXACT_COUNT
    count = 1 if mode == EXACT_COUNT and not request.count else request.count
    tolerations = changed_each(request.tolerations, _default_toleration)
    if (mode, count) == (request.allocation_mode, request.count) and (
        tolerations is request.tolerations
    ):
        return request
    return replace(request, allocation_mode=mode, count=count, tolerations=tolerations)


def _default_request(request: Any) -> Any:
    exactly = None if request.exactly is None else _default_exact(request.exactly)
    alternatives = changed_each(request.first_available, _default_exact)
    if exactly is request.exactly and alternatives is request.first_available:
        return request
    return replace(request, exactly=exactly, first_available=alternatives)


def _default_spec(spec: Any) -> Any:
    requests = changed_each(spec.devices.requests, _default_request)
    if requests is spec.devices.requests:
        return spec
    return replace(spec, devices=replace(spec.devices, requests=requests))


def default_claim(new: Any) -> Any:
    spec = _default_spec(new.spec)
    return new if spec is new.spec else replace(new, spec=spec)


def default_template(new: Any) -> Any:
    spec = _default_spec(new.spec.spec)
    return new if spec is new.spec.spec else replace(new, spec=replace(new.spec, spec=spec))


def _validate_claim_spec(spec: Any, path: Path) -> Iterator[FieldError]:
    devices, path = spec.devices, path.devices
    yield from _validate_count(devices.requests, _MAX_ITEMS, path.requests)
    names: list[str] = []
    for index, request in enumerate(devices.requests):
        here = path.requests[index]
        yield from _validate_request(request, here)
        if request.name in names:
            yield here.duplicate(request.name)
        names.append(request.name)
        names += [f"{request.name}/{part.name}" for part in request.first_available]
    yield from _validate_count(devices.constraints, _MAX_ITEMS, path.constraints)
    for index, constraint in enumerate(devices.constraints):
        here = path.constraints[index]
        yield from _validate_named(constraint.requests, names, here.requests)
        if not constraint.match_attribute and not constraint.distinct_attribute:
            yield here.matchAttribute.required()
        elif constraint.match_attribute:
            yield from _validate_attribute_name(constraint.match_attribute, here.matchAttribute)
    yield from _validate_count(devices.config, _MAX_ITEMS, path.config)
    for index, config in enumerate(devices.config):
        here = path.config[index]
        yield from _validate_named(config.requests, names, here.requests)
        yield from _validate_opaque(config.opaque, here.opaque)


def _validate_attribute_name(name: str, path: Path) -> Iterator[FieldError]:
    domain, slash, identifier = name.partition("/")
    if not slash:
        yield path.invalid(name, "must include a domain")
    elif not domain or not identifier:
        yield path.invalid(name, "must have both a domain and a name")
    else:
        yield from validate_with(dns_subdomain_errors, domain, path)


def _validate_named(
    requests: Sequence[str], names: Sequence[str], path: Path
) -> Iterator[FieldError]:
    yield from _validate_count(requests, _MAX_ITEMS, path)
    for index, name in enumerate(requests):
        if name in requests[:index]:
            yield path[index].duplicate(name)
        if name not in names:
            yield path[index].invalid(
                name,
                "must be the name of a request in the claim or the name of a request and a"
                " subrequest separated by '/'",
            )


def _validate_opaque(opaque: Any, path: Path) -> Iterator[FieldError]:
    if opaque is None:
        yield path.required()
        return
    yield from _validate_driver(opaque.driver, path.driver)
    if opaque.parameters is None:
        yield path.parameters.required()
    elif not isinstance(opaque.parameters, dict):
        yield path.parameters.invalid("<value omitted>", "must be a valid JSON object")


def _validate_request(request: Any, path: Path) -> Iterator[FieldError]:
    yield from _validate_name(request.name, path.name)
    alternatives = request.first_available
    if request.exactly is not None and alternatives:
        yield path.invalid(request.name, "exactly one of `exactly` or `firstAvailable` is required")
    elif request.exactly is not None:
        yield from _validate_exact(request.exactly, path.exactly)
    elif not alternatives:
        yield path.required("exactly one of `exactly` or `firstAvailable` is required")
    yield from _validate_count(alternatives, _MAX_ALTERNATIVES, path.firstAvailable)
    seen: set[str] = set()
    for index, alternative in enumerate(alternatives):
        here = path.firstAvailable[index]
        yield from _validate_name(alternative.name, here.name)
        if alternative.name in seen:
            yield here.duplicate(alternative.name)
        seen.add(alternative.name)
        yield from _validate_exact(alternative, here)


def _validate_name(name: str, path: Path) -> Iterator[FieldError]:
    if not name:
        yield path.required()
    else:
        yield from validate_dns_label(name, path)


def _validate_exact(request: Any, path: Path) -> Iterator[FieldError]:
    if not request.device_class_name:
        yield path.deviceClassName.required()
    else:
        yield from validate_with(
            dns_subdomain_errors, request.device_class_name, path.deviceClassName
        )
    yield from _validate_selectors(request.selectors, path.selectors)
    mode, count = request.allocation_mode, request.count or 0
    if mode == ALL:
        if count:
            yield path.count.invalid(count, "must not be specified when allocationMode is 'All'")
    elif mode == EXACT_COUNT:
        if count <= 0:
            yield path.count.invalid(count, "must be greater than zero")
    else:
        yield path.allocationMode.not_supported(mode, [ALL, EXACT_COUNT])
    for index, toleration in enumerate(request.tolerations):
        yield from _validate_toleration(toleration, path.tolerations[index])


def _validate_selectors(selectors: Sequence[Any], path: Path) -> Iterator[FieldError]:
    yield from _validate_count(selectors, _MAX_ITEMS, path)
    for index, selector in enumerate(selectors):
        if selector.cel is None:
            yield path[index].cel.required()
        elif not selector.cel.expression.strip():
            yield path[index].cel.expression.required()


def _validate_toleration(toleration: Any, path: Path) -> Iterator[FieldError]:
    if toleration.key:
        yield from validate_label_name(toleration.key, path.child("key"))
    if toleration.operator == "Exists":
        if toleration.value:
            yield path.value.invalid(toleration.value, "must be empty for operator `Exists`")
    elif toleration.operator == "Equal":
        yield from validate_with(label_value_errors, toleration.value, path.value)
        if not toleration.key:
            yield path.child("key").required("must not be empty when operator is `Equal`")
    else:
        yield path.operator.not_supported(toleration.operator, ["Equal", "Exists"])
    if toleration.effect and toleration.effect not in _EFFECTS:
        yield path.effect.not_supported(toleration.effect, _EFFECTS)


def validate_claim(new: Any, old: Any) -> Iterator[FieldError]:
    if old is None:
        yield from _validate_claim_spec(new.spec, Path("spec"))
    else:
        yield from validate_immutable(new.spec, old.spec, Path("spec"))


def validate_claim_status(new: Any, old: Any) -> Iterator[FieldError]:
    status, path = new.status, Path("status")
    yield from _validate_count(status.reserved_for, _MAX_RESERVATIONS, path.reservedFor)
    seen: set[str] = set()
    for index, consumer in enumerate(status.reserved_for):
        here = path.reservedFor[index]
        for name in ("resource", "name", "uid"):
            if not getattr(consumer, name):
                yield here.child(name).required()
        if consumer.uid in seen:
            yield here.uid.duplicate(consumer.uid)
        seen.add(consumer.uid)
    before = None if old is None else old.status.allocation
    if before is not None and status.allocation is not None and status.allocation != before:
        yield path.allocation.immutable(status.allocation)
    if status.allocation is None and status.reserved_for:
        yield path.reservedFor.forbidden("may not be specified when `allocated` is not set")
    if status.allocation is not None:
        for index, result in enumerate(status.allocation.devices.results):
            here = path.allocation.devices.results[index]
            yield from _validate_driver(result.driver, here.driver)
            yield from _validate_pool(result.pool, here.pool)


def validate_template(new: Any, old: Any) -> Iterator[FieldError]:
    if old is None:
        yield from _validate_claim_spec(new.spec.spec, Path("spec").spec)
    else:
        yield from validate_immutable(new.spec, old.spec, Path("spec"))


def _state(claim: Any) -> str:
    if claim.metadata.deletion_timestamp is not None:
        return "deleted"
    if claim.status.allocation is None:
        return "pending"
    return "allocated,reserved" if claim.status.reserved_for else "allocated"


# --- devices --------------------------------------------------------------------------------------


def validate_class(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from _validate_selectors(spec.selectors, path.selectors)
    yield from _validate_count(spec.config, _MAX_ITEMS, path.config)
    for index, config in enumerate(spec.config):
        yield from _validate_opaque(config.opaque, path.config[index].opaque)


def validate_slice(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from _validate_driver(spec.driver, path.driver)
    yield from _validate_pool(spec.pool.name, path.pool.name)
    if spec.pool.resource_slice_count <= 0:
        yield path.pool.resourceSliceCount.invalid(
            spec.pool.resource_slice_count, "must be greater than zero"
        )
    if spec.pool.generation < 0:
        yield path.pool.generation.invalid(
            spec.pool.generation, "must be greater than or equal to zero"
        )
    places = {
        "nodeName": spec.node_name,
        "nodeSelector": spec.node_selector is not None,
        "allNodes": spec.all_nodes,
        "perDeviceNodeSelection": spec.per_device_node_selection,
    }
    said = [name for name, is_there in places.items() if is_there]
    choice = "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`"
    if not said and not spec.shared_counters:
        yield path.required(f"exactly one of {choice} is required")
    elif len(said) > 1:
        text = "{" + ", ".join(f"`{name}`" for name in said) + "}"
        yield path.invalid(text, f"exactly one of {choice} is required")
    yield from _validate_devices(spec, path)
    if old is not None:
        before = old.spec
        yield from validate_immutable(spec.driver, before.driver, path.driver)
        yield from validate_immutable(spec.pool.name, before.pool.name, path.pool.name)
        yield from validate_immutable(spec.node_name, before.node_name, path.nodeName)


def _validate_devices(spec: Any, path: Path) -> Iterator[FieldError]:
    is_heavy = any(d.taints or d.consumes_counters for d in spec.devices)
    most = _MAX_TAINTED_DEVICES if is_heavy else _MAX_DEVICES
    yield from _validate_count(spec.devices, most, path.devices)
    seen: set[str] = set()
    for index, device in enumerate(spec.devices):
        here = path.devices[index]
        yield from _validate_name(device.name, here.name)
        if device.name in seen:
            yield here.duplicate(device.name)
        seen.add(device.name)
        for name, attribute in device.attributes.items():
            values = [getattr(attribute, field) for field in attribute.__struct_fields__]
            if sum(value is not None and value != () for value in values) != 1:
                yield here.attributes.key(name).required("exactly one value must be specified")
        for number, taint in enumerate(device.taints):
            yield from _validate_taint(taint, here.taints[number])
    yield from _validate_count(spec.shared_counters, _MAX_SHARED_COUNTERS, path.sharedCounters)
    for index, counters in enumerate(spec.shared_counters):
        here = path.sharedCounters[index]
        yield from _validate_name(counters.name, here.name)
        if not counters.counters:
            yield here.counters.required()


def _validate_taint(taint: Any, path: Path) -> Iterator[FieldError]:
    yield from validate_label_name(taint.key, path.child("key"))
    if taint.value:
        yield from validate_with(label_value_errors, taint.value, path.value)
    yield from validate_one_of(taint.effect, _EFFECTS, path.effect)


def validate_taint_rule(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    selector = spec.device_selector
    if selector is not None:
        if selector.driver:
            yield from _validate_driver(selector.driver, path.deviceSelector.driver)
        if selector.pool:
            yield from _validate_pool(selector.pool, path.deviceSelector.pool)
        if selector.device:
            yield from validate_dns_label(selector.device, path.deviceSelector.device)
    yield from _validate_taint(spec.taint, path.taint)


# --- the first beta -------------------------------------------------------------------------------

# What v1 has under `exactly`, and under nothing where the beta had `basic`.
_EXACT_FIELDS = (
    "deviceClassName",
    "selectors",
    "allocationMode",
    "count",
    "adminAccess",
    "tolerations",
    "capacity",
    "derivedAttributes",
)


def _wrap_request(request: dict[str, Any]) -> dict[str, Any]:
    exactly = {name: request[name] for name in _EXACT_FIELDS if name in request}
    rest = {name: value for name, value in request.items() if name not in exactly}
    return {**rest, "exactly": exactly} if exactly else rest


def _unwrap_request(request: dict[str, Any]) -> dict[str, Any]:
    rest = dict(request)
    exactly: dict[str, Any] = rest.pop("exactly", {})
    return {**rest, **exactly}


def _unwrap_device(device: dict[str, Any]) -> dict[str, Any]:
    rest = dict(device)
    basic: dict[str, Any] = rest.pop("basic", {})
    return {**rest, **basic}


def _wrap_device(device: dict[str, Any]) -> dict[str, Any]:
    basic = {name: value for name, value in device.items() if name != "name"}
    return {"name": device.get("name", ""), "basic": basic}


def _changed(
    kind: type[Any],
    api_version: str,
    where: tuple[str, ...],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[Any], Any]:
    """Objects with every item of a list changed, as an object of another version."""

    def converted(obj: Any) -> Any:
        value = codec.to_dict(obj)
        value["apiVersion"] = api_version
        place = value
        for step in where[:-1]:
            place = place.get(step, {})
        if where[-1] in place:
            place[where[-1]] = [change(item) for item in place[where[-1]]]
        return codec.from_dict(kind, value)

    return converted


def _first_beta(name: str, where: tuple[str, ...], *, device: bool = False) -> Conversion[Any]:
    stored, beta = getattr(v1, name), getattr(v1beta1, name)
    there = _unwrap_device if device else _wrap_request
    back = _wrap_device if device else _unwrap_request
    return Conversion(
        stored,
        _changed(stored, f"{GROUP}/v1", where, there),
        _changed(beta, f"{GROUP}/v1beta1", where, back),
    )


_FIRST_BETA: dict[str, Conversion[Any]] = {
    "DeviceClass": same_shape(v1beta1.DeviceClass, v1.DeviceClass),
    "ResourceClaim": _first_beta("ResourceClaim", ("spec", "devices", "requests")),
    "ResourceClaimTemplate": _first_beta(
        "ResourceClaimTemplate", ("spec", "spec", "devices", "requests")
    ),
    "ResourceSlice": _first_beta("ResourceSlice", ("spec", "devices"), device=True),
}


# --- entries --------------------------------------------------------------------------------------


def _as_stored(entry: Resource[Any], kind: type[Any], conversion: Conversion[Any]) -> Resource[Any]:
    """The entry of another version: rules and columns are those of v1, over the conversion."""
    strategy, there, back = entry.strategy, conversion.to_stored, conversion.from_stored

    def judged(check: Any) -> Any:
        def validate(new: Any, old: Any) -> Any:
            return check(there(new), None if old is None else there(old))

        return validate

    def column(one: Column[Any]) -> Column[Any]:
        cell = one.cell
        if cell is None or one is AGE:
            return one
        return Column(one.name, lambda obj: cell(there(obj)), type=one.type)

    def reading(read: Callable[[Any], str]) -> Callable[[Any], str]:
        return lambda obj: read(there(obj))

    return Resource(
        group=GROUP,
        version=info_of(kind).version,
        kind=kind,
        plural=entry.plural,
        scope=entry.scope,
        strategy=Strategy(
            default=lambda new: back(strategy.default(there(new))),
            validate=judged(strategy.validate),
            generation_follows=strategy.generation_follows,
        ),
        subresources=tuple(
            Status(validate=judged(part.validate)) if isinstance(part, Status) else part
            for part in entry.subresources
        ),
        columns=tuple(column(one) for one in entry.columns),
        selectable_fields={name: reading(read) for name, read in entry.selectable_fields.items()},
        conversion=conversion,
    )


def _taint_columns() -> tuple[Column[Any], ...]:
    return (
        Column("Key", lambda r: r.spec.taint.key),
        Column("Value", lambda r: r.spec.taint.value),
        Column("Effect", lambda r: r.spec.taint.effect),
        Column("TimeAdded", lambda r: r.spec.taint.time_added),
        AGE,
    )


DEVICE_CLASSES = Resource(
    group=GROUP,
    version="v1",
    kind=v1.DeviceClass,
    plural="deviceclasses",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_class),
    columns=(AGE,),
)

RESOURCE_CLAIMS = Resource(
    group=GROUP,
    version="v1",
    kind=v1.ResourceClaim,
    plural="resourceclaims",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_claim, validate=validate_claim, generation_follows=()),
    subresources=(Status(validate=validate_claim_status),),
    columns=(Column("State", _state), AGE),
)

RESOURCE_CLAIM_TEMPLATES = Resource(
    group=GROUP,
    version="v1",
    kind=v1.ResourceClaimTemplate,
    plural="resourceclaimtemplates",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_template, validate=validate_template, generation_follows=()),
    columns=(AGE,),
)

RESOURCE_SLICES = Resource(
    group=GROUP,
    version="v1",
    kind=v1.ResourceSlice,
    plural="resourceslices",
    scope=Scope.CLUSTER,
    strategy=Strategy(validate=validate_slice),
    columns=(
        Column("Node", lambda s: s.spec.node_name or "<unset>"),
        Column("Driver", lambda s: s.spec.driver),
        Column("Pool", lambda s: s.spec.pool.name),
        AGE,
    ),
    selectable_fields={
        "spec.nodeName": lambda s: s.spec.node_name,
        "spec.driver": lambda s: s.spec.driver,
    },
)


def _taint_rules(types: Any, version: str, gate: str = "") -> Resource[Any]:
    """Stored as the alpha, which has the same fields."""
    kind = types.DeviceTaintRule
    return Resource(
        group=GROUP,
        version=version,
        kind=kind,
        plural="devicetaintrules",
        scope=Scope.CLUSTER,
        strategy=Strategy(validate=validate_taint_rule),
        subresources=(Status(),),
        columns=_taint_columns(),
        conversion=None if types is v1alpha3 else same_shape(kind, v1alpha3.DeviceTaintRule),
        feature_gate=gate,
    )


_V1 = (DEVICE_CLASSES, RESOURCE_CLAIMS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_SLICES)

RESOURCE_RESOURCES: tuple[Resource[Any], ...] = (
    *_V1,
    _taint_rules(v1, "v1"),
    *(
        _as_stored(entry, kind, same_shape(kind, entry.kind))
        for entry in _V1
        for kind in [getattr(v1beta2, entry.kind_name)]
    ),
    _taint_rules(v1beta2, "v1beta2"),
    *(
        _as_stored(entry, getattr(v1beta1, entry.kind_name), _FIRST_BETA[entry.kind_name])
        for entry in _V1
    ),
    _taint_rules(v1alpha3, "v1alpha3", gate="DRADeviceTaints"),
)
