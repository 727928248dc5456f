"""Writing policy rules in a line each: verbs and resources as words."""

from __future__ import annotations

from pybernetes.api.types.rbac_v1 import PolicyRule

READ = "get list watch"
# In the order in which upstream's newer roles spell it.
LOOK = "list watch"
CHANGE = "create delete deletecollection patch update"


def can(verbs: str, resources: str, *, group: str = "", names: str = "") -> PolicyRule:
    """Verbs on resources of a group; several are separated by spaces."""
    return PolicyRule(
        verbs=tuple(verbs.split()),
        api_groups=tuple(group.split()) or ("",),
        resources=tuple(resources.split()),
        resource_names=tuple(names.split()),
    )


def can_get(*paths: str) -> PolicyRule:
    return PolicyRule(verbs=("get",), non_resource_urls=paths)


def own_lease(name: str) -> PolicyRule:
    return can("get update", "leases", group="coordination.k8s.io", names=name)


# Events are written under both of their groups; a rule names only one.
EVENTS = (
    can("create patch update", "events"),
    can("create patch update", "events", group="events.k8s.io"),
)
