"""Validation of what containers and pods may do on their node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pybernetes.api.core.volumes import validate_descending_path
from pybernetes.apimachinery.names import group_id_errors, user_id_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import (
        AppArmorProfile,
        PodSecurityContext,
        PodSpec,
        SeccompProfile,
        SecurityContext,
    )
    from pybernetes.apimachinery.fielderror import FieldError, Path

_SYSCTL_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"({_SYSCTL_SEGMENT}[\./])*{_SYSCTL_SEGMENT}"
_SYSCTL_RE = re.compile(_SYSCTL)


def validate_security_context(
    context: SecurityContext, path: Path, *, host_users: bool
) -> Iterator[FieldError]:
    """Of a container."""
    yield from _validate_ids(context, path)
    if context.proc_mount:
        if context.proc_mount not in ("Default", "Unmasked"):
            yield path.procMount.not_supported(context.proc_mount, ("Default", "Unmasked"))
        elif context.proc_mount == "Unmasked" and host_users:
            yield path.procMount.invalid(
                context.proc_mount, "`hostUsers` must be false to use `Unmasked`"
            )
    if context.seccomp_profile is not None:
        yield from _validate_seccomp(context.seccomp_profile, path.seccompProfile)
    if context.app_armor_profile is not None:
        yield from _validate_app_armor(context.app_armor_profile, path.appArmorProfile)
    if context.allow_privilege_escalation is False:
        refused = "cannot set `allowPrivilegeEscalation` to false and "
        if context.privileged:
            yield path.invalid(context, refused + "`privileged` to true")
        if context.capabilities is not None and "CAP_SYS_ADMIN" in context.capabilities.add:
            yield path.invalid(context, refused + "`capabilities.Add` CAP_SYS_ADMIN")


def _validate_ids(
    context: SecurityContext | PodSecurityContext, path: Path
) -> Iterator[FieldError]:
    if context.run_as_user is not None:
        for message in user_id_errors(context.run_as_user):
            yield path.runAsUser.invalid(context.run_as_user, message)
    if context.run_as_group is not None:
        for message in group_id_errors(context.run_as_group):
            yield path.runAsGroup.invalid(context.run_as_group, message)


def _validate_seccomp(profile: SeccompProfile, path: Path) -> Iterator[FieldError]:
    local = profile.localhost_profile
    if profile.type == "Localhost":
        if not local:
            yield path.localhostProfile.required("must be set when seccomp type is Localhost")
        else:
            yield from validate_descending_path(local, path.localhostProfile)
    elif local:
        yield path.localhostProfile.invalid(local, "can only be set when seccomp type is Localhost")
    if not profile.type:
        yield path.type.required("type is required when seccompProfile is set")
    elif profile.type not in ("Localhost", "RuntimeDefault", "Unconfined"):
        yield path.type.not_supported(profile.type, ("Localhost", "RuntimeDefault", "Unconfined"))


def _validate_app_armor(profile: AppArmorProfile, path: Path) -> Iterator[FieldError]:
    local = profile.localhost_profile
    if profile.type == "Localhost":
        if not local.strip():
            yield path.localhostProfile.required("must be set when AppArmor type is Localhost")
        elif len(local) > 4095:
            yield path.localhostProfile.too_long(4095)
    elif local:
        yield path.localhostProfile.invalid(
            local, "can only be set when AppArmor type is Localhost"
        )
    if not profile.type:
        yield path.type.required("type is required when appArmorProfile is set")
    elif profile.type not in ("Localhost", "RuntimeDefault", "Unconfined"):
        yield path.type.not_supported(profile.type, ("Localhost", "RuntimeDefault", "Unconfined"))


def validate_pod_security(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    """Of a pod as a whole; `path` is that of the pod spec."""
    if spec.share_process_namespace and spec.host_pid:
        yield path.shareProcessNamespace.invalid(
            True, "ShareProcessNamespace and HostPID cannot both be enabled"
        )
    if spec.host_users is False:
        for wire_name, shared in (
            ("hostNetwork", spec.host_network),
            ("hostPID", spec.host_pid),
            ("hostIPC", spec.host_ipc),
        ):
            if shared:
                yield path.child(wire_name).forbidden("when `hostUsers` is false")
    context = spec.security_context
    if context is not None:
        yield from _validate_pod_context(context, path.securityContext)


def _validate_pod_context(context: PodSecurityContext, path: Path) -> Iterator[FieldError]:
    if context.fs_group is not None:
        for message in group_id_errors(context.fs_group):
            yield path.fsGroup.invalid(context.fs_group, message)
    yield from _validate_ids(context, path)
    for index, group in enumerate(context.supplemental_groups):
        for message in group_id_errors(group):
            yield path.supplementalGroups[index].invalid(group, message)
    names: set[str] = set()
    for index, sysctl in enumerate(context.sysctls):
        here = path.sysctls[index].name
        if not sysctl.name:
            yield here.required()
        elif len(sysctl.name) > 253 or not _SYSCTL_RE.fullmatch(sysctl.name):
            yield here.invalid(
                sysctl.name, f"must have at most 253 characters and match regex ^{_SYSCTL}$"
            )
        elif sysctl.name in names:
            yield here.duplicate(sysctl.name)
        names.add(sysctl.name)
    for wire_name, value, supported in (
        ("fsGroupChangePolicy", context.fs_group_change_policy, ("Always", "OnRootMismatch")),
        ("supplementalGroupsPolicy", context.supplemental_groups_policy, ("Merge", "Strict")),
        ("seLinuxChangePolicy", context.se_linux_change_policy, ("MountOption", "Recursive")),
    ):
        if value and value not in supported:
            yield path.child(wire_name).not_supported(value, supported)
    if context.seccomp_profile is not None:
        yield from _validate_seccomp(context.seccomp_profile, path.seccompProfile)
    if context.app_armor_profile is not None:
        yield from _validate_app_armor(context.app_armor_profile, path.appArmorProfile)
