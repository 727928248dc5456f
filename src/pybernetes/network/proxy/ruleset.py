"""The packet rules of the service proxy: one nftables table, the same for every cluster.

    prerouting ─┐                                          ┌─ hairpin, masquerade
                ├─ services ─► tcp-N ─► endpoints-tcp ─────┤
    output ─────┘  ports ─► port-tcp-N ─► port-endpoints … └─ learn-T (affinity: who went where)

A frontend's element in `services` goes to `tcp-N`, whose one rule draws a number below N and
looks up (frontend, number) in `endpoints-tcp`. There is a chain per number of endpoints, not per
Service, so Services come and go without any rule changing (ADR 5).

The leak rule stands in `forward` and `output`, behind translation: a packet that still has an
address of the service range has no business anywhere and is rejected. It is loaded before
anything that could make such packets, and it needs no element to work.

Decisions are taken from what connection tracking knows (`ct original`), never from marks: those
belong to others.

Pure: text out, nothing run. The text is hashed into the name of an empty chain, by which a
restarted proxy knows that the kernel already has these very rules.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.network.proxy.elements import (
    MAPS,
    PROTOCOLS,
    Packed,
    declaration,
    format_elements,
)
from pybernetes.network.proxy.plan import OUTSIDE_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterable

# Chains made at once; a Service with more endpoints gets its chain when it appears.
READY_CHAINS = tuple(f"{kind}-{n}" for kind in ("tcp", "udp", "port-tcp") for n in range(1, 17))

_PICK = re.compile(r"(port-)?(tcp|udp|sctp)(-outside)?(-sticky)?-(\d+)")
_LEARN = re.compile(r"learn-(\d+)")

_FRONT = "ip daddr . ip protocol . th dport"
_PORT = "meta l4proto . th dport"
_CT_FRONT = "ct original ip daddr . meta l4proto . ct original proto-dst"
_CT_PORT = "meta l4proto . ct original proto-dst"
_NODE_ADDRESS = "fib daddr type local ip daddr != 127.0.0.0/8"


@dataclass(frozen=True, slots=True)
class RulesetConfig:
    """What the rules depend on: the name of the table and the cluster's address ranges."""

    service_cidr: str
    pod_cidr: str
    table: str = "p8s"


def skeleton(config: RulesetConfig) -> dict[str, list[str]]:
    """Every chain with its rules, those of READY_CHAINS included."""
    pods, services = config.pod_cidr, config.service_cidr
    chains: dict[str, list[str]] = {
        "refuse": ["meta l4proto tcp reject with tcp reset", "reject"],
        "node-ports-outside": [f"{_PORT} vmap @ports-outside"],
        "node-ports": [
            f"ip saddr != {pods} jump node-ports-outside",
            f"{_PORT} vmap @ports",
        ],
        "limit-sources": [
            "type filter hook prerouting priority dstnat - 10; policy accept;",
            f"ct state new {_FRONT} @source-limited {_FRONT} . ip saddr != @source-ranges drop",
        ],
        "prerouting": [
            "type nat hook prerouting priority dstnat; policy accept;",
            f"ip saddr != {pods} {_FRONT} vmap @services-outside",
            f"{_FRONT} vmap @services",
            f"{_NODE_ADDRESS} jump node-ports",
        ],
        # What the node itself sends sees the whole cluster, as a pod does.
        "output": [
            "type nat hook output priority -100; policy accept;",
            f"{_FRONT} vmap @services",
            f"{_NODE_ADDRESS} {_PORT} vmap @ports",
        ],
        "leak-forward": [
            "type filter hook forward priority filter - 10; policy accept;",
            f"ip daddr {services} counter goto refuse",
            f"ct state new {_FRONT} vmap @refused",
            # A packet that connection tracking lost would reach its client untranslated.
            f"ct state invalid ip saddr {pods} drop",
        ],
        "leak-output": [
            "type filter hook output priority filter - 10; policy accept;",
            f"ip daddr {services} fib daddr type != local counter goto refuse",
            f"ct state new {_FRONT} vmap @refused",
        ],
        "refuse-input": [
            "type filter hook input priority filter - 10; policy accept;",
            f"ct state new {_FRONT} vmap @refused",
            f"ct state new ip daddr != 127.0.0.0/8 {_PORT} vmap @refused-ports",
        ],
        "learn": [
            "type filter hook postrouting priority srcnat - 10; policy accept;",
            *(
                f"ct status dnat ct state new meta l4proto {protocol} {match} vmap @{name}"
                for protocol in PROTOCOLS
                for match, name in ((_CT_FRONT, "sticky"), (_CT_PORT, "sticky-ports"))
            ),
        ],
        "postrouting": [
            "type nat hook postrouting priority srcnat; policy accept;",
            "ct status dnat jump masquerading",
        ],
        "masquerading": [
            "ip saddr . ip daddr @hairpin masquerade fully-random",
            f"ip saddr != {pods} ct original ip daddr {services} masquerade fully-random",
            *(
                f"meta l4proto {protocol} {match} @{name} masquerade fully-random"
                for protocol in PROTOCOLS
                for match, name in ((_CT_FRONT, "masqueraded"), (_CT_PORT, "masqueraded-ports"))
            ),
        ],
    }
    for name in READY_CHAINS:
        chains[name] = chain_rules(name)
    return chains


def chain_rules(name: str) -> list[str]:
    """The rules of a chain that elements go to, from its name alone."""
    if match := _LEARN.fullmatch(name):
        key = f"ct original ip saddr . {_CT_FRONT}"
        return [
            f"meta l4proto {protocol} update @affinity"
            f" {{ {key} timeout {match[1]}s : ip daddr . th dport }}"
            for protocol in PROTOCOLS
        ]
    match = _PICK.fullmatch(name)
    if match is None:
        raise ValueError(f"there is no chain called {name}")
    node_port, protocol, outside, sticky, count = match.groups()
    front = f"{protocol} dport" if node_port else f"ip daddr . {protocol} dport"
    slots = f"{node_port or ''}endpoints-{protocol}"
    offset = f" offset {OUTSIDE_SLOTS}" if outside else ""
    rules = [f"dnat ip to {front} . numgen random mod {count}{offset} map @{slots}"]
    if sticky:
        rules.insert(0, f"dnat ip to ip saddr . {_FRONT} map @affinity")
    return rules


def fingerprint(config: RulesetConfig) -> str:
    """The name of the empty chain that stands for this very skeleton."""
    text = "\n".join([*map(declaration, MAPS), repr(skeleton(config))])
    return f"skeleton-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def rule_counts(config: RulesetConfig) -> dict[str, int]:
    """How many rules each chain of the skeleton must have."""
    counts = {fingerprint(config): 0}
    for name, rules in skeleton(config).items():
        counts[name] = sum(not rule.startswith("type ") for rule in rules)
    return counts


def script(config: RulesetConfig, elements: Packed, chains: Iterable[str] = ()) -> str:
    """The whole table with its elements, replacing in one transaction whatever is there."""
    lines = [f"add table ip {config.table}", f"delete table ip {config.table}"]
    lines.append(f"table ip {config.table} {{")
    lines.extend(f"  {declaration(name)}" for name in MAPS)
    lines.append(f"  chain {fingerprint(config)} {{ }}")
    bodies = skeleton(config) | {name: chain_rules(name) for name in chains}
    for name, rules in bodies.items():
        lines.append(f"  chain {name} {{")
        lines.extend(f"    {rule}" for rule in rules)
        lines.append("  }")
    lines.append("}")
    lines.extend(add_elements(config.table, elements))
    return "\n".join(lines) + "\n"


def add_chains(table: str, names: Iterable[str]) -> str:
    """Chains for numbers of endpoints (or timeouts) that were not seen before."""
    lines: list[str] = []
    for name in names:
        lines.append(f"add chain ip {table} {name}")
        lines.extend(f"add rule ip {table} {name} {rule}" for rule in chain_rules(name))
    return "\n".join(lines) + "\n"


def add_elements(table: str, elements: Packed) -> Iterable[str]:
    for name, entries in elements.items():
        if entries:
            listed = format_elements(name, entries.items())
            yield f"add element ip {table} {name} {{ {listed} }}"


def delete_elements(table: str, elements: Packed) -> Iterable[str]:
    for name, entries in elements.items():
        if entries:
            listed = format_elements(name, ((key, b"") for key in entries))
            yield f"delete element ip {table} {name} {{ {listed} }}"
