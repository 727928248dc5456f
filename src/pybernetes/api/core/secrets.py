"""Secret: settings that are nobody else's business."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pybernetes.api.core.configmaps import FROZEN, MAX_BYTES, decoded_size
from pybernetes.api.resource import AGE, Column, Resource, Scope, Strategy
from pybernetes.api.types.core_v1 import Secret
from pybernetes.api.validation import validate_immutable, validate_with
from pybernetes.apimachinery.fielderror import OMIT_VALUE, Path
from pybernetes.apimachinery.names import config_key_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybernetes.apimachinery.fielderror import FieldError

OPAQUE = "Opaque"
SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"
BOOTSTRAP_TOKEN = "bootstrap.kubernetes.io/token"
_REQUIRED_KEYS = {
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_DATA = Path("data")


def default_secret(new: Secret) -> Secret:
    changes: dict[str, Any] = {}
    if new.string_data:
        # A convenience of writing; nobody reads it back.
        encoded = {
            key: base64.b64encode(value.encode()).decode() for key, value in new.string_data.items()
        }
        changes |= {"data": {**new.data, **encoded}, "string_data": {}}
    if not new.type:
        changes["type"] = OPAQUE
    return replace(new, **changes) if changes else new


def validate_secret(new: Secret, old: Secret | None) -> Iterator[FieldError]:
    total = 0
    for key, value in new.data.items():
        yield from validate_with(config_key_errors, key, _DATA.key(key))
        total += decoded_size(value)
    if total > MAX_BYTES:
        yield _DATA.too_long(MAX_BYTES)
    yield from _validate_by_type(new)
    if old is None:
        return
    yield from validate_immutable(new.type, old.type, Path("type"))
    if old.immutable:
        if not new.immutable:
            yield Path("immutable").forbidden(FROZEN)
        if new.data != old.data:
            yield _DATA.forbidden(FROZEN)


def _validate_by_type(secret: Secret) -> Iterator[FieldError]:
    match secret.type:
        case "kubernetes.io/service-account-token":
            if not secret.metadata.annotations.get(SERVICE_ACCOUNT_NAME):
                yield Path("metadata").annotations.key(SERVICE_ACCOUNT_NAME).required()
        case "kubernetes.io/dockercfg":
            yield from _validate_json(secret, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            yield from _validate_json(secret, ".dockerconfigjson")
        case "kubernetes.io/basic-auth":
            if "username" not in secret.data and "password" not in secret.data:
                yield _DATA.key("username").required()
                yield _DATA.key("password").required()
        case kind:
            for key in _REQUIRED_KEYS.get(kind, ()):
                if key not in secret.data:
                    yield _DATA.key(key).required()


def _validate_json(secret: Secret, key: str) -> Iterator[FieldError]:
    encoded = secret.data.get(key)
    if encoded is None:
        yield _DATA.key(key).required()
        return
    try:
        parsed = msgspec.json.decode(base64.b64decode(encoded))
    except ValueError as error:
        yield _DATA.key(key).invalid(OMIT_VALUE, str(error))
        return
    if not isinstance(parsed, dict):
        yield _DATA.key(key).invalid(OMIT_VALUE, "must be a JSON object")


SECRETS = Resource(
    group="",
    version="v1",
    kind=Secret,
    plural="secrets",
    scope=Scope.NAMESPACED,
    strategy=Strategy(default=default_secret, validate=validate_secret, generation_follows=()),
    columns=(
        Column("Type", lambda secret: secret.type),
        Column("Data", lambda secret: len(secret.data)),
        AGE,
    ),
    selectable_fields={"type": lambda secret: secret.type},
)
