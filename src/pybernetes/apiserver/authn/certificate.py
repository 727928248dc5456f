"""Client certificates: the common name is the user, every organization a group.

The certificate itself was verified by TLS against the cluster's CA when the connection was
made; only then does `Peer.subject` say anything. Connections live long and subjects repeat,
so the user of a subject is made once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pybernetes.api.user import AUTHENTICATED, UserInfo

if TYPE_CHECKING:
    from pybernetes.wire.http import Request

_COMMON_NAME, _ORGANIZATION = "commonName", "organizationName"
# OpenSSL's long name of the attribute that may carry the user's uid (KEP-5330).
_USER_ID_OID = "1.3.6.1.4.1.57683.2"


class CertificateAuthenticator:
    """Knows whoever came over TLS with a certificate of ours."""

    async def authenticate(self, request: Request) -> UserInfo | None:
        subject = request.peer.subject
        return user_of_subject(subject) if subject else None


@lru_cache(maxsize=4096)
def user_of_subject(subject: tuple[tuple[str, str], ...]) -> UserInfo | None:
    """The user, complete with the group that everybody known is in; None without a name."""
    name = next((value for attribute, value in subject if attribute == _COMMON_NAME), "")
    if not name:
        return None
    groups = [value for attribute, value in subject if attribute == _ORGANIZATION]
    uid = next((value for attribute, value in subject if attribute == _USER_ID_OID), "")
    return UserInfo(name, tuple(dict.fromkeys([*groups, AUTHENTICATED])), uid)
