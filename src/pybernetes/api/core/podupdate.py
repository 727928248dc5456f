"""What may change about a pod once it exists, through each of its doors.

Through the object itself nearly nothing: images, a shorter deadline, more tolerations,
fewer gates. Resources change through `resize`, debugging containers through
`ephemeralcontainers`, and the status through `status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.core.difference import difference_text
from pybernetes.api.core.podresources import qos_class
from pybernetes.api.core.podspec import validate_pod_spec
from pybernetes.api.types.core_v1 import HostIP, PodIP
from pybernetes.api.validation import INT32_MAX
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apimachinery.names import ip_errors, parse_ip, range_message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import (
        Affinity,
        Container,
        ContainerStatus,
        NodeSelector,
        Pod,
        PodSpec,
        PodStatus,
    )
    from pybernetes.apimachinery.fielderror import FieldError

_SPEC = Path("spec")
_STATUS = Path("status")
_UPDATABLE = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_RESIZABLE = frozenset({"cpu", "memory"})


# --- the object itself --------------------------------------------------------------------


def validate_pod_update(new: Pod, old: Pod) -> Iterator[FieldError]:
    if new.spec == old.spec:
        return
    for where, containers, were in (
        (_SPEC.containers, new.spec.containers, old.spec.containers),
        (_SPEC.initContainers, new.spec.init_containers, old.spec.init_containers),
    ):
        if len(containers) != len(were):
            yield where.forbidden("pod updates may not add or remove containers")
            return
    errors = list(_validate_deadline(new.spec, old.spec))
    yield from errors
    if errors and new.spec.active_deadline_seconds is not None:
        return
    yield from _validate_tolerations(new.spec, old.spec)
    had = {gate.name for gate in old.spec.scheduling_gates}
    for index, gate in enumerate(new.spec.scheduling_gates):
        if gate.name not in had:
            yield _SPEC.schedulingGates[index].forbidden(
                f"only deletion is allowed, but found new scheduling gate '{gate.name}'"
            )
    fixed = _without_updatable(new.spec, old.spec)
    if old.spec.scheduling_gates:
        # Nothing has looked at a gated pod yet, so its place may still be narrowed down.
        yield from _validate_narrowing(new.spec, old.spec)
        fixed = replace(
            fixed,
            node_selector=old.spec.node_selector,
            affinity=_with_node_affinity_of(old.spec.affinity, new.spec.affinity),
        )
    if fixed != old.spec:
        yield _SPEC.forbidden(
            f"pod updates may not change fields other than {','.join(_UPDATABLE)}\n"
            + difference_text(old.spec, fixed, "spec")
        )


def _validate_deadline(new: PodSpec, old: PodSpec) -> Iterator[FieldError]:
    seconds, were = new.active_deadline_seconds, old.active_deadline_seconds
    path = _SPEC.activeDeadlineSeconds
    if seconds is None:
        if were is not None:
            yield path.invalid(None, "must not update from a positive integer to nil value")
    elif not 0 <= seconds <= INT32_MAX:
        yield path.invalid(seconds, range_message(0, INT32_MAX))
    elif were is not None and were < seconds:
        yield path.invalid(seconds, "must be less than or equal to previous value")


def _validate_tolerations(new: PodSpec, old: PodSpec) -> Iterator[FieldError]:
    for toleration in old.tolerations:
        if not any(
            replace(toleration, toleration_seconds=other.toleration_seconds) == other
            for other in new.tolerations
        ):
            yield _SPEC.tolerations.forbidden(
                "existing toleration can not be modified except its tolerationSeconds"
            )
            return


def _without_updatable(new: PodSpec, old: PodSpec) -> PodSpec:
    """The new spec with everything put back that may change."""

    def with_old_images(
        containers: tuple[Container, ...], were: tuple[Container, ...]
    ) -> tuple[Container, ...]:
        pairs = zip(containers, were, strict=True)
        return tuple(replace(container, image=old.image) for container, old in pairs)

    grace = new.termination_grace_period_seconds
    if (old.termination_grace_period_seconds or 0) < 0 and grace == 1:
        grace = old.termination_grace_period_seconds
    return replace(
        new,
        containers=with_old_images(new.containers, old.containers),
        init_containers=with_old_images(new.init_containers, old.init_containers),
        active_deadline_seconds=old.active_deadline_seconds,
        scheduling_gates=old.scheduling_gates,
        tolerations=old.tolerations,
        termination_grace_period_seconds=grace,
    )


def _required(affinity: Affinity | None) -> NodeSelector | None:
    if affinity is None or affinity.node_affinity is None:
        return None
    return affinity.node_affinity.required_during_scheduling_ignored_during_execution


def _with_node_affinity_of(old: Affinity | None, new: Affinity | None) -> Affinity | None:
    """The old affinity if the new one differs only in its node part."""
    if new is None:
        return old if old is None else new
    bare = replace(new, node_affinity=None)
    bare_old = replace(old, node_affinity=None) if old is not None else type(new)()
    return old if bare == bare_old else new


def _validate_narrowing(new: PodSpec, old: PodSpec) -> Iterator[FieldError]:
    if not old.node_selector.items() <= new.node_selector.items():
        yield _SPEC.nodeSelector.invalid(
            new.node_selector,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        )
    before, after = _required(old.affinity), _required(new.affinity)
    if before is None or not before.node_selector_terms or before == after:
        return
    path = _SPEC.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    path = path.nodeSelectorTerms
    terms = after.node_selector_terms if after is not None else ()
    if len(terms) != len(before.node_selector_terms):
        yield path.invalid(
            terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        )
        return
    for index, (term, was) in enumerate(zip(terms, before.node_selector_terms, strict=True)):
        kept = (
            term.match_expressions[: len(was.match_expressions)] == was.match_expressions
            and term.match_fields[: len(was.match_fields)] == was.match_fields
        )
        if not kept:
            yield path[index].invalid(
                term, "only additions are allowed (no mutations or deletions)"
            )


# --- status -------------------------------------------------------------------------------


def prepare_pod_status(new: Pod, old: Pod) -> Pod:
    """Nodes write the status; what only the control plane may say stays as it was."""
    status = with_both_addresses(new.status)
    changes: dict[str, Any] = {}
    if status.qos_class != old.status.qos_class:
        changes["qos_class"] = old.status.qos_class
    if changes:
        status = replace(status, **changes)
    if new.metadata.owner_references != old.metadata.owner_references:
        metadata = replace(new.metadata, owner_references=old.metadata.owner_references)
        return replace(new, metadata=metadata, status=status)
    return new if status is new.status else replace(new, status=status)


def with_both_addresses(status: PodStatus) -> PodStatus:
    """One address in its old field and in the list; the old field wins where they differ."""
    changes: dict[str, Any] = {}
    ips = [ip.ip for ip in status.pod_ips]
    if status.pod_ip and ips[:1] != [status.pod_ip]:
        changes["pod_ips"] = (PodIP(ip=status.pod_ip),)
    elif ips and not status.pod_ip:
        changes["pod_ip"] = ips[0]
    host_ips = [ip.ip for ip in status.host_ips]
    if status.host_ip and host_ips[:1] != [status.host_ip]:
        changes["host_ips"] = (HostIP(ip=status.host_ip),)
    elif host_ips and not status.host_ip:
        changes["host_ip"] = host_ips[0]
    return replace(status, **changes) if changes else status


def validate_pod_status(new: Pod, old: Pod | None) -> Iterator[FieldError]:
    if old is None:
        return
    if new.spec.node_name != old.spec.node_name:
        yield _SPEC.nodeName.forbidden("may not be changed directly")
    status, was = new.status, old.status
    if new.spec.restart_policy != "Always":
        for wire_name, statuses, were in (
            ("containerStatuses", status.container_statuses, was.container_statuses),
            ("initContainerStatuses", status.init_container_statuses, was.init_container_statuses),
        ):
            if statuses != were:
                yield from _validate_transitions(
                    statuses, were, _restartable(new.spec), new.spec, _STATUS.child(wire_name)
                )
    if status.pod_ips != was.pod_ips:
        yield from _validate_addresses([ip.ip for ip in status.pod_ips], _STATUS.podIPs)
    if status.host_ips != was.host_ips:
        yield from _validate_addresses([ip.ip for ip in status.host_ips], _STATUS.hostIPs)


def _restartable(spec: PodSpec) -> set[str]:
    """Containers with a policy or rules of their own that may start them again."""
    return {
        container.name
        for container in (*spec.containers, *spec.init_containers)
        if container.restart_policy or container.restart_policy_rules
    }


def _validate_transitions(
    statuses: tuple[ContainerStatus, ...],
    were: tuple[ContainerStatus, ...],
    restartable: set[str],
    spec: PodSpec,
    path: Path,
) -> Iterator[FieldError]:
    ended = {
        status.name
        for status in were
        if status.state.terminated is not None
        and status.name not in restartable
        and not (spec.restart_policy == "OnFailure" and status.state.terminated.exit_code != 0)
    }
    for index, status in enumerate(statuses):
        if status.name in ended and status.state.terminated is None:
            yield path[index].state.forbidden("may not be transitioned to non-terminated state")


def _validate_addresses(addresses: list[str], path: Path) -> Iterator[FieldError]:
    families = set()
    for index, address in enumerate(addresses):
        for message in ip_errors(address):
            yield path[index].invalid(address, message)
        parsed = parse_ip(address)
        if parsed is not None and parsed.version in families:
            yield path.invalid(addresses, "may specify no more than one IP for each IP family")
            return
        if parsed is not None:
            families.add(parsed.version)


# --- ephemeral containers and resize ------------------------------------------------------


def validate_ephemeral_update(new: Pod, old: Pod | None) -> Iterator[FieldError]:
    yield from validate_pod_spec(new.spec, _SPEC, pod_name=new.metadata.name)
    if old is None:
        return
    path = _SPEC.ephemeralContainers
    if "kubernetes.io/config.mirror" in old.metadata.annotations:
        yield path.forbidden("static pods do not support ephemeral containers")
    now = {container.name: container for container in new.spec.ephemeral_containers}
    for container in old.spec.ephemeral_containers:
        if container.name not in now:
            yield path.forbidden(
                f'existing ephemeral containers "{container.name}" may not be removed\n'
            )
        elif now[container.name] != container:
            yield path.forbidden(
                f'existing ephemeral containers "{container.name}" may not be changed\n'
                + difference_text(container, now[container.name])
            )


def prepare_resize(new: Pod, old: Pod) -> Pod:
    """Only the resources of containers come through this door."""
    wanted = {container.name: container for container in new.spec.containers}
    wanted_init = {container.name: container for container in new.spec.init_containers}

    def resized(container: Container, by_name: dict[str, Container]) -> Container:
        other = by_name.get(container.name)
        if other is None:
            return container
        return replace(container, resources=other.resources, resize_policy=other.resize_policy)

    spec = replace(
        old.spec,
        containers=tuple(resized(container, wanted) for container in old.spec.containers),
        init_containers=tuple(
            resized(container, wanted_init) for container in old.spec.init_containers
        ),
        resources=new.spec.resources,
    )
    return replace(new, spec=spec)


def validate_resize(new: Pod, old: Pod | None) -> Iterator[FieldError]:
    yield from validate_pod_spec(new.spec, _SPEC, pod_name=new.metadata.name)
    if old is None:
        return
    if "kubernetes.io/config.mirror" in old.metadata.annotations:
        yield Path("").forbidden("static pods cannot be resized")
    if qos_class(new) != old.status.qos_class:
        yield _SPEC.invalid(
            old.status.qos_class, "Pod QOS Class may not change as a result of resizing"
        )
    for index, (container, was) in enumerate(
        zip(new.spec.containers, old.spec.containers, strict=True)
    ):
        path = _SPEC.containers[index]
        for wire_name, amounts, were in (
            ("limits", container.resources.limits, was.resources.limits),
            ("requests", container.resources.requests, was.resources.requests),
        ):
            if {k: v for k, v in amounts.items() if k not in _RESIZABLE} != {
                k: v for k, v in were.items() if k not in _RESIZABLE
            }:
                yield path.resources.child(wire_name).forbidden(
                    "only cpu and memory resources are mutable"
                )
            if (were.keys() & _RESIZABLE) - amounts.keys():
                yield path.resources.child(wire_name).forbidden(
                    f"resource {wire_name} cannot be removed"
                )
