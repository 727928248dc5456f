"""What a pod is called and whom it asks: hostname, /etc/hosts, resolv.conf. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.interface import DnsSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybernetes.api.types.core_v1 import Pod

LONGEST_HOSTNAME = 63
CLUSTER_OPTIONS = ("ndots:5",)

_HEADER = "# Kubernetes-managed hosts file.\n"
_HOST_HEADER = "# Kubernetes-managed hosts file (host network).\n"
_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def hostname_of(pod: Pod, node_name: str, cluster_domain: str) -> str:
    spec = pod.spec
    if spec.hostname_override:
        return spec.hostname_override
    if spec.host_network:
        return node_name
    short = short_hostname(pod)
    domain = domain_of(pod, cluster_domain)
    return f"{short}.{domain}" if domain and spec.set_hostname_as_fqdn else short


def short_hostname(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:LONGEST_HOSTNAME].rstrip("-.")


def domain_of(pod: Pod, cluster_domain: str) -> str:
    """Of a pod with a subdomain, below which its headless Service publishes it."""
    if not pod.spec.subdomain:
        return ""
    return f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}"


def hosts_file(pod: Pod, ips: Sequence[str], cluster_domain: str, node_hosts: str = "") -> str:
    """The content of /etc/hosts. `node_hosts` is the node's own, for pods on its network."""
    if pod.spec.host_network:
        text = _HOST_HEADER + node_hosts
    else:
        text = _HEADER + _LOCAL
        short, domain = short_hostname(pod), domain_of(pod, cluster_domain)
        for ip in ips:
            text += f"{ip}\t{short}.{domain}\t{short}\n" if domain else f"{ip}\t{short}\n"
    if pod.spec.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in pod.spec.host_aliases:
            text += "\t".join([alias.ip, *alias.hostnames]) + "\n"
    return text


def parse_resolv_conf(text: str) -> DnsSpec:
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] == "search":
            searches = tuple(word.rstrip(".") or "." for word in words[1:])
        elif words[0] == "options":
            options = tuple(words[1:])
    return DnsSpec(tuple(servers), searches, options)


def dns_of(pod: Pod, host: DnsSpec, cluster_dns: Sequence[str], cluster_domain: str) -> DnsSpec:
    """By the pod's policy, with its own dnsConfig on top."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    if policy == "ClusterFirstWithHostNet":
        policy = "ClusterFirst"
    if policy == "None":
        base = DnsSpec()
    elif policy == "ClusterFirst" and cluster_dns:
        namespace = pod.metadata.namespace
        own = (f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain)
        base = DnsSpec(tuple(cluster_dns), _once((*own, *host.searches)), CLUSTER_OPTIONS)
    else:
        base = host
    config = pod.spec.dns_config
    if config is None:
        return base
    options = {option.partition(":")[0]: option for option in base.options}
    for option in config.options:
        options[option.name] = f"{option.name}:{option.value}" if option.value else option.name
    return DnsSpec(
        _once((*base.servers, *config.nameservers)),
        _once((*base.searches, *config.searches)),
        tuple(options.values()),
    )


def _once(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
