"""Who may do what in this cluster, and the objects every cluster begins with.

Puts the API server's plugins together: authentication, authorization, admission, discovery, and
the streams to nodes. What a cluster is not given (keys, an address) it does without: a cluster in
a test signs tokens with a key of the moment and tells nobody where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pybernetes.apiserver import Plugins
from pybernetes.apiserver.admission import World, admission_chain
from pybernetes.apiserver.authn.bearer import BearerAuthenticator
from pybernetes.apiserver.authn.bootstraptoken import BootstrapTokens
from pybernetes.apiserver.authn.certificate import CertificateAuthenticator
from pybernetes.apiserver.authn.issuer import issuer_routes
from pybernetes.apiserver.authn.reviews import identity_reviews
from pybernetes.apiserver.authn.serviceaccounts import ServiceAccountTokens
from pybernetes.apiserver.authn.signingkey import SigningKey
from pybernetes.apiserver.authn.tokenrequest import TokenIssuer
from pybernetes.apiserver.authz.authorizer import ClusterAuthorizer
from pybernetes.apiserver.authz.node import NodeAuthorizer, NodeGraph
from pybernetes.apiserver.authz.rbac import Rbac
from pybernetes.apiserver.authz.reviews import access_reviews
from pybernetes.apiserver.bootstrap.ensure import ensure_first_objects
from pybernetes.apiserver.bootstrap.objects import SERVICE_NETWORK, ServerFacts
from pybernetes.apiserver.discovery import Discovery
from pybernetes.apiserver.fieldmanager import FieldManagement
from pybernetes.apiserver.hooks import AuthenticatorUnion
from pybernetes.apiserver.nodes import Nodes
from pybernetes.apiserver.openapi import OpenApi
from pybernetes.apiserver.services import ServiceAddresses
from pybernetes.apiserver.streams import stream_handlers
from pybernetes.cluster.nodelinks import NodeLinks

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from pybernetes.apiserver import ApiServer
    from pybernetes.apiserver.nodes import Dial
    from pybernetes.client import Client
    from pybernetes.cluster.pki import Pki


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """What the plugins have to know of the cluster."""

    # Without keys there are no certificates to publish and no token outlives the process.
    pki: Pki | None = None
    service_network: IPv4Network = SERVICE_NETWORK
    # Where nodes and pods reach the API server.
    advertise_address: str = ""
    port: int = 6443
    cluster_domain: str = "cluster.local"
    # How to reach a kubelet; left out, it is HTTPS with our certificate.
    dial: Dial | None = None
    # Signs the tokens of service accounts; left out, the key in `pki`, or one of the moment.
    signing_key: SigningKey | None = None

    def token_key(self) -> SigningKey:
        if self.signing_key is not None:
            return self.signing_key
        return SigningKey(None if self.pki is None else self.pki.service_account_key)


def make_plugins(server: ApiServer, options: AccessOptions) -> Plugins:
    graph = NodeGraph(server.catalog)
    key = options.token_key()
    accounts = ServiceAccountTokens(server.catalog, server.clock, key)
    joining = BootstrapTokens(server.catalog, server.clock)
    bearer = BearerAuthenticator(accounts, joining)
    authorizer = ClusterAuthorizer(Rbac(server.catalog), NodeAuthorizer(graph))
    world = World(server.catalog, server.backend, server.clock, server.random, authorizer)
    addresses = ServiceAddresses(server.catalog, server.random, network=options.service_network)
    return Plugins(
        authenticator=AuthenticatorUnion([CertificateAuthenticator(), bearer]),
        authorizer=authorizer,
        admission=admission_chain(world, addresses),
        field_manager=FieldManagement(server.clock),
        connects={
            **stream_handlers(
                server.backend, Nodes(server.backend, options.dial or NodeLinks(options.pki).dial)
            ),
            ("", "serviceaccounts", "token"): TokenIssuer(server.backend, key),
            **identity_reviews(accounts, joining, server.clock),
            **access_reviews(authorizer),
        },
        routes=(
            *Discovery(server.catalog, address=options.advertise_address).routes(),
            *OpenApi(server.catalog).routes(),
            *issuer_routes(key, server=f"https://{options.advertise_address}:{options.port}"),
        ),
    )


async def bootstrap(client: Client, server: ApiServer, options: AccessOptions) -> None:
    """Make what is missing of the objects that every cluster has."""
    await ensure_first_objects(client, server.catalog, facts_of(options))


def facts_of(options: AccessOptions) -> ServerFacts:
    address = options.advertise_address
    if address and ip_address(address).is_loopback:
        # Every pod has a loopback of its own: there is no way to us, and none is published.
        address = ""
    return ServerFacts(
        service_network=options.service_network,
        address=address,
        port=options.port,
        client_ca=_pem(options.pki, "ca"),
        front_proxy_ca=_pem(options.pki, "front_proxy_ca"),
    )


def _pem(pki: Pki | None, name: str) -> str:
    if pki is None:
        return ""
    certificate: str = getattr(pki, name).certificate.read_text()
    return certificate
