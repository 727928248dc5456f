"""Discovery: which groups, versions and resources there are, in the old form and the aggregated.

The old form is a document per group version (APIGroupList, APIGroup, APIResourceList), the
aggregated one (KEP-3352) everything in two, at /api and /apis. All are made once as bytes and
anew only when something begins or ceases to be served.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pybernetes.api.types._index import GROUP_ORDER
from pybernetes.apimachinery.errors import NotFound
from pybernetes.apiserver.hooks import Route
from pybernetes.apiserver.respond import encode_json, json_response
from pybernetes.wire.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types._kindinfo import Subresource as SubresourceInfo
    from pybernetes.apiserver.call import Call
    from pybernetes.apiserver.catalog import Catalog, Served

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
# Understood versions of the aggregated form, best first.
_VERSIONS = ("v2", "v2beta1")


class Discovery:
    """Answers the discovery paths from a catalog."""

    def __init__(self, catalog: Catalog, *, address: str = "") -> None:
        self._catalog = catalog
        self._address = address
        # Documents that were asked for since the catalog last changed, by what they are.
        self._documents: dict[tuple[str, ...], bytes] = {}
        catalog.on_change(self._documents.clear)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("/api", self._core),
            Route("/apis", self._groups),
            Route("/api/", self._below),
            Route("/apis/", self._below),
        )

    # --- answers ----------------------------------------------------------------------------------

    async def _core(self, call: Call) -> Response:
        if (version := _aggregated_version(call)) is not None:
            return self._aggregated(call, version, core=True)
        return json_response(self._document(("versions",), self._api_versions))

    async def _groups(self, call: Call) -> Response:
        if (version := _aggregated_version(call)) is not None:
            return self._aggregated(call, version, core=False)
        return json_response(self._document(("groups",), self._api_group_list))

    async def _below(self, call: Call) -> Response:
        """/api/v1, /apis/<group> and /apis/<group>/<version>."""
        parts = call.request.path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 2:
            return self._resources("", parts[1])
        if parts[0] == "apis" and len(parts) == 2:
            group = self._group(parts[1])
            if group is None:
                raise NotFound.unknown_path()
            return json_response(encode_json({"kind": "APIGroup", "apiVersion": "v1", **group}))
        if parts[0] == "apis" and len(parts) == 3:
            return self._resources(parts[1], parts[2])
        raise NotFound.unknown_path()

    def _resources(self, group: str, version: str) -> Response:
        if not self._catalog.has_group_version(group, version):
            raise NotFound.unknown_path()
        key = ("resources", group, version)
        return json_response(self._document(key, lambda: self._resource_list(group, version)))

    def _aggregated(self, call: Call, version: str, *, core: bool) -> Response:
        data = self._document(
            ("aggregated", version, str(core)), lambda: self._aggregated_list(version, core=core)
        )
        tag = f'"{hashlib.sha512(data).hexdigest().upper()}"'
        headers = [
            ("Content-Type", AGGREGATED.format(version=version)),
            ("ETag", tag),
            ("Vary", "Accept"),
            ("Cache-Control", "public"),
        ]
        if call.request.headers.get("if-none-match") == tag:
            return Response(304, headers, b"")
        return Response(200, headers, data)

    def _document(self, key: tuple[str, ...], make: Any) -> bytes:
        if key not in self._documents:
            self._documents[key] = encode_json(make())
        return self._documents[key]

    # --- the old form -----------------------------------------------------------------------------

    def _api_versions(self) -> dict[str, Any]:
        address = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}

    def _api_group_list(self) -> dict[str, Any]:
        groups = [self._group(name) for name in self._group_names()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _group(self, name: str) -> dict[str, Any] | None:
        versions = self._versions(name)
        if not versions:
            return None
        named = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
        return {"name": name, "versions": named, "preferredVersion": named[0]}

    def _resource_list(self, group: str, version: str) -> dict[str, Any]:
        resources: list[dict[str, Any]] = []
        for served in self._served(group, version):
            resources.append(_old_entry(served))
            resources += [_old_subentry(served, sub) for sub in _subresources(served)]
        resources.sort(key=lambda entry: entry["name"])
        group_version = f"{group}/{version}" if group else version
        return {
            "kind": "APIResourceList",
            # The core group has said nothing here since before there were other groups.
            **({"apiVersion": "v1"} if group else {}),
            "groupVersion": group_version,
            "resources": resources,
        }

    # --- the aggregated form ----------------------------------------------------------------------

    def _aggregated_list(self, version: str, *, core: bool) -> dict[str, Any]:
        names = [""] if core else self._group_names()
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": name} if name else {},
                    "versions": [self._aggregated_version(name, v) for v in self._versions(name)],
                }
                for name in names
            ],
        }

    def _aggregated_version(self, group: str, version: str) -> dict[str, Any]:
        served = sorted(self._served(group, version), key=lambda s: s.plural)
        return {
            "version": version,
            "resources": [_entry(one) for one in served],
            "freshness": "Current",
        }

    # --- what there is ----------------------------------------------------------------------------

    def _served(self, group: str, version: str) -> list[Served]:
        return [s for s in self._catalog if (s.group, s.version) == (group, version)]

    def _group_names(self) -> list[str]:
        """Upstream's order; groups it does not know (custom resources) follow by name."""
        known = {name: place for place, name in enumerate(GROUP_ORDER)}
        names = {served.group for served in self._catalog} - {""}
        return sorted(names, key=lambda name: (known.get(name, len(known)), name))

    def _versions(self, group: str) -> list[str]:
        """The preferred one first, then from stable to alpha and from new to old."""
        found: dict[str, bool] = {}
        for served in self._catalog:
            if served.group == group:
                preferred = served.resource.info.preferred
                found[served.version] = found.get(served.version, False) or preferred
        return sorted(found, key=lambda v: (not found[v], version_rank(v)))


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sorts v2, v1, v1beta2, v1beta1, v1alpha1, and then what is no Kubernetes version."""
    digits = version.removeprefix("v")
    for place, stage in enumerate(("", "beta", "alpha")):
        major, found, minor = digits.partition(stage) if stage else (digits, "", "0")
        if (not stage or found) and major.isdecimal() and minor.isdecimal():
            return (place, -int(major), -int(minor), version)
    return (3, 0, 0, version)


def _subresources(served: Served) -> Iterable[SubresourceInfo]:
    has = {sub.name for sub in served.resource.subresources}
    return [info for info in served.resource.info.subresources if info.name in has]


def _old_entry(served: Served) -> dict[str, Any]:
    resource = served.resource
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.is_namespaced,
        "kind": resource.kind_name,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.info.storage_version_hash:
        entry["storageVersionHash"] = resource.info.storage_version_hash
    return entry


def _old_subentry(served: Served, sub: SubresourceInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{served.plural}/{sub.name}",
        "singularName": "",
        "namespaced": served.is_namespaced,
        "kind": sub.kind,
        "verbs": sorted(sub.verbs),
    }
    if (sub.group, sub.version) != (served.group, served.version):
        entry |= {"group": sub.group, "version": sub.version}
    return entry


def _entry(served: Served) -> dict[str, Any]:
    resource = served.resource
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind_name},
        "scope": "Namespaced" if resource.is_namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources = [_subentry(served, sub) for sub in _subresources(served)]
    if subresources:
        entry["subresources"] = sorted(subresources, key=lambda s: str(s["subresource"]))
    return entry


def _subentry(served: Served, sub: SubresourceInfo) -> dict[str, Any]:
    foreign = (sub.group, sub.version) != (served.group, served.version)
    return {
        "subresource": sub.name,
        "responseKind": {
            "group": sub.group if foreign else "",
            "version": sub.version if foreign else "",
            "kind": sub.kind,
        },
        "verbs": sorted(sub.verbs),
    }


def _aggregated_version(call: Call) -> str | None:
    """The aggregated form the client would rather have than the old one, if any."""
    for media_type in call.request.headers.get("accept").split(","):
        parts = [part.strip() for part in media_type.split(";")]
        if parts[0] not in ("application/json", "*/*", "application/*"):
            continue
        parameters = dict(part.split("=", 1) for part in parts[1:] if "=" in part)
        if parameters.get("as") != "APIGroupDiscoveryList":
            return None
        version = parameters.get("v", "")
        if parameters.get("g") == "apidiscovery.k8s.io" and version in _VERSIONS:
            return version
    return None
