"""authorization.k8s.io: questions about who may do what. Answered, never stored."""

from __future__ import annotations

from typing import Any

from pybernetes.api.resource import Resource, Scope, Strategy
from pybernetes.api.types.authorization_v1 import (
    LocalSubjectAccessReview,
    SelfSubjectAccessReview,
    SelfSubjectRulesReview,
    SubjectAccessReview,
)


def _review(kind: type[Any], plural: str, scope: Scope = Scope.CLUSTER) -> Resource[Any]:
    return Resource(
        group="authorization.k8s.io",
        version="v1",
        kind=kind,
        plural=plural,
        scope=scope,
        strategy=Strategy(generation_follows=()),
    )


AUTHORIZATION_RESOURCES = (
    _review(LocalSubjectAccessReview, "localsubjectaccessreviews", Scope.NAMESPACED),
    _review(SelfSubjectAccessReview, "selfsubjectaccessreviews"),
    _review(SelfSubjectRulesReview, "selfsubjectrulesreviews"),
    _review(SubjectAccessReview, "subjectaccessreviews"),
)
