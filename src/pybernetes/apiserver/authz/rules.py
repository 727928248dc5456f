"""Policy rules as a question that is answered by looking up, not by searching.

Pure. `Grants` is what somebody may do in one place (a namespace, or everywhere): rules are
spread over the (API group, resource) pairs they name, so that a decision looks at the four to
six pairs that can match a request, however many roles there are.

Matching is upstream's: `*` stands for all groups, all resources (subresources too), all verbs;
`*/scale` for that subresource of everything; a rule with names never matches a request without
one; non-resource paths match exactly or by a trailing `*`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pybernetes.api.types.rbac_v1 import PolicyRule
    from pybernetes.apiserver.hooks import Access

ALL = "*"


class Grants:
    """The union of some rules."""

    __slots__ = ("_named", "_paths", "_resources")

    def __init__(self, rules: Iterable[PolicyRule] = ()) -> None:
        # (group, resource) → verbs allowed on all names.
        self._resources: dict[tuple[str, str], set[str]] = {}
        # (group, resource) → (verbs, names) of rules that name objects.
        self._named: dict[tuple[str, str], list[tuple[frozenset[str], frozenset[str]]]] = {}
        # Path or prefix with a trailing star → verbs.
        self._paths: dict[str, set[str]] = {}
        for rule in rules:
            self.add(rule)

    def add(self, rule: PolicyRule) -> None:
        for url in rule.non_resource_urls:
            self._paths.setdefault(url, set()).update(rule.verbs)
        names = frozenset(rule.resource_names)
        for group in rule.api_groups:
            for resource in rule.resources:
                if names:
                    named = self._named.setdefault((group, resource), [])
                    named.append((frozenset(rule.verbs), names))
                else:
                    self._resources.setdefault((group, resource), set()).update(rule.verbs)

    def allows(self, access: Access) -> bool:
        if not access.is_resource:
            return self._allows_path(access.verb, access.path)
        group, resource, verb = access.group, access.resource, access.verb
        if access.subresource:
            exact = f"{resource}/{access.subresource}"
            resources: tuple[str, ...] = (exact, ALL, f"*/{access.subresource}")
        else:
            resources = (resource, ALL)
        found = self._resources
        for name in resources:
            verbs = found.get((group, name))
            if verbs is not None and (verb in verbs or ALL in verbs):
                return True
            verbs = found.get((ALL, name))
            if verbs is not None and (verb in verbs or ALL in verbs):
                return True
        if not self._named or not access.name:
            return False
        return self._allows_named(access, resources)

    def _allows_named(self, access: Access, resources: Sequence[str]) -> bool:
        for resource in resources:
            for group in (access.group, ALL):
                for verbs, names in self._named.get((group, resource), ()):
                    if access.name in names and (access.verb in verbs or ALL in verbs):
                        return True
        return False

    def _allows_path(self, verb: str, path: str) -> bool:
        verbs = self._paths.get(path)
        if verbs is not None and (verb in verbs or ALL in verbs):
            return True
        for pattern, verbs in self._paths.items():
            if (
                pattern.endswith(ALL)
                and path.startswith(pattern[:-1])
                and (verb in verbs or ALL in verbs)
            ):
                return True
        return False


def rule_allows(rule: PolicyRule, access: Access) -> bool:
    """One rule by itself: for saying which of them it was."""
    return Grants((rule,)).allows(access)


# --- what is missing ------------------------------------------------------------------------------


def broken_down(rule: PolicyRule) -> list[PolicyRule]:
    """The rule as rules with one group, resource, name and verb each."""
    from pybernetes.api.types.rbac_v1 import PolicyRule as Rule

    parts = [
        Rule(verbs=(verb,), non_resource_urls=(url,))
        for url in rule.non_resource_urls
        for verb in rule.verbs
    ]
    for group in rule.api_groups:
        for resource in rule.resources:
            for verb in rule.verbs:
                if not rule.resource_names:
                    parts.append(Rule(verbs=(verb,), api_groups=(group,), resources=(resource,)))
                for name in rule.resource_names:
                    parts.append(
                        Rule(
                            verbs=(verb,),
                            api_groups=(group,),
                            resources=(resource,),
                            resource_names=(name,),
                        )
                    )
    return parts


def covers(owner: PolicyRule, part: PolicyRule) -> bool:
    """Whether one rule grants everything that a broken down one does."""
    if not _has_all(owner.verbs, part.verbs):
        return False
    if part.non_resource_urls:
        return all(
            any(_path_covers(have, url) for have in owner.non_resource_urls)
            for url in part.non_resource_urls
        )
    if not _has_all(owner.api_groups, part.api_groups):
        return False
    if not all(_resource_covered(owner.resources, resource) for resource in part.resources):
        return False
    if not owner.resource_names:
        return True
    return bool(part.resource_names) and set(part.resource_names) <= set(owner.resource_names)


def missing(owned: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """What of the wanted rules is not covered by the owned ones, broken down."""
    return [
        part
        for rule in wanted
        for part in broken_down(rule)
        if not any(covers(owner, part) for owner in owned)
    ]


def _has_all(have: Sequence[str], wanted: Sequence[str]) -> bool:
    return ALL in have or set(wanted) <= set(have)


def _resource_covered(have: Sequence[str], resource: str) -> bool:
    if ALL in have or resource in have:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in have


def _path_covers(have: str, path: str) -> bool:
    return have == path or (have.endswith(ALL) and path.rstrip(ALL).startswith(have[:-1]))


def compacted(rules: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Rules that differ in their verbs alone joined into one, in first-seen order."""
    from msgspec.structs import replace

    joined: dict[tuple[tuple[str, ...], ...], PolicyRule] = {}
    for rule in rules:
        key = (rule.api_groups, rule.resources, rule.resource_names, rule.non_resource_urls)
        if (known := joined.get(key)) is None:
            joined[key] = rule
        else:
            verbs = tuple(dict.fromkeys([*known.verbs, *rule.verbs]))
            joined[key] = replace(known, verbs=verbs)
    return list(joined.values())


def rule_text(rule: PolicyRule) -> str:
    """A rule as upstream prints it in refusals."""
    parts = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.non_resource_urls),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    return (
        "{" + ", ".join(f"{name}:{strings_text(values)}" for name, values in parts if values) + "}"
    )


def strings_text(values: Iterable[str]) -> str:
    """Strings as Go prints a slice of them with %q."""
    quoted = " ".join(
        '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values
    )
    return f"[{quoted}]"
