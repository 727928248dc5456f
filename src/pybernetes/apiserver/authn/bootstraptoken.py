"""Bootstrap tokens: how a machine that has nothing yet joins (`p8s agent --token`).

A token `id.secret` stands for the secret `kube-system/bootstrap-token-<id>` while that is there,
has not expired, and says that it may be used to authenticate.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import TYPE_CHECKING

from pybernetes.api.types.core_v1 import Secret
from pybernetes.api.user import AUTHENTICATED, UserInfo
from pybernetes.apimachinery.timestamp import parse_time
from pybernetes.apiserver.typed import Typed

if TYPE_CHECKING:
    from datetime import datetime

    from pybernetes.aio.clock import Clock
    from pybernetes.apiserver.catalog import Catalog

SECRET_TYPE = "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers"

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._secrets = Typed(catalog, Secret)
        self._clock = clock

    def user_of(self, token: str) -> UserInfo | None:
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        name = f"bootstrap-token-{match[1]}"
        secret = self._secrets.get(name, "kube-system")
        if secret is None or secret.type != SECRET_TYPE:
            return None
        if secret.metadata.deletion_timestamp is not None:
            return None
        return user_of_secret(secret, match[1], match[2], self._clock.now())


def user_of_secret(secret: Secret, id: str, password: str, now: datetime) -> UserInfo | None:
    """The user, if the secret says all that it must say. Pure."""
    data = {key: _text(value) for key, value in secret.data.items()}
    if not hmac.compare_digest(data.get("token-secret", ""), password):
        return None
    if data.get("token-id") != id or data.get("usage-bootstrap-authentication") != "true":
        return None
    if expiration := data.get("expiration"):
        try:
            expires = parse_time(expiration)
        except ValueError:
            return None
        if expires is None or expires <= now:
            return None
    groups = [name.strip() for name in data.get("auth-extra-groups", "").split(",")]
    wanted = [name for name in groups if name]
    if any(not _EXTRA_GROUP.fullmatch(name) for name in wanted):
        return None
    return UserInfo(f"system:bootstrap:{id}", (GROUP, *sorted(set(wanted)), AUTHENTICATED))


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
