"""Who sends a request: the value that authentication finds and everybody after it reads.

In-process callers carry one as `Peer.identity`, so that they enter the same chain,
under the same rules, as somebody behind a socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ANONYMOUS: Final = "system:anonymous"

# Groups that mean something to the API server itself.
MASTERS: Final = "system:masters"
NODES: Final = "system:nodes"
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
SERVICE_ACCOUNTS: Final = "system:serviceaccounts"

_SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user by name and groups; `extra` holds what an authenticator adds beyond them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def in_group(self, group: str) -> bool:
        return group in self.groups


def service_account_user(namespace: str, name: str, *, uid: str = "") -> UserInfo:
    """The user a service account is known as."""
    return UserInfo(
        f"{_SERVICE_ACCOUNT_PREFIX}{namespace}:{name}",
        (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED),
        uid,
    )


def service_account_of(user: str) -> tuple[str, str] | None:
    """Namespace and name, if the user name is a service account's."""
    if not user.startswith(_SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, _, name = user.removeprefix(_SERVICE_ACCOUNT_PREFIX).partition(":")
    return (namespace, name) if namespace and name and ":" not in name else None
