"""CertificateApproval: requests that nodes make for themselves are approved without a person.

Watches signing requests; writes their approval. Which requester may have which kind approved says
RBAC: the permission to create `certificatesigningrequests/<subresource>` (see RECOGNIZED).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.api.conditions import TRUE
from pybernetes.api.types.authorization_v1 import (
    ResourceAttributes,
    SubjectAccessReview,
    SubjectAccessReviewSpec,
)
from pybernetes.api.types.certificates_v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
)
from pybernetes.api.types.core_v1 import Node
from pybernetes.apimachinery.meta import Key, key_of
from pybernetes.client import TerminalError, changes_of, keys_of
from pybernetes.controllers.certificates.rules import (
    APPROVED,
    KUBELET_CLIENT_SIGNER,
    KUBELET_SERVING_SIGNER,
    NODE_PREFIX,
    Requested,
    is_decided,
    kubelet_client_problem,
    kubelet_serving_problem,
    read_request,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from pybernetes.controllers.context import ControllerContext

GROUP = "certificates.k8s.io"


@dataclass(frozen=True, slots=True)
class Recognized:
    """A kind of request, the permission that has it approved, and what is said then."""

    subresource: str
    message: str


SELF_CLIENT = Recognized(
    "selfnodeclient",
    "Auto approving self kubelet client certificate after SubjectAccessReview.",
)
CLIENT = Recognized(
    "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."
)
# Ours: upstream leaves these to a person or to an add-on.
SELF_SERVER = Recognized(
    "selfnodeserver",
    "Auto approving self kubelet server certificate after SubjectAccessReview.",
)


def recognize(
    request: CertificateSigningRequest,
    requested: Requested,
    node: Node | None,
    *,
    taken: Collection[str] = (),
) -> tuple[Recognized, ...]:
    """What the request is, most special first; `node` is the one it is for, if it exists.

    `taken` are the addresses of the other nodes.
    """
    spec = request.spec
    is_own = spec.username == requested.common_name
    if spec.signer_name == KUBELET_CLIENT_SIGNER:
        if kubelet_client_problem(requested, spec.usages):
            return ()
        return (SELF_CLIENT, CLIENT) if is_own else (CLIENT,)
    if spec.signer_name == KUBELET_SERVING_SIGNER and is_own:
        if kubelet_serving_problem(requested, spec.usages):
            return ()
        if node is not None:
            # Nothing but what the cluster already reaches the node by.
            known = {address.address for address in node.status.addresses}
            fits = known >= {*requested.dns_names, *requested.addresses}
        else:
            # A machine that joins serves before it registers: nothing that is somebody else's.
            own = {requested.node_name}
            fits = own >= {*requested.dns_names} and not {*requested.addresses} & {*taken}
        if fits:
            return (SELF_SERVER,)
    return ()


class CertificateApprovalController:
    name = "certificatesigningrequest-approving-controller"
    account = "certificate-controller"

    def __init__(self, context: ControllerContext) -> None:
        self._client = context.client_for(self.account)
        self._clock = context.clock
        self._requests = context.caches.of(CertificateSigningRequest)
        self._nodes = context.caches.of(Node)
        self.sources = (
            keys_of(self._requests),
            changes_of(self._nodes, self._node_changed),
        )

    async def reconcile(self, key: Key) -> timedelta | None:
        request = self._requests.get(key)
        if request is None or request.status.certificate or is_decided(request):
            return None
        if request.spec.signer_name not in (KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER):
            return None
        try:
            requested = read_request(request.spec.request)
        except ValueError as error:
            raise TerminalError(f"unable to parse csr: {error}") from error
        node = self._nodes.get(Key("", requested.node_name))
        found = recognize(request, requested, node, taken=self._addresses())
        for recognized in found:
            if await self._may(request, recognized.subresource):
                await self._approve(request, recognized.message)
                return None
        if found:
            # The permission may come later: tried again, less and less often.
            tried = ", ".join(recognized.subresource for recognized in found)
            raise PermissionError(
                f"recognized csr as [{tried}] but subject access review was not approved"
            )
        return None

    def _addresses(self) -> set[str]:
        return {address.address for node in self._nodes for address in node.status.addresses}

    def _node_changed(self, old: Node | None, new: Node | None) -> list[Key]:
        """Requests of a node that has just said what its addresses are."""
        if new is None or (old is not None and old.status.addresses == new.status.addresses):
            return []
        user = f"{NODE_PREFIX}{new.metadata.name}"
        return [key_of(request) for request in self._requests if request.spec.username == user]

    async def _may(self, request: CertificateSigningRequest, subresource: str) -> bool:
        spec = request.spec
        review = SubjectAccessReview(
            spec=SubjectAccessReviewSpec(
                user=spec.username,
                uid=spec.uid,
                groups=spec.groups,
                extra=spec.extra,
                resource_attributes=ResourceAttributes(
                    group=GROUP,
                    resource="certificatesigningrequests",
                    verb="create",
                    subresource=subresource,
                    version="*",
                ),
            )
        )
        return (await self._client.create(review)).status.allowed

    async def _approve(self, request: CertificateSigningRequest, message: str) -> None:
        now = self._clock.now().replace(microsecond=0)
        condition = CertificateSigningRequestCondition(
            type=APPROVED,
            status=TRUE,
            reason="AutoApproved",
            message=message,
            last_update_time=now,
            last_transition_time=now,
        )
        status = msgspec.structs.replace(
            request.status, conditions=(*request.status.conditions, condition)
        )
        approved = msgspec.structs.replace(request, status=status)
        await self._client.update(approved, subresource="approval")
