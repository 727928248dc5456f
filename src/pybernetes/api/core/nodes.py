"""Node: a machine that runs pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.conditions import condition_of
from pybernetes.api.core.nodestate import READY, address_of
from pybernetes.api.core.resourcelists import validate_amount, validate_resource_name
from pybernetes.api.core.scheduling import EFFECTS
from pybernetes.api.resource import AGE, Column, Proxy, Resource, Scope, Status, Strategy
from pybernetes.api.types.core_v1 import Node
from pybernetes.api.validation import (
    rounded_amounts,
    validate_label_name,
    validate_one_of,
    validate_with,
)
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import cidr_errors, label_value_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import NodeStatus
    from pybernetes.apimachinery.fielderror import FieldError

_SPEC, _STATUS = Path("spec"), Path("status")
_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


# --- defaults -----------------------------------------------------------------------------


def default_node(new: Node) -> Node:
    spec = new.spec
    # One range in its old field and in the list; the old field wins where they differ.
    if spec.pod_cidr and spec.pod_cidrs[:1] != (spec.pod_cidr,):
        spec = replace(spec, pod_cidrs=(spec.pod_cidr,))
    elif spec.pod_cidrs and not spec.pod_cidr:
        spec = replace(spec, pod_cidr=spec.pod_cidrs[0])
    status = _default_status(new.status)
    if spec is new.spec and status is new.status:
        return new
    return replace(new, spec=spec, status=status)


def _default_status(status: NodeStatus) -> NodeStatus:
    changes: dict[str, Any] = {}
    capacity = rounded_amounts(status.capacity)
    allocatable = rounded_amounts(status.allocatable) if status.allocatable else capacity
    if capacity is not status.capacity:
        changes["capacity"] = capacity
    if allocatable != status.allocatable:
        changes["allocatable"] = allocatable
    return replace(status, **changes) if changes else status


# --- validation ---------------------------------------------------------------------------


def validate_node(new: Node, old: Node | None) -> Iterator[FieldError]:
    spec = new.spec
    if spec.taints:
        yield from _validate_taints(new)
    for index, cidr in enumerate(spec.pod_cidrs):
        yield from validate_with(cidr_errors, cidr, _SPEC.podCIDRs[index])
    if len(spec.pod_cidrs) > 2:
        yield _SPEC.podCIDRs.invalid(
            spec.pod_cidrs, "may specify no more than one CIDR for each IP family"
        )
    if old is None:
        yield from validate_node_status(new, None)
        return
    was = old.spec
    if was.pod_cidrs and was.pod_cidrs != spec.pod_cidrs:
        yield _SPEC.podCIDRs.forbidden(
            'node updates may not change podCIDR except from "" to valid'
        )
    if was.provider_id and was.provider_id != spec.provider_id:
        yield _SPEC.providerID.forbidden(
            'node updates may not change providerID except from "" to valid'
        )
    if spec.config_source is not None and spec.config_source != was.config_source:
        yield _SPEC.configSource.forbidden("configSource may not be set")
    changed = replace(
        spec,
        taints=was.taints,
        unschedulable=was.unschedulable,
        pod_cidr=was.pod_cidr,
        pod_cidrs=was.pod_cidrs,
        provider_id=was.provider_id,
        config_source=was.config_source,
        pod_preemption_policy=was.pod_preemption_policy,
    )
    if changed != was:
        yield Path("").forbidden(
            "node updates may only change labels, taints, or capacity (or configSource, if the "
            "DynamicKubeletConfig feature gate is enabled)"
        )


def _validate_taints(node: Node) -> Iterator[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(node.spec.taints):
        path = _SPEC.taints[index]
        yield from validate_label_name(taint.key, path.child("key"))
        if errors := label_value_errors(taint.value):
            yield path.child("value").invalid(taint.value, ";".join(errors))
        yield from validate_one_of(taint.effect, EFFECTS, path.effect)
        if (taint.key, taint.effect) in seen:
            duplicated = path.duplicate({"key": taint.key, "effect": taint.effect})
            yield replace_detail(duplicated, "taints must be unique by key and effect pair")
        seen.add((taint.key, taint.effect))


def replace_detail(error: FieldError, detail: str) -> FieldError:
    return type(error)(error.kind, error.path, error.value, detail)


def validate_node_status(new: Node, old: Node | None) -> Iterator[FieldError]:
    for wire_name, amounts in (
        ("capacity", new.status.capacity),
        ("allocatable", new.status.allocatable),
    ):
        for name, amount in amounts.items():
            path = _STATUS.child(wire_name).key(name)
            yield from validate_resource_name(name, path)
            yield from validate_amount(name, amount, path)
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(new.status.addresses):
        if (address.type, address.address) in seen:
            yield _STATUS.addresses[index].duplicate(address)
        seen.add((address.type, address.address))


# --- columns ------------------------------------------------------------------------------


def _status_text(node: Node) -> str:
    ready = condition_of(node.status.conditions, READY)
    text = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    return f"{text},SchedulingDisabled" if node.spec.unschedulable else text


def _roles_text(node: Node) -> str | None:
    roles = set()
    for key, value in node.metadata.labels.items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE_LABEL and value:
            roles.add(value)
    return ",".join(sorted(roles)) or None


NODES = Resource(
    group="",
    version="v1",
    kind=Node,
    plural="nodes",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_node, validate=validate_node, generation_follows=()),
    subresources=(Status(validate=validate_node_status, given_at_birth=True), Proxy()),
    columns=(
        Column("Status", _status_text),
        Column("Roles", _roles_text),
        AGE,
        Column("Version", lambda node: node.status.node_info.kubelet_version),
        Column("Internal-IP", lambda node: address_of(node, "InternalIP") or None, wide=True),
        Column("External-IP", lambda node: address_of(node, "ExternalIP") or None, wide=True),
        Column("OS-Image", lambda node: node.status.node_info.os_image or "<unknown>", wide=True),
        Column(
            "Kernel-Version",
            lambda node: node.status.node_info.kernel_version or "<unknown>",
            wide=True,
        ),
        Column(
            "Container-Runtime",
            lambda node: node.status.node_info.container_runtime_version or "<unknown>",
            wide=True,
        ),
    ),
    selectable_fields={
        "spec.unschedulable": lambda node: "true" if node.spec.unschedulable else "false",
    },
)
