"""Which webhooks a write concerns: rules, scope, and the labels of namespace and object.

A webhook with matchPolicy Equivalent is also asked about writes through other versions of what
its rules name; it is then shown the object in the version that it knows.

Rule: no webhook is asked about the configurations of admission itself, or a broken one could
never be repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import Namespace
from pybernetes.api.types.meta_v1 import LabelSelector
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apimachinery.selector import selector_of
from pybernetes.apiserver.hooks import Operation
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybernetes.apimachinery.selector import Selector
    from pybernetes.apiserver.catalog import Catalog, Served
    from pybernetes.apiserver.hooks import Attributes
    from pybernetes.apiserver.watchcache import Event

GROUP = "admissionregistration.k8s.io"
_EXEMPT = frozenset(
    {
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    """One webhook of one configuration."""

    configuration: str
    webhook: Any
    namespace_selector: Selector
    object_selector: Selector

    @property
    def name(self) -> str:
        name: str = self.webhook.name
        return name

    @property
    def uid(self) -> str:
        return f"{self.configuration}/{self.webhook.name}"

    @property
    def fails_open(self) -> bool:
        return bool(self.webhook.failure_policy == "Ignore")

    @property
    def timeout_seconds(self) -> int:
        seconds: int | None = self.webhook.timeout_seconds
        return 10 if seconds is None else seconds


class Hooks:
    """The webhooks of all configurations of a kind, by name of the configuration, as listed."""

    def __init__(self, catalog: Catalog, kind: type[Any]) -> None:
        self._configurations: Typed[Any] = Typed(catalog, kind)
        self._namespaces = Typed(catalog, Namespace)
        self._catalog = catalog
        # None after a change, until somebody asks.
        self._hooks: tuple[Hook, ...] | None = None
        self._configurations.follow(self._on_change)

    def _on_change(self, event: Event) -> None:
        self._hooks = None

    def about(self, attributes: Attributes) -> tuple[Hook, ...]:
        """Those that a write may concern at all."""
        hooks = self._hooks
        if hooks is None:
            hooks = self._hooks = tuple(
                _hook(configuration.metadata.name, webhook)
                for configuration in self._configurations.list()
                for webhook in configuration.webhooks
            )
        if hooks and attributes.group == GROUP and attributes.resource in _EXEMPT:
            return ()
        return hooks

    def match(self, hook: Hook, attributes: Attributes) -> Served | None:
        """The version in which a webhook is asked about this write; None if it is not.

        Raises NotFound if the write is in a namespace that does not exist.
        """
        # The order is upstream's: a missing namespace is only told to whom it matters.
        served = self._by_rules(hook.webhook, attributes)
        if served is None:
            return None
        if not self._in_namespace(hook.namespace_selector, attributes):
            return None
        if not _selects(hook.object_selector, attributes):
            return None
        return served

    def _by_rules(self, webhook: Any, attributes: Attributes) -> Served | None:
        for served in self._versions(webhook, attributes):
            if any(rule_matches(rule, attributes, served) for rule in webhook.rules):
                return served
        return None

    def _versions(self, webhook: Any, attributes: Attributes) -> Iterator[Served]:
        mine = attributes.served
        yield mine
        if webhook.match_policy == "Exact" or not mine.is_stored:
            return
        subresource = attributes.subresource
        for other in self._catalog:
            if other is mine or not other.is_stored or not _is_same_resource(other, mine):
                continue
            if not subresource or other.subresource(subresource) is not None:
                yield other

    def _in_namespace(self, selector: Selector, attributes: Attributes) -> bool:
        if selector.empty:
            return True
        is_namespace = is_namespace_itself(attributes)
        if not attributes.namespace and not is_namespace:
            return True
        if is_namespace and not attributes.subresource and attributes.obj is not None:
            # What is being written counts, not what is there.
            return selector.matches(attributes.obj.metadata.labels)
        name = attributes.name if is_namespace else attributes.namespace
        namespace = self._namespaces.get(name)
        if namespace is None:
            raise NotFound("namespaces", name)
        return selector.matches(namespace.metadata.labels)


def _is_same_resource(one: Served, other: Served) -> bool:
    """Groups may share what is stored; versions that a webhook converts have caches of their own."""
    if one.cache is other.cache:
        return True
    return one.group == other.group and one.plural == other.plural


def _hook(configuration: str, webhook: Any) -> Hook:
    return Hook(
        configuration,
        webhook,
        selector_of(webhook.namespace_selector or LabelSelector()),
        selector_of(webhook.object_selector or LabelSelector()),
    )


def is_namespace_itself(attributes: Attributes) -> bool:
    return attributes.resource == "namespaces" and not attributes.group


def rule_matches(rule: Any, attributes: Attributes, served: Served) -> bool:
    return (
        _listed(attributes.operation.value, rule.operations)
        and _listed(served.group, rule.api_groups)
        and _listed(served.version, rule.api_versions)
        and _in_scope(rule.scope, attributes)
        and any(
            _is_resource(text, served.plural, attributes.subresource) for text in rule.resources
        )
    )


def _listed(value: str, values: tuple[str, ...]) -> bool:
    return value in values or "*" in values


def _in_scope(scope: str, attributes: Attributes) -> bool:
    is_namespaced = bool(attributes.namespace) and not is_namespace_itself(attributes)
    if scope == "Namespaced":
        return is_namespaced
    return not is_namespaced if scope == "Cluster" else True


def _is_resource(text: str, plural: str, subresource: str) -> bool:
    """`pods` is not `pods/status`, and `*` is no subresource at all."""
    resource, _, below = text.partition("/")
    return resource in ("*", plural) and (below == "*" or below == subresource)


def _selects(selector: Selector, attributes: Attributes) -> bool:
    """By the labels of the object, before or after the write."""
    if selector.empty:
        return True
    return any(
        labels is not None and selector.matches(labels)
        for labels in (_labels(attributes.obj), _labels(attributes.old))
    )


def _labels(obj: Any) -> Mapping[str, str] | None:
    metadata = getattr(obj, "metadata", None)
    if metadata is None:
        return None
    labels: Mapping[str, str] = metadata.labels
    return labels


def has_object(operation: Operation) -> bool:
    return operation in (Operation.CREATE, Operation.UPDATE)
