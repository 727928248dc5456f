"""Numbers that each belong to one Service at a time: a range, who owns what, what is promised.

Owners come from the Services that are stored; a reservation covers the moment between choosing a
number and the Service with it being stored. Both are plain memory: whoever has looked and
reserved without waiting in between cannot have been overtaken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

# Random choices tried before the range is searched from the beginning.
_ATTEMPTS = 16


class Taken(Exception):
    """Somebody else has it."""


class OutOfRange(Exception):
    """It is not one of ours to give."""


class Full(Exception):
    """There is none left."""


class NumberPool:
    """The numbers from `first` to `last`, both included.

    A number that nobody asked for by name is chosen from `preferred_from` on as long as there
    is one, so that those below stay free for people who choose themselves (KEP-3070).
    """

    def __init__(self, first: int, last: int, *, preferred_from: int | None = None) -> None:
        self.first, self.last = first, last
        self._preferred_from = first if preferred_from is None else preferred_from
        # Who has it; more than one only if the store was filled behind our back.
        self._owners: dict[int, set[str]] = {}
        # Promised to a write that is under way.
        self._reserved: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last

    def is_free(self, number: int) -> bool:
        return number not in self._owners and number not in self._reserved

    def is_owned_by(self, number: int, owner: str) -> bool:
        return owner in self._owners.get(number, ())

    def own(self, owner: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._owners.setdefault(number, set()).add(owner)

    def disown(self, owner: str, numbers: Iterable[int]) -> None:
        for number in numbers:
            owners = self._owners.get(number)
            if owners is not None:
                owners.discard(owner)
                if not owners:
                    del self._owners[number]

    def reserve(self, number: int) -> None:
        """Raises OutOfRange or Taken."""
        if number not in self:
            raise OutOfRange
        if not self.is_free(number):
            raise Taken
        self._reserved.add(number)

    def reserve_any(self, random: Random) -> int:
        """Raises Full."""
        if self._preferred_from <= self.last:
            for _ in range(_ATTEMPTS):
                number = random.randint(self._preferred_from, self.last)
                if self.is_free(number):
                    self._reserved.add(number)
                    return number
        for numbers in (
            range(self._preferred_from, self.last + 1),
            range(self.first, self._preferred_from),
        ):
            for number in numbers:
                if self.is_free(number):
                    self._reserved.add(number)
                    return number
        raise Full

    def release(self, number: int) -> None:
        """Take back a promise; what has been stored meanwhile stays owned."""
        self._reserved.discard(number)

    @property
    def reserved(self) -> frozenset[int]:
        return frozenset(self._reserved)
