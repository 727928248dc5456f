"""Service account tokens: whose they are, and whether they still hold.

A signature is verified once per token and remembered; every request then only checks that the
account (and pod, node, secret) the token is bound to is still the very entry in the cache that
it was, which costs a look-up each. Tokens of the older kind, kept in secrets without an expiry,
are accepted as long as their secret is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pybernetes.api.types.core_v1 import Node, Pod, Secret, ServiceAccount
from pybernetes.api.user import AUTHENTICATED, UserInfo, service_account_user
from pybernetes.apiserver.authn.tokenclaims import ISSUER, Bound, TokenFacts, facts_of
from pybernetes.apiserver.typed import HARDLY_ANY, Typed

if TYPE_CHECKING:
    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.authn.signingkey import SigningKey
    from pybernetes.apiserver.catalog import Catalog
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.watchcache import WatchCache

_EXTRA = "authentication.kubernetes.io/"
_LEGACY_ISSUER = "kubernetes/serviceaccount"
# Verified tokens kept; beyond it all are verified anew.
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that held when it was last looked at in full, and what that rested on."""

    claims: dict[str, Any]
    user: UserInfo
    audiences: tuple[str, ...]
    not_before: float
    expires: float
    # The entries it is bound to, by cache and key.
    rests_on: tuple[tuple[WatchCache, str, Entry], ...]

    def holds(self, now: float) -> bool:
        return self.not_before <= now < self.expires and all(
            cache.entries.get(key) is entry for cache, key, entry in self.rests_on
        )


class ServiceAccountTokens:
    """Judges tokens; the issuer's counterpart."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        key: SigningKey,
        *,
        issuer: str = ISSUER,
    ) -> None:
        self._clock, self._key, self.issuer = clock, key, issuer
        self._accounts, self._pods = (
            Typed(catalog, ServiceAccount),
            Typed(catalog, Pod, keep=HARDLY_ANY),
        )
        self._nodes, self._secrets = Typed(catalog, Node), Typed(catalog, Secret)
        # By token.
        self._verified: dict[str, _Verified] = {}

    def user_of(self, token: str, audiences: tuple[str, ...] = ()) -> UserInfo | None:
        """Whose token it is, if it is one of ours and holds for one of the audiences."""
        found = self._check(token)
        if found is None:
            return None
        wanted = audiences or (self.issuer,)
        if found.audiences and not set(wanted) & set(found.audiences):
            return None
        return found.user

    def audiences_of(self, token: str) -> tuple[str, ...]:
        """For whom a token is that `user_of` accepted; none means everybody here."""
        known = self._verified.get(token)
        return () if known is None else known.audiences

    def _check(self, token: str) -> _Verified | None:
        now = self._clock.now().timestamp()
        known = self._verified.get(token)
        if known is not None and known.holds(now):
            return known
        self._verified.pop(token, None)
        # What a signature covers does not change; what the token is bound to may have.
        claims = self._key.verify(token) if known is None else known.claims
        if claims is None:
            return None
        found = self._legacy(claims) if _is_legacy(claims) else self._bound(claims)
        if found is None or not found.holds(now):
            return None
        if len(self._verified) >= _KEPT:
            self._verified.clear()
        self._verified[token] = found
        return found

    def _bound(self, claims: dict[str, Any]) -> _Verified | None:
        if claims.get("iss") != self.issuer:
            return None
        try:
            facts = facts_of(claims)
        except ValueError:
            return None
        namespace = facts.namespace
        rests_on = []
        for objects, bound, where in (
            (self._accounts, facts.account, namespace),
            (self._pods, facts.pod, namespace),
            (self._secrets, facts.secret, namespace),
            (self._nodes, facts.node if facts.pod is None else None, ""),
        ):
            if bound is None:
                continue
            found = _present(objects, bound, where)
            if found is None:
                return None
            rests_on.append(found)
        return _Verified(
            claims,
            user_of_facts(facts),
            facts.audiences,
            facts.issued.timestamp(),
            facts.expires.timestamp(),
            tuple(rests_on),
        )

    def _legacy(self, claims: dict[str, Any]) -> _Verified | None:
        prefix = "kubernetes.io/serviceaccount/"
        namespace = str(claims.get(f"{prefix}namespace", ""))
        name = str(claims.get(f"{prefix}service-account.name", ""))
        uid = str(claims.get(f"{prefix}service-account.uid", ""))
        secret_name = str(claims.get(f"{prefix}secret.name", ""))
        account = _present(self._accounts, Bound(name, uid), namespace)
        secret = _present(self._secrets, Bound(secret_name, ""), namespace)
        if account is None or secret is None:
            return None
        user = service_account_user(namespace, name, uid=uid)
        return _Verified(claims, user, (), 0.0, float("inf"), (account, secret))


def _is_legacy(claims: dict[str, Any]) -> bool:
    return claims.get("iss") == _LEGACY_ISSUER


def _present(
    objects: Typed[Any], bound: Bound, namespace: str
) -> tuple[WatchCache, str, Entry] | None:
    """The entry of an object that is there, is the one that is meant, and is not going away."""
    entry = objects.entry(bound.name, namespace)
    if entry is None or objects.cache is None:
        return None
    metadata = objects.decode(entry).metadata
    if bound.uid and metadata.uid != bound.uid:
        return None
    # A pod that is ending keeps its token for the time it was given.
    if metadata.deletion_timestamp is not None and _kind_of(objects) != "Pod":
        return None
    return objects.cache, entry.key, entry


def _kind_of(objects: Typed[Any]) -> str:
    return "" if objects.served is None else objects.served.kind_name


def user_of_facts(facts: TokenFacts) -> UserInfo:
    account = service_account_user(facts.namespace, facts.account.name)
    extra: dict[str, list[str]] = {}
    if facts.id:
        extra[f"{_EXTRA}credential-id"] = [f"JTI={facts.id}"]
    if facts.node is not None:
        extra[f"{_EXTRA}node-name"] = [facts.node.name]
        if facts.node.uid:
            extra[f"{_EXTRA}node-uid"] = [facts.node.uid]
    if facts.pod is not None:
        extra[f"{_EXTRA}pod-name"] = [facts.pod.name]
        extra[f"{_EXTRA}pod-uid"] = [facts.pod.uid]
    assert AUTHENTICATED in account.groups
    return UserInfo(account.name, account.groups, facts.account.uid, extra)
