"""Counters, gauges and histograms, and the text Prometheus reads.

Only what the server itself needs of a metrics library, because the usual one costs more
per request than the request. Rule: the number of label values is bounded where a metric
is defined; a value over the bound is counted under `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# Label combinations one metric may have; more are counted together.
MAX_SERIES = 2000

# Seconds, as upstream's request durations have them, thinned out.
DURATION_BUCKETS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _series(name: str, labels: Sequence[str], values: Labels, extra: str = "") -> str:
    pairs = [f'{key}="{_escape(value)}"' for key, value in zip(labels, values, strict=True)]
    if extra:
        pairs.append(extra)
    return f"{name}{{{','.join(pairs)}}}" if pairs else name


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


class Counter:
    """Only goes up."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._values: dict[Labels, float] = {}

    def add(self, *values: str, amount: float = 1) -> None:
        known = self._values
        if values not in known and len(known) >= MAX_SERIES:
            values = ("other",) * len(self.labels)
        known[values] = known.get(values, 0) + amount

    def value(self, *values: str) -> float:
        return self._values.get(values, 0)

    def lines(self) -> Iterable[str]:
        for values, amount in self._values.items():
            yield f"{_series(self.name, self.labels, values)} {_number(amount)}"


class Gauge:
    """Reads what it shows when somebody looks."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        read: Callable[[], Mapping[Labels, float]],
        labels: Sequence[str] = (),
    ) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._read = read

    def lines(self) -> Iterable[str]:
        for values, amount in self._read().items():
            yield f"{_series(self.name, self.labels, values)} {_number(amount)}"


class Histogram:
    """How observations spread over fixed buckets."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DURATION_BUCKETS,
    ) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._buckets = tuple(buckets)
        # Per labels: a count per bucket and one beyond the last, then the sum.
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, amount: float, *values: str) -> None:
        counts = self._counts.get(values)
        if counts is None:
            if len(self._counts) >= MAX_SERIES:
                values = ("other",) * len(self.labels)
            counts = self._counts.setdefault(values, [0] * (len(self._buckets) + 1))
        counts[bisect_left(self._buckets, amount)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + amount

    def lines(self) -> Iterable[str]:
        name = self.name
        for values, counts in self._counts.items():
            total = 0
            for bound, count in zip(self._buckets, counts, strict=False):
                total += count
                bucket = _series(f"{name}_bucket", self.labels, values, f'le="{_number(bound)}"')
                yield f"{bucket} {total}"
            total += counts[-1]
            bucket = _series(f"{name}_bucket", self.labels, values, 'le="+Inf"')
            yield f"{bucket} {total}"
            yield f"{_series(f'{name}_sum', self.labels, values)} {self._sums[values]!r}"
            yield f"{_series(f'{name}_count', self.labels, values)} {total}"


_M = TypeVar("_M", Counter, Gauge, Histogram)


class Registry:
    """The metrics of one server, in the order they were made."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        return self._add(Counter(name, help, labels))

    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DURATION_BUCKETS,
    ) -> Histogram:
        return self._add(Histogram(name, help, labels, buckets))

    def gauge(
        self,
        name: str,
        help: str,
        read: Callable[[], Mapping[Labels, float]],
        labels: Sequence[str] = (),
    ) -> Gauge:
        return self._add(Gauge(name, help, read, labels))

    def text(self) -> str:
        lines = []
        for metric in self._metrics.values():
            lines.append(f"# HELP {metric.name} {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(metric.lines())
        return "\n".join(lines) + "\n"

    def _add(self, metric: _M) -> _M:
        if metric.name in self._metrics:
            raise ValueError(f"there is a metric {metric.name} already")
        self._metrics[metric.name] = metric
        return metric
