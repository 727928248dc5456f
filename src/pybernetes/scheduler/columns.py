"""The cluster as columns: one slot per node, one numpy array per fact.

Filters and scores are operations over whole columns. The columns follow the world by small
changes (a node came, a pod was placed) and never by a rebuild:

- *base columns* hold what is allocatable and what is used, per resource;
- a *derived column* is any function of one node (does it match this selector, which value has
  this topology label). It is computed when first asked for and then only for nodes that changed;
- a *pod counter* counts, per node, the placed pods that a selector names; a *term counter* counts
  the placed pods that carry an affinity term. Both are kept as pods come and go, so required
  affinity and spreading never scan pods.

Invariants (see `check_invariants`): used = the sum over the pods recorded on a slot; a slot is
`alive` exactly while its node exists; each pod is recorded on one slot. A slot whose node is gone
is kept until its last pod is, then handed to another node.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pybernetes.scheduler.derived import (
    ChangeLog,
    DerivedColumn,
    Kept,
    PodCounter,
    TermCounter,
    Topology,
    UsageColumn,
    grown,
)
from pybernetes.scheduler.features import PODS, HostPort, PodFeatures, amount_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from numpy.typing import NDArray

    from pybernetes.api.types.core_v1 import Node, Pod
    from pybernetes.apimachinery.selector import Selector
    from pybernetes.scheduler.derived import Floats, Ints, SlotIndex

    Bools = NDArray[np.bool_]

# How many derived columns and counters are kept; the least recently used go first.
KEPT_COLUMNS = 512
_FIRST_CAPACITY = 64


@dataclass(slots=True)
class PlacedPod:
    """A pod recorded on a node, with what it takes there."""

    pod: Pod
    features: PodFeatures
    slot: int

    @property
    def priority(self) -> int:
        return self.pod.spec.priority or 0

    @property
    def leaving(self) -> bool:
        return self.pod.metadata.deletion_timestamp is not None


@dataclass(slots=True)
class _LabelClass:
    """Pods of one namespace with the same labels; remembers which selectors name them."""

    namespace: str
    labels: Mapping[str, str]
    verdicts: dict[str, bool] = field(default_factory=dict)


class NodeColumns:
    """All nodes and what runs on them; see the module for the rules."""

    def __init__(self) -> None:
        self.capacity = _FIRST_CAPACITY
        # Slot of each node by name, alive or only still holding pods.
        self.slot_of: dict[str, int] = {}
        self.names: list[str] = [""] * self.capacity
        self.nodes: list[Node | None] = [None] * self.capacity
        self.alive: Bools = np.zeros(self.capacity, dtype=np.bool_)
        self.unschedulable: Bools = np.zeros(self.capacity, dtype=np.bool_)
        # Per resource, in base units.
        self.allocatable: dict[str, Ints] = {}
        self.used: dict[str, Ints] = {}
        self.scored_cpu: Ints = np.zeros(self.capacity, dtype=np.int64)
        self.scored_memory: Ints = np.zeros(self.capacity, dtype=np.int64)
        # Pods by uid, and the uids on each slot.
        self.pods: dict[str, PlacedPod] = {}
        self.uids_on: list[set[str]] = [set() for _ in range(self.capacity)]
        # How many placed pods have each priority.
        self._priorities: Counter[int] = Counter()
        # How many placed pods each namespace has.
        self._pods_in: Counter[str] = Counter()
        # Labels of each namespace, for terms that select namespaces.
        self.namespace_labels: dict[str, Mapping[str, str]] = {}
        # Slots with host ports in use: (protocol, port) → slot → addresses, one per pod.
        self._ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        # `names` as it was when somebody last asked; None once it changed.
        self._names_by_slot: tuple[str, ...] | None = None
        self._free: list[int] = list(range(self.capacity - 1, -1, -1))
        # Slots whose node changed, and slots whose node or pods changed.
        self.changed = ChangeLog()
        self.touched = ChangeLog()
        self._usage: Kept[UsageColumn] = Kept(KEPT_COLUMNS)
        self._derived: Kept[DerivedColumn] = Kept(KEPT_COLUMNS)
        self._topologies: dict[str, Topology] = {}
        self._counters: Kept[PodCounter] = Kept(KEPT_COLUMNS)
        self._classes: dict[Hashable, _LabelClass] = {}
        # Terms carried by placed pods, by the kind of term and its key.
        self.carried: dict[str, dict[str, TermCounter]] = {
            kind: {} for kind in ("anti", "required", "preferred", "preferred_anti")
        }

    # --- nodes ------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Nodes that exist."""
        return int(self.alive.sum())

    def names_by_slot(self) -> tuple[str, ...]:
        """The names as they are now, one and the same tuple until a node comes or goes."""
        if self._names_by_slot is None:
            self._names_by_slot = tuple(self.names)
        return self._names_by_slot

    def set_node(self, node: Node) -> None:
        """The node came or changed."""
        slot = self._slot(node.metadata.name)
        self.nodes[slot] = node
        self.alive[slot] = True
        self.unschedulable[slot] = bool(node.spec.unschedulable)
        allocatable = {n: amount_of(n, q) for n, q in node.status.allocatable.items()}
        for name in allocatable.keys() - self.allocatable.keys():
            self._resource(name)
        for name, column in self.allocatable.items():
            column[slot] = allocatable.get(name, 0)
        self._note_change(slot)

    def remove_node(self, name: str) -> None:
        """The node is gone; its pods may still be there for a while."""
        slot = self.slot_of.get(name)
        if slot is None:
            return
        self.nodes[slot] = None
        self.alive[slot] = False
        for column in self.allocatable.values():
            column[slot] = 0
        self._note_change(slot)
        self._release(slot)

    # --- pods -------------------------------------------------------------------------------------

    def add_pod(self, pod: Pod, features: PodFeatures, node_name: str) -> None:
        """Record a pod on a node; one that is there already is recorded anew if it changed."""
        uid = pod.metadata.uid
        known = self.pods.get(uid)
        if known is not None:
            same_place = self.names[known.slot] == node_name
            leaves = pod.metadata.deletion_timestamp is not None
            if same_place and known.leaving == leaves and known.features.shape == features.shape:
                known.pod = pod
                return
            self.remove_pod(uid)
        slot = self._slot(node_name)
        placed = PlacedPod(pod, features, slot)
        self.pods[uid] = placed
        self.uids_on[slot].add(uid)
        self._account(placed, 1)

    def remove_pod(self, uid: str) -> None:
        placed = self.pods.pop(uid, None)
        if placed is None:
            return
        self.uids_on[placed.slot].discard(uid)
        self._account(placed, -1)
        self._release(placed.slot)

    @property
    def lowest_priority(self) -> int | None:
        """Of any placed pod; None if there is none."""
        return min(self._priorities, default=None)

    def pods_on(self, slot: int) -> list[PlacedPod]:
        return [self.pods[uid] for uid in self.uids_on[slot]]

    def ports_taken(self, wanted: tuple[HostPort, ...]) -> set[int]:
        """Slots on which one of these host ports is taken."""
        taken: set[int] = set()
        for protocol, port, address in wanted:
            for slot, addresses in self._ports.get((protocol, port), {}).items():
                if any(_addresses_clash(address, other) for other in addresses):
                    taken.add(slot)
        return taken

    # --- what plugins ask for ---------------------------------------------------------------------

    def derived(self, key: Hashable, compute: Callable[[Node], int], *, missing: int = 0) -> Ints:
        """The values of a function of one node; `key` names the function."""
        column = self._derived.get(key, lambda: DerivedColumn(self, compute, missing=missing))
        return column.values()

    def of_usage(self, key: Hashable, compute: Callable[[SlotIndex], Floats]) -> Floats:
        """The values of a function of slots and their pods; `key` names the function."""
        return self._usage.get(key, lambda: UsageColumn(self, compute)).values()

    def topology(self, key: str) -> Topology:
        if key not in self._topologies:
            self._topologies[key] = Topology(self, key)
        return self._topologies[key]

    def pods_named(self, namespace: str, selector: Selector) -> Ints:
        """Per slot, the pods of a namespace that a selector names and that are not going away."""
        return self.pods_matching(
            f"{namespace}|{selector!r}",
            lambda where, labels: where == namespace and selector.matches(labels),
            staying=True,
        )

    def pods_matching(
        self,
        key: str,
        matches: Callable[[str, Mapping[str, str]], bool],
        *,
        staying: bool = False,
    ) -> Ints:
        """Per slot, the placed pods for which `matches(namespace, labels)`; `key` names it."""

        def make() -> PodCounter:
            return self._new_counter(PodCounter(key, matches, self.capacity, staying=staying))

        return self._counters.get(key, make).counts

    def namespace_changed(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace came, changed its labels or went."""
        if self.namespace_labels.get(name) == labels:
            return
        if labels is None:
            self.namespace_labels.pop(name, None)
        else:
            self.namespace_labels[name] = labels
        if not self._pods_in[name]:
            # Nobody is counted by these labels: new namespaces, mostly. What is remembered of
            # pods that were there is not worth much.
            self._classes = {k: c for k, c in self._classes.items() if c.namespace != name}
            self._pods_in.pop(name, None)
            return
        # Counters whose matching looks at namespace labels would be wrong from here on.
        self._counters = Kept(KEPT_COLUMNS)
        self._classes.clear()

    def requested(self, resource: str) -> Ints:
        return self._resource(resource)[1]

    def allocatable_of(self, resource: str) -> Ints:
        return self._resource(resource)[0]

    def statistics(self) -> dict[str, int]:
        return {
            "nodes": self.count,
            "pods": len(self.pods),
            "derived": sum(1 for _ in self._derived.values()),
            "counters": sum(1 for _ in self._counters.values()),
        }

    def check_invariants(self) -> None:
        """Compare what is kept by small changes with what a count from scratch gives."""
        for resource, used in self.used.items():
            again = np.zeros(self.capacity, dtype=np.int64)
            for placed in self.pods.values():
                amounts = dict(placed.features.requests)
                again[placed.slot] += 1 if resource == PODS else amounts.get(resource, 0)
            assert (used == again).all(), f"{resource}: {used} is kept, {again} is right"
        for counter in self._counters.values():
            again = np.zeros(self.capacity, dtype=np.int64)
            for placed in self.pods.values():
                matches = counter.matches(placed.features.namespace, placed.features.labels)
                if matches and not (counter.staying and placed.leaving):
                    again[placed.slot] += 1
            assert (counter.counts == again).all(), f"counter {counter.key} is off"
        self._check_terms_and_ports()
        for usage in self._usage.values():
            usage.check()
        for derived in self._derived.values():
            derived.check()
        for uid, placed in self.pods.items():
            assert uid in self.uids_on[placed.slot], f"{uid} is not on its slot"
        assert self._priorities == Counter(p.priority for p in self.pods.values()), "priorities"
        assert sum(map(len, self.uids_on)) == len(self.pods), "a uid is on two slots"
        for name, slot in self.slot_of.items():
            assert self.names[slot] == name, f"slot {slot} is not {name}"
            assert bool(self.alive[slot]) == (self.nodes[slot] is not None), f"{name}: alive?"

    def _check_terms_and_ports(self) -> None:
        again = NodeColumns()
        again.capacity = self.capacity
        for placed in self.pods.values():
            again._account_terms(placed.features, placed.slot, 1)
            for port in placed.features.host_ports:
                again._account_port(port, placed.slot, 1)
        for kind, carried in self.carried.items():
            assert carried.keys() == again.carried[kind].keys(), f"{kind}: terms are off"
            for key, counter in carried.items():
                right = again.carried[kind][key].counts
                assert (counter.counts == right).all(), f"{kind} term {key} is off"

        def ports(columns: NodeColumns) -> dict[object, list[str]]:
            return {
                (port, slot): sorted(addresses)
                for port, slots in columns._ports.items()
                for slot, addresses in slots.items()
            }

        assert ports(self) == ports(again), "host ports are off"

    # --- inside -----------------------------------------------------------------------------------

    def _account(self, placed: PlacedPod, sign: int) -> None:
        features, slot = placed.features, placed.slot
        self.touched.note(slot, self.capacity)
        self._pods_in[features.namespace] += sign
        self._priorities[placed.priority] += sign
        if not self._priorities[placed.priority]:
            del self._priorities[placed.priority]
        for name, amount in features.requests:
            self._resource(name)[1][slot] += sign * amount
        self._resource(PODS)[1][slot] += sign
        self.scored_cpu[slot] += sign * features.scored_cpu
        self.scored_memory[slot] += sign * features.scored_memory
        label_class = self._class_of(features)
        for counter in self._counters.values():
            if self._counts(counter, placed, label_class):
                counter.counts[slot] += sign
        for port in features.host_ports:
            self._account_port(port, slot, sign)
        if features.has_terms:
            self._account_terms(features, slot, sign)

    def _account_port(self, port: HostPort, slot: int, sign: int) -> None:
        where = self._ports.setdefault((port.protocol, port.port), {})
        addresses = where.setdefault(slot, [])
        if sign > 0:
            addresses.append(port.address)
            return
        addresses.remove(port.address)
        if not addresses:
            del where[slot]

    def _account_terms(self, features: PodFeatures, slot: int, sign: int) -> None:
        for kind, terms in (
            ("anti", features.required_anti_affinity),
            ("required", features.required_affinity),
            ("preferred", features.preferred_affinity),
            ("preferred_anti", features.preferred_anti_affinity),
        ):
            carried = self.carried[kind]
            for term in terms:
                counter = carried.get(term.key)
                if counter is None:
                    counter = carried[term.key] = TermCounter(term, self.capacity)
                counter.counts[slot] += sign
                counter.total += sign
                if counter.total == 0:
                    del carried[term.key]

    def _new_counter(self, counter: PodCounter) -> PodCounter:
        for placed in self.pods.values():
            if self._counts(counter, placed, self._class_of(placed.features)):
                counter.counts[placed.slot] += 1
        return counter

    def _counts(self, counter: PodCounter, placed: PlacedPod, label_class: _LabelClass) -> bool:
        if counter.staying and placed.leaving:
            return False
        return self._verdict(label_class, counter)

    def _class_of(self, features: PodFeatures) -> _LabelClass:
        key = (features.namespace, tuple(sorted(features.labels.items())))
        found = self._classes.get(key)
        if found is None:
            if len(self._classes) > 100_000:
                self._classes.clear()
            found = self._classes[key] = _LabelClass(features.namespace, features.labels)
        return found

    @staticmethod
    def _verdict(label_class: _LabelClass, counter: PodCounter) -> bool:
        verdict = label_class.verdicts.get(counter.key)
        if verdict is None:
            verdict = counter.matches(label_class.namespace, label_class.labels)
            if len(label_class.verdicts) > 4 * KEPT_COLUMNS:
                label_class.verdicts.clear()
            label_class.verdicts[counter.key] = verdict
        return verdict

    def _slot(self, name: str) -> int:
        if (slot := self.slot_of.get(name)) is not None:
            return slot
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.slot_of[name] = slot
        self.names[slot] = name
        self._names_by_slot = None
        return slot

    def _release(self, slot: int) -> None:
        if self.nodes[slot] is None and not self.uids_on[slot] and self.names[slot]:
            del self.slot_of[self.names[slot]]
            self.names[slot] = ""
            self._names_by_slot = None
            self._free.append(slot)

    def _note_change(self, slot: int) -> None:
        self.changed.note(slot, 4 * self.capacity)
        self.touched.note(slot, self.capacity)

    def _resource(self, name: str) -> tuple[Ints, Ints]:
        if name not in self.allocatable:
            self.allocatable[name] = np.zeros(self.capacity, dtype=np.int64)
            self.used[name] = np.zeros(self.capacity, dtype=np.int64)
        return self.allocatable[name], self.used[name]

    def _grow(self) -> None:
        old, self.capacity = self.capacity, self.capacity * 2
        self._free.extend(range(self.capacity - 1, old - 1, -1))
        self.names.extend([""] * old)
        self.nodes.extend([None] * old)
        self.uids_on.extend(set() for _ in range(old))
        self.alive = grown(self.alive, self.capacity)
        self.unschedulable = grown(self.unschedulable, self.capacity)
        self.scored_cpu = grown(self.scored_cpu, self.capacity)
        self.scored_memory = grown(self.scored_memory, self.capacity)
        for columns in (self.allocatable, self.used):
            for name in columns:
                columns[name] = grown(columns[name], self.capacity)
        for counter in self._counters.values():
            counter.grow(self.capacity)
        for carried in self.carried.values():
            for term in carried.values():
                term.grow(self.capacity)


def _addresses_clash(one: str, other: str) -> bool:
    wildcards = ("0.0.0.0", "::")
    return one == other or one in wildcards or other in wildcards
