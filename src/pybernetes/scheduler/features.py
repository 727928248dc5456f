"""What the scheduler needs to know of a pod, worked out once.

`PodFeatures.shape` is equal for pods that look alike to every plugin: same requests, selectors,
affinity, tolerations, labels. Pods of one shape are placed in one sweep. Amounts are integers in
the resource's base unit: milli-cores for cpu, bytes for memory, pieces for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from pybernetes.api import codec
from pybernetes.api.core.podresources import CPU, MEMORY, pod_requests
from pybernetes.apimachinery.quantity import int_value, milli_value
from pybernetes.apimachinery.selector import Selector, selector_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from pybernetes.api.types.core_v1 import (
        Affinity,
        Pod,
        PodAffinityTerm,
        PodSpec,
        TopologySpreadConstraint,
    )

PODS = "pods"

# What a container without requests is scored as, so that many small pods spread (upstream's
# DefaultMilliCPURequest and DefaultMemoryRequest).
DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024


class HostPort(NamedTuple):
    """A port taken on the node; an empty or wildcard address takes it on every address."""

    protocol: str
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A pod (anti-)affinity term, ready to be matched.

    `namespaces` None means every namespace; `namespace_selector` is kept as text because which
    namespaces it names changes with their labels.
    """

    key: str
    selector: Selector
    namespaces: frozenset[str] | None
    topology_key: str
    namespace_selector: Selector | None = None
    weight: int = 0

    def matches(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]
    ) -> bool:
        """Whether a pod with these labels is one the term speaks of."""
        named = self.namespaces is None or namespace in self.namespaces
        if not named and self.namespace_selector is not None:
            named = self.namespace_selector.matches(namespace_labels)
        return named and self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """A topology spread constraint with its selector resolved."""

    key: str
    topology_key: str
    max_skew: int
    required: bool
    selector: Selector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@dataclass(frozen=True, slots=True)
class PodFeatures:
    """A pod in the scheduler's eyes."""

    namespace: str
    labels: Mapping[str, str]
    requests: tuple[tuple[str, int], ...]
    # cpu in milli-cores and memory in bytes with defaults for containers that ask for nothing.
    scored_cpu: int
    scored_memory: int
    host_ports: tuple[HostPort, ...]
    required_affinity: tuple[PodTerm, ...]
    required_anti_affinity: tuple[PodTerm, ...]
    preferred_affinity: tuple[PodTerm, ...]
    preferred_anti_affinity: tuple[PodTerm, ...]
    spread: tuple[SpreadConstraint, ...]
    images: tuple[str, ...]
    shape: Hashable

    @property
    def has_terms(self) -> bool:
        return bool(
            self.required_affinity
            or self.required_anti_affinity
            or self.preferred_affinity
            or self.preferred_anti_affinity
        )


def features_of(pod: Pod) -> PodFeatures:
    """Everything plugins ask about a pod."""
    spec = pod.spec
    affinity = spec.affinity
    requests = requests_of(pod)
    scored_cpu, scored_memory = _scored_requests(spec)
    labels = pod.metadata.labels
    namespace = pod.metadata.namespace
    ports = host_ports_of(spec)
    images = tuple(c.image for c in (*spec.init_containers, *spec.containers))
    shape = (
        namespace,
        tuple(sorted(labels.items())),
        (requests, scored_cpu, scored_memory),
        ports,
        codec.encode(
            (spec.node_selector, affinity, spec.tolerations, spec.topology_spread_constraints)
        ),
        # Not the node's name: a pod that waits has none, and one that was just bound is still the
        # same to everybody else.
        spec.scheduler_name,
        spec.priority,
        spec.preemption_policy,
        images,
        _owner_uid(pod),
    )
    return PodFeatures(
        namespace=namespace,
        labels=labels,
        requests=requests,
        scored_cpu=scored_cpu,
        scored_memory=scored_memory,
        host_ports=ports,
        **_terms(affinity, namespace, labels),
        spread=tuple(_spread(c, labels) for c in spec.topology_spread_constraints),
        images=images,
        shape=shape,
    )


def requests_of(pod: Pod) -> tuple[tuple[str, int], ...]:
    """What a pod needs of each resource, in base units, sorted by name.

    Rounded up once, at the end, as upstream: two containers of half a milli-core take one.
    """
    found = []
    for name, amount in sorted(pod_requests(pod).items()):
        units = ceil(amount * 1000 if name == CPU else amount)
        if units:
            found.append((name, units))
    return tuple(found)


def amount_of(resource: str, quantity: str) -> int:
    """A quantity in the base unit of its resource, rounded up."""
    return milli_value(quantity) if resource == CPU else int_value(quantity)


def host_ports_of(spec: PodSpec) -> tuple[HostPort, ...]:
    restartable = [c for c in spec.init_containers if c.restart_policy == "Always"]
    return tuple(
        HostPort(port.protocol or "TCP", port.host_port, port.host_ip or "0.0.0.0")
        for container in (*spec.containers, *restartable)
        for port in container.ports
        if port.host_port
    )


def _owner_uid(pod: Pod) -> str:
    """Default spreading looks at the owner, so pods of different owners differ in shape."""
    for reference in pod.metadata.owner_references:
        if reference.controller:
            return reference.uid
    return ""


def _scored_requests(spec: PodSpec) -> tuple[int, int]:
    cpu = memory = 0
    for container in spec.containers:
        asked = container.resources.requests
        cpu += milli_value(asked[CPU]) if CPU in asked else DEFAULT_MILLI_CPU
        memory += int_value(asked[MEMORY]) if MEMORY in asked else DEFAULT_MEMORY
    for container in spec.init_containers:
        if container.restart_policy != "Always":
            asked = container.resources.requests
            cpu = max(cpu, milli_value(asked.get(CPU, "0")))
            memory = max(memory, int_value(asked.get(MEMORY, "0")))
    cpu += milli_value(spec.overhead.get(CPU, "0"))
    memory += int_value(spec.overhead.get(MEMORY, "0"))
    return cpu, memory


def _terms(
    affinity: Affinity | None, namespace: str, labels: Mapping[str, str]
) -> dict[str, tuple[PodTerm, ...]]:
    def terms(given: Iterable[PodAffinityTerm]) -> tuple[PodTerm, ...]:
        return tuple(_term(term, namespace, labels) for term in given)

    near = affinity.pod_affinity if affinity else None
    far = affinity.pod_anti_affinity if affinity else None
    return {
        "required_affinity": terms(
            near.required_during_scheduling_ignored_during_execution if near else ()
        ),
        "required_anti_affinity": terms(
            far.required_during_scheduling_ignored_during_execution if far else ()
        ),
        "preferred_affinity": tuple(
            _term(w.pod_affinity_term, namespace, labels, weight=w.weight)
            for w in (near.preferred_during_scheduling_ignored_during_execution if near else ())
        ),
        "preferred_anti_affinity": tuple(
            _term(w.pod_affinity_term, namespace, labels, weight=w.weight)
            for w in (far.preferred_during_scheduling_ignored_during_execution if far else ())
        ),
    }


def _term(
    term: PodAffinityTerm, namespace: str, labels: Mapping[str, str], *, weight: int = 0
) -> PodTerm:
    selector = selector_of(term.label_selector)
    if term.match_label_keys or term.mismatch_label_keys:
        selector = _with_label_keys(
            selector, labels, same=term.match_label_keys, other=term.mismatch_label_keys
        )
    names: frozenset[str] | None = frozenset(term.namespaces)
    among = None
    if term.namespace_selector is not None:
        among = selector_of(term.namespace_selector)
        if among.empty:
            # An empty selector names every namespace, the null selector none (API convention).
            names, among = None, None
    elif not names:
        names = frozenset({namespace})
    said = "*" if names is None else ",".join(sorted(names))
    key = f"{said}|{among!r}|{selector!r}|{term.topology_key}|{weight}"
    return PodTerm(
        key=key,
        selector=selector,
        namespaces=names,
        topology_key=term.topology_key,
        namespace_selector=among,
        weight=weight,
    )


def _spread(constraint: TopologySpreadConstraint, labels: Mapping[str, str]) -> SpreadConstraint:
    selector = selector_of(constraint.label_selector)
    if constraint.match_label_keys:
        selector = _with_label_keys(selector, labels, same=constraint.match_label_keys, other=())
    return SpreadConstraint(
        key=repr(selector),
        topology_key=constraint.topology_key,
        max_skew=constraint.max_skew,
        required=constraint.when_unsatisfiable == "DoNotSchedule",
        selector=selector,
        min_domains=constraint.min_domains or 1,
        honor_affinity=(constraint.node_affinity_policy or "Honor") == "Honor",
        honor_taints=constraint.node_taints_policy == "Honor",
    )


def _with_label_keys(
    selector: Selector, labels: Mapping[str, str], *, same: Iterable[str], other: Iterable[str]
) -> Selector:
    """The selector narrowed to pods that agree (or differ) in these labels of our own."""
    from pybernetes.apimachinery.selector import make_requirement

    added = [make_requirement(k, "In", [labels[k]]) for k in same if k in labels]
    added += [make_requirement(k, "NotIn", [labels[k]]) for k in other if k in labels]
    return Selector((*selector.requirements, *added))
