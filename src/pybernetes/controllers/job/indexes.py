"""Completion indexes of Indexed jobs: on pods, and as the text the status keeps (`0,3-5`). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybernetes.api.types.batch_v1 import Job
    from pybernetes.api.types.core_v1 import Pod

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


def is_indexed(job: Job) -> bool:
    return job.spec.completion_mode == "Indexed"


def index_of(pod: Pod) -> int | None:
    """The completion index a pod carries; None if it has none that can be read."""
    text = pod.metadata.annotations.get(COMPLETION_INDEX, "")
    return int(text) if text.isdecimal() else None


def valid_index(job: Job, pod: Pod) -> int | None:
    """The index, if the job has it."""
    index = index_of(pod)
    return index if index is not None and index < (job.spec.completions or 0) else None


def parse_indexes(text: str, *, below: int) -> frozenset[int]:
    """What cannot be read is left out: it is a status that somebody else wrote."""
    found: set[int] = set()
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal() and (not high or high.isdecimal()):
            found.update(range(int(low), min(int(high or low) + 1, below)))
    return frozenset(found)


def format_indexes(indexes: Iterable[int]) -> str:
    """Runs of three and more are written as first and last, two as they are."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(_run(low, high) for low, high in runs)


def _run(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low}{',' if high == low + 1 else '-'}{high}"
