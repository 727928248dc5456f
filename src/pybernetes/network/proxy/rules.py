"""The proxy's edge: what the kernel has is made what is wanted, and nothing else is touched.

Rules:
- A start never flushes: rules that are already right stay, elements are compared one by one,
  and connections that exist or are just being made notice nothing.
- Every change is one transaction. One that the kernel refuses means that somebody else was at
  our table; then it is compared as a whole and mended.
- Where netlink does not work, nft(8) does the same more slowly; it is said once in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Protocol

from pybernetes.network.netlink import NetlinkError
from pybernetes.network.nfnetlink import Batch, Nftables
from pybernetes.network.program import explain_os_error, load_nft, run_nft
from pybernetes.network.proxy import ruleset
from pybernetes.network.proxy.elements import MAPS, Packed, chain_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pybernetes.network.proxy.ruleset import RulesetConfig

log = logging.getLogger(__name__)

# map -> key -> (value before, value after); None where there is no such element.
Changes = dict[str, dict[bytes, tuple[bytes | None, bytes | None]]]
# Larger transactions are made in a thread, so that the loop goes on meanwhile.
_LARGE = 2000


class Rules(Protocol):
    """The packet rules of one node, as the proxy loop needs them."""

    async def load(self, wanted: Packed) -> bool:
        """Make the kernel have exactly `wanted`; was anything different before?"""

    async def apply(self, changes: Changes, wanted: Packed) -> None:
        """Make one change that leads to `wanted`, at once and as a whole."""

    async def forget_affinity(self, stale: Iterable[tuple[bytes, bytes]]) -> int:
        """Let clients remembered as (frontend key, backend) choose again."""


class NftablesRules:
    """Rules in the kernel's nf_tables, in the network namespace of this process."""

    def __init__(self, config: RulesetConfig) -> None:
        self._config = config
        # Names of the chains that exist, so that an element never names one that does not.
        self._chains: set[str] = set()
        self._netlink: Nftables | None = None
        try:
            self._netlink = Nftables()
        except OSError as error:
            log.warning("%s; using nft for every change", explain_os_error(error, "nf_tables"))

    @property
    def port(self) -> int:
        """Our name in the kernel's notices; 0 when we change things through nft."""
        return self._netlink.port if self._netlink else 0

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()

    async def prepare(self) -> None:
        """Have the leak rule in place before anything is known of the cluster.

        Rules of an earlier run, even of another version, contain it: they stay until `load`.
        """
        if self._netlink is None or not self._has_table():
            await load_nft(ruleset.script(self._config, {}))
            self._chains = set(ruleset.READY_CHAINS)

    async def load(self, wanted: Packed) -> bool:
        if self._netlink is not None and self.is_intact():
            try:
                found = await asyncio.to_thread(self._dump)
                changes = difference(found, wanted)
                await self.apply(changes, wanted, mend=False)
            except NetlinkError as error:
                log.warning("cannot adopt the packet rules, loading them anew: %s", error)
            else:
                return bool(changes)
        chains = missing_chains(wanted, set(ruleset.READY_CHAINS))
        await load_nft(ruleset.script(self._config, wanted, chains))
        self._chains = {*ruleset.READY_CHAINS, *chains}
        return True

    async def apply(self, changes: Changes, wanted: Packed, *, mend: bool = True) -> None:
        if not changes:
            return
        if new := missing_chains(_values_after(changes), self._chains):
            await load_nft(ruleset.add_chains(self._config.table, new))
            self._chains.update(new)
        if self._netlink is None:
            await load_nft("\n".join(self._as_text(changes)) + "\n")
            return
        batch = self._batch(changes)
        try:
            if sum(map(len, changes.values())) > _LARGE:
                await asyncio.to_thread(self._netlink.commit, batch)
            else:
                self._netlink.commit(batch)
        except NetlinkError as error:
            if not mend:
                raise
            log.warning("the kernel refused a change of the packet rules, mending them: %s", error)
            await self.load(wanted)

    async def forget_affinity(self, stale: Iterable[tuple[bytes, bytes]]) -> int:
        pairs = set(stale)
        if not pairs:
            return 0
        if self._netlink is None:
            # nft cannot tell apart who went where quickly; so everybody chooses again.
            await load_nft(f"flush map ip {self._config.table} affinity\n")
            return len(pairs)
        table, shape = self._config.table, MAPS["affinity"].shape
        remembered = await asyncio.to_thread(self._netlink.elements, table, "affinity", shape)
        forgotten = 0
        for key, backend in remembered.items():
            # The frontend is what follows the client's address; a node port has no address.
            if (key[4:], backend) in pairs or (key[8:], backend) in pairs:
                batch = Batch(table)
                batch.delete("affinity", [key], shape)
                # It may have run out in the meantime.
                with contextlib.suppress(NetlinkError):
                    self._netlink.commit(batch)
                    forgotten += 1
        return forgotten

    def is_intact(self) -> bool:
        """Does the kernel have our rules, all of them? Learns which chains there are."""
        found = self._list_chains()
        expected = ruleset.rule_counts(self._config)
        if any(found.get(name) != count for name, count in expected.items()):
            return False
        for name in found.keys() - expected.keys():
            try:
                if found[name] != len(ruleset.chain_rules(name)):
                    return False
            except ValueError:
                return False
        self._chains = set(found)
        return True

    def _has_table(self) -> bool:
        return any(name.startswith("skeleton-") for name in self._list_chains())

    def _list_chains(self) -> dict[str, int]:
        if self._netlink is None:
            return {}
        try:
            return self._netlink.chains(self._config.table)
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EPERM):
                log.warning("cannot list the packet rules: %s", error)
            return {}

    def _dump(self) -> Packed:
        assert self._netlink is not None
        return {
            name: self._netlink.elements(self._config.table, name, kind.shape)
            for name, kind in MAPS.items()
            if not kind.dynamic
        }

    def _batch(self, changes: Changes) -> Batch:
        batch = Batch(self._config.table)
        for name, entries in changes.items():
            gone = [key for key, (before, _) in entries.items() if before is not None]
            batch.delete(name, gone, MAPS[name].shape)
        for name, entries in changes.items():
            new = {key: after for key, (_, after) in entries.items() if after is not None}
            batch.add(name, new, MAPS[name].shape)
        return batch

    def _as_text(self, changes: Changes) -> Iterator[str]:
        table = self._config.table
        gone: Packed = {}
        new: Packed = {}
        for name, entries in changes.items():
            for key, (before, after) in entries.items():
                if before is not None:
                    gone.setdefault(name, {})[key] = before
                if after is not None:
                    new.setdefault(name, {})[key] = after
        yield from ruleset.delete_elements(table, gone)
        yield from ruleset.add_elements(table, new)


def remove_rules(table: str) -> None:
    """Take the whole table away, if there is one."""
    run_nft(f"add table ip {table}\ndelete table ip {table}\n")


def difference(found: Packed, wanted: Packed) -> Changes:
    """What leads from `found` to `wanted`."""
    changes: Changes = {}
    for name in found.keys() | wanted.keys():
        old, new = found.get(name, {}), wanted.get(name, {})
        entries: dict[bytes, tuple[bytes | None, bytes | None]] = {
            key: (value, new.get(key)) for key, value in old.items() if new.get(key) != value
        }
        entries.update({key: (None, value) for key, value in new.items() if key not in old})
        if entries:
            changes[name] = entries
    return changes


def missing_chains(wanted: Packed, known: set[str]) -> list[str]:
    """Chains that elements go to and that are not in `known`, in a fixed order."""
    values = {
        value
        for name, entries in wanted.items()
        if MAPS[name].verdict
        for value in set(entries.values())
    }
    names = {chain_of(value) for value in values} - known - {"", "refuse"}
    return sorted(names)


def _values_after(changes: Changes) -> Packed:
    return {
        name: {key: after for key, (_, after) in entries.items() if after is not None}
        for name, entries in changes.items()
    }
