"""serviceaccounts/token: a new token, for an audience and a while, bound to a pod perhaps.

What kubelets ask for on behalf of pods, and `kubectl create token` for people.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.types.authentication_v1 import (
    BoundObjectReference,
    TokenRequest,
    TokenRequestStatus,
)
from pybernetes.api.types.core_v1 import Node, Pod, Secret, ServiceAccount
from pybernetes.apimachinery.errors import BadRequest, Conflict, Invalid, NotFound
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.authn.tokenclaims import (
    EXTENDED,
    ISSUER,
    MOUNTED_SECONDS,
    Bound,
    TokenFacts,
    claims_of,
)
from pybernetes.apiserver.body import BodyKind, check_write_options, read_object
from pybernetes.apiserver.hooks import Attributes, Operation
from pybernetes.apiserver.respond import object_response
from pybernetes.apiserver.typed import HARDLY_ANY, Typed
from pybernetes.apiserver.verbs.write import new_uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.authn.signingkey import SigningKey
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.wire.http import Response

BODY = BodyKind(TokenRequest)
_DEFAULT_SECONDS = 3600
_SHORTEST_SECONDS = 600
_LONGEST_SECONDS = 2**32


def request_errors(request: TokenRequest) -> Iterator[FieldError]:
    path, seconds = Path("spec").expirationSeconds, request.spec.expiration_seconds
    if seconds is None:
        return
    if seconds < _SHORTEST_SECONDS:
        yield path.invalid(seconds, "may not specify a duration less than 10 minutes")
    if seconds > _LONGEST_SECONDS:
        yield path.invalid(seconds, "may not specify a duration larger than 2^32 seconds")


class TokenIssuer:
    """Answers the subresource; see `hooks.Connect`."""

    def __init__(self, backend: Backend, key: SigningKey, *, issuer: str = ISSUER) -> None:
        self._backend, self._key, self._issuer = backend, key, issuer
        catalog = backend.catalog
        self._accounts, self._pods = (
            Typed(catalog, ServiceAccount),
            Typed(catalog, Pod, keep=HARDLY_ANY),
        )
        self._nodes, self._secrets = Typed(catalog, Node), Typed(catalog, Secret)

    async def __call__(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        check_write_options(call.query, "CreateOptions")
        request: TokenRequest = await read_object(call, BODY)
        metadata = request.metadata
        if metadata.name and metadata.name != name:
            raise BadRequest(
                f"the name of the object ({metadata.name}) does not match the name on the URL"
                f" ({name})"
            )
        account = self._accounts.get(name, namespace)
        if account is None:
            raise NotFound("serviceaccounts", name)
        request = replace(
            request,
            metadata=replace(metadata, name=name, namespace=namespace),
            spec=replace(
                request.spec,
                audiences=request.spec.audiences or (self._issuer,),
                expiration_seconds=request.spec.expiration_seconds or _DEFAULT_SECONDS,
            ),
        )
        if problems := list(request_errors(request)):
            raise Invalid("TokenRequest", "", name, problems)
        attributes = Attributes(
            call,
            Operation.CREATE,
            served,
            namespace,
            name,
            "token",
            obj=request,
            options=call.query,
            dry_run=call.dry_run,
        )
        try:
            await self._backend.admission.mutate(attributes)
            await self._backend.admission.validate(attributes)
        finally:
            attributes.finish()
        answer = self.issue(attributes.obj, account, self._backend.clock.now())
        return object_response(call, codec.encode(answer), status=201, wanted=call.wanted)

    def issue(self, request: TokenRequest, account: ServiceAccount, now: datetime) -> TokenRequest:
        """The request with the token in its status. Raises StatusError."""
        spec, namespace = request.spec, account.metadata.namespace
        seconds = spec.expiration_seconds or _DEFAULT_SECONDS
        now = now.replace(microsecond=0)
        expires, warn_after = now + timedelta(seconds=seconds), None
        bound = self._bound(spec.bound_object_ref, account)
        if self._is_mounted(request):
            # The client is told the short time and renews by it; the token holds longer.
            warn_after, token_expires = expires, now + EXTENDED
        else:
            token_expires = expires
        facts = TokenFacts(
            namespace=namespace,
            account=Bound(account.metadata.name, account.metadata.uid),
            audiences=spec.audiences,
            issued=now,
            expires=token_expires,
            id=new_uid(self._backend),
            warn_after=warn_after,
            **bound,
        )
        token = self._key.sign(claims_of(facts, self._issuer))
        status = TokenRequestStatus(token=token, expiration_timestamp=expires)
        metadata = replace(request.metadata, creation_timestamp=now)
        return replace(request, metadata=metadata, status=status)

    def _is_mounted(self, request: TokenRequest) -> bool:
        reference = request.spec.bound_object_ref
        return (
            request.spec.expiration_seconds == MOUNTED_SECONDS
            and reference is not None
            and reference.kind == "Pod"
            and request.spec.audiences == (self._issuer,)
        )

    def _bound(
        self, reference: BoundObjectReference | None, account: ServiceAccount
    ) -> dict[str, Bound | None]:
        if reference is None:
            return {}
        namespace = account.metadata.namespace
        if (reference.api_version, reference.kind) == ("v1", "Pod"):
            pod: Pod = _found(self._pods, "pods", reference, namespace)
            name = pod.spec.service_account_name
            if name != account.metadata.name:
                raise BadRequest(
                    f'cannot bind token for serviceaccount "{account.metadata.name}" to pod'
                    " running with different serviceaccount name."
                )
            return {"pod": _bound(pod), "node": self._node_of(pod)}
        if (reference.api_version, reference.kind) == ("v1", "Node"):
            return {"node": _bound(_found(self._nodes, "nodes", reference, ""))}
        if (reference.api_version, reference.kind) == ("v1", "Secret"):
            return {"secret": _bound(_found(self._secrets, "secrets", reference, namespace))}
        group, _, version = reference.api_version.rpartition("/")
        raise BadRequest(
            f"cannot bind token to object of type {group}/{version}, Kind={reference.kind}"
        )

    def _node_of(self, pod: Pod) -> Bound | None:
        if not pod.spec.node_name:
            return None
        node = self._nodes.get(pod.spec.node_name)
        return Bound(pod.spec.node_name, "" if node is None else node.metadata.uid)


def _found(
    objects: Typed[Any], plural: str, reference: BoundObjectReference, namespace: str
) -> Any:
    obj = objects.get(reference.name, namespace)
    if obj is None:
        raise NotFound(plural, reference.name)
    if reference.uid and reference.uid != obj.metadata.uid:
        raise Conflict(
            plural,
            reference.name,
            f"the UID in the bound object reference ({reference.uid}) does not match the UID in"
            " record. The object might have been deleted and then recreated",
        )
    return obj


def _bound(obj: Any) -> Bound:
    return Bound(obj.metadata.name, obj.metadata.uid)
