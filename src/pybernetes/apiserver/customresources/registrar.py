"""Custom resources of a server: follows definitions, and serves what they define.

For every CustomResourceDefinition it decides which names are accepted, serves the versions, says so
in the status, and, when the definition is deleted, deletes the instances before it lets it go.

Rule: what is Established in a status is served by then, and what was established when the server
starts is served before its first request. Only what a webhook has to convert first comes later: the
webhook may well need this server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pybernetes.aio.workqueue import WorkQueue
from pybernetes.api.conditions import has_condition
from pybernetes.api.types.apiextensions_v1 import CustomResourceDefinition
from pybernetes.api.types.meta_v1 import DeleteOptions
from pybernetes.apimachinery.errors import NotFound, StatusError
from pybernetes.apiserver.call import Call
from pybernetes.apiserver.customresources.cache import CustomCache
from pybernetes.apiserver.customresources.checks import definition_errors, definition_warnings
from pybernetes.apiserver.customresources.conversion import Webhook
from pybernetes.apiserver.customresources.convertedcache import ConvertedCache
from pybernetes.apiserver.customresources.names import (
    CLEANUP,
    COMPLETED,
    ESTABLISHED,
    IN_PROGRESS,
    status_with_names,
    terminating,
)
from pybernetes.apiserver.customresources.served import (
    CustomServed,
    Rules,
    entry_of,
    schema_document,
    storage_prefix,
    storage_version,
)
from pybernetes.apiserver.typed import Typed
from pybernetes.apiserver.verbs.delete import delete_object
from pybernetes.storage import KeyNotFound, RevisionMismatch, StoreFailed
from pybernetes.wire.http import Body, Headers, Peer, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pybernetes.api.resource import Strategy
    from pybernetes.api.types.apiextensions_v1 import CustomResourceDefinitionNames
    from pybernetes.apimachinery.fielderror import FieldError
    from pybernetes.apiserver.backend import Backend
    from pybernetes.apiserver.catalog import Served
    from pybernetes.apiserver.customresources.served import CustomResource
    from pybernetes.apiserver.watchcache import Event, WatchCache

log = logging.getLogger(__name__)

# What is left of a definition's instances is looked at again after this.
LOOK_AGAIN = timedelta(seconds=1)
_WORKERS = 2
_DELETIONS = 16


@dataclass(slots=True)
class _Kind:
    """What is served of one definition."""

    # All of the definition that what is served depends on, as bytes.
    said: bytes
    # The part of it that the stored objects depend on.
    stored: bytes
    cache: CustomCache
    served: tuple[CustomServed, ...]
    webhook: Webhook | None
    # The stored version, whether it is served or not: how the server itself sees instances.
    own: CustomServed


def _with_checks(strategy: Strategy[Any]) -> Strategy[Any]:
    """The rules of definitions, with those that need the server."""

    def validate(new: Any, old: Any) -> Iterator[FieldError]:
        errors = list(strategy.validate(new, old))
        # What is not well-formed cannot be tried out.
        yield from errors or definition_errors(new, old)

    def warn(new: Any, old: Any) -> Iterator[str]:
        yield from strategy.warn(new, old)
        yield from definition_warnings(new, old)

    return dataclasses.replace(strategy, validate=validate, warn=warn)


async def _close(kind: _Kind, kept: tuple[CustomServed, ...]) -> None:
    """End what was served by an older definition and is not any more."""
    caches = {id(one.cache) for one in kept}
    for one in kind.served:
        if isinstance(one.cache, ConvertedCache) and id(one.cache) not in caches:
            one.cache.close()
    if kind.webhook is not None and not any(one.cache is kind.cache for one in kept):
        await kind.webhook.close()


class CustomResources:
    """The part of an API server that custom resources are."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._catalog, self._feed, self._clock = backend.catalog, backend.feed, backend.clock
        self._definitions = Typed(self._catalog, CustomResourceDefinition)
        if (served := self._definitions.served) is not None:
            served.strategy = _with_checks(served.strategy)
        # By the name of the definition.
        self._kinds: dict[str, _Kind] = {}
        # Names that were accepted, whether the status says so already or not.
        self._claims: dict[str, CustomResourceDefinitionNames] = {}
        self._queue: WorkQueue[str] = WorkQueue()
        self._running: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> None:
        """Serve what is established; then follow the definitions until `stop`."""
        if self._definitions.cache is None:
            return
        for definition in self._definitions.list():
            if has_condition(definition.status.conditions, ESTABLISHED) and not (
                self._webhook_of(definition) and len(definition.status.stored_versions) > 1
            ):
                try:
                    await self._serve(definition)
                except Exception:
                    # One definition must not keep the server from starting.
                    log.exception("cannot serve %s", definition.metadata.name)
            self._queue.add(definition.metadata.name)
        self._definitions.follow(self._on_change)
        self._running = asyncio.get_running_loop().create_task(self._run(), name="custom resources")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        self._queue.close()
        for kind in self._kinds.values():
            await _close(kind, ())

    def _on_change(self, event: Event) -> None:
        self._queue.add(event.entry.name)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(_WORKERS):
                tasks.create_task(self._work(), name=f"custom resources/worker-{number}")

    async def _work(self) -> None:
        while True:
            async with self._queue.next() as name:
                try:
                    again = await self._reconcile(name)
                except RevisionMismatch:
                    self._queue.retry(name)
                except (StatusError, StoreFailed) as error:
                    log.warning("custom resources: %s: will retry: %s", name, error)
                    self._queue.retry(name)
                except Exception:
                    log.exception("custom resources: %s: failed, will retry", name)
                    self._queue.retry(name)
                else:
                    self._queue.forget(name)
                    if again is not None:
                        self._queue.add_after(name, again)

    # -- one definition

    async def _reconcile(self, name: str) -> timedelta | None:
        definition = self._definitions.get(name)
        if definition is None:
            self._claims.pop(name, None)
            await self._stop_serving(name)
            # Names that it had are free now.
            self._look_at_refused()
            return None
        status = self._judged(definition)
        definition = replace(definition, status=status)
        if has_condition(status.conditions, ESTABLISHED):
            await self._serve(definition)
        if definition.metadata.deletion_timestamp is not None:
            return await self._finalize(definition)
        await self._write(name, definition)
        return None

    def _judged(self, definition: CustomResourceDefinition) -> Any:
        group, name = definition.spec.group, definition.metadata.name
        others = [
            self._claims.get(other.metadata.name, other.status.accepted_names)
            for other in self._definitions.list()
            if other.spec.group == group and other.metadata.name != name
        ]
        status = status_with_names(
            definition,
            others,
            self._clock.now().replace(microsecond=0),
            reserved=self._reserved(group),
        )
        self._claims[name] = status.accepted_names
        return status

    def _reserved(self, group: str) -> tuple[frozenset[str], frozenset[str]]:
        """Names of built-in kinds, which nobody can take."""
        built_in = [s for s in self._in_group(group) if not isinstance(s, CustomServed)]
        resources = {name for s in built_in for name in (s.plural, s.resource.singular)}
        kinds = {kind for s in built_in for kind in (s.kind_name, f"{s.kind_name}List")}
        return frozenset(resources), frozenset(kinds)

    def _in_group(self, group: str) -> Iterable[Served]:
        return [served for served in self._catalog if served.group == group]

    def _look_at_refused(self) -> None:
        for definition in self._definitions.list():
            if not has_condition(definition.status.conditions, "NamesAccepted"):
                self._queue.add(definition.metadata.name)

    async def _write(self, name: str, new: CustomResourceDefinition) -> None:
        """Store a definition as it is now, if that is not how it is stored."""
        served, entry = self._definitions.served, self._definitions.entry(name)
        assert served is not None
        if entry is None:
            return
        value = served.encode(new)
        if value == entry.value:
            return
        if new.metadata.resource_version != str(entry.revision):
            raise RevisionMismatch(served.path("", name), entry.revision, None)
        await self._backend.store.put(served.path("", name), value, if_revision=entry.revision)

    # -- serving

    async def _serve(self, definition: CustomResourceDefinition) -> None:
        name, spec = definition.metadata.name, definition.spec
        is_terminating = definition.metadata.deletion_timestamp is not None
        said = msgspec.json.encode([spec, definition.status.accepted_names, is_terminating])
        kind = self._kinds.get(name)
        if kind is not None and kind.said == said:
            return
        rules = {version.name: Rules(schema_document(version)) for version in spec.versions}
        stored_version = storage_version(spec.versions)
        entries = {
            version.name: entry_of(
                definition, version, rules[version.name], terminating=is_terminating
            )
            for version in spec.versions
        }
        stored = msgspec.json.encode(
            [
                [spec.names.kind, stored_version, spec.conversion],
                [[v.name, v.served, v.schema, v.selectable_fields] for v in spec.versions],
            ]
        )
        if kind is not None and kind.stored == stored:
            cache, webhook = kind.cache, kind.webhook
        else:
            served_entries = tuple(entries[v.name] for v in spec.versions if v.served)
            cache = CustomCache(entries[stored_version], rules[stored_version], served_entries)
            webhook = self._webhook_of(definition)
            prefix = storage_prefix(spec.group, spec.names.plural)
            if kind is None and prefix in self._feed.caches:
                log.error("%s is not served: its objects would be among those of others", name)
                return
            if webhook is not None:
                await self._convert_stored(cache, webhook, entries[stored_version].api_version)
            await self._feed.add(prefix, cache)
            self._catalog.caches[prefix] = cache
            if kind is not None:
                kind.cache.dispatcher.end_all()
        own_rules = rules[stored_version]
        own = self._served(kind, entries[stored_version], own_rules, cache, webhook, own_rules)
        served = tuple(
            self._served(kind, entries[v.name], rules[v.name], cache, webhook, own_rules)
            for v in spec.versions
            if v.served
        )
        self._kinds[name] = _Kind(said, stored, cache, served, webhook, own)
        await self._publish(kind, served)

    async def _publish(self, before: _Kind | None, served: tuple[CustomServed, ...]) -> None:
        """Let requests find what is served now instead of what was served before."""
        for one in served:
            self._catalog.add(one)
        if before is None:
            return
        kept = {one.version for one in served}
        for one in before.served:
            if one.version not in kept:
                self._catalog.remove(one)
        await _close(before, served)

    def _served(
        self,
        kind: _Kind | None,
        entry: CustomResource,
        rules: Rules,
        cache: CustomCache,
        webhook: Webhook | None,
        stored_rules: Rules,
    ) -> CustomServed:
        stored_version = entry.info.storage_version.rpartition("/")[2]
        its_cache: WatchCache = cache
        if webhook is not None and entry.version != stored_version:
            its_cache = ConvertedCache(cache, entry, rules, webhook)
            if kind is not None and kind.cache is cache:
                # The same objects in the same version: who follows them goes on.
                known = [one.cache for one in kind.served if one.version == entry.version]
                its_cache = known[0] if known else its_cache
        return CustomServed(
            entry,
            its_cache,
            self._clock,
            rules,
            stored_version=stored_version,
            same_as_stored=rules.document == stored_rules.document,
            deprecation=entry.deprecation,
        )

    def _webhook_of(self, definition: CustomResourceDefinition) -> Webhook | None:
        conversion = definition.spec.conversion
        if conversion is None or conversion.strategy != "Webhook" or conversion.webhook is None:
            return None
        spec = definition.spec
        kind = f"{spec.group}/{storage_version(spec.versions)}, Kind={spec.names.kind}"
        return Webhook(conversion.webhook, self._backend, kind)

    async def _convert_stored(self, cache: CustomCache, webhook: Webhook, api_version: str) -> None:
        """Objects that were stored in another version, before the cache is filled."""
        found: list[tuple[tuple[str, int], Any]] = []
        page = await self._backend.store.range(cache.prefix)
        for item in page.items:
            with contextlib.suppress(ValueError, RecursionError):
                content = msgspec.json.decode(item.value)
                if isinstance(content, dict) and not cache.is_of_version(content):
                    found.append(((item.key, item.revision), content))
        values = await webhook.convert([content for _, content in found], api_version)
        for (place, _), value in zip(found, values, strict=True):
            cache.converted[place] = msgspec.json.encode(value)

    async def _stop_serving(self, name: str) -> None:
        kind = self._kinds.pop(name, None)
        if kind is None:
            return
        for served in kind.served:
            self._catalog.remove(served)
        prefix = kind.cache.prefix.removeprefix("/registry/").rstrip("/")
        self._feed.remove(prefix)
        self._catalog.caches.pop(prefix, None)
        await _close(kind, ())

    # -- its end

    async def _finalize(self, definition: CustomResourceDefinition) -> timedelta | None:
        name = definition.metadata.name
        now = self._clock.now().replace(microsecond=0)
        if CLEANUP not in definition.metadata.finalizers:
            await self._write(name, definition)
            return None
        left = await self._delete_instances(name)
        if left:
            status = terminating(definition, IN_PROGRESS, now)
            await self._write(name, replace(definition, status=status))
            return LOOK_AGAIN
        status = terminating(definition, COMPLETED, now)
        metadata = definition.metadata
        finalizers = tuple(one for one in metadata.finalizers if one != CLEANUP)
        definition = replace(
            definition, status=status, metadata=replace(metadata, finalizers=finalizers)
        )
        if finalizers:
            await self._write(name, definition)
            return None
        served, entry = self._definitions.served, self._definitions.entry(name)
        assert served is not None
        if entry is not None:
            with contextlib.suppress(KeyNotFound):
                await self._backend.store.delete(served.path("", name), if_revision=entry.revision)
        return None

    async def _delete_instances(self, name: str) -> int:
        """Ask for the deletion of all; how many are still there."""
        kind = self._kinds.get(name)
        if kind is None:
            return 0
        served = kind.own
        request = Request("DELETE", f"/apis/{served.group}", "", Headers(), Body(), Peer())
        call = Call(request, "")
        waiting = list(kind.cache.entries.values())

        async def work() -> None:
            while waiting:
                entry = waiting.pop()
                try:
                    await delete_object(
                        self._backend,
                        call,
                        served,
                        entry.name,
                        DeleteOptions(),
                        admitted=False,
                        namespace=entry.namespace,
                    )
                except NotFound:
                    continue

        await asyncio.gather(*(work() for _ in range(min(_DELETIONS, len(waiting)))))
        return len(kind.cache.entries)
