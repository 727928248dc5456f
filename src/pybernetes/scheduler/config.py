"""KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): profiles, plugins, weights, arguments.

Without a file there is one profile, `default-scheduler`, with upstream's defaults. Unknown plugins
and arguments that cannot be are refused with the path of what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pybernetes.api import codec
from pybernetes.api.types.core_v1 import NodeSelector
from pybernetes.scheduler import plugins as builtin
from pybernetes.scheduler.framework import Profile
from pybernetes.scheduler.plugins.resources import ShapePoint, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_SCHEDULER = "default-scheduler"
PREEMPTION = "DefaultPreemption"
# Known names that are not plugins of ours: the order of the queue is fixed, and preemption is told
# apart above.
ELSEWHERE = frozenset({PREEMPTION, "PrioritySort"})
# Method by extension point, where the words differ.
METHODS = {
    "preEnqueue": "pre_enqueue",
    "preFilter": "pre_filter",
    "preBind": "pre_bind",
    "postBind": "post_bind",
}
_ENTRY_POINTS = "pybernetes.scheduler.plugins"


class SchedulerConfigError(ValueError):
    """The configuration cannot be; the message begins with the path."""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    profiles: tuple[Profile, ...]

    def profile(self, scheduler_name: str) -> Profile | None:
        for profile in self.profiles:
            if profile.scheduler_name == scheduler_name:
                return profile
        return None


def default_config() -> SchedulerConfig:
    return SchedulerConfig((_profile({"schedulerName": DEFAULT_SCHEDULER}, "profiles[0]"),))


def load_config(document: Mapping[str, Any]) -> SchedulerConfig:
    """The configuration that a decoded file describes."""
    version = document.get("apiVersion")
    if version != "kubescheduler.config.k8s.io/v1":
        raise SchedulerConfigError(
            f"apiVersion: {version!r} is not known; use kubescheduler.config.k8s.io/v1"
        )
    given = document.get("profiles") or [{}]
    profiles = tuple(_profile(each, f"profiles[{i}]") for i, each in enumerate(given))
    names = [profile.scheduler_name for profile in profiles]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SchedulerConfigError(
                f"profiles[{index}].schedulerName: Duplicate value: {name!r}"
            )
    return SchedulerConfig(profiles)


def _profile(given: Mapping[str, Any], path: str) -> Profile:
    arguments = {entry["name"]: entry.get("args") or {} for entry in given.get("pluginConfig", ())}
    chosen = given.get("plugins") or {}
    make = _factories()
    for name in arguments:
        if name not in make and name not in ELSEWHERE:
            raise SchedulerConfigError(f"{path}.pluginConfig: there is no plugin {name!r}")

    made: dict[str, Any] = {}

    def plugin(name: str) -> Any:
        if name not in made:
            made[name] = make[name](arguments.get(name, {}))
        return made[name]

    def takes_part(name: str, point: str) -> bool:
        return hasattr(plugin(name), METHODS.get(point, point))

    def enabled(point: str, defaults: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return _enabled(
            chosen,
            point,
            defaults,
            known=make,
            takes_part=takes_part,
            path=f"{path}.plugins",
        )

    def several(point: str, defaults: Sequence[Any] = ()) -> tuple[Any, ...]:
        names = enabled(point, [(each.name, 0) for each in defaults])
        return tuple(plugin(name) for name, _ in names)

    names = [(plugin.name, 0) for plugin in builtin.FILTERS]
    filters = enabled("filter", names)
    scores = enabled("score", [(plugin.name, weight) for plugin, weight in builtin.SCORES])
    gates = enabled("preEnqueue", [(plugin.name, 0) for plugin in builtin.PRE_ENQUEUE])
    post = chosen.get("postFilter") or {}
    off = {entry["name"] for entry in post.get("disabled", ())}
    off |= {entry["name"] for entry in (chosen.get("multiPoint") or {}).get("disabled", ())}
    on = {
        entry["name"]
        for where in ("multiPoint", "postFilter")
        for entry in (chosen.get(where) or {}).get("enabled", ())
    }
    return Profile(
        scheduler_name=given.get("schedulerName") or DEFAULT_SCHEDULER,
        pre_enqueue=tuple(plugin(name) for name, _ in gates),
        filters=tuple(plugin(name) for name, _ in filters),
        scores=tuple((plugin(name), weight) for name, weight in scores),
        preempts=PREEMPTION in on or not off & {"*", PREEMPTION},
        pre_filter=several("preFilter"),
        reserve=several("reserve"),
        permit=several("permit"),
        pre_bind=several("preBind"),
        bind=several("bind", builtin.BIND),
        post_bind=several("postBind"),
    )


def _enabled(
    chosen: Mapping[str, Any],
    point: str,
    defaults: Sequence[tuple[str, int]],
    *,
    known: Mapping[str, object],
    takes_part: Callable[[str, str], bool],
    path: str,
) -> list[tuple[str, int]]:
    """The default plugins of an extension point, less the disabled, plus the enabled ones."""
    result = dict(defaults)
    for where in ("multiPoint", point):
        choice = chosen.get(where) or {}
        for entry in choice.get("disabled", ()):
            if entry["name"] == "*":
                result.clear()
            result.pop(entry["name"], None)
        for entry in choice.get("enabled", ()):
            name = entry["name"]
            if name in ELSEWHERE:
                continue
            if name not in known:
                raise SchedulerConfigError(f"{path}.{where}.enabled: there is no plugin {name!r}")
            if not takes_part(name, point):
                if where == "multiPoint":
                    continue
                raise SchedulerConfigError(
                    f"{path}.{where}.enabled: {name!r} does not take part in {point}"
                )
            result[name] = int(entry.get("weight") or result.get(name) or 1)
    return list(result.items())


def _factories() -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    made: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        plugin.name: lambda args, plugin=plugin: plugin()  # type: ignore[misc]  # binds the loop's value
        for plugin in (
            *builtin.FILTERS,
            *(plugin for plugin, _ in builtin.SCORES),
            *builtin.PRE_ENQUEUE,
            *builtin.BIND,
        )
    }
    made["NodeResourcesFit"] = _fit
    made["NodeAffinity"] = _node_affinity
    made["InterPodAffinity"] = lambda args: builtin.InterPodAffinity(
        int(args.get("hardPodAffinityWeight", 1))
    )
    made["PodTopologySpread"] = lambda args: builtin.PodTopologySpread(
        spread_by_default=args.get("defaultingType", "System") == "System"
    )
    for entry in entry_points(group=_ENTRY_POINTS):
        made[entry.name] = entry.load()
    return made


def _fit(args: Mapping[str, Any]) -> builtin.NodeResourcesFit:
    strategy = args.get("scoringStrategy") or {}
    name = strategy.get("type", Strategy.LEAST_ALLOCATED.value)
    try:
        kind = Strategy(name)
    except ValueError:
        supported = ", ".join(f'"{s.value}"' for s in Strategy)
        raise SchedulerConfigError(
            f'scoringStrategy.type: Unsupported value: "{name}": supported values: {supported}'
        ) from None
    weights = tuple(
        (entry["name"], int(entry.get("weight") or 1)) for entry in strategy.get("resources") or ()
    )
    ratio = strategy.get("requestedToCapacityRatio") or {}
    shape = tuple(
        # The API's scores go to 10, ours to 100.
        ShapePoint(int(point["utilization"]), int(point["score"]) * 10)
        for point in ratio.get("shape") or ()
    )
    given: dict[str, Any] = {"strategy": kind}
    if weights:
        given["weights"] = weights
    if shape:
        given["shape"] = shape
    return builtin.NodeResourcesFit(**given)


def _node_affinity(args: Mapping[str, Any]) -> builtin.NodeAffinity:
    added = (args.get("addedAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return builtin.NodeAffinity(codec.from_dict(NodeSelector, added) if added else None)
