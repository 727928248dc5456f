"""What an admission plugin is made of, and how it refuses.

One plugin is one idea. It sees every write twice: `mutate` may replace the object, `validate`
may only refuse, after the kind's own validation. A write may be tried again, so both may run
more than once for one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pybernetes.apimachinery.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.apimachinery.errors import Cause
    from pybernetes.apiserver.hooks import Attributes

MIRROR_POD = "kubernetes.io/config.mirror"


class Plugin:
    """Admits everything as it is; a plugin overrides what it cares about."""

    async def mutate(self, attributes: Attributes) -> None:
        return None

    async def validate(self, attributes: Attributes) -> None:
        return None


def refused(attributes: Attributes, why: str, *, causes: Iterable[Cause] = ()) -> Forbidden:
    """The refusal of a write, naming the object as far as it has a name yet."""
    return Forbidden(
        attributes.resource, name_of(attributes), why, group=attributes.group, causes=causes
    )


def name_of(attributes: Attributes) -> str:
    if attributes.name:
        return attributes.name
    metadata = getattr(attributes.obj, "metadata", None)
    if metadata is None:
        return "Unknown"
    return metadata.name or metadata.generate_name or "Unknown"


def is_pod(attributes: Attributes) -> bool:
    """A pod itself, not a subresource of one."""
    return attributes.is_for("", "pods")
