"""Which representation a client wants, and which it gets.

Clients list what they accept in order of wish; we take the first we can write. Objects
are JSON or YAML, never protobuf: clients that prefer protobuf name JSON next. `as=Table`
and `as=PartialObjectMetadata` ask for another form of the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pybernetes.apimachinery.errors import NotAcceptable

JSON = "application/json"
YAML = "application/yaml"

# What upstream names when it refuses; the last of them we do not write.
OFFERED = (JSON, YAML, "application/vnd.kubernetes.protobuf")

META_GROUP = "meta.k8s.io"
_TABLE_VERSIONS = ("v1", "v1beta1")
_METADATA_KINDS = {
    "PartialObjectMetadata": "PartialObjectMetadata",
    "PartialObjectMetadataList": "PartialObjectMetadata",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A representation: the media type, and the kind and version to convert to if any."""

    media_type: str = JSON
    # "", "Table" or "PartialObjectMetadata".
    form: str = ""
    form_version: str = ""

    @property
    def is_yaml(self) -> bool:
        return self.media_type == YAML

    @property
    def content_type(self) -> str:
        if not self.form:
            return self.media_type
        return f"{self.media_type};as={self.form};g={META_GROUP};v={self.form_version}"


PLAIN = Wanted()


@lru_cache(maxsize=512)
def negotiate(accept: str) -> Wanted:
    """Raises NotAcceptable if nothing in an Accept header can be written."""
    if not accept:
        return PLAIN
    for clause in _by_wish(accept):
        if (wanted := _understand(*clause)) is not None:
            return wanted
    raise NotAcceptable(OFFERED)


def _by_wish(accept: str) -> list[tuple[str, dict[str, str]]]:
    clauses: list[tuple[float, str, dict[str, str]]] = []
    for text in accept.split(","):
        media_type, *parts = (part.strip() for part in text.split(";"))
        if not media_type:
            continue
        parameters: dict[str, str] = {}
        for part in parts:
            name, _, value = part.partition("=")
            parameters[name.strip().lower()] = value.strip().strip('"')
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if quality > 0:
            clauses.append((quality, media_type.lower(), parameters))
    # The sort is stable: equally good ones stay in the client's order.
    clauses.sort(key=lambda clause: -clause[0])
    return [(media_type, parameters) for _, media_type, parameters in clauses]


def _understand(media_type: str, parameters: dict[str, str]) -> Wanted | None:
    if media_type in ("*/*", "application/*", JSON):
        media_type = JSON
    elif media_type != YAML:
        return None
    form = parameters.get("as", "")
    if not form:
        return Wanted(media_type)
    if parameters.get("g", "") != META_GROUP:
        return None
    version = parameters.get("v", "")
    if form == "Table" and version in _TABLE_VERSIONS:
        return Wanted(media_type, form, version)
    if form in _METADATA_KINDS and version in _TABLE_VERSIONS:
        return Wanted(media_type, _METADATA_KINDS[form], version)
    return None
