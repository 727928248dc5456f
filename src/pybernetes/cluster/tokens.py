"""Bootstrap tokens: what a machine joins a cluster with (secrets of kube-system, as kubeadm's)."""

from __future__ import annotations

import base64
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Secret
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.apimachinery.timestamp import format_time
from pybernetes.client.kubeconfig import client_from, load_kubeconfig
from pybernetes.cluster import pki
from pybernetes.cluster.addons import KUBE_SYSTEM
from pybernetes.cluster.server import advertised

if TYPE_CHECKING:
    from pybernetes.cluster.config import ClusterConfig

_ALPHABET = string.ascii_lowercase + string.digits
# Tokens are "<id>.<secret>"; both lengths are the API's.
ID_LENGTH, SECRET_LENGTH = 6, 16
TYPE = "bootstrap.kubernetes.io/token"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the other machine has to be told."""

    server: str
    token: str
    ca_hash: str


async def make_token(config: ClusterConfig, *, ttl_hours: float) -> Invitation:
    """Write a new token into the cluster. Raises StatusError, or OSError if it does not run."""
    identifier, secret = _random(ID_LENGTH), _random(SECRET_LENGTH)
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=ttl_hours)
    data = {
        "token-id": identifier,
        "token-secret": secret,
        "expiration": format_time(expires),
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "description": "made by p8s token",
    }
    client = client_from(load_kubeconfig([config.kubeconfig]))
    try:
        await client.create(
            Secret(
                metadata=ObjectMeta(name=f"bootstrap-token-{identifier}", namespace=KUBE_SYSTEM),
                type=TYPE,
                data={k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
            )
        )
    finally:
        await client.close()
    keys = pki.Pki(config.pki_directory)
    return Invitation(
        server=f"https://{advertised(config)}:{config.port}",
        token=f"{identifier}.{secret}",
        ca_hash=pki.ca_hash(keys.ca.certificate.read_bytes()),
    )


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
