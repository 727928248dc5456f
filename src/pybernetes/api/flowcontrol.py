"""flowcontrol.apiserver.k8s.io: which requests wait for which others.

A flow schema sorts requests into flows of a priority level; a level says how many of its
requests run at a time and what becomes of the rest.
"""

from __future__ import annotations

from math import ceil, log2
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api.resource import AGE, Column, Resource, Scope, Status, Strategy
from pybernetes.api.types.flowcontrol_v1 import (
    ExemptPriorityLevelConfiguration,
    FlowSchema,
    PriorityLevelConfiguration,
    QueuingConfiguration,
)
from pybernetes.api.validation import validate_dns_label, validate_with
from pybernetes.apimachinery.fielderror import FieldError, Path
from pybernetes.apimachinery.names import dns_label_errors, dns_subdomain_errors, range_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybernetes.api.types.flowcontrol_v1 import (
        LimitedPriorityLevelConfiguration,
        LimitResponse,
        NonResourcePolicyRule,
        PolicyRulesWithSubjects,
        ResourcePolicyRule,
        Subject,
    )

GROUP = "flowcontrol.apiserver.k8s.io"

EXEMPT = "exempt"
DEFAULT_PRECEDENCE, LAST_PRECEDENCE = 1000, 10000
DEFAULT_SHARES = 30
DEFAULT_QUEUES, DEFAULT_HAND_SIZE, DEFAULT_QUEUE_LENGTH = 64, 8, 50
_MOST_QUEUES = 10_000_000
# Bits of a hash that dealing a hand of queues may use up.
_MOST_ENTROPY_BITS = 60

_VERBS = frozenset(
    {"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
)


# --- defaults -------------------------------------------------------------------------------------


def default_schema(new: FlowSchema) -> FlowSchema:
    if new.spec.matching_precedence:
        return new
    return replace(new, spec=replace(new.spec, matching_precedence=DEFAULT_PRECEDENCE))


def default_level(new: PriorityLevelConfiguration) -> PriorityLevelConfiguration:
    spec = new.spec
    if spec.type == "Exempt":
        exempt = spec.exempt or ExemptPriorityLevelConfiguration()
        spec = replace(
            spec,
            exempt=replace(
                exempt,
                nominal_concurrency_shares=exempt.nominal_concurrency_shares or 0,
                lendable_percent=exempt.lendable_percent or 0,
            ),
        )
    if spec.limited is not None:
        spec = replace(spec, limited=_default_limited(spec.limited))
    return new if spec == new.spec else replace(new, spec=spec)


def _default_limited(
    limited: LimitedPriorityLevelConfiguration,
) -> LimitedPriorityLevelConfiguration:
    shares, response = limited.nominal_concurrency_shares, limited.limit_response
    if response.type == "Queue":
        queuing = response.queuing or QueuingConfiguration()
        queuing = QueuingConfiguration(
            queues=queuing.queues or DEFAULT_QUEUES,
            hand_size=queuing.hand_size or DEFAULT_HAND_SIZE,
            queue_length_limit=queuing.queue_length_limit or DEFAULT_QUEUE_LENGTH,
        )
        response = replace(response, queuing=queuing)
    return replace(
        limited,
        nominal_concurrency_shares=DEFAULT_SHARES if shares is None else shares,
        lendable_percent=limited.lendable_percent or 0,
        limit_response=response,
    )


# --- flow schemas ---------------------------------------------------------------------------------


def validate_schema(new: FlowSchema, old: FlowSchema | None) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    precedence = spec.matching_precedence or 0
    if precedence <= 0:
        yield path.matchingPrecedence.invalid(precedence, "must be a positive value")
    if precedence > LAST_PRECEDENCE:
        yield path.matchingPrecedence.invalid(
            precedence, f"must not be greater than {LAST_PRECEDENCE}"
        )
    if precedence == 1 and new.metadata.name != EXEMPT:
        yield path.matchingPrecedence.invalid(
            precedence, "only the schema named 'exempt' may have matchingPrecedence 1"
        )
    method = spec.distinguisher_method
    if method is not None and method.type not in ("ByNamespace", "ByUser"):
        yield path.distinguisherMethod.not_supported(method.type, ["ByNamespace", "ByUser"])
    level, here = spec.priority_level_configuration.name, path.priorityLevelConfiguration.name
    if not level:
        yield here.required("must reference a priority level")
    else:
        yield from validate_with(dns_subdomain_errors, level, here)
    for index, rules in enumerate(spec.rules):
        yield from _validate_rules(rules, path.rules[index])


def _validate_rules(rules: PolicyRulesWithSubjects, path: Path) -> Iterator[FieldError]:
    if not rules.subjects:
        yield path.subjects.required("subjects must contain at least one value")
    for index, subject in enumerate(rules.subjects):
        yield from _validate_subject(subject, path.subjects[index])
    if not rules.resource_rules and not rules.non_resource_rules:
        yield path.required(
            "at least one of resourceRules and nonResourceRules has to be non-empty"
        )
    for index, rule in enumerate(rules.resource_rules):
        yield from _validate_resource_rule(rule, path.resourceRules[index])
    for index, other in enumerate(rules.non_resource_rules):
        yield from _validate_other_rule(other, path.nonResourceRules[index])


def _validate_subject(subject: Subject, path: Path) -> Iterator[FieldError]:
    bodies = {
        "ServiceAccount": ("serviceAccount", subject.service_account),
        "User": ("user", subject.user),
        "Group": ("group", subject.group),
    }
    if subject.kind not in bodies:
        yield path.child("kind").not_supported(subject.kind, frozenset(bodies))
    for kind, (name, body) in bodies.items():
        here = path.child(name)
        if kind != subject.kind:
            if body is not None:
                text = f"{name} is forbidden when subject kind is not '{kind}'"
                yield here.forbidden(text)
        elif body is None:
            yield here.required(f"{name} is required when subject kind is '{kind}'")
        elif not body.name:
            yield here.name.required()
    account = subject.service_account
    if subject.kind == "ServiceAccount" and account is not None:
        if account.name and account.name != "*":
            yield from validate_with(dns_subdomain_errors, account.name, path.serviceAccount.name)
        if not account.namespace:
            yield path.serviceAccount.namespace.required(
                "must specify namespace for service account"
            )
        else:
            yield from validate_dns_label(account.namespace, path.serviceAccount.namespace)


def _validate_listed(
    values: Sequence[str], path: Path, nothing: str, things: str
) -> Iterator[FieldError]:
    """A list that says something, and either `*` or what it means."""
    if not values:
        yield path.required(nothing)
    if len(values) > 1 and "*" in values:
        yield path.invalid(values, f"if '*' is present, must not specify other {things}")


def _validate_verbs(verbs: Sequence[str], path: Path) -> Iterator[FieldError]:
    yield from _validate_listed(verbs, path, "verbs must contain at least one value", "verbs")
    if "*" not in verbs and not _VERBS.issuperset(verbs):
        yield path.not_supported(verbs, _VERBS)


def _validate_resource_rule(rule: ResourcePolicyRule, path: Path) -> Iterator[FieldError]:
    yield from _validate_verbs(rule.verbs, path.verbs)
    yield from _validate_listed(
        rule.api_groups,
        path.apiGroups,
        "resource rules must supply at least one api group",
        "api groups",
    )
    yield from _validate_listed(
        rule.resources,
        path.resources,
        "resource rules must supply at least one resource",
        "resources",
    )
    if rule.namespaces or not rule.cluster_scope:
        yield from _validate_listed(
            rule.namespaces,
            path.namespaces,
            "resource rules that are not cluster scoped must supply at least one namespace",
            "namespaces",
        )
    if "*" not in rule.namespaces:
        for index, namespace in enumerate(rule.namespaces):
            for message in dns_label_errors(namespace):
                text = f"each member of this list must be '*' or a DNS-1123 label; {message}"
                yield path.namespaces[index].invalid(namespace, text)


def _validate_other_rule(rule: NonResourcePolicyRule, path: Path) -> Iterator[FieldError]:
    yield from _validate_verbs(rule.verbs, path.verbs)
    yield from _validate_listed(
        rule.non_resource_urls,
        path.nonResourceURLs,
        "nonResourceURLs must contain at least one value",
        "non-resource URLs",
    )
    if "*" not in rule.non_resource_urls:
        for index, url in enumerate(rule.non_resource_urls):
            if problem := _url_problem(url):
                yield path.nonResourceURLs[index].invalid(url, problem)


def _url_problem(url: str) -> str:
    if not url:
        return "must not be empty"
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    if "*" in url.removesuffix("/*"):
        return "wildcard can only do suffix matching"
    return ""


def validate_conditions(new: Any, old: Any) -> Iterator[FieldError]:
    """The status of either kind."""
    path = Path("status").conditions
    seen: set[str] = set()
    for index, condition in enumerate(new.status.conditions):
        if condition.type in seen:
            yield path[index].type.duplicate(condition.type)
        seen.add(condition.type)
        if not condition.type:
            yield path[index].type.required("must not be empty")


def _is_dangling(schema: FlowSchema) -> str:
    for condition in schema.status.conditions:
        if condition.type == "Dangling":
            return condition.status
    return "?"


def _distinguisher(schema: FlowSchema) -> str | None:
    method = schema.spec.distinguisher_method
    return None if method is None else method.type


FLOW_SCHEMAS = Resource(
    group=GROUP,
    version="v1",
    kind=FlowSchema,
    plural="flowschemas",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_schema, validate=validate_schema),
    subresources=(Status(validate=validate_conditions),),
    columns=(
        Column("PriorityLevel", lambda s: s.spec.priority_level_configuration.name),
        Column("MatchingPrecedence", lambda s: s.spec.matching_precedence),
        Column("DistinguisherMethod", _distinguisher),
        AGE,
        Column("MissingPL", _is_dangling),
    ),
)


# --- priority levels ------------------------------------------------------------------------------


def validate_level(
    new: PriorityLevelConfiguration, old: PriorityLevelConfiguration | None
) -> Iterator[FieldError]:
    spec, path = new.spec, Path("spec")
    if (new.metadata.name == EXEMPT) != (spec.type == "Exempt"):
        yield path.type.invalid(spec.type, "type must be 'Exempt' if and only if name is 'exempt'")
    if spec.type == "Exempt":
        if spec.limited is not None:
            yield path.limited.forbidden("must be nil if the type is not Limited")
        if spec.exempt is not None:
            yield from _validate_shares(spec.exempt.nominal_concurrency_shares, path.exempt)
            yield from _validate_percent(spec.exempt.lendable_percent, path.exempt)
    elif spec.type == "Limited":
        if spec.exempt is not None:
            yield path.exempt.forbidden("must be nil if the type is Limited")
        if spec.limited is None:
            yield path.limited.required("must not be empty when type is Limited")
        else:
            yield from _validate_limited(spec.limited, path.limited)
    else:
        yield path.type.not_supported(spec.type, ["Exempt", "Limited"])


def _validate_shares(shares: int | None, path: Path) -> Iterator[FieldError]:
    if shares is not None and shares < 0:
        yield path.nominalConcurrencyShares.invalid(shares, "must be a non-negative integer")


def _validate_percent(percent: int | None, path: Path) -> Iterator[FieldError]:
    if percent is not None and not 0 <= percent <= 100:
        yield path.lendablePercent.invalid(percent, range_message(0, 100))


def _validate_limited(
    limited: LimitedPriorityLevelConfiguration, path: Path
) -> Iterator[FieldError]:
    yield from _validate_shares(limited.nominal_concurrency_shares, path)
    yield from _validate_response(limited.limit_response, path.limitResponse)
    yield from _validate_percent(limited.lendable_percent, path)
    percent = limited.borrowing_limit_percent
    if percent is not None and percent < 0:
        yield path.borrowingLimitPercent.invalid(
            percent, "if specified, must be a non-negative integer"
        )


def _validate_response(response: LimitResponse, path: Path) -> Iterator[FieldError]:
    if response.type == "Reject":
        if response.queuing is not None:
            yield path.queuing.forbidden("must be nil if limited.limitResponse.type is not Limited")
    elif response.type == "Queue":
        if response.queuing is None:
            yield path.queuing.required(
                "must not be empty if limited.limitResponse.type is Limited"
            )
        else:
            yield from _validate_queuing(response.queuing, path.queuing)
    else:
        yield path.type.not_supported(response.type, ["Queue", "Reject"])


def _validate_queuing(queuing: QueuingConfiguration, path: Path) -> Iterator[FieldError]:
    queues, hand = queuing.queues or 0, queuing.hand_size or 0
    if (queuing.queue_length_limit or 0) <= 0:
        yield path.queueLengthLimit.invalid(queuing.queue_length_limit, "must be positive")
    if queues <= 0:
        yield path.queues.invalid(queues, "must be positive")
    elif queues > _MOST_QUEUES:
        yield path.queues.invalid(queues, f"must not be greater than {_MOST_QUEUES}")
    if hand <= 0:
        yield path.handSize.invalid(hand, "must be positive")
    elif hand > queues:
        yield path.handSize.invalid(hand, f"should not be greater than queues ({queues})")
    elif entropy_bits(queues, hand) > _MOST_ENTROPY_BITS:
        yield path.handSize.invalid(
            hand,
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be"
            f" greater than {_MOST_ENTROPY_BITS}",
        )


def entropy_bits(deck_size: int, hand_size: int) -> int:
    """How many bits of a hash it takes to deal a hand of distinct queues."""
    return ceil(sum(log2(deck_size - dealt) for dealt in range(hand_size)))


def _queue_cell(name: str) -> Column[PriorityLevelConfiguration]:
    attribute = {
        "Queues": "queues",
        "HandSize": "hand_size",
        "QueueLengthLimit": "queue_length_limit",
    }[name]

    def cell(level: PriorityLevelConfiguration) -> object:
        limited = level.spec.limited
        queuing = None if limited is None else limited.limit_response.queuing
        return None if queuing is None else getattr(queuing, attribute)

    return Column(name, cell)


def _shares(level: PriorityLevelConfiguration) -> object:
    body = level.spec.limited or level.spec.exempt
    return None if body is None else body.nominal_concurrency_shares


PRIORITY_LEVELS = Resource(
    group=GROUP,
    version="v1",
    kind=PriorityLevelConfiguration,
    plural="prioritylevelconfigurations",
    scope=Scope.CLUSTER,
    strategy=Strategy(default=default_level, validate=validate_level),
    subresources=(Status(validate=validate_conditions),),
    columns=(
        Column("Type", lambda p: p.spec.type),
        Column("NominalConcurrencyShares", _shares),
        _queue_cell("Queues"),
        _queue_cell("HandSize"),
        _queue_cell("QueueLengthLimit"),
        AGE,
    ),
)

FLOWCONTROL_RESOURCES: tuple[Resource[Any], ...] = (FLOW_SCHEMAS, PRIORITY_LEVELS)
