"""authentication.k8s.io: questions about who somebody is. Answered, never stored."""

from __future__ import annotations

from pybernetes.api.resource import Resource, Scope, Strategy
from pybernetes.api.types.authentication_v1 import SelfSubjectReview, TokenReview

_GROUP = "authentication.k8s.io"

TOKEN_REVIEWS = Resource(
    group=_GROUP,
    version="v1",
    kind=TokenReview,
    plural="tokenreviews",
    scope=Scope.CLUSTER,
    strategy=Strategy(generation_follows=()),
)

SELF_SUBJECT_REVIEWS = Resource(
    group=_GROUP,
    version="v1",
    kind=SelfSubjectReview,
    plural="selfsubjectreviews",
    scope=Scope.CLUSTER,
    strategy=Strategy(generation_follows=()),
)

AUTHENTICATION_RESOURCES = (TOKEN_REVIEWS, SELF_SUBJECT_REVIEWS)
