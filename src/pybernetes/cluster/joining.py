"""How a machine becomes a node of another machine's cluster (`p8s agent --server --token`).

The token (`p8s token` prints it) lets the machine ask for a certificate, and nothing else; the hash
of the CA's key lets it tell the real server from an impostor. Steps, as kubeadm's TLS bootstrap:
the CA from kube-public/cluster-info, checked against the hash; a key and a signing request for
`system:node:<name>`; with that certificate, one for the agent's own HTTPS server.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec

from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestSpec,
)
from pybernetes.api.types.core_v1 import ConfigMap
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.errors import StatusError
from pybernetes.client import Client, Transport
from pybernetes.client.kubeconfig import client_from, load_kubeconfig, parse_kubeconfig
from pybernetes.cluster import kubeconfigs, nodesettings, pki
from pybernetes.cluster.addons import CLUSTER_INFO, KUBE_PUBLIC, SETTINGS
from pybernetes.cluster.config import KUBELET_PORT, ConfigError
from pybernetes.wire.client import HttpClient
from pybernetes.wire.http import WireError

if TYPE_CHECKING:
    from pathlib import Path

    from pybernetes.cluster.nodesettings import NodeSettings

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
# A certificate that is not there by then has to be approved by somebody.
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Invitation:
    """What somebody was given to join with, and who they want to be."""

    server: str
    token: str
    ca_hash: str
    name: str
    address: str


def join(
    directory: Path, *, server: str, token: str, ca_hash: str, name: str, address: str
) -> NodeSettings:
    """Join, and keep everything the agent needs in `directory`. Raises ConfigError."""
    if not ca_hash:
        raise ConfigError(
            "without --ca-hash this machine cannot tell the cluster from an impostor;"
            " p8s token prints it"
        )
    if not address:
        raise ConfigError("this machine has no address that leads anywhere; give one by --address")
    invitation = Invitation(server.rstrip("/"), token, ca_hash, name, address)
    try:
        return asyncio.run(_join(directory, invitation))
    except TimeoutError:
        raise ConfigError(
            f"nobody approved the certificate of {name} within {PATIENCE_SECONDS} s;"
            " on the server's machine: kubectl get csr, kubectl certificate approve NAME"
        ) from None
    except (StatusError, WireError, OSError) as error:
        raise ConfigError(f"cannot join {server}: {error}") from error


async def _join(directory: Path, invitation: Invitation) -> NodeSettings:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = await _trusted_ca(invitation)
    joining = Client(
        Transport(
            HttpClient(invitation.server, tls=ssl.create_default_context(cadata=ca.decode())),
            headers=lambda: [("authorization", f"Bearer {invitation.token}")],
        )
    )
    keys = pki.Pki(directory)
    pki.write_file(keys.ca.certificate, ca)
    try:
        settings = await _settings(joining, directory, invitation)
        pair = keys.node_client
        await _certify(
            joining,
            pair,
            pki.CertificateRequest(
                f"system:node:{invitation.name}", organizations=("system:nodes",)
            ),
            CLIENT_SIGNER,
        )
    finally:
        await joining.close()
    kubeconfigs.write_node(settings.kubeconfig, keys, pair, invitation.server, invitation.name)
    node = client_from(load_kubeconfig([settings.kubeconfig]))
    try:
        serving = pki.CertificateRequest(
            f"system:node:{invitation.name}",
            organizations=("system:nodes",),
            names=(invitation.name, invitation.address),
            usages=(pki.SERVER,),
        )
        await _certify(node, settings.pair, serving, SERVING_SIGNER)
    finally:
        await node.close()
    nodesettings.save(settings)
    return settings


async def _trusted_ca(invitation: Invitation) -> bytes:
    """The cluster's CA, read without trusting the connection and checked against the hash."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    stranger = Client(Transport(HttpClient(invitation.server, tls=unverified)))
    try:
        info = await stranger.get(ConfigMap, CLUSTER_INFO, KUBE_PUBLIC)
    finally:
        await stranger.close()
    config = parse_kubeconfig(info.data.get("kubeconfig", "").encode(), kubeconfigs.NOWHERE)
    for cluster in config.clusters.values():
        ca = cluster.certificate_authority_data
        if ca and hmac.compare_digest(pki.ca_hash(ca), invitation.ca_hash):
            return ca
    raise ConfigError(
        f"the server at {invitation.server} does not have the CA of --ca-hash:"
        " it is another cluster, or somebody in between"
    )


async def _settings(client: Client, directory: Path, invitation: Invitation) -> NodeSettings:
    data = (await client.get(ConfigMap, SETTINGS, KUBE_PUBLIC)).data
    return nodesettings.NodeSettings(
        data_dir=str(directory),
        name=invitation.name,
        address=str(ip_address(invitation.address)),
        kubelet_port=KUBELET_PORT,
        pod_cidr=data["podCIDR"],
        service_cidr=data["serviceCIDR"],
        dns_address=data["dnsAddress"],
        cluster_domain=data["clusterDomain"],
    )


async def _certify(
    client: Client, pair: pki.KeyPair, wanted: pki.CertificateRequest, signer: str
) -> None:
    """Have a key of our own signed by the cluster; kept in the pair's files."""
    request = pki.signing_request(pair.key, wanted)
    usage = "server auth" if pki.SERVER in wanted.usages else "client auth"
    made = await client.create(
        CertificateSigningRequest(
            metadata=ObjectMeta(generate_name="p8s-"),
            spec=CertificateSigningRequestSpec(
                request=base64.b64encode(request).decode(),
                signer_name=signer,
                usages=("digital signature", usage),
            ),
        )
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        signed = await _until_signed(client, made)
    pki.write_file(pair.certificate, base64.b64decode(signed.status.certificate))


async def _until_signed(client: Client, request: Any) -> Any:
    name = request.metadata.name
    async with client.watch(
        CertificateSigningRequest,
        resource_version=request.metadata.resource_version,
        field_selector=f"metadata.name={name}",
    ) as events:
        async for event in events:
            if event.type not in ("ADDED", "MODIFIED"):
                continue
            found = event.object
            if found.status.certificate:
                return found
            if any(c.type in ("Denied", "Failed") for c in found.status.conditions):
                said = msgspec.json.encode(found.status.conditions).decode()
                raise ConfigError(f"the cluster refused a certificate for this machine: {said}")
    raise ConfigError(f"the watch on certificate request {name} ended")
