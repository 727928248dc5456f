"""What webhooks of all kinds share: how they are called, and which requests they are about.

Used by admission webhooks and policies, and by the conversion of custom resources. The hooks
work on any of the generated classes: the versions have the same fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.api.validation import changed_each, validate_label_selector, validate_with
from pybernetes.apimachinery.names import (
    dns_subdomain_errors,
    port_errors,
    qualified_name_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.apimachinery.fielderror import FieldError, Path

DEFAULT_PORT = 443
_URL_FORM = "; desired format: https://host[/path]"
_OPERATIONS = frozenset({"*", "CONNECT", "CREATE", "DELETE", "UPDATE"})


# --- how they are called --------------------------------------------------------------------------


def default_client(config: Any) -> Any:
    service = config.service
    if service is None or service.port is not None:
        return config
    return replace(config, service=replace(service, port=DEFAULT_PORT))


def validate_client(config: Any, path: Path) -> Iterator[FieldError]:
    """Of a webhook: a URL or a service, and not both."""
    if bool(config.url) == (config.service is not None):
        yield path.required("exactly one of url or service is required")
    elif config.url:
        yield from validate_webhook_url(config.url, path.url)
    else:
        yield from validate_webhook_service(config.service, path.service)


def validate_webhook_url(url: str, path: Path) -> Iterator[FieldError]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        yield path.required(f"url must be a valid URL: {error}{_URL_FORM}")
        return
    user, at, host = parts.netloc.rpartition("@")
    if parts.scheme != "https":
        yield path.invalid(parts.scheme, f"'https' is the only allowed URL scheme{_URL_FORM}")
    if not host:
        yield path.invalid(host, f"host must be specified{_URL_FORM}")
    if at:
        yield path.invalid(user, f"user information is not permitted in the URL{_URL_FORM}")
    if parts.fragment:
        yield path.invalid(parts.fragment, f"fragments are not permitted in the URL{_URL_FORM}")
    if parts.query:
        yield path.invalid(parts.query, f"query parameters are not permitted in the URL{_URL_FORM}")


def validate_webhook_service(service: Any, path: Path) -> Iterator[FieldError]:
    if not service.name:
        yield path.name.required("service name is required")
    if not service.namespace:
        yield path.namespace.required("service namespace is required")
    if errors := port_errors(service.port or 0):
        yield path.port.invalid(service.port, f"port is not valid: {','.join(errors)}")
    yield from _validate_url_path(service.path, path.child("path"))


def _validate_url_path(text: str, path: Path) -> Iterator[FieldError]:
    if text in ("", "/"):
        return
    if text == "//":
        yield path.invalid(text, "segment[0] may not be empty")
        return
    if not text.startswith("/"):
        yield path.invalid(text, "must start with a '/'")
    for index, segment in enumerate(text[1:].removesuffix("/").split("/")):
        if not segment:
            yield path.invalid(text, f"segment[{index}] may not be empty")
            continue
        for message in dns_subdomain_errors(segment):
            yield path.invalid(text, f"segment[{index}]: {message}")


# --- which requests -------------------------------------------------------------------------------


def default_rule(rule: Any) -> Any:
    return rule if rule.scope else replace(rule, scope="*")


def default_match(resources: Any) -> Any:
    """matchConstraints of a policy, matchResources of a binding."""
    if resources is None:
        return None
    return replace(
        resources,
        match_policy=resources.match_policy or "Equivalent",
        namespace_selector=_or_everything(resources.namespace_selector),
        object_selector=_or_everything(resources.object_selector),
        resource_rules=changed_each(resources.resource_rules, default_rule),
        exclude_resource_rules=changed_each(resources.exclude_resource_rules, default_rule),
    )


def _or_everything(selector: LabelSelector | None) -> LabelSelector:
    return LabelSelector() if selector is None else selector


def validate_match(resources: Any, path: Path) -> Iterator[FieldError]:
    yield from validate_choice(
        resources.match_policy, ("Equivalent", "Exact"), path.matchPolicy, is_required=True
    )
    for name, selector in (
        ("namespaceSelector", resources.namespace_selector),
        ("objectSelector", resources.object_selector),
    ):
        if selector is None:
            yield path.child(name).required()
        else:
            yield from validate_label_selector(selector, path.child(name))
    for name, rules in (
        ("resourceRules", resources.resource_rules),
        ("excludeResourceRules", resources.exclude_resource_rules),
    ):
        for index, rule in enumerate(rules):
            here = path.child(name)[index]
            yield from _validate_names(rule.resource_names, here.resourceNames)
            yield from validate_rule(rule, here)


def _validate_names(names: Sequence[str], path: Path) -> Iterator[FieldError]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield path[index].duplicate(name)


def validate_choice(
    value: str, choices: Sequence[str], path: Path, *, is_required: bool = False
) -> Iterator[FieldError]:
    if not value:
        if is_required:
            yield path.required()
    elif value not in choices:
        yield path.not_supported(value, choices)


def validate_rule(rule: Any, path: Path) -> Iterator[FieldError]:
    yield from _validate_listed(rule.operations, path.operations, "operations")
    for index, operation in enumerate(rule.operations):
        if operation not in _OPERATIONS:
            yield path.operations[index].not_supported(operation, _OPERATIONS)
    yield from _validate_listed(rule.api_groups, path.apiGroups, "API groups")
    yield from _validate_listed(rule.api_versions, path.apiVersions, "API versions")
    for index, version in enumerate(rule.api_versions):
        if not version:
            yield path.apiVersions[index].required()
    yield from _validate_resources(rule.resources, path.resources)
    yield from validate_choice(rule.scope, ("*", "Cluster", "Namespaced"), path.scope)


def _validate_listed(values: Sequence[str], path: Path, things: str) -> Iterator[FieldError]:
    if not values:
        yield path.required()
    if len(values) > 1 and "*" in values:
        yield path.invalid(values, f"if '*' is present, must not specify other {things}")


def _validate_resources(resources: Sequence[str], path: Path) -> Iterator[FieldError]:
    """`pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`: none may say another's meaning."""
    if not resources:
        yield path.required()
    all_below: set[str] = set()
    of_all: set[str] = set()
    for index, text in enumerate(resources):
        if not text:
            yield path[index].required()
            continue
        resource, slash, sub = text.partition("/")
        if not slash:
            continue
        if resource in all_below:
            yield path[index].invalid(
                text, f"if '{resource}/*' is present, must not specify {text}"
            )
        if sub in of_all:
            yield path[index].invalid(text, f"if '*/{sub}' is present, must not specify {text}")
        if sub == "*":
            all_below.add(resource)
        if resource == "*":
            of_all.add(sub)
    if len(resources) > 1 and "*/*" in resources:
        yield path.invalid(resources, "if '*/*' is present, must not specify other resources")
    if "*" in resources and any(r != "*" and "/" not in r for r in resources if r):
        yield path.invalid(
            resources,
            "if '*' is present, must not specify other resources without subresources",
        )


def validate_conditions(conditions: Sequence[Any], path: Path) -> Iterator[FieldError]:
    """matchConditions: expressions that a request must satisfy as well."""
    if len(conditions) > 64:
        yield path.too_many(len(conditions), 64)
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        here = path[index]
        if not condition.expression.strip():
            yield here.expression.required()
        if not condition.name:
            yield here.name.required()
            continue
        yield from validate_with(qualified_name_errors, condition.name, here.name)
        if condition.name in seen:
            yield here.name.duplicate(condition.name)
        seen.add(condition.name)
