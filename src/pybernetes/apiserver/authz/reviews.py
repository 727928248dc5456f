"""Asking what somebody may do: SubjectAccessReview and its kin (`kubectl auth can-i`).

Nothing is stored: a review is created, answered and forgotten. Whoever may create the review
may ask; for oneself that is everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.types.authorization_v1 import (
    NonResourceRule,
    ResourceRule,
    SubjectAccessReviewStatus,
    SubjectRulesReviewStatus,
)
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import BadRequest, Invalid
from pybernetes.apimachinery.fielderror import Path
from pybernetes.apiserver.authz.node import node_of
from pybernetes.apiserver.body import check_write_options, read_object
from pybernetes.apiserver.hooks import Access, Verdict
from pybernetes.apiserver.respond import object_response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.api.types.authorization_v1 import (
        FieldSelectorAttributes,
        LabelSelectorAttributes,
        LocalSubjectAccessReview,
        SelfSubjectAccessReview,
        SelfSubjectAccessReviewSpec,
        SelfSubjectRulesReview,
        SubjectAccessReview,
        SubjectAccessReviewSpec,
    )
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.authz.authorizer import ClusterAuthorizer
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.hooks import Connect
    from pybernetes.wire.http import Response

GROUP = "authorization.k8s.io"


def access_reviews(authorizer: ClusterAuthorizer) -> dict[tuple[str, str, str], Connect]:
    """The handlers, for `Plugins.connects`."""
    reviews = _Reviews(authorizer)
    return {
        (GROUP, "subjectaccessreviews", ""): reviews.of_anybody,
        (GROUP, "localsubjectaccessreviews", ""): reviews.of_anybody_here,
        (GROUP, "selfsubjectaccessreviews", ""): reviews.of_oneself,
        (GROUP, "selfsubjectrulesreviews", ""): reviews.rules,
    }


class _Reviews:
    def __init__(self, authorizer: ClusterAuthorizer) -> None:
        self._authorizer = authorizer

    async def of_anybody(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        review: SubjectAccessReview = await _read(call, served)
        _check(served, [*spec_errors(review.spec), *subject_errors(review.spec)])
        return self._answer(call, review, _subject(review.spec))

    async def of_anybody_here(
        self, call: Call, served: Served, namespace: str, name: str
    ) -> Response:
        review: LocalSubjectAccessReview = await _read(call, served)
        metadata = review.metadata
        if metadata.namespace and metadata.namespace != namespace:
            raise BadRequest(
                "the namespace of the provided object does not match the namespace sent on the"
                " request"
            )
        review = replace(review, metadata=replace(metadata, namespace=namespace))
        problems = [*spec_errors(review.spec), *subject_errors(review.spec)]
        wanted = review.spec.resource_attributes
        if wanted is not None and wanted.namespace != namespace:
            path = Path("spec").resourceAttributes.namespace
            problems.append(path.invalid(wanted.namespace, "must match metadata.namespace"))
        if review.spec.non_resource_attributes is not None:
            path = Path("spec").nonResourceAttributes
            detail = "disallowed on this kind of request"
            problems.append(path.invalid(review.spec.non_resource_attributes, detail))
        _check(served, problems)
        return self._answer(call, review, _subject(review.spec))

    async def of_oneself(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        review: SelfSubjectAccessReview = await _read(call, served)
        _check(served, spec_errors(review.spec))
        return self._answer(call, review, call.user)

    def _answer(self, call: Call, review: Any, user: UserInfo) -> Response:
        decision = self._authorizer.explain(access_of(review.spec, user))
        status = SubjectAccessReviewStatus(
            allowed=decision.allowed,
            denied=True if decision.verdict is Verdict.DENY else None,
            reason=decision.reason,
        )
        return _created(call, replace(review, status=status))

    async def rules(self, call: Call, served: Served, namespace: str, name: str) -> Response:
        review: SelfSubjectRulesReview = await _read(call, served)
        if not review.spec.namespace:
            raise BadRequest("no namespace on request")
        rules, problems = self._authorizer.rbac.rules_of(call.user, review.spec.namespace)
        if node_of(call.user):
            problems = ["node authorizer does not support user rule resolution", *problems]
        status = SubjectRulesReviewStatus(
            resource_rules=tuple(
                ResourceRule(
                    verbs=rule.verbs,
                    api_groups=rule.api_groups,
                    resources=rule.resources,
                    resource_names=rule.resource_names,
                )
                for rule in rules
                if rule.resources
            ),
            non_resource_rules=tuple(
                NonResourceRule(verbs=rule.verbs, non_resource_urls=rule.non_resource_urls)
                for rule in rules
                if rule.non_resource_urls
            ),
            incomplete=bool(problems),
            evaluation_error=", ".join(problems),
        )
        return _created(call, replace(review, status=status))


async def _read(call: Call, served: Served) -> Any:
    check_write_options(call.query, "CreateOptions")
    return await read_object(call, served)


def _created(call: Call, review: Any) -> Response:
    return object_response(call, codec.encode(review), status=201, wanted=call.wanted)


def _check(served: Served, problems: Any) -> None:
    if found := list(problems):
        raise Invalid(served.kind_name, GROUP, "", found)


# --- what a review asks, purely -------------------------------------------------------------------


def spec_errors(
    spec: SubjectAccessReviewSpec | SelfSubjectAccessReviewSpec,
) -> Iterator[FieldError]:
    path = Path("spec")
    resource, other = spec.resource_attributes, spec.non_resource_attributes
    if resource is not None and other is not None:
        yield path.nonResourceAttributes.invalid(
            other, "cannot be specified in combination with resourceAttributes"
        )
    if resource is None and other is None:
        yield path.resourceAttributes.invalid(
            None,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )


def subject_errors(spec: SubjectAccessReviewSpec) -> Iterator[FieldError]:
    if not spec.user and not spec.groups:
        yield Path("spec").user.invalid("", "at least one of user or group must be specified")


def access_of(
    spec: SubjectAccessReviewSpec | SelfSubjectAccessReviewSpec, user: UserInfo
) -> Access:
    wanted = spec.resource_attributes
    if wanted is None:
        path = spec.non_resource_attributes
        assert path is not None
        return Access(user, path.verb, False, path=path.path)
    return Access(
        user,
        wanted.verb,
        namespace=wanted.namespace,
        group=wanted.group,
        version=wanted.version,
        resource=wanted.resource,
        subresource=wanted.subresource,
        name=wanted.name,
        label_selector=_selector_text(wanted.label_selector),
        field_selector=_selector_text(wanted.field_selector),
    )


def _selector_text(selector: FieldSelectorAttributes | LabelSelectorAttributes | None) -> str:
    if selector is None:
        return ""
    if selector.raw_selector:
        return selector.raw_selector
    # Of the structured form only what one value fits: the rest would widen nothing.
    return ",".join(
        f"{requirement.key}={requirement.values[0]}"
        for requirement in selector.requirements
        if requirement.operator == "In" and len(requirement.values) == 1
    )


def _subject(spec: SubjectAccessReviewSpec) -> UserInfo:
    return UserInfo(spec.user, spec.groups, spec.uid, spec.extra)
