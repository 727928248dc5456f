"""What is served: every resource by group, version and plural, with its cache.

Built from the registry when the server starts; kinds that are defined later (custom
resources) come and go by `add` and `remove`. Discovery, OpenAPI and routing read it.

A `Served` is the one place that knows how a kind of object is decoded, encoded and
shown. Versions of one kind share a cache: what is stored is the storage version, the
others are converted on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pybernetes.api import codec
from pybernetes.api.schemas import schema_of
from pybernetes.api.types._index import info_of
from pybernetes.apimachinery.schema import decode_strict
from pybernetes.apiserver.forms import Converted, Metadata, Plain
from pybernetes.apiserver.tables import Table
from pybernetes.apiserver.watch import Dispatcher
from pybernetes.apiserver.watchcache import REGISTRY, WatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from pybernetes.aio.clock import Clock
    from pybernetes.api.resource import Conversion, Resource, Subresource
    from pybernetes.apimachinery.schema import Decoded, Schema
    from pybernetes.apiserver.entry import Entry
    from pybernetes.apiserver.forms import ListForm
    from pybernetes.apiserver.negotiation import Wanted


class Served:
    """One resource of one version."""

    # What has none is merged by its schema alone: strategic patches are not for it.
    has_go_type = True
    # Whether `prepare` has to be called before its cache is read.
    needs_preparation = False
    # What everybody is warned of who uses this version.
    deprecation = ""

    def __init__(self, resource: Resource[Any], cache: WatchCache | None, clock: Clock) -> None:
        self.resource = resource
        self.strategy = resource.strategy
        self.group, self.version, self.plural = resource.group, resource.version, resource.plural
        self.kind_name = resource.kind_name
        self.api_version = resource.api_version
        self.group_resource = resource.group_resource
        self.also: Collection[str] = ()
        self.is_namespaced = resource.is_namespaced
        self.verbs = frozenset(resource.verbs)
        self.selectable_fields: Collection[str] = resource.selectable_fields
        self._conversion: Conversion[Any] | None = resource.conversion
        self._stored_kind = resource.kind if self._conversion is None else self._conversion.stored
        self._cache = cache
        self._clock = clock
        self._subresources: dict[str, Subresource] = {
            sub.name: sub for sub in resource.subresources
        }
        self._subresource_verbs = {
            sub.name: frozenset(sub.verbs) for sub in resource.info.subresources
        }
        # Forms by what was asked for; shared, so that watchers of equal forms share bytes.
        self._forms: dict[object, ListForm] = {}

    def __repr__(self) -> str:
        return f"<Served {self.group_resource}/{self.version}>"

    # -- where objects are

    @property
    def cache(self) -> WatchCache:
        """Only for what is stored; reviews and the like have none."""
        assert self._cache is not None
        return self._cache

    @property
    def is_stored(self) -> bool:
        return self._cache is not None

    def key(self, namespace: str, name: str) -> str:
        return f"{namespace}/{name}" if self.is_namespaced else name

    def path(self, namespace: str, name: str) -> str:
        """The key in the store."""
        return self.cache.prefix + self.key(namespace, name)

    def subresource(self, name: str) -> Subresource | None:
        return self._subresources.get(name)

    def subresource_verbs(self, name: str) -> frozenset[str]:
        return self._subresource_verbs.get(name, frozenset())

    # -- objects and bytes

    @property
    def schema(self) -> Schema:
        schema = schema_of(self.group, self.version, self.kind_name)
        assert schema is not None, f"no schema of {self.api_version} {self.kind_name}"
        return schema

    def read_strictly(self, value: Any) -> Decoded:
        """Plain values as a client sent them: pruned, and judged against the schema."""
        return decode_strict(value, self.schema)

    def from_value(self, value: dict[str, Any]) -> Any:
        return codec.from_dict(self.resource.kind, value)

    def to_value(self, obj: Any) -> dict[str, Any]:
        return codec.to_dict(obj)

    def decode(self, entry: Entry) -> Any:
        """The object in this version, made whole, with its resourceVersion."""
        obj = codec.decode(
            self._stored_kind, self.cache.shape.with_revision(entry.value, entry.revision)
        )
        if self._conversion is not None:
            obj = self._conversion.from_stored(obj)
        return self.strategy.default(obj)

    def encode(self, obj: Any) -> bytes:
        """What is stored: the storage version, without resourceVersion."""
        if obj.metadata.resource_version:
            obj = replace(obj, metadata=replace(obj.metadata, resource_version=""))
        if self._conversion is not None:
            obj = self._conversion.to_stored(obj)
        return codec.encode(obj)

    async def prepare(self) -> None:
        """Return when the cache shows everything written so far."""

    async def stored_value(self, value: bytes) -> bytes:
        """What goes into the store for what `encode` made."""
        return value

    async def value_of_stored(self, value: bytes) -> bytes:
        """What `decode` reads, for what is stored."""
        return value

    # -- how they are shown

    def form(self, wanted: Wanted, *, include_object: str = "Metadata") -> ListForm:
        key = (wanted.form, wanted.form_version, include_object if wanted.form == "Table" else "")
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = self._make_form(wanted, include_object)
        return form

    def _make_form(self, wanted: Wanted, include_object: str) -> ListForm:
        plain: ListForm
        if self._conversion is None:
            plain = Plain(self.cache.shape, self.kind_name, self.api_version)
        else:
            plain = Converted(self.decode, self.kind_name, self.api_version)
        if wanted.form == "PartialObjectMetadata":
            return Metadata(self.cache.shape, wanted.form_version)
        if wanted.form == "Table":
            return Table(self, plain, wanted.form_version, include_object, self._clock)
        return plain


class Catalog:
    """All that is served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._served: dict[tuple[str, str, str], Served] = {}
        # By storage prefix, as the feed wants them.
        self.caches: dict[str, WatchCache] = {}
        # Called after something was added or removed, so that discovery is made anew.
        self._listeners: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def find(self, group: str, version: str, plural: str) -> Served | None:
        return self._served.get((group, version, plural))

    def find_stored(self, group: str, plural: str) -> Served | None:
        """Some version of a resource; all versions share what is stored."""
        for served in self._served.values():
            if served.group == group and served.plural == plural:
                return served
        return None

    def has_group_version(self, group: str, version: str) -> bool:
        return any(key[:2] == (group, version) for key in self._served)

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def load(self, resources: Iterable[Resource[Any]]) -> None:
        """Take the entries of the registry; their caches are empty until a feed fills them."""
        by_prefix: dict[str, list[Resource[Any]]] = {}
        entries = tuple(resources)
        for resource in entries:
            if resource.storage_prefix:
                by_prefix.setdefault(resource.storage_prefix, []).append(resource)
        for prefix, versions in by_prefix.items():
            if prefix not in self.caches:
                self.caches[prefix] = make_cache(prefix, versions)
        for resource in entries:
            cache = self.caches.get(resource.storage_prefix)
            self.add(Served(resource, cache, self._clock))

    def add(self, served: Served) -> None:
        self._served[(served.group, served.version, served.plural)] = served
        for listener in self._listeners:
            listener()

    def remove(self, served: Served) -> None:
        self._served.pop((served.group, served.version, served.plural), None)
        for listener in self._listeners:
            listener()


def make_cache(prefix: str, versions: Sequence[Resource[Any]]) -> WatchCache:
    """One cache for all versions of what is stored under a prefix."""
    stored = next((version for version in versions if version.conversion is None), None)
    if stored is not None:
        kind, api_version = stored.kind, stored.api_version
    else:
        assert versions[0].conversion is not None
        kind = versions[0].conversion.stored
        api_version = info_of(kind).api_version
    dispatcher = Dispatcher(_fields_of(kind, versions))
    return WatchCache(f"{REGISTRY}{prefix}/", kind.__name__, api_version, dispatcher)


def _fields_of(
    kind: type[Any], versions: Sequence[Resource[Any]]
) -> Callable[[bytes], Mapping[str, str]]:
    """Selectable fields of all versions from the stored bytes."""

    def fields_of(value: bytes) -> Mapping[str, str]:
        obj = codec.decode(kind, value)
        fields: dict[str, str] = {}
        for version in versions:
            if version.selectable_fields:
                shown = obj if version.conversion is None else version.conversion.from_stored(obj)
                for name, read in version.selectable_fields.items():
                    fields[name] = read(shown)
        return fields

    return fields_of
