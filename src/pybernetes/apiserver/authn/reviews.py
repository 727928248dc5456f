"""Asking who somebody is: TokenReview, and SelfSubjectReview (`kubectl auth whoami`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.types.authentication_v1 import (
    SelfSubjectReview,
    SelfSubjectReviewStatus,
    TokenReviewStatus,
)
from pybernetes.api.types.authentication_v1 import UserInfo as UserFields
from pybernetes.apiserver.body import check_write_options, read_object
from pybernetes.apiserver.respond import object_response

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.api.types.authentication_v1 import TokenReview
    from pybernetes.api.user import UserInfo
    from pybernetes.apiserver.authn.bootstraptoken import BootstrapTokens
    from pybernetes.apiserver.authn.serviceaccounts import ServiceAccountTokens
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Connect
    from pybernetes.wire.http import Response

GROUP = "authentication.k8s.io"


def identity_reviews(
    accounts: ServiceAccountTokens, bootstrap: BootstrapTokens, clock: Clock
) -> dict[tuple[str, str, str], Connect]:
    """The handlers, for `Plugins.connects`."""
    reviews = _Reviews(accounts, bootstrap, clock)
    return {
        (GROUP, "tokenreviews", ""): reviews.of_token,
        (GROUP, "selfsubjectreviews", ""): reviews.of_oneself,
    }


class _Reviews:
    def __init__(
        self, accounts: ServiceAccountTokens, bootstrap: BootstrapTokens, clock: Clock
    ) -> None:
        self._accounts, self._bootstrap, self._clock = accounts, bootstrap, clock

    async def of_token(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        check_write_options(call.query, "CreateOptions")
        review: TokenReview = await read_object(call, served)
        answered = replace(review, status=self._judge(review))
        return object_response(call, codec.encode(answered), status=201, wanted=call.wanted)

    def _judge(self, review: TokenReview) -> TokenReviewStatus:
        token, wanted = review.spec.token, review.spec.audiences
        user = self._accounts.user_of(token, wanted)
        audiences: tuple[str, ...] = ()
        if user is not None:
            held = self._accounts.audiences_of(token) or wanted
            audiences = tuple(a for a in (wanted or (self._accounts.issuer,)) if a in held)
        elif not wanted or self._accounts.issuer in wanted:
            user = self._bootstrap.user_of(token)
            audiences = () if user is None else (self._accounts.issuer,)
        if user is None:
            return TokenReviewStatus(error="invalid bearer token")
        return TokenReviewStatus(authenticated=True, user=fields_of(user), audiences=audiences)

    async def of_oneself(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        check_write_options(call.query, "CreateOptions")
        review: SelfSubjectReview = await read_object(call, served)
        now = self._clock.now().replace(microsecond=0)
        answered = replace(
            review,
            metadata=replace(review.metadata, creation_timestamp=now),
            status=SelfSubjectReviewStatus(user_info=fields_of(call.user)),
        )
        return object_response(call, codec.encode(answered), status=201, wanted=call.wanted)


def fields_of(user: UserInfo) -> UserFields:
    return UserFields(
        username=user.name,
        uid=user.uid,
        groups=user.groups,
        extra={key: tuple(values) for key, values in user.extra.items()},
    )
