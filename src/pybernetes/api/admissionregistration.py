"""admissionregistration.k8s.io: webhooks and policies that are asked about every write.

Policies of both kinds and their bindings differ little, and the beta of the mutating ones in
nothing; hooks are shared, and what differs is in the entries. Expressions are not compiled
here: that is done by who evaluates them, and a policy that cannot be compiled says so in its
status.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.sameshape import same_shape
from pybernetes.api.types import admissionregistration_v1 as v1
from pybernetes.api.types import admissionregistration_v1alpha1 as v1alpha1
from pybernetes.api.types import admissionregistration_v1beta1 as v1beta1
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.api.validation import changed_each, validate_label_selector, validate_with
from pybernetes.api.webhooks import (
    default_client,
    default_match,
    default_rule,
    validate_choice,
    validate_client,
    validate_conditions,
    validate_match,
    validate_rule,
)
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import (
    dns_1035_label_errors,
    dns_subdomain_errors,
    fully_qualified_domain_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP = "admissionregistration.k8s.io"

_FAILURE_POLICIES = ("Fail", "Ignore")
_MATCH_POLICIES = ("Equivalent", "Exact")
_REINVOCATION_POLICIES = ("IfNeeded", "Never")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_SHORTEST_SECONDS, _LONGEST_SECONDS, _DEFAULT_SECONDS = 1, 30, 10
_IDENTIFIER = re.compile("[_a-zA-Z][_a-zA-Z0-9]*")


# --- webhooks -------------------------------------------------------------------------------------


def _default_webhook(webhook: Any) -> Any:
    changes: dict[str, Any] = {
        "failure_policy": webhook.failure_policy or "Fail",
        "match_policy": webhook.match_policy or "Equivalent",
        "namespace_selector": webhook.namespace_selector or LabelSelector(),
        "object_selector": webhook.object_selector or LabelSelector(),
        "timeout_seconds": (
            _DEFAULT_SECONDS if webhook.timeout_seconds is None else webhook.timeout_seconds
        ),
        "rules": changed_each(webhook.rules, default_rule),
        "client_config": default_client(webhook.client_config),
    }
    if isinstance(webhook, v1.MutatingWebhook):
        changes["reinvocation_policy"] = webhook.reinvocation_policy or "Never"
    return replace(webhook, **changes)


def default_webhooks(new: Any) -> Any:
    return replace(new, webhooks=changed_each(new.webhooks, _default_webhook))


def validate_webhooks(new: Any, old: Any) -> Iterator[FieldError]:
    path = Path("webhooks")
    seen: set[str] = set()
    for index, webhook in enumerate(new.webhooks):
        yield from _validate_webhook(webhook, path[index])
        if webhook.name and webhook.name in seen:
            yield path[index].name.duplicate(webhook.name)
        seen.add(webhook.name)


def _validate_webhook(webhook: Any, path: Path) -> Iterator[FieldError]:
    if not webhook.name:
        yield path.name.required()
    else:
        yield from validate_with(fully_qualified_domain_errors, webhook.name, path.name)
    for index, rule in enumerate(webhook.rules):
        yield from validate_rule(rule, path.rules[index])
    yield from validate_choice(webhook.failure_policy, _FAILURE_POLICIES, path.failurePolicy)
    yield from validate_choice(webhook.match_policy, _MATCH_POLICIES, path.matchPolicy)
    if not webhook.side_effects:
        yield path.sideEffects.required("must specify one of None, NoneOnDryRun")
    else:
        yield from validate_choice(webhook.side_effects, ("None", "NoneOnDryRun"), path.sideEffects)
    seconds = webhook.timeout_seconds
    if seconds is not None and not _SHORTEST_SECONDS <= seconds <= _LONGEST_SECONDS:
        yield path.timeoutSeconds.invalid(
            seconds, "the timeout value must be between 1 and 30 seconds"
        )
    yield from validate_label_selector(webhook.namespace_selector, path.namespaceSelector)
    yield from validate_label_selector(webhook.object_selector, path.objectSelector)
    if isinstance(webhook, v1.MutatingWebhook):
        yield from validate_choice(
            webhook.reinvocation_policy, _REINVOCATION_POLICIES, path.reinvocationPolicy
        )
    yield from validate_client(webhook.client_config, path.clientConfig)
    yield from validate_conditions(webhook.match_conditions, path.matchConditions)
    yield from validate_review_versions(
        webhook.admission_review_versions, path.admissionReviewVersions
    )


def validate_review_versions(versions: Sequence[str], path: Path) -> Iterator[FieldError]:
    known = ", ".join(_REVIEW_VERSIONS)
    if not versions:
        yield path.required(f"must specify one of {known}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield path[index].invalid(version, "duplicate version")
            continue
        yield from validate_with(dns_1035_label_errors, version, path[index])
    if not set(versions) & set(_REVIEW_VERSIONS):
        yield path.invalid(versions, f"must include at least one of {known}")


def _webhook_entry(kind: type[Any], plural: str) -> Resource[Any]:
    return Resource(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=plural,
        scope=Scope.CLUSTER,
        strategy=Strategy(
            default=default_webhooks,
            validate=validate_webhooks,
            generation_follows=("webhooks",),
        ),
        columns=(Column("Webhooks", lambda c: len(c.webhooks), type="integer"), AGE),
    )


# --- policies -------------------------------------------------------------------------------------


def default_policy(new: Any) -> Any:
    spec = new.spec
    spec = replace(
        spec,
        failure_policy=spec.failure_policy or "Fail",
        match_constraints=default_match(spec.match_constraints),
    )
    return new if spec == new.spec else replace(new, spec=spec)


def default_binding(new: Any) -> Any:
    matched = default_match(new.spec.match_resources)
    if matched == new.spec.match_resources:
        return new
    return replace(new, spec=replace(new.spec, match_resources=matched))


def _validate_policy(new: Any) -> Iterator[FieldError]:
    """What validating and mutating policies have in common."""
    spec, path = new.spec, Path("spec")
    yield from validate_choice(
        spec.failure_policy, _FAILURE_POLICIES, path.failurePolicy, is_required=True
    )
    if spec.param_kind is not None:
        if not spec.param_kind.api_version:
            yield path.paramKind.apiVersion.required()
        if not spec.param_kind.kind:
            yield path.paramKind.child("kind").required()
    if spec.match_constraints is None:
        yield path.matchConstraints.required()
    else:
        yield from validate_match(spec.match_constraints, path.matchConstraints)
        if not spec.match_constraints.resource_rules:
            yield path.matchConstraints.resourceRules.required()
    yield from validate_conditions(spec.match_conditions, path.matchConditions)
    seen: set[str] = set()
    for index, variable in enumerate(spec.variables):
        here = path.variables[index]
        if not variable.name.strip():
            yield here.name.required("name is not specified")
        elif not _IDENTIFIER.fullmatch(variable.name):
            yield here.name.invalid(variable.name, "name is not a valid CEL identifier")
        elif variable.name in seen:
            yield here.name.duplicate(variable.name)
        seen.add(variable.name)
        if not variable.expression.strip():
            yield here.expression.required("expression is not specified")


def validate_validating_policy(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from _validate_policy(new)
    if not spec.validations and not spec.audit_annotations:
        text = "validations or auditAnnotations must contain at least one item"
        yield path.validations.required(text)
        yield path.auditAnnotations.required(text)
    for index, validation in enumerate(spec.validations):
        yield from _validate_validation(validation, path.validations[index])
    seen: set[str] = set()
    for index, annotation in enumerate(spec.audit_annotations):
        here = path.auditAnnotations[index]
        if not annotation.key:
            yield here.child("key").required("key is not specified")
        elif annotation.key in seen:
            yield here.child("key").duplicate(annotation.key)
        seen.add(annotation.key)
        if not annotation.value_expression.strip():
            yield here.valueExpression.required("valueExpression is not specified")


def _validate_validation(validation: Any, path: Path) -> Iterator[FieldError]:
    if not validation.expression.strip():
        yield path.expression.required("expression is not specified")
    message = validation.message
    if message and not message.strip():
        yield path.message.invalid(message, "message must be non-empty if specified")
    elif "\n" in message.strip():
        yield path.message.invalid(message, "message must not contain line breaks")
    if validation.message_expression and not validation.message_expression.strip():
        yield path.messageExpression.invalid(
            validation.message_expression, "must be non-empty if specified"
        )
    yield from validate_choice(validation.reason, _REASONS, path.reason)


def validate_mutating_policy(new: Any, old: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    yield from _validate_policy(new)
    yield from validate_choice(
        spec.reinvocation_policy,
        _REINVOCATION_POLICIES,
        path.reinvocationPolicy,
        is_required=True,
    )
    if not spec.mutations:
        yield path.mutations.required("mutations must contain at least one item")
    for index, mutation in enumerate(spec.mutations):
        yield from _validate_mutation(mutation, path.mutations[index])


def _validate_mutation(mutation: Any, path: Path) -> Iterator[FieldError]:
    bodies = {
        "ApplyConfiguration": ("applyConfiguration", mutation.apply_configuration),
        "JSONPatch": ("jsonPatch", mutation.json_patch),
    }
    yield from validate_choice(mutation.patch_type, tuple(bodies), path.patchType, is_required=True)
    for type_, (name, body) in bodies.items():
        here = path.child(name)
        if type_ != mutation.patch_type:
            if body is not None:
                yield here.forbidden(f"must not be specified when patchType is not {type_}")
        elif body is None:
            yield here.required(f"must be specified when patchType is {type_}")
        elif not body.expression.strip():
            yield here.expression.required("expression is not specified")


# --- bindings -------------------------------------------------------------------------------------


def _validate_binding(new: Any) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if not spec.policy_name:
        yield path.policyName.required()
    else:
        yield from validate_with(dns_subdomain_errors, spec.policy_name, path.policyName)
    if spec.param_ref is not None:
        yield from _validate_parameters(spec.param_ref, path.paramRef)
    if spec.match_resources is not None:
        yield from validate_match(spec.match_resources, path.matchResources)


def _validate_parameters(reference: Any, path: Path) -> Iterator[FieldError]:
    if reference.name:
        yield from validate_with(dns_subdomain_errors, reference.name, path.name)
        if reference.selector is not None:
            yield path.name.forbidden("name and selector are mutually exclusive")
            yield path.selector.forbidden("name and selector are mutually exclusive")
    elif reference.selector is None:
        yield path.required("one of name or selector must be specified")
    yield from validate_label_selector(reference.selector, path.selector)
    yield from validate_choice(
        reference.parameter_not_found_action,
        ("Deny", "Allow"),
        path.parameterNotFoundAction,
        is_required=True,
    )


def validate_validating_binding(new: Any, old: Any) -> Iterator[FieldError]:
    actions, path = new.spec.validation_actions, Path("spec").validationActions
    yield from _validate_binding(new)
    if not actions:
        yield path.required("at least one validation action is required")
    for index, action in enumerate(actions):
        if action not in ("Audit", "Deny", "Warn"):
            yield path[index].not_supported(action, ["Audit", "Deny", "Warn"])
        if action in actions[:index]:
            yield path[index].duplicate(action)
    if "Deny" in actions and "Warn" in actions:
        yield path.invalid(
            actions,
            "must not contain both Deny and Warn (repeating the same validation failure"
            " information in the API response and headers serves no purpose)",
        )


def validate_mutating_binding(new: Any, old: Any) -> Iterator[FieldError]:
    yield from _validate_binding(new)


# --- entries --------------------------------------------------------------------------------------


def _parameter_kind(policy: Any) -> str:
    kind = policy.spec.param_kind
    return "<unset>" if kind is None else f"{kind.api_version}/{kind.kind}"


def _parameters(binding: Any) -> str:
    reference = binding.spec.param_ref
    if reference is None:
        return "<unset>"
    if reference.name:
        place = f"{reference.namespace}/" if reference.namespace else "*/"
        return f"{place}{reference.name}"
    return "<selector>" if reference.selector is not None else "<unset>"


_BINDING_COLUMNS: tuple[Column[Any], ...] = (
    Column("PolicyName", lambda b: b.spec.policy_name),
    Column("ParamRef", _parameters),
    AGE,
)

VALIDATING_POLICIES = Resource(
    group=GROUP,
    version="v1",
    kind=v1.ValidatingAdmissionPolicy,
    plural="validatingadmissionpolicies",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_policy, validate=validate_validating_policy),
    subresources=(Status(),),
    columns=(
        Column("Validations", lambda p: len(p.spec.validations), type="integer"),
        Column("ParamKind", _parameter_kind),
        AGE,
    ),
)

VALIDATING_BINDINGS = Resource(
    group=GROUP,
    version="v1",
    kind=v1.ValidatingAdmissionPolicyBinding,
    plural="validatingadmissionpolicybindings",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_binding, validate=validate_validating_binding),
    columns=_BINDING_COLUMNS,
)


def _mutating(types: Any, version: str, gate: str = "") -> tuple[Resource[Any], ...]:
    """Policies and bindings of one version; what is stored is the beta."""
    policy, binding = types.MutatingAdmissionPolicy, types.MutatingAdmissionPolicyBinding
    is_stored = types is v1beta1
    return (
        Resource(
            group=GROUP,
            version=version,
            kind=policy,
            plural="mutatingadmissionpolicies",
            scope=Scope.CLUSTER,
            strategy=Strategy(default=default_policy, validate=validate_mutating_policy),
            columns=(
                Column("Mutations", lambda p: len(p.spec.mutations), type="integer"),
                Column("ParamKind", _parameter_kind),
                AGE,
            ),
            conversion=None if is_stored else same_shape(policy, v1beta1.MutatingAdmissionPolicy),
            feature_gate=gate,
        ),
        Resource(
            group=GROUP,
            version=version,
            kind=binding,
            plural="mutatingadmissionpolicybindings",
            scope=Scope.CLUSTER,
            strategy=Strategy(default=default_binding, validate=validate_mutating_binding),
            columns=_BINDING_COLUMNS,
            conversion=(
                None if is_stored else same_shape(binding, v1beta1.MutatingAdmissionPolicyBinding)
            ),
            feature_gate=gate,
        ),
    )


ADMISSIONREGISTRATION_RESOURCES: tuple[Resource[Any], ...] = (
    *_mutating(v1, "v1"),
    _webhook_entry(v1.MutatingWebhookConfiguration, "mutatingwebhookconfigurations"),
    VALIDATING_POLICIES,
    VALIDATING_BINDINGS,
    _webhook_entry(v1.ValidatingWebhookConfiguration, "validatingwebhookconfigurations"),
    *_mutating(v1beta1, "v1beta1"),
    *_mutating(v1alpha1, "v1alpha1", gate="MutatingAdmissionPolicy"),
)
