"""Image pull secrets: which credentials belong to an image. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pybernetes.kubelet.images import full_reference
from pybernetes.kubelet.runtime.interface import RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.core_v1 import Secret

JSON_TYPE, OLD_TYPE = "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"
JSON_KEY, OLD_KEY = ".dockerconfigjson", ".dockercfg"
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def auths_for(image: str, secrets: Iterable[Secret]) -> list[RegistryAuth]:
    """Credentials whose registry (and path, if they name one) the image is in, best first."""
    repository = full_reference(image).partition("@")[0]
    found = [
        (len(place), auth)
        for secret in secrets
        for place, auth in _entries(secret)
        if _covers(place, repository)
    ]
    found.sort(key=lambda entry: -entry[0])
    return [auth for _, auth in found]


def _entries(secret: Secret) -> list[tuple[str, RegistryAuth]]:
    """What cannot be read is left out: the pull will say that it is not allowed."""
    key = JSON_KEY if secret.type == JSON_TYPE else OLD_KEY
    try:
        content = json.loads(base64.b64decode(secret.data[key], validate=True))
        entries = content.get("auths", {}) if key == JSON_KEY else content
        return [(_place(name), _auth(name, entry)) for name, entry in entries.items()]
    except (KeyError, ValueError, binascii.Error, AttributeError, TypeError):
        return []


def _place(name: str) -> str:
    """Host and path, without scheme and API version."""
    place = name.partition("://")[2] or name
    for suffix in ("/v1", "/v2"):
        place = place.rstrip("/").removesuffix(suffix)
    return place.rstrip("/")


def _auth(name: str, entry: dict[str, Any]) -> RegistryAuth:
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth") and not username:
        text = base64.b64decode(entry["auth"]).decode()
        username, _, password = text.partition(":")
    return RegistryAuth(
        username=username,
        password=password,
        server_address=name,
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
    )


def _covers(place: str, repository: str) -> bool:
    host, _, path = place.partition("/")
    own_host, _, own_path = repository.partition("/")
    if host in _HUB:
        host = "docker.io"
        path = ""
    if len(host.split(".")) != len(own_host.split(".")) or not fnmatchcase(own_host, host):
        return False
    return not path or own_path == path or own_path.startswith((path + "/", path + ":"))
