"""Acting as somebody else: the Impersonate-* headers, and who may send them.

Every part of the wished-for identity (user or service account, each group, the uid, each
value of extra) needs the `impersonate` verb. From then on the request is the other
user's: authorization, admission and audit see only them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from pybernetes.api.user import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    UserInfo,
    service_account_of,
    service_account_user,
)
from pybernetes.apimachinery.errors import InternalError
from pybernetes.apiserver.hooks import Access

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.wire.http import Headers

USER = "impersonate-user"
GROUP = "impersonate-group"
UID = "impersonate-uid"
EXTRA_PREFIX = "impersonate-extra-"

_AUTHENTICATION = "authentication.k8s.io"


def wished_identity(headers: Headers) -> UserInfo | None:
    """Who the caller wants to be; None if it is content. Raises InternalError, as upstream."""
    name, uid = headers.get(USER), headers.get(UID)
    groups = tuple(headers.get_all(GROUP))
    extra: dict[str, list[str]] = {}
    for header, value in headers:
        if header.startswith(EXTRA_PREFIX):
            extra.setdefault(unquote(header.removeprefix(EXTRA_PREFIX)), []).append(value)
    if not name:
        if groups or uid or extra:
            raise InternalError("requested impersonation without impersonating a user")
        return None
    return UserInfo(name, groups, uid, extra)


def needed_accesses(caller: UserInfo, wished: UserInfo) -> Iterator[Access]:
    """What the caller must be allowed to do, each of it."""

    def access(resource: str, name: str, *, group: str = "", subresource: str = "") -> Access:
        return Access(
            caller,
            "impersonate",
            group=group,
            version="v1",
            resource=resource,
            subresource=subresource,
            name=name,
        )

    if (account := service_account_of(wished.name)) is not None:
        namespace, name = account
        needed = access("serviceaccounts", name)
        needed.namespace = namespace
        yield needed
    else:
        yield access("users", wished.name)
    for group in wished.groups:
        yield access("groups", group)
    if wished.uid:
        yield access("uids", wished.uid, group=_AUTHENTICATION)
    for key, values in wished.extra.items():
        for value in values:
            yield access("userextras", value, group=_AUTHENTICATION, subresource=key)


def completed(wished: UserInfo) -> UserInfo:
    """The identity with the groups that follow from it."""
    groups = wished.groups
    account = service_account_of(wished.name)
    if account is not None and not groups:
        groups = service_account_user(*account).groups
    always = UNAUTHENTICATED if wished.name == ANONYMOUS else AUTHENTICATED
    if always not in groups and UNAUTHENTICATED not in groups:
        groups = (*groups, always)
    return UserInfo(wished.name, groups, wished.uid, wished.extra)
