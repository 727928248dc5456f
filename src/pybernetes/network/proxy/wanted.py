"""What the kernel should have, put together from what each Service wants.

Service plans mostly do not overlap. Where two do (the same external IP and port, or an endpoint
that several Services may reach themselves through), equal values are counted, and of different
ones the first to come keeps the element until it goes; then the next in order of name gets it.

Rule: `elements` changes only here, and every change is noted with the value before it, so that
`take_changes` is exactly the transaction that brings the kernel from the last one to now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybernetes.apimachinery.meta import Key
    from pybernetes.network.proxy.elements import Packed
    from pybernetes.network.proxy.rules import Changes

_NOTHING: Packed = {}


class Wanted:
    """The sum of all service plans, as packed elements."""

    def __init__(self) -> None:
        self.elements: Packed = {}
        # What each Service wants, whether it got it or not.
        self._by_service: dict[Key, Packed] = {}
        # (map, key) -> how many Services besides the first want the same value there.
        self._shared: dict[tuple[str, bytes], int] = {}
        # (map, key) -> Services that want another value there than the one it has.
        self._losers: dict[tuple[str, bytes], set[Key]] = {}
        # map -> key -> value when changes were last taken.
        self._before: dict[str, dict[bytes, bytes | None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.elements.values()))

    def put(self, plans: Mapping[Key, Packed]) -> None:
        """Replace what these Services want; an empty plan takes a Service away.

        All that is given up is given up first: an address may go from one to another.
        """
        for service, plan in plans.items():
            for name, entries in self._by_service.get(service, _NOTHING).items():
                kept = plan.get(name, {})
                for key, value in entries.items():
                    if kept.get(key) != value:
                        self._give_up(service, name, key)
        for service, plan in plans.items():
            before = self._by_service.get(service, _NOTHING)
            if plan:
                self._by_service[service] = plan
            else:
                self._by_service.pop(service, None)
            for name, entries in plan.items():
                had = before.get(name, {})
                for key, value in entries.items():
                    if had.get(key) != value:
                        self._ask_for(service, name, key, value)

    def take_changes(self) -> Changes:
        """The difference since the last call, without what was changed and changed back."""
        changes: Changes = {}
        for name, entries in self._before.items():
            now = self.elements.get(name, {})
            different = {
                key: (before, now.get(key))
                for key, before in entries.items()
                if before != now.get(key)
            }
            if different:
                changes[name] = different
        self._before = {}
        return changes

    def contested(self) -> list[Key]:
        """Services that did not get all they want."""
        return sorted({service for losers in self._losers.values() for service in losers})

    def check_invariants(self) -> None:
        wanted: dict[tuple[str, bytes], list[tuple[Key, bytes]]] = {}
        for service, plan in self._by_service.items():
            for name, entries in plan.items():
                for key, value in entries.items():
                    wanted.setdefault((name, key), []).append((service, value))
        has = {(name, key) for name, entries in self.elements.items() for key in entries}
        assert has == set(wanted), "an element without a Service, or a Service without its element"
        for (name, key), claims in wanted.items():
            value = self.elements[name][key]
            losers = self._losers.get((name, key), set())
            assert {s for s, v in claims if v != value} == losers, "a loser is not known"
            winners = len(claims) - len(losers)
            assert winners == 1 + self._shared.get((name, key), 0) > 0, "miscounted"

    def _ask_for(self, service: Key, name: str, key: bytes, value: bytes) -> None:
        entries = self.elements.setdefault(name, {})
        current = entries.get(key)
        if current is None:
            self._note(name, key, None)
            entries[key] = value
        elif current == value:
            self._shared[name, key] = self._shared.get((name, key), 0) + 1
        else:
            self._losers.setdefault((name, key), set()).add(service)

    def _give_up(self, service: Key, name: str, key: bytes) -> None:
        place = (name, key)
        losers = self._losers.get(place)
        if losers is not None and service in losers:
            losers.discard(service)
            if not losers:
                del self._losers[place]
            return
        if (others := self._shared.get(place, 0)) > 0:
            if others == 1:
                del self._shared[place]
            else:
                self._shared[place] = others - 1
            return
        entries = self.elements[name]
        self._note(name, key, entries.pop(key))
        if not entries:
            del self.elements[name]
        for heir in sorted(self._losers.pop(place, ())):
            self._ask_for(heir, name, key, self._by_service[heir][name][key])

    def _note(self, name: str, key: bytes, value: bytes | None) -> None:
        self._before.setdefault(name, {}).setdefault(key, value)
