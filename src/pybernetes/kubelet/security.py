"""Security contexts: what the pod says, what its container says instead, and what the image brings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pybernetes.kubelet.env import ConfigProblem
from pybernetes.kubelet.runtime.interface import (
    NamespaceMode,
    Namespaces,
    ProfileType,
    Security,
    SecurityProfile,
    SelinuxOptions,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pybernetes.api.types.core_v1 import (
        AppArmorProfile,
        Pod,
        SeccompProfile,
        SELinuxOptions,
    )
    from pybernetes.kubelet.pod_state import AnyContainer
    from pybernetes.kubelet.runtime.interface import ImageStatus


def namespaces_of(pod: Pod) -> Namespaces:
    spec = pod.spec
    if spec.host_pid:
        pid = NamespaceMode.NODE
    elif spec.share_process_namespace:
        pid = NamespaceMode.POD
    else:
        pid = NamespaceMode.CONTAINER
    return Namespaces(
        network=NamespaceMode.NODE if spec.host_network else NamespaceMode.POD,
        pid=pid,
        ipc=NamespaceMode.NODE if spec.host_ipc else NamespaceMode.POD,
    )


def sandbox_security(pod: Pod) -> Security:
    own = pod.spec.security_context
    privileged = any(
        c.security_context is not None and c.security_context.privileged
        for c in (*pod.spec.containers, *pod.spec.init_containers)
    )
    return Security(
        privileged=privileged,
        run_as_user=own.run_as_user if own else None,
        run_as_group=own.run_as_group if own and own.run_as_user is not None else None,
        supplemental_groups=supplemental_groups(pod),
        # The pause process needs nothing, so it gets the strictest profile there is.
        seccomp=SecurityProfile(ProfileType.RUNTIME_DEFAULT),
        selinux=_selinux(own.se_linux_options if own else None),
        namespaces=namespaces_of(pod),
    )


def container_security(
    pod: Pod,
    container: AnyContainer,
    image: ImageStatus | None,
    *,
    seccomp_root: Path | None = None,
    target_id: str = "",
) -> Security:
    """Raises ConfigProblem if it would run as root and must not.

    `target_id`: the container whose processes an ephemeral container is to see.
    """
    namespaces = namespaces_of(pod)
    if target_id:
        namespaces = replace(namespaces, pid=NamespaceMode.TARGET, target_id=target_id)
    pod_own, own = pod.spec.security_context, container.security_context
    user = _first(own.run_as_user if own else None, pod_own.run_as_user if pod_own else None)
    group = _first(own.run_as_group if own else None, pod_own.run_as_group if pod_own else None)
    non_root = _first(
        own.run_as_non_root if own else None, pod_own.run_as_non_root if pod_own else None
    )
    if non_root:
        _verify_non_root(pod, container, user, image)
    username = ""
    if user is None and image is not None:
        user, username = image.uid, image.username
    capabilities = own.capabilities if own else None
    unmasked = own is not None and own.proc_mount == "Unmasked"
    seccomp = (own and own.seccomp_profile) or (pod_own and pod_own.seccomp_profile) or None
    apparmor = (own and own.app_armor_profile) or (pod_own and pod_own.app_armor_profile) or None
    selinux = (own and own.se_linux_options) or (pod_own and pod_own.se_linux_options) or None
    return Security(
        privileged=bool(own and own.privileged),
        add_capabilities=capabilities.add if capabilities else (),
        drop_capabilities=capabilities.drop if capabilities else (),
        run_as_user=user,
        run_as_username=username,
        run_as_group=group if (user is not None or username) else None,
        supplemental_groups=supplemental_groups(pod),
        supplemental_groups_strict=bool(pod_own and pod_own.supplemental_groups_policy == "Strict"),
        readonly_rootfs=bool(own and own.read_only_root_filesystem),
        no_new_privileges=bool(own and own.allow_privilege_escalation is False),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
        seccomp=_seccomp(seccomp, seccomp_root),
        apparmor=_apparmor(apparmor),
        selinux=_selinux(selinux),
        namespaces=namespaces,
    )


def supplemental_groups(pod: Pod) -> tuple[int, ...]:
    own = pod.spec.security_context
    if own is None:
        return ()
    groups = list(own.supplemental_groups)
    if own.fs_group is not None and own.fs_group not in groups:
        groups.append(own.fs_group)
    return tuple(groups)


def _verify_non_root(
    pod: Pod, container: AnyContainer, user: int | None, image: ImageStatus | None
) -> None:
    meta = pod.metadata
    where = f'(pod: "{meta.name}_{meta.namespace}({meta.uid})", container: {container.name})'
    if user is not None:
        if user == 0:
            raise ConfigProblem(f"container's runAsUser breaks non-root policy {where}")
        return
    if image is None:
        return
    if image.uid is None and image.username not in ("", "root", "0"):
        raise ConfigProblem(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            f"cannot verify user is non-root {where}"
        )
    if not image.uid:
        raise ConfigProblem(f"container has runAsNonRoot and image will run as root {where}")


def _first(mine: int | None, pods: int | None) -> int | None:
    return mine if mine is not None else pods


def _seccomp(profile: SeccompProfile | None, root: Path | None) -> SecurityProfile:
    if profile is None or profile.type == "Unconfined":
        return SecurityProfile(ProfileType.UNCONFINED)
    if profile.type == "Localhost":
        path = profile.localhost_profile if root is None else str(root / profile.localhost_profile)
        return SecurityProfile(ProfileType.LOCALHOST, path)
    return SecurityProfile(ProfileType.RUNTIME_DEFAULT)


def _apparmor(profile: AppArmorProfile | None) -> SecurityProfile | None:
    if profile is None:
        return None
    if profile.type == "Localhost":
        return SecurityProfile(ProfileType.LOCALHOST, profile.localhost_profile)
    if profile.type == "Unconfined":
        return SecurityProfile(ProfileType.UNCONFINED)
    return SecurityProfile(ProfileType.RUNTIME_DEFAULT)


def _selinux(options: SELinuxOptions | None) -> SelinuxOptions | None:
    if options is None:
        return None
    return SelinuxOptions(options.user, options.role, options.type, options.level)
