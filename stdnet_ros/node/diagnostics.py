"""The node's counters and measurements, and the /diagnostics message that reports them.

The counters balance. Every colour message ends up in a pair or in one ``color_*`` counter, and every depth message in a
pair or in one ``depth_*`` counter. Every pair is published or counted by one of the other counters."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

_PERCENTILES = (50, 95, 99)


class RateMeter:
    """Events per second over the last ``horizon`` seconds, by a monotonic clock."""

    def __init__(self, horizon: float = 5.0, clock=time.monotonic):
        self._horizon = horizon
        self._clock = clock
        self._times: deque[float] = deque(maxlen=5000)
        self._since = clock()

    def tick(self) -> None:
        """Count one event, now."""
        self._times.append(self._clock())

    def rate(self) -> float:
        """Rate in Hz over the horizon, or over the time since the start if that is shorter."""
        now = self._clock()
        while self._times and now - self._times[0] > self._horizon:
            self._times.popleft()
        span = min(self._horizon, now - self._since)
        return len(self._times) / span if span > 0 else 0.0


class LatencyWindow:
    """Percentiles of the last ``size`` durations."""

    def __init__(self, size: int = 1000):
        self._seconds: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self._seconds.append(seconds)

    def percentiles(self) -> dict[int, float] | None:
        """The 50th, 95th and 99th percentile in milliseconds; None before the first duration."""
        if not self._seconds:
            return None
        values = np.percentile(np.array(self._seconds) * 1000.0, _PERCENTILES)
        return dict(zip(_PERCENTILES, values.tolist(), strict=True))


class Throttle:
    """Throttles log messages: each key at most once per ``period`` seconds, by a monotonic clock."""

    def __init__(self, period: float = 5.0, clock=time.monotonic):
        self._period = period
        self._clock = clock
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def allows(self, key: str) -> bool:
        """Whether ``key`` may be logged now; if so, its next period begins."""
        now = self._clock()
        with self._lock:
            if now - self._last.get(key, -np.inf) < self._period:
                return False
            self._last[key] = now
            return True


class NodeStatistics:
    """Counters and measurements, shared by the executor thread and the inference thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Reset everything to zero."""
        with self._lock:
            self._drops: Counter = Counter()
            self._resets: Counter = Counter()
            self._totals: Counter = Counter()
            self._rates = {name: RateMeter() for name in ("color", "depth", "published")}
            self._latencies = {name: LatencyWindow() for name in ("inference", "stamp to publish", "node")}

    def received(self, stream: str) -> None:
        """Count one message of ``"color"`` or ``"depth"``."""
        with self._lock:
            self._totals[stream] += 1
            self._rates[stream].tick()

    def paired(self) -> None:
        """Count one pair."""
        with self._lock:
            self._totals["pairs"] += 1

    def published(self, age: float, processing: float) -> None:
        """Count a frame published ``age`` seconds after its stamp and ``processing`` seconds after its pair arrived."""
        with self._lock:
            self._totals["published"] += 1
            self._rates["published"].tick()
            self._latencies["stamp to publish"].add(age)
            self._latencies["node"].add(processing)

    def inferred(self, seconds: float) -> None:
        """Add the duration of one inference."""
        with self._lock:
            self._latencies["inference"].add(seconds)

    def drop(self, cause: str, count: int = 1) -> None:
        """Count ``count`` messages or pairs as dropped for ``cause``."""
        if count:
            with self._lock:
                self._drops[cause] += count

    def reset(self, cause: str) -> None:
        """Count that the temporal window was cleared for ``cause``."""
        with self._lock:
            self._resets[cause] += 1

    def snapshot(self) -> dict:
        """A copy: ``totals``, ``drops``, ``resets`` (by name), ``rates`` (Hz), ``latencies`` (percentiles in ms)."""
        with self._lock:
            return {
                "totals": {name: self._totals[name] for name in ("color", "depth", "pairs", "published")},
                "drops": dict(self._drops),
                "resets": dict(self._resets),
                "rates": {name: meter.rate() for name, meter in self._rates.items()},
                "latencies": {name: window.percentiles() for name, window in self._latencies.items()},
            }


def diagnostic_array(name: str, level: int, summary: str, snapshot: dict, details: dict, stamp) -> DiagnosticArray:
    """Build the /diagnostics message.

    Args:
        name: fully qualified name of the node.
        level: 0 OK, 1 WARN, 2 ERROR.
        summary: one sentence.
        snapshot: from :meth:`NodeStatistics.snapshot`.
        details: further key-value pairs (device, precision, window, ...).
        stamp: builtin_interfaces Time.
    """
    status = DiagnosticStatus(name=f"{name}: depth upsampling", message=summary, hardware_id="stdnet_ros")
    status.level = bytes([level])
    pairs = dict(details)
    for stream, rate in snapshot["rates"].items():
        pairs[f"rate {stream} [Hz]"] = f"{rate:.2f}"
    for kind, percentiles in snapshot["latencies"].items():
        for percent, value in (percentiles or {}).items():
            pairs[f"latency {kind} p{percent} [ms]"] = f"{value:.2f}"
    for kind, total in snapshot["totals"].items():
        pairs[f"total {kind}"] = str(total)
    for cause, count in sorted(snapshot["drops"].items()):
        pairs[f"dropped {cause}"] = str(count)
    for cause, count in sorted(snapshot["resets"].items()):
        pairs[f"window reset {cause}"] = str(count)
    status.values = [KeyValue(key=key, value=str(value)) for key, value in pairs.items()]
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array
