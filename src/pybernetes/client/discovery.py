"""What a server serves, asked from the server: for those who must deal with every kind there is.

The garbage collector and the deletion of namespaces act on kinds nobody told them about, custom
resources among them. They read metadata only, so that is what the kinds given here decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pybernetes.client.kind import metadata_kind

if TYPE_CHECKING:
    from pybernetes.client.client import Client
    from pybernetes.client.kind import Kind, PartialObject

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class ServedResource:
    """A resource in the version clients should choose, and what may be done with it."""

    kind: Kind[PartialObject]
    verbs: frozenset[str]
    subresources: frozenset[str] = frozenset()

    @property
    def group_resource(self) -> str:
        """`deployments.apps`."""
        return f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural


class _ResponseKind(msgspec.Struct, frozen=True):
    kind: str = ""


class _Subresource(msgspec.Struct, frozen=True):
    subresource: str = ""


class _Resource(msgspec.Struct, frozen=True, rename="camel"):
    resource: str = ""
    response_kind: _ResponseKind = _ResponseKind()
    scope: str = ""
    verbs: tuple[str, ...] = ()
    subresources: tuple[_Subresource, ...] = ()


class _Version(msgspec.Struct, frozen=True):
    version: str = ""
    resources: tuple[_Resource, ...] = ()


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""


class _Group(msgspec.Struct, frozen=True):
    metadata: _Metadata = _Metadata()
    versions: tuple[_Version, ...] = ()


class _Document(msgspec.Struct, frozen=True):
    items: tuple[_Group, ...] = ()


async def served_resources(client: Client) -> list[ServedResource]:
    """Every resource once, in the first version that has it. Raises StatusError."""
    found: dict[tuple[str, str], ServedResource] = {}
    for path in ("/api", "/apis"):
        data = await client.request("GET", path, accept=_AGGREGATED)
        for group in msgspec.json.decode(data, type=_Document).items:
            for version in group.versions:
                for resource in version.resources:
                    name = group.metadata.name
                    served = _served(name, version.version, resource)
                    found.setdefault((name, resource.resource), served)
    return list(found.values())


def _served(group: str, version: str, resource: _Resource) -> ServedResource:
    return ServedResource(
        kind=metadata_kind(
            group,
            version,
            resource.resource,
            kind=resource.response_kind.kind,
            namespaced=resource.scope == "Namespaced",
        ),
        verbs=frozenset(resource.verbs),
        subresources=frozenset(sub.subresource for sub in resource.subresources),
    )
