"""Numbers about the server, in Prometheus' text form."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
SECOND_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class Histogram:
    """How many values lay at or under each bound."""

    def __init__(self, bounds: Iterable[int | float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterable[str]:
        """Cumulative buckets, sum and count."""
        so_far = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{le="{bound}"}} {so_far}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {so_far}"


class Metrics:
    """Counters of one server; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tasks: Counter[str] = Counter()
        self._request_s = Histogram(SECOND_BOUNDS)
        self._batch_rows = Histogram(BATCH_BOUNDS)
        self._batch_s = Histogram(SECOND_BOUNDS)

    def count_request(self, method: str, status: int, spent_s: float) -> None:
        """One answer was sent."""
        with self._lock:
            self._requests[method, status] += 1
            self._request_s.add(spent_s)

    def count_task(self, status: str) -> None:
        """One request for sounds has ended."""
        with self._lock:
            self._tasks[status] += 1

    def count_batch(self, num_rows: int, spent_s: float) -> None:
        """Some rows were computed together."""
        with self._lock:
            self._batch_rows.add(float(num_rows))
            self._batch_s.add(spent_s)

    def render(self, gauges: Mapping[str, float]) -> str:
        """Everything, in the text form 0.0.4."""
        with self._lock:
            lines = ["# TYPE resonate_http_requests_total counter"]
            for (method, status), count in sorted(self._requests.items()):
                labels = f'method="{method}",status="{status}"'
                lines.append(f"resonate_http_requests_total{{{labels}}} {count}")
            lines.append("# TYPE resonate_tasks_total counter")
            for name, count in sorted(self._tasks.items()):
                lines.append(f'resonate_tasks_total{{status="{name}"}} {count}')
            for name, histogram in {
                "resonate_http_request_seconds": self._request_s,
                "resonate_batch_rows": self._batch_rows,
                "resonate_batch_seconds": self._batch_s,
            }.items():
                lines += [f"# TYPE {name} histogram", *histogram.lines(name)]
        for name, value in gauges.items():
            lines += [f"# TYPE resonate_{name} gauge", f"resonate_{name} {value:g}"]
        return "\n".join(lines) + "\n"
