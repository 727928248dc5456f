"""Validation of what a pod shall be, shared by pods and by the templates of every workload.

`validate_pod_template` is what a workload kind calls; `validate_pod_spec` is the same for
the spec alone. Messages and their order are upstream's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.api.core.containers import (
    RESTART_POLICIES,
    Surroundings,
    validate_all_containers,
)
from pybernetes.api.core.podresources import aggregate_texts, is_overcommit_allowed, is_pod_level
from pybernetes.api.core.resourcelists import (
    validate_amount,
    validate_requests_within_limits,
    validate_resource_list,
)
from pybernetes.api.core.scheduling import (
    validate_affinity,
    validate_gates,
    validate_spread,
    validate_tolerations,
)
from pybernetes.api.core.securitycontexts import validate_pod_security
from pybernetes.api.core.volumes import validate_volumes
from pybernetes.api.validation import (
    INT32_MAX,
    validate_dns_label,
    validate_label_name,
    validate_labels,
    validate_one_of,
    validate_range,
    validate_with,
)
from pybernetes.apimachinery.names import (
    dns_label_errors,
    dns_subdomain_errors,
    ip_errors,
    qualified_name_errors,
)
from pybernetes.apimachinery.quantity import compare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.core_v1 import PodDNSConfig, PodSpec, PodTemplateSpec
    from pybernetes.apimachinery.fielderror import FieldError, Path

DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_MOST_NAMESERVERS, _MOST_SEARCHES, _MOST_SEARCH_CHARACTERS = 3, 32, 2048


def validate_pod_template(template: PodTemplateSpec, path: Path) -> Iterator[FieldError]:
    yield from validate_labels(template.metadata.labels, path.metadata.labels)
    for key in template.metadata.annotations:
        for message in qualified_name_errors(key.lower()):
            yield path.metadata.annotations.invalid(key, message)
    yield from validate_pod_spec(template.spec, path.spec)
    if template.spec.ephemeral_containers:
        yield path.spec.ephemeralContainers.forbidden(
            "ephemeral containers not allowed in pod template"
        )


def validate_pod_spec(spec: PodSpec, path: Path, *, pod_name: str = "") -> Iterator[FieldError]:
    """`pod_name` is known for pods, not for templates."""
    around = Surroundings(
        volumes={volume.name: volume for volume in spec.volumes},
        claim_names=frozenset([claim.name for claim in spec.resource_claims]),
        grace_seconds=spec.termination_grace_period_seconds or 0,
        os=spec.os.name if spec.os is not None else "",
        host_users=spec.host_users is not False,
    )
    if spec.volumes:
        yield from validate_volumes(spec.volumes, pod_name, path.volumes)
    if spec.resource_claims:
        yield from _validate_resource_claims(spec, path.resourceClaims)
    yield from validate_all_containers(spec, around, path)
    if spec.resources is not None:
        yield from _validate_pod_resources(spec, path.resources)
    if spec.host_network:
        yield from _validate_host_network(spec, path)
    if spec.restart_policy not in RESTART_POLICIES:
        yield from validate_one_of(spec.restart_policy, RESTART_POLICIES, path.restartPolicy)
    if spec.dns_policy not in DNS_POLICIES:
        yield from validate_one_of(spec.dns_policy, DNS_POLICIES, path.dnsPolicy)
    if spec.node_selector:
        yield from validate_labels(spec.node_selector, path.nodeSelector)
    yield from validate_pod_security(spec, path)
    for index, secret in enumerate(spec.image_pull_secrets):
        if not secret.name:
            yield path.imagePullSecrets[index].name.required()
    yield from _validate_scheduling(spec, path)
    if spec.dns_config is not None or spec.dns_policy == "None":
        yield from _validate_dns_config(spec.dns_config, spec.dns_policy, path.dnsConfig)
    yield from _validate_names(spec, path)
    if spec.active_deadline_seconds is not None:
        yield from validate_range(
            spec.active_deadline_seconds, 1, INT32_MAX, path.activeDeadlineSeconds
        )
    if spec.termination_grace_period_seconds is None:
        yield path.terminationGracePeriodSeconds.required()
    for index, alias in enumerate(spec.host_aliases):
        yield from validate_with(ip_errors, alias.ip, path.hostAliases[index].ip)
        for hostname in alias.hostnames:
            yield from validate_with(
                dns_subdomain_errors, hostname, path.hostAliases[index].hostnames
            )
    if spec.overhead:
        yield from validate_resource_list(spec.overhead, path.overhead)
    if spec.os is not None:
        yield from _validate_os(spec, path)


def _validate_scheduling(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    if spec.affinity is not None:
        yield from validate_affinity(spec.affinity, path.affinity)
    for index, gate in enumerate(spec.readiness_gates):
        yield from validate_label_name(
            gate.condition_type, path.readinessGates[index].conditionType
        )
    if spec.scheduling_gates:
        yield from validate_gates(spec.scheduling_gates, path.schedulingGates)
    if spec.topology_spread_constraints:
        yield from validate_spread(spec.topology_spread_constraints, path.topologySpreadConstraints)
    if spec.tolerations:
        yield from validate_tolerations(spec.tolerations, path.tolerations)
    if spec.preemption_policy not in ("", "PreemptLowerPriority", "Never"):
        yield path.preemptionPolicy.not_supported(
            spec.preemption_policy, ("PreemptLowerPriority", "Never")
        )


def _validate_names(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    for value, wire_name in (
        (spec.service_account_name, "serviceAccountName"),
        (spec.node_name, "nodeName"),
        (spec.priority_class_name, "priorityClassName"),
        (spec.runtime_class_name, "runtimeClassName"),
    ):
        if value:
            yield from validate_with(dns_subdomain_errors, value, path.child(wire_name))
    if spec.hostname:
        yield from validate_dns_label(spec.hostname, path.hostname)
    if spec.subdomain:
        yield from validate_dns_label(spec.subdomain, path.subdomain)
    if spec.hostname_override:
        if len(spec.hostname_override) > 64:
            yield path.hostnameOverride.too_long(64)
        yield from validate_with(
            dns_subdomain_errors, spec.hostname_override, path.hostnameOverride
        )
        if spec.set_hostname_as_fqdn:
            yield path.hostnameOverride.forbidden(
                "may not be specified when setHostnameAsFQDN is true"
            )
        if spec.host_network:
            yield path.hostnameOverride.forbidden("may not be specified when hostNetwork is true")


def _validate_resource_claims(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, claim in enumerate(spec.resource_claims):
        here = path[index]
        if not claim.name:
            yield here.name.required()
        elif claim.name in names:
            yield here.name.duplicate(claim.name)
        else:
            yield from validate_with(dns_label_errors, claim.name, here.name)
        names.add(claim.name)
        both = bool(claim.resource_claim_name) + bool(claim.resource_claim_template_name)
        if both == 0:
            yield here.invalid(
                claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            )
        elif both == 2:
            yield here.invalid(
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be "
                "specified",
            )


def _validate_pod_resources(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    resources = spec.resources
    assert resources is not None
    for where, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for name, amount in amounts.items():
            here = path.child(where).key(name)
            if not is_pod_level(name):
                yield here.not_supported(name, ("cpu", "hugepages-", "memory"))
            yield from validate_amount(name, amount, here)
    yield from validate_requests_within_limits(resources, path)
    asked, most = aggregate_texts(spec, "requests"), aggregate_texts(spec, "limits")
    for name, amount in resources.requests.items():
        together = asked.get(name, "0")
        if compare(amount, together) < 0:
            yield path.requests.key(name).invalid(
                amount,
                f"must be greater than or equal to aggregate container requests of {together}",
            )
    for name, amount in resources.limits.items():
        together = most.get(name, "0")
        if not is_overcommit_allowed(name) and compare(amount, together) < 0:
            yield path.limits.key(name).invalid(
                amount,
                f"must be greater than or equal to aggregate container limits of {together}",
            )


def _validate_host_network(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    for where, containers in (
        (path.containers, spec.containers),
        (path.initContainers, spec.init_containers),
    ):
        for index, container in enumerate(containers):
            for number, port in enumerate(container.ports):
                if port.host_port and port.host_port != port.container_port:
                    yield (
                        where[index]
                        .ports[number]
                        .hostPort.invalid(
                            port.host_port, "must match `containerPort` when `hostNetwork` is true"
                        )
                    )


def _validate_dns_config(
    config: PodDNSConfig | None, policy: str, path: Path
) -> Iterator[FieldError]:
    if config is None:
        yield path.required("must provide `dnsConfig` when `dnsPolicy` is None")
        return
    if policy == "None" and not config.nameservers:
        yield path.nameservers.required(
            "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
        return
    if len(config.nameservers) > _MOST_NAMESERVERS:
        yield path.nameservers.invalid(
            config.nameservers, f"must not have more than {_MOST_NAMESERVERS} nameservers"
        )
    for index, server in enumerate(config.nameservers):
        yield from validate_with(ip_errors, server, path.nameservers[index])
    if len(config.searches) > _MOST_SEARCHES:
        yield path.searches.invalid(
            config.searches, f"must not have more than {_MOST_SEARCHES} search paths"
        )
    if len(" ".join(config.searches)) > _MOST_SEARCH_CHARACTERS:
        yield path.searches.invalid(
            config.searches,
            f"must not have more than {_MOST_SEARCH_CHARACTERS} characters (including spaces) "
            "in the search list",
        )
    for index, search in enumerate(config.searches):
        # A single dot, a trailing dot and underscores are all in use out there.
        plain = search.removesuffix(".").replace("_", "a")
        if plain:
            for message in dns_subdomain_errors(plain):
                yield path.searches[index].invalid(search, message)
    for index, option in enumerate(config.options):
        if not option.name:
            yield path.options[index].required("must not be empty")


def _validate_os(spec: PodSpec, path: Path) -> Iterator[FieldError]:
    assert spec.os is not None
    name = spec.os.name
    if name not in ("linux", "windows"):
        yield from validate_one_of(name, ("linux", "windows"), path.os.name)
        return
    if name == "linux":
        return
    for wire_name, value in (
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
        ("hostUsers", spec.host_users is not None),
        ("shareProcessNamespace", spec.share_process_namespace),
    ):
        if value:
            yield path.child(wire_name).forbidden("cannot be set for a windows pod")
    context = spec.security_context
    if context is None:
        return
    settings: tuple[tuple[str, object], ...] = (
        ("appArmorProfile", context.app_armor_profile),
        ("seLinuxOptions", context.se_linux_options),
        ("seccompProfile", context.seccomp_profile),
        ("fsGroup", context.fs_group),
        ("fsGroupChangePolicy", context.fs_group_change_policy or None),
        ("sysctls", context.sysctls or None),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
        ("supplementalGroups", context.supplemental_groups or None),
    )
    for wire_name, setting in settings:
        if setting is not None:
            yield path.securityContext.child(wire_name).forbidden("cannot be set for a windows pod")
