"""The Pod Security Standards as pure functions: a pod in, what it violates out.

A check returns None, or a reason and a detail in upstream's words. Restricted includes baseline;
where both speak of one thing, the stricter check stands for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Container, EphemeralContainer, PodSpec, Volume

BASELINE, RESTRICTED = "baseline", "restricted"

_DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_SELINUX_TYPES = frozenset(
    {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
)
# Volume sources that restricted pods may use, by attribute.
_VOLUMES = frozenset(
    {
        "config_map",
        "csi",
        "downward_api",
        "empty_dir",
        "ephemeral",
        "image",
        "persistent_volume_claim",
        "projected",
        "secret",
    }
)

AnyContainer = Any


@dataclass(frozen=True, slots=True)
class Violation:
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check = Callable[["PodSpec"], "Violation | None"]


def violations(spec: PodSpec, level: str) -> list[Violation]:
    """What the pod does that the level does not allow, in upstream's order."""
    if level == BASELINE:
        checks = BASELINE_CHECKS
    elif level == RESTRICTED:
        checks = tuple(c for c in BASELINE_CHECKS if c not in _REPLACED) + RESTRICTED_CHECKS
    else:
        return []
    return [violation for check in checks if (violation := check(spec)) is not None]


# --- helpers --------------------------------------------------------------------------------------


def _containers(spec: PodSpec) -> tuple[Container | EphemeralContainer, ...]:
    return (*spec.init_containers, *spec.containers, *spec.ephemeral_containers)


def _context(container: Container | EphemeralContainer, name: str) -> Any:
    context = container.security_context
    return None if context is None else getattr(context, name)


def _pod(spec: PodSpec, name: str) -> Any:
    return None if spec.security_context is None else getattr(spec.security_context, name)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _who(names: list[str]) -> str:
    return f"container{'s' if len(names) > 1 else ''} {_quoted(names)}"


def _is_windows(spec: PodSpec) -> bool:
    return spec.os is not None and spec.os.name == "windows"


# --- baseline -------------------------------------------------------------------------------------


def app_armor(spec: PodSpec) -> Violation | None:
    where = []
    if _is_unconfined(_pod(spec, "app_armor_profile")):
        where.append("pod")
    bad = [c.name for c in _containers(spec) if _is_unconfined(_context(c, "app_armor_profile"))]
    if bad:
        where.append(_who(bad))
    if not where:
        return None
    detail = f'{" and ".join(where)} must not set AppArmor profile type to "Unconfined"'
    return Violation("forbidden AppArmor profile", detail)


def _is_unconfined(profile: Any) -> bool:
    return profile is not None and profile.type == "Unconfined"


def capabilities_baseline(spec: PodSpec) -> Violation | None:
    bad, added = [], set()
    for container in _containers(spec):
        capabilities = _context(container, "capabilities")
        more = set(() if capabilities is None else capabilities.add) - _DEFAULT_CAPABILITIES
        if more:
            bad.append(container.name)
            added |= more
    if not bad:
        return None
    what = _quoted(sorted(added))
    detail = f"{_who(bad)} must not include {what} in securityContext.capabilities.add"
    return Violation("non-default capabilities", detail)


def host_namespaces(spec: PodSpec) -> Violation | None:
    shared = [
        name
        for name, value in (
            ("hostNetwork", spec.host_network),
            ("hostPID", spec.host_pid),
            ("hostIPC", spec.host_ipc),
        )
        if value
    ]
    if not shared:
        return None
    return Violation("host namespaces", ", ".join(f"{name}=true" for name in shared))


def host_path_volumes(spec: PodSpec) -> Violation | None:
    bad = [volume.name for volume in spec.volumes if volume.host_path is not None]
    if not bad:
        return None
    return Violation("hostPath volumes", f"volume{'s' if len(bad) > 1 else ''} {_quoted(bad)}")


def host_ports(spec: PodSpec) -> Violation | None:
    bad: list[str] = []
    ports: set[int] = set()
    for container in _containers(spec):
        used = {port.host_port for port in container.ports if port.host_port}
        if used:
            bad.append(container.name)
            ports |= used
    if not bad:
        return None
    many = len(bad) > 1
    numbers = ", ".join(str(port) for port in sorted(ports))
    verb = "use" if many else "uses"
    noun = "hostPorts" if len(ports) > 1 else "hostPort"
    return Violation("hostPort", f"{_who(bad)} {verb} {noun} {numbers}")


def privileged(spec: PodSpec) -> Violation | None:
    bad = [c.name for c in _containers(spec) if _context(c, "privileged")]
    if not bad:
        return None
    return Violation("privileged", f"{_who(bad)} must not set securityContext.privileged=true")


def proc_mount(spec: PodSpec) -> Violation | None:
    bad, kinds = [], set()
    for container in _containers(spec):
        kind = _context(container, "proc_mount")
        if kind and kind != "Default":
            bad.append(container.name)
            kinds.add(kind)
    if not bad:
        return None
    detail = f"{_who(bad)} must not set securityContext.procMount to {_quoted(sorted(kinds))}"
    return Violation("procMount", detail)


def selinux_options(spec: PodSpec) -> Violation | None:
    where, problems = [], set()
    pod = _selinux_problems(_pod(spec, "se_linux_options"))
    if pod:
        where.append("pod")
        problems |= pod
    bad = []
    for container in _containers(spec):
        found = _selinux_problems(_context(container, "se_linux_options"))
        if found:
            bad.append(container.name)
            problems |= found
    if bad:
        where.append(_who(bad))
    if not where:
        return None
    return Violation("seLinuxOptions", f"{' and '.join(where)} set {'; '.join(sorted(problems))}")


def _selinux_problems(options: Any) -> set[str]:
    if options is None:
        return set()
    problems = set()
    if options.type not in _SELINUX_TYPES:
        problems.add(f'forbidden securityContext.seLinuxOptions: type "{options.type}"')
    if options.user:
        problems.add("forbidden securityContext.seLinuxOptions: user may not be set")
    if options.role:
        problems.add("forbidden securityContext.seLinuxOptions: role may not be set")
    return problems


def seccomp_baseline(spec: PodSpec) -> Violation | None:
    where = []
    if _is_unconfined(_pod(spec, "seccomp_profile")):
        where.append("pod")
    bad = [c.name for c in _containers(spec) if _is_unconfined(_context(c, "seccomp_profile"))]
    if bad:
        where.append(_who(bad))
    if not where:
        return None
    detail = 'must not set securityContext.seccompProfile.type to "Unconfined"'
    return Violation("seccompProfile", f"{' and '.join(where)} {detail}")


def sysctls(spec: PodSpec) -> Violation | None:
    bad = [s.name for s in _pod(spec, "sysctls") or () if s.name not in _SAFE_SYSCTLS]
    return Violation("forbidden sysctls", ", ".join(bad)) if bad else None


def windows_host_process(spec: PodSpec) -> Violation | None:
    where = []
    if _is_host_process(_pod(spec, "windows_options")):
        where.append("pod")
    bad = [c.name for c in _containers(spec) if _is_host_process(_context(c, "windows_options"))]
    if bad:
        where.append(_who(bad))
    if not where:
        return None
    detail = "must not set securityContext.windowsOptions.hostProcess=true"
    return Violation("hostProcess", f"{' and '.join(where)} {detail}")


def _is_host_process(options: Any) -> bool:
    return options is not None and bool(options.host_process)


# --- restricted -----------------------------------------------------------------------------------


def privilege_escalation(spec: PodSpec) -> Violation | None:
    if _is_windows(spec):
        return None
    bad = [
        c.name for c in _containers(spec) if _context(c, "allow_privilege_escalation") is not False
    ]
    if not bad:
        return None
    detail = f"{_who(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def capabilities_restricted(spec: PodSpec) -> Violation | None:
    if _is_windows(spec):
        return None
    keeping, adding, added = [], [], set()
    for container in _containers(spec):
        capabilities = _context(container, "capabilities")
        if capabilities is None or "ALL" not in capabilities.drop:
            keeping.append(container.name)
        more = set(() if capabilities is None else capabilities.add) - {"NET_BIND_SERVICE"}
        if more:
            adding.append(container.name)
            added |= more
    details = []
    if keeping:
        details.append(f'{_who(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        details.append(
            f"{_who(adding)} must not include {_quoted(sorted(added))} in"
            " securityContext.capabilities.add"
        )
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


def restricted_volumes(spec: PodSpec) -> Violation | None:
    found = {v.name: kind for v in spec.volumes if (kind := _restricted_kind(v))}
    if not found:
        return None
    kinds = sorted(set(found.values()))
    many = len(found) > 1
    detail = (
        f"volume{'s' if many else ''} {_quoted(found)} use{'' if many else 's'}"
        f" restricted volume type{'s' if len(kinds) > 1 else ''} {_quoted(kinds)}"
    )
    return Violation("restricted volume types", detail)


def _restricted_kind(volume: Volume) -> str:
    from pybernetes.api.types._struct import wire_name

    for attribute in volume.__struct_fields__:
        if attribute == "name" or attribute in _VOLUMES:
            continue
        if getattr(volume, attribute) is not None:
            return wire_name(attribute)
    return ""


def run_as_non_root(spec: PodSpec) -> Violation | None:
    details = []
    pod = _pod(spec, "run_as_non_root")
    if pod is False:
        details.append("pod must not set securityContext.runAsNonRoot=false")
    explicit = [c.name for c in _containers(spec) if _context(c, "run_as_non_root") is False]
    open_ = [c.name for c in _containers(spec) if _context(c, "run_as_non_root") is None]
    if explicit:
        details.append(f"{_who(explicit)} must not set securityContext.runAsNonRoot=false")
    if open_ and pod is None:
        details.append(f"pod or {_who(open_)} must set securityContext.runAsNonRoot=true")
    return Violation("runAsNonRoot != true", "; ".join(details)) if details else None


def run_as_user(spec: PodSpec) -> Violation | None:
    details = []
    if _pod(spec, "run_as_user") == 0:
        details.append("pod must not set runAsUser=0")
    bad = [c.name for c in _containers(spec) if _context(c, "run_as_user") == 0]
    if bad:
        details.append(f"{_who(bad)} must not set runAsUser=0")
    return Violation("runAsUser=0", "; ".join(details)) if details else None


def seccomp_restricted(spec: PodSpec) -> Violation | None:
    if _is_windows(spec):
        return None
    allowed = ("RuntimeDefault", "Localhost")
    pod = _pod(spec, "seccomp_profile")
    details = []
    if pod is not None and pod.type not in allowed:
        detail = f'pod must not set securityContext.seccompProfile.type to "{pod.type}"'
        details.append(detail)
    wrong, open_ = [], []
    for container in _containers(spec):
        profile = _context(container, "seccomp_profile")
        if profile is None:
            if pod is None:
                open_.append(container.name)
        elif profile.type not in allowed:
            wrong.append(container.name)
    if wrong:
        details.append(
            f'{_who(wrong)} must not set securityContext.seccompProfile.type to "Unconfined"'
        )
    if open_:
        details.append(
            f"pod or {_who(open_)} must set securityContext.seccompProfile.type to"
            ' "RuntimeDefault" or "Localhost"'
        )
    return Violation("seccompProfile", "; ".join(details)) if details else None


BASELINE_CHECKS: tuple[Check, ...] = (
    app_armor,
    capabilities_baseline,
    host_namespaces,
    host_path_volumes,
    host_ports,
    privileged,
    proc_mount,
    selinux_options,
    seccomp_baseline,
    sysctls,
    windows_host_process,
)
RESTRICTED_CHECKS: tuple[Check, ...] = (
    privilege_escalation,
    capabilities_restricted,
    restricted_volumes,
    run_as_non_root,
    run_as_user,
    seccomp_restricted,
)
# What the restricted checks say more strictly.
_REPLACED = (capabilities_baseline, host_path_volumes, seccomp_baseline)
