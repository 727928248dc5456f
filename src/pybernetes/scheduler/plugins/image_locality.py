"""ImageLocality: prefer nodes that have the pod's images already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pybernetes.scheduler.framework import MAX_SCORE, Cycle, Follows

if TYPE_CHECKING:
    from pybernetes.api.types.core_v1 import Node
    from pybernetes.scheduler.framework import Bools, Floats

# Sizes in bytes between which the score rises; the upper bound is per container.
LEAST = 23 * 1024 * 1024
MOST = 1000 * 1024 * 1024


class ImageLocality:
    name = "ImageLocality"
    follows = Follows.NODES

    def score(self, cycle: Cycle, feasible: Bools) -> Floats | None:
        columns = cycle.columns
        total = np.zeros(columns.capacity, dtype=np.float64)
        nodes = max(1, columns.count)
        for image in cycle.features.images:
            name = normalised_name(image)
            sizes = columns.derived(("ImageLocality", name), lambda n, i=name: image_size(n, i))  # type: ignore[misc]  # binds the loop's value
            # An image that one node has would draw every pod there: scaled by how many have it.
            total += sizes * (np.count_nonzero(sizes) / nodes)
        if not total.any():
            return None
        most = MOST * max(1, len(cycle.features.images))
        return np.floor((np.clip(total, LEAST, most) - LEAST) * MAX_SCORE / (most - LEAST))


def image_size(node: Node, image: str) -> int:
    for known in node.status.images:
        if image in known.names:
            return known.size_bytes or 0
    return 0


def normalised_name(image: str) -> str:
    """With the tag that is meant when none is given."""
    last = image.rsplit("/", 1)[-1]
    return image if ":" in last or "@" in last else f"{image}:latest"
