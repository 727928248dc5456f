"""Names of container images, as far as the API looks into them."""

from __future__ import annotations


def default_pull_policy(image: str) -> str:
    """Always for what may move: no tag at all, or `latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if tag == "latest" or (not tag and not digest) else "IfNotPresent"
