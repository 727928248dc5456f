"""What pods become for the runtime, by tables: environment, names, limits, users, credentials."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pybernetes.api.types.core_v1 import (
    ConfigMapEnvSource,
    ConfigMapKeySelector,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    HostAlias,
    ObjectFieldSelector,
    PodDNSConfig,
    PodDNSConfigOption,
    PodSecurityContext,
    ResourceFieldSelector,
    SecretKeySelector,
    SecurityContext,
    ServicePort,
)
from pybernetes.kubelet.cgroups import container_resources
from pybernetes.kubelet.credentials import auths_for
from pybernetes.kubelet.env import (
    ConfigProblem,
    EnvFacts,
    environment_of,
    expand,
    service_variables,
)
from pybernetes.kubelet.images import full_reference, is_reference
from pybernetes.kubelet.names import dns_of, hostname_of, hosts_file, parse_resolv_conf
from pybernetes.kubelet.runtime.interface import DnsSpec, ImageStatus, ProfileType
from pybernetes.kubelet.security import container_security
from pybernetes.testing.builders import config_map, container, pod, secret, service

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Pod

CONFIG_MAPS = {"settings": config_map("settings", colour="blue")}
SECRETS = {"word": secret("word", it="c2VzYW1l")}


def facts(owner: Pod, *services: Any) -> EnvFacts:
    return EnvFacts(
        pod=owner,
        ips=("10.0.0.5", "fd00::5"),
        host_ips=("192.0.2.7",),
        allocatable={"cpu": "8", "memory": "16Gi"},
        services=services,
        config_map=CONFIG_MAPS.get,
        secret=SECRETS.get,
    )


# --- environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$A", "$A"),
        ("$$$$", "$$"),
        ("$(A", "$(A"),
        ("100$", "100$"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == result


def variable(**source: Any) -> EnvVar:
    return EnvVar(name="X", value_from=EnvVarSource(**source))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        pytest.param(
            variable(config_map_key_ref=ConfigMapKeySelector(name="settings", key="colour")),
            "blue",
            id="config map",
        ),
        pytest.param(
            variable(secret_key_ref=SecretKeySelector(name="word", key="it")), "sesame", id="secret"
        ),
        pytest.param(
            variable(secret_key_ref=SecretKeySelector(name="no", key="it", optional=True)),
            None,
            id="optional and absent",
        ),
        pytest.param(
            variable(field_ref=ObjectFieldSelector(field_path="status.podIPs")),
            "10.0.0.5,fd00::5",
            id="addresses",
        ),
        pytest.param(
            variable(field_ref=ObjectFieldSelector(field_path="metadata.labels['app']")),
            "web",
            id="one label",
        ),
        pytest.param(
            variable(resource_field_ref=ResourceFieldSelector(resource="requests.cpu")),
            "1",
            id="processors, rounded up",
        ),
        pytest.param(
            variable(
                resource_field_ref=ResourceFieldSelector(resource="requests.cpu", divisor="1m")
            ),
            "250",
            id="thousandths of processors",
        ),
        pytest.param(
            variable(
                resource_field_ref=ResourceFieldSelector(resource="limits.memory", divisor="1Mi")
            ),
            "16384",
            id="without a limit, what the node has",
        ),
    ],
)
def test_values(entry: EnvVar, value: str | None) -> None:
    spec = container(env=(entry,), requests={"cpu": "250m"})
    owner = pod(labels={"app": "web"}, containers=[spec])
    assert environment_of(spec, facts(owner)).get("X") == value


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            variable(config_map_key_ref=ConfigMapKeySelector(name="no", key="k")),
            'configmap "no" not found',
        ),
        (
            variable(config_map_key_ref=ConfigMapKeySelector(name="settings", key="k")),
            "couldn't find key k in ConfigMap default/settings",
        ),
        (
            variable(secret_key_ref=SecretKeySelector(name="word", key="k")),
            "couldn't find key k in Secret default/word",
        ),
    ],
)
def test_what_is_missing_is_said(entry: EnvVar, message: str) -> None:
    spec = container(env=(entry,))
    with pytest.raises(ConfigProblem, match=message):
        environment_of(spec, facts(pod(containers=[spec])))


def test_later_sources_win() -> None:
    spec = container(
        env_from=(EnvFromSource(config_map_ref=ConfigMapEnvSource(name="settings")),),
        env=(EnvVar(name="WEB_SERVICE_HOST", value="mine"), EnvVar(name="colour", value="red")),
    )
    web = service("web", cluster_ip="10.96.0.9")
    found = environment_of(spec, facts(pod(containers=[spec]), web))
    assert found["colour"] == "red"
    assert found["WEB_SERVICE_HOST"] == "mine"
    assert found["WEB_SERVICE_PORT"] == "80"


def test_service_variables() -> None:
    ports = (
        ServicePort(name="http", protocol="TCP", port=80),
        ServicePort(name="dns-udp", protocol="UDP", port=53),
    )
    assert service_variables(service("my-web", cluster_ip="10.96.0.9", ports=ports)) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.9",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_DNS_UDP": "53",
        "MY_WEB_PORT": "tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.9",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.9",
    }
    assert service_variables(service("headless", cluster_ip="None")) == {}


def test_every_pod_knows_the_kubernetes_service() -> None:
    spec = container()
    api = service("kubernetes", "default", cluster_ip="10.96.0.1")
    other = service("other", "default", cluster_ip="10.96.0.2")
    owner = pod(namespace="mine", containers=[spec], enable_service_links=False)
    found = environment_of(spec, facts(owner, api, other))
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert "OTHER_SERVICE_HOST" not in found


# --- names ----------------------------------------------------------------------------------------

HOST_DNS = DnsSpec(("9.9.9.9",), ("example.test",), ("timeout:2",))


@pytest.mark.parametrize(
    ("spec", "dns"),
    [
        pytest.param(
            {},
            DnsSpec(
                ("10.96.0.10",),
                ("default.svc.c.local", "svc.c.local", "c.local", "example.test"),
                ("ndots:5",),
            ),
            id="cluster first",
        ),
        pytest.param({"host_network": True}, HOST_DNS, id="host network"),
        pytest.param({"dns_policy": "Default"}, HOST_DNS, id="default"),
        pytest.param(
            {
                "dns_policy": "None",
                "dns_config": PodDNSConfig(
                    nameservers=("1.2.3.4",), options=(PodDNSConfigOption(name="ndots", value="2"),)
                ),
            },
            DnsSpec(("1.2.3.4",), (), ("ndots:2",)),
            id="none",
        ),
        pytest.param(
            {
                "dns_policy": "Default",
                "dns_config": PodDNSConfig(
                    searches=("more.test",),
                    options=(PodDNSConfigOption(name="timeout", value="9"),),
                ),
            },
            DnsSpec(("9.9.9.9",), ("example.test", "more.test"), ("timeout:9",)),
            id="with its own on top",
        ),
    ],
)
def test_dns(spec: dict[str, Any], dns: DnsSpec) -> None:
    assert dns_of(pod(**spec), HOST_DNS, ("10.96.0.10",), "c.local") == dns


def test_resolv_conf_is_read() -> None:
    text = "# x\nnameserver 9.9.9.9\nsearch a.test b.test.\noptions ndots:2 rotate\n"
    assert parse_resolv_conf(text) == DnsSpec(
        ("9.9.9.9",), ("a.test", "b.test"), ("ndots:2", "rotate")
    )


def test_hosts_file() -> None:
    owner = pod(
        "web-0",
        hostname="web-0",
        subdomain="web",
        host_aliases=(HostAlias(ip="192.0.2.1", hostnames=("a", "b")),),
    )
    text = hosts_file(owner, ("10.0.0.5",), "cluster.local")
    assert "10.0.0.5\tweb-0.web.default.svc.cluster.local\tweb-0\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n")


@pytest.mark.parametrize(
    ("name", "spec", "hostname"),
    [
        ("web", {}, "web"),
        ("w" * 70, {}, "w" * 63),
        ("web", {"hostname": "other"}, "other"),
        ("web", {"host_network": True}, "node-1"),
        (
            "web",
            {"subdomain": "sub", "set_hostname_as_fqdn": True},
            "web.sub.default.svc.cluster.local",
        ),
    ],
)
def test_hostnames(name: str, spec: dict[str, Any], hostname: str) -> None:
    assert hostname_of(pod(name, **spec), "node-1", "cluster.local") == hostname


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "limits", "shares", "quota", "memory", "score"),
    [
        pytest.param({}, {}, 2, None, None, 1000, id="best effort"),
        pytest.param({"cpu": "250m", "memory": "1Gi"}, {}, 256, None, None, 938, id="burstable"),
        pytest.param(
            {"cpu": "1", "memory": "1Gi"},
            {"cpu": "1", "memory": "1Gi"},
            1024,
            100_000,
            2**30,
            -997,
            id="guaranteed",
        ),
        pytest.param({}, {"cpu": "1m"}, 2, 1000, None, 999, id="least of all"),
    ],
)
def test_limits(
    requests: dict[str, str],
    limits: dict[str, str],
    shares: int,
    quota: int | None,
    memory: int | None,
    score: int,
) -> None:
    spec = container(requests=requests, limits=limits)
    found = container_resources(pod(containers=[spec]), spec, node_memory=16 * 2**30)
    assert (
        found.cpu_shares,
        found.cpu_quota_microseconds,
        found.memory_limit_bytes,
        found.oom_score_adj,
    ) == (shares, quota, memory, score)


def test_a_score_is_never_lower_than_allowed() -> None:
    spec = container(requests={"cpu": "1", "memory": "1"}, limits={"cpu": "1", "memory": "1"})
    found = container_resources(pod(containers=[spec]), spec, node_memory=1, least_score=-100)
    assert found.oom_score_adj == -100


# --- users ----------------------------------------------------------------------------------------


def test_the_container_wins_over_the_pod() -> None:
    spec = container(security_context=SecurityContext(run_as_user=5))
    owner = pod(
        containers=[spec],
        security_context=PodSecurityContext(run_as_user=1, run_as_group=2, fs_group=3),
    )
    found = container_security(owner, spec, ImageStatus("x", uid=9))
    assert (found.run_as_user, found.run_as_group) == (5, 2)
    assert found.supplemental_groups == (3,)
    assert found.seccomp is not None
    assert found.seccomp.type is ProfileType.UNCONFINED


def test_the_image_s_user_is_used() -> None:
    spec = container()
    assert container_security(pod(), spec, ImageStatus("x", uid=9)).run_as_user == 9
    named = container_security(pod(), spec, ImageStatus("x", username="www"))
    assert named.run_as_username == "www"


@pytest.mark.parametrize(
    ("user", "image", "message"),
    [
        (0, ImageStatus("x"), "container's runAsUser breaks non-root policy"),
        (None, ImageStatus("x", uid=0), "container has runAsNonRoot and image will run as root"),
        (None, ImageStatus("x"), "container has runAsNonRoot and image will run as root"),
        (None, ImageStatus("x", username="www"), r"image has non-numeric user \(www\)"),
    ],
)
def test_root_is_refused(user: int | None, image: ImageStatus, message: str) -> None:
    spec = container(security_context=SecurityContext(run_as_non_root=True, run_as_user=user))
    with pytest.raises(ConfigProblem, match=message):
        container_security(pod(containers=[spec]), spec, image)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("r.test/a", "r.test/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("r.test/a@sha256:0", "r.test/a@sha256:0"),
    ],
)
def test_references(image: str, full: str) -> None:
    assert full_reference(image) == full


@pytest.mark.parametrize(
    ("image", "valid"),
    [
        ("busybox", True),
        ("r.test:5000/a/b-c__d:v1.2", True),
        ("a@sha256:" + "0" * 64, True),
        ("", False),
        ("UPPER", False),
        ("a:b:c", False),
        ("a b", False),
        ("http://a/b", False),
        ("a:", False),
    ],
)
def test_what_names_an_image(image: str, valid: bool) -> None:
    assert is_reference(image) is valid


def pull_secret(auths: dict[str, str]) -> Any:
    content = {
        "auths": {
            name: {"auth": base64.b64encode(user.encode()).decode()} for name, user in auths.items()
        }
    }
    data = {".dockerconfigjson": base64.b64encode(json.dumps(content).encode()).decode()}
    made = secret("pull", **data)
    return msgspec.structs.replace(made, type="kubernetes.io/dockerconfigjson")


@pytest.mark.parametrize(
    ("image", "users"),
    [
        ("r.test/a:1", ["b"]),
        ("r.test/team/a:1", ["c", "b"]),
        ("busybox", ["a"]),
        ("x.wild.test/a", ["d"]),
        ("other.test/a", []),
    ],
)
def test_credentials_belong_to_places(image: str, users: list[str]) -> None:
    made = pull_secret(
        {
            "https://index.docker.io/v1/": "a:1",
            "r.test": "b:2",
            "r.test/team": "c:3",
            "*.wild.test": "d:4",
        }
    )
    assert [auth.username for auth in auths_for(image, [made])] == users


def test_a_broken_pull_secret_is_passed_over() -> None:
    assert auths_for("a", [secret("x", **{".dockerconfigjson": "!!"})]) == []
