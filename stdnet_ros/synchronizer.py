"""Pairs colour and depth messages by stamp.

:class:`NearestSynchronizer` is the node's own and its default: it pairs each message with the *nearest* partner, waits
for a following message only where that one could still be nearer, survives a clock that jumps, and knows why each
message was dropped. It needs no package besides Python.

:class:`MessageFiltersSynchronizer` drives the genuine ``message_filters.ApproximateTimeSynchronizer`` (6.x) behind the
same interface and covers its known faults: the callback runs inside its lock (here it only appends to a list, so
it cannot raise), it pairs with the first partner inside the slop (here the slop is kept under half the shortest
period, where the first partner is the nearest) and it is deaf after a clock jump (here it is made anew)."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

COLOR = 0
DEPTH = 1
STREAM_NAMES = ("color", "depth")

JUMP_NS = 500_000_000
"""A stamp this much older than the last of its stream means that the clock jumped, not that messages overtook."""
JUMP_COUNT = 3
"""So many out-of-order stamps in a row mean it too (a recording shorter than :data:`JUMP_NS`, looped)."""


@dataclass(frozen=True)
class Pair:
    """A colour and a depth message taken at (nearly) the same time; stamps in nanoseconds."""

    color: Any
    depth: Any
    color_stamp: int
    depth_stamp: int


@dataclass
class _Entry:
    stamp: int
    message: Any


class _Stream:
    """The waiting messages of one stream, in order of arrival, and what is known of its clock."""

    def __init__(self) -> None:
        self.waiting: deque[_Entry] = deque()
        self.newest: int | None = None
        self.late_in_a_row = 0
        self.intervals: deque[int] = deque(maxlen=30)

    def judge(self, stamp: int) -> str | None:
        """Whether a stamp is ``"duplicate"``, ``"out_of_order"``, a ``"jump"`` or (None) as it should be."""
        if self.newest is None or stamp > self.newest:
            self.late_in_a_row = 0
            return None
        if stamp == self.newest:
            return "duplicate"
        self.late_in_a_row += 1
        if self.newest - stamp >= JUMP_NS or self.late_in_a_row >= JUMP_COUNT:
            self.late_in_a_row = 0
            return "jump"
        return "out_of_order"

    def follow(self, stamp: int, jumped: bool) -> None:
        """Take ``stamp`` as the newest one."""
        if self.newest is not None and not jumped:
            self.intervals.append(stamp - self.newest)
        self.newest = stamp

    def shortest_interval(self) -> int:
        """Nanoseconds after a message in which no other is to be expected; 0 while unknown."""
        return min(self.intervals) * 9 // 10 if len(self.intervals) >= 2 else 0


class Synchronizer:
    """What the node needs from a synchroniser, and what both keep. Not thread-safe: one thread adds.

    Args:
        slop: greatest difference of the stamps of a pair, seconds.
        queue_size: how many messages of each stream may wait.

    Attributes:
        drops: messages that will never be paired, by cause (``color_no_partner``, ``depth_duplicate``, ...).
        jumps: how often a stream's clock jumped backwards.
    """

    def __init__(self, slop: float = 0.02, queue_size: int = 10):
        self.slop = slop
        self.queue_size = queue_size
        self.drops: Counter = Counter()
        self.jumps = 0
        self._streams = (_Stream(), _Stream())

    def add(self, stream: int, stamp: int, message: Any) -> list[Pair]:
        """Take a message of :data:`COLOR` or :data:`DEPTH`; returns the pairs that are now certain, oldest first."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all waiting messages, counting them as ``*_cleared``."""
        for name, stream in zip(STREAM_NAMES, self._streams, strict=True):
            if stream.waiting:
                self.drops[f"{name}_cleared"] += len(stream.waiting)
        self._streams = (_Stream(), _Stream())

    def waiting(self) -> tuple[int, int]:
        """Number of colour and of depth messages that still wait for a partner."""
        return len(self._streams[COLOR].waiting), len(self._streams[DEPTH].waiting)

    def offset(self) -> float | None:
        """Newest colour stamp minus newest depth stamp in seconds; None before both have been seen."""
        color, depth = (stream.newest for stream in self._streams)
        return None if color is None or depth is None else (color - depth) / 1e9


class NearestSynchronizer(Synchronizer):
    """Pairs each message with its nearest partner in time.

    A colour and a depth message make a pair when each is the other's nearest, they are at most ``slop`` apart, and no
    message that may still come could be nearer: their stamps are equal, or a later message of both streams is here
    already, or the streams' observed periods rule it out. At a steady rate a pair is therefore made as soon as its
    second message arrives. A full queue ends the wait."""

    def add(self, stream: int, stamp: int, message: Any) -> list[Pair]:
        """See :meth:`Synchronizer.add`."""
        own = self._streams[stream]
        verdict = own.judge(stamp)
        if verdict in ("duplicate", "out_of_order"):
            self.drops[f"{STREAM_NAMES[stream]}_{verdict}"] += 1
            return []
        # After a jump the older messages stay until a later pair passes them: the other stream, a little late, may
        # still bring their partners.
        self.jumps += verdict == "jump"
        own.follow(stamp, verdict == "jump")
        own.waiting.append(_Entry(stamp, message))
        pairs = []
        while (found := self._find()) is not None:
            pairs.append(self._take(*found))
        while len(own.waiting) > self.queue_size:
            # A pair that still waits for certainty is better made than dropped.
            found = self._find(certain=False)
            if found is not None and found[stream] == 0:
                pairs.append(self._take(*found))
            else:
                own.waiting.popleft()
                self.drops[f"{STREAM_NAMES[stream]}_no_partner"] += 1
        return pairs

    def _find(self, certain: bool = True) -> tuple[int, int] | None:
        """Positions of the first pair of mutually nearest messages in the two queues, one that is certain or any."""
        colors, depths = (stream.waiting for stream in self._streams)
        slop = round(self.slop * 1e9)
        for i, color in enumerate(colors):
            j = _nearest(color.stamp, depths)
            if j is None or abs(depths[j].stamp - color.stamp) > slop:
                continue
            if _nearest(depths[j].stamp, colors) != i:
                continue
            if not certain or (self._settled(color, DEPTH, j) and self._settled(depths[j], COLOR, i)):
                return i, j
        return None

    def _settled(self, entry: _Entry, partner_stream: int, position: int) -> bool:
        """Whether no later message of the partner's stream can be nearer to ``entry`` than the one at ``position``."""
        stream = self._streams[partner_stream]
        partner = stream.waiting[position]
        if position + 1 < len(stream.waiting) or partner.stamp >= entry.stamp:
            return True
        earliest_next = partner.stamp + stream.shortest_interval()
        return earliest_next - entry.stamp > entry.stamp - partner.stamp

    def _take(self, i: int, j: int) -> Pair:
        """Remove a pair and what arrived before it (no partner can come for those any more)."""
        entries = []
        for name, stream, position in zip(STREAM_NAMES, self._streams, (i, j), strict=True):
            if position:
                self.drops[f"{name}_no_partner"] += position
            for _ in range(position):
                stream.waiting.popleft()
            entries.append(stream.waiting.popleft())
        color, depth = entries
        return Pair(color.message, depth.message, color.stamp, depth.stamp)


def _nearest(stamp: int, entries: deque[_Entry]) -> int | None:
    """Position of the entry nearest to ``stamp``; of equals the last one (after a loop: the newest lap)."""
    best, best_distance = None, None
    for position, entry in enumerate(entries):
        distance = abs(entry.stamp - stamp)
        if best_distance is None or distance <= best_distance:
            best, best_distance = position, distance
    return best


class _Input:
    """The part of ``message_filters.SimpleFilter`` that a synchroniser connects to."""

    def __init__(self) -> None:
        self._callback = None
        self._arguments: tuple = ()

    def registerCallback(self, callback, *arguments) -> int:
        self._callback, self._arguments = callback, arguments
        return 0

    def signal(self, message) -> None:
        self._callback(message, *self._arguments)


class MessageFiltersSynchronizer(Synchronizer):
    """The genuine ``message_filters`` synchroniser, its known faults covered (see the module's docstring).

    Raises:
        ImportError: message_filters is not installed.
    """

    def __init__(self, slop: float = 0.02, queue_size: int = 10):
        import message_filters

        super().__init__(slop, queue_size)
        self._genuine = message_filters.ApproximateTimeSynchronizer
        self._made: list[tuple[Any, Any]] = []
        self._connect()

    def add(self, stream: int, stamp: int, message: Any) -> list[Pair]:
        """See :meth:`Synchronizer.add`."""
        own = self._streams[stream]
        verdict = own.judge(stamp)
        if verdict in ("duplicate", "out_of_order"):
            self.drops[f"{STREAM_NAMES[stream]}_{verdict}"] += 1
            return []
        own.follow(stamp, verdict == "jump")
        if verdict == "jump":
            self.jumps += 1
            self._drop(own, stream, len(own.waiting))
            self._connect()
            for other, waiting in enumerate(self._streams):
                for entry in waiting.waiting:
                    self._inputs[other].signal(entry.message)
        periods = [s.shortest_interval() for s in self._streams]
        self._synchronizer.slop = type(self._synchronizer.slop)(nanoseconds=self._safe_slop(periods))
        own.waiting.append(_Entry(stamp, message))
        self._inputs[stream].signal(message)
        pairs = [pair for made in self._made if (pair := self._account(*made)) is not None]
        self._made.clear()
        self._drop(own, stream, len(own.waiting) - self.queue_size)
        return pairs

    def clear(self) -> None:
        """See :meth:`Synchronizer.clear`."""
        super().clear()
        self._connect()

    def _connect(self) -> None:
        self._inputs = (_Input(), _Input())
        self._synchronizer = self._genuine(list(self._inputs), self.queue_size, self.slop)
        self._synchronizer.registerCallback(lambda color, depth: self._made.append((color, depth)))

    def _safe_slop(self, periods: list[int]) -> int:
        slop = round(self.slop * 1e9)
        known = [period for period in periods if period > 0]
        return min([slop, *(period // 2 for period in known)])

    def _account(self, color: Any, depth: Any) -> Pair | None:
        """Take a pair's messages out; None if one of them went, as ``no_partner``, with an earlier pair."""
        positions = [
            next((i for i, entry in enumerate(stream.waiting) if entry.message is message), None)
            for stream, message in zip(self._streams, (color, depth), strict=True)
        ]
        if None in positions:
            return None
        stamps = []
        for index, (stream, position) in enumerate(zip(self._streams, positions, strict=True)):
            self._drop(stream, index, position)
            stamps.append(stream.waiting.popleft().stamp)
        return Pair(color, depth, *stamps)

    def _drop(self, stream: _Stream, index: int, count: int) -> None:
        for _ in range(count):
            stream.waiting.popleft()
            self.drops[f"{STREAM_NAMES[index]}_no_partner"] += 1


def message_filters_available() -> bool:
    """Whether the genuine message_filters can be imported (no pip package holds it for ROS 2)."""
    try:
        import message_filters
    except ImportError:
        return False
    return hasattr(message_filters, "ApproximateTimeSynchronizer")


def make_synchronizer(kind: str, slop: float, queue_size: int) -> Synchronizer:
    """``"own"``, ``"message_filters"`` or ``"auto"`` (message_filters where it is installed, else own).

    Raises:
        ImportError: message_filters was asked for and is not installed.
    """
    if kind == "message_filters" or (kind == "auto" and message_filters_available()):
        return MessageFiltersSynchronizer(slop, queue_size)
    return NearestSynchronizer(slop, queue_size)
