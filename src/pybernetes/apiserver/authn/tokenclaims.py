"""What a service account token says, as upstream writes it. Pure.

A token is bound to its account and perhaps to a pod, a node or a secret, each by name and uid:
when one of them is gone, so is the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

ISSUER = "https://kubernetes.default.svc.cluster.local"
PRIVATE = "kubernetes.io"

# By this lifetime the issuer knows the volumes that admission mounts. Old clients read such a
# token once and never again, so it lives a year and only warns after the hour (KEP-1205).
MOUNTED_SECONDS = 3607
EXTENDED = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Bound:
    """An object that a token lives and dies with."""

    name: str
    uid: str

    def claim(self) -> dict[str, str]:
        return {"name": self.name, "uid": self.uid}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """The content of a token in our words."""

    namespace: str
    account: Bound
    audiences: tuple[str, ...]
    issued: datetime
    expires: datetime
    id: str
    pod: Bound | None = None
    node: Bound | None = None
    secret: Bound | None = None
    warn_after: datetime | None = None

    @property
    def subject(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.account.name}"


def claims_of(facts: TokenFacts, issuer: str = ISSUER) -> dict[str, Any]:
    """The claims, in the order upstream's tokens have."""
    private: dict[str, Any] = {"namespace": facts.namespace}
    for name in ("node", "pod", "secret"):
        bound: Bound | None = getattr(facts, name)
        if bound is not None:
            private[name] = bound.claim()
    private["serviceaccount"] = facts.account.claim()
    if facts.warn_after is not None:
        private["warnafter"] = _seconds(facts.warn_after)
    issued = _seconds(facts.issued)
    return {
        "aud": list(facts.audiences),
        "exp": _seconds(facts.expires),
        "iat": issued,
        "iss": issuer,
        "jti": facts.id,
        PRIVATE: private,
        "nbf": issued,
        "sub": facts.subject,
    }


def facts_of(claims: dict[str, Any]) -> TokenFacts:
    """The inverse of claims_of. Raises ValueError for claims that are not an account's token."""
    try:
        private = claims[PRIVATE]
        account = _bound(private["serviceaccount"])
        assert account is not None
        audiences = claims.get("aud") or ()
        facts = TokenFacts(
            namespace=private["namespace"],
            account=account,
            audiences=(audiences,) if isinstance(audiences, str) else tuple(audiences),
            issued=_moment(claims.get("iat", 0)),
            expires=_moment(claims["exp"]),
            id=claims.get("jti", ""),
            pod=_bound(private.get("pod")),
            node=_bound(private.get("node")),
            secret=_bound(private.get("secret")),
            warn_after=_moment(private["warnafter"]) if "warnafter" in private else None,
        )
    except (KeyError, TypeError, AssertionError, OverflowError) as error:
        raise ValueError(f"not the claims of a service account token: {error!r}") from None
    if claims.get("sub") != facts.subject:
        raise ValueError("the subject of the token is not its service account")
    return facts


def _bound(claim: Any) -> Bound | None:
    if not claim:
        return None
    return Bound(str(claim["name"]), str(claim.get("uid", "")))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
