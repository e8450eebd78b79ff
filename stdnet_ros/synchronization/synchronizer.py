"""Pairs colour and depth messages by stamp.

:class:`NearestSynchronizer` is the node's own and the default. It pairs each message with the *nearest* partner, and
waits for a following message only if that one could still be nearer. It sorts messages that arrive out of order, copes
with clock jumps, and reports why each message was dropped and why none is paired. It needs only Python.

:class:`MessageFiltersSynchronizer` wraps the real ``message_filters.ApproximateTimeSynchronizer`` (6.x) in the same
interface and works around its known faults:

- It runs the callback while it holds its lock; here the callback only appends to a list, so it cannot raise.
- It pairs a message with the first partner within the slop; here the slop is kept below half the shortest period, so
  that the first partner is the nearest.
- It pairs nothing after a clock jump; here it is then created anew."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

COLOR = 0
DEPTH = 1
STREAM_NAMES = ("color", "depth")

JUMP_NS = 500_000_000
"""A stamp older than its stream's newest by at least this much is a clock jump, not a message out of order."""
JUMP_COUNT = 3
"""This many out-of-order stamps in a row are a clock jump as well (a looped recording shorter than :data:`JUMP_NS`)."""
MAX_BYTES = 256 << 20
"""Most bytes of each stream that may wait, whatever the waiting time."""
_REMEMBERED = 60
_ONE_CLOCK_SECONDS = 1.0
"""If the nearest stamps of both streams are further apart, the clocks differ or one stream arrives much later."""


@dataclass(frozen=True)
class Pair:
    """A colour and a depth message taken at (nearly) the same time; stamps in nanoseconds."""

    color: Any
    depth: Any
    color_stamp: int
    depth_stamp: int


@dataclass
class _Entry:
    """A waiting message.

    Attributes:
        stamp: in nanoseconds.
        message: the message itself.
        size: in bytes.
        clock: ``clock`` of its stream when it arrived.
        late: it arrived out of order: an earlier message of its stream has a later stamp.
    """

    stamp: int
    message: Any
    size: int = 0
    clock: int = 0
    late: bool = False


class _Stream:
    """The waiting messages of one stream, in order, and the state of its clock."""

    def __init__(self) -> None:
        self.waiting: deque[_Entry] = deque()
        self.newest: int | None = None
        self.clock = 0
        """Nanoseconds by which the stream's stamps have advanced, without clock jumps."""
        self.intervals: deque[int] = deque(maxlen=30)
        self.seen: deque[int] = deque(maxlen=_REMEMBERED)

    def judge(self, stamp: int) -> str | None:
        """Classify a stamp: ``"duplicate"``, ``"late"`` (out of order), ``"jump"``, or None if it is in order."""
        self.seen.append(stamp)
        if self.newest is None or stamp > self.newest:
            return None
        if stamp == self.newest:
            return "duplicate"
        return "jump" if self.newest - stamp >= JUMP_NS else "late"

    def follow(self, stamp: int, jumped: bool) -> None:
        """Make ``stamp`` the newest one."""
        if self.newest is not None and not jumped:
            self.intervals.append(stamp - self.newest)
            self.clock += stamp - self.newest
        self.newest = stamp

    def shortest_interval(self) -> int:
        """Nanoseconds after a message within which no other message is expected; 0 while unknown."""
        return min(self.intervals) * 9 // 10 if len(self.intervals) >= 2 else 0

    def insert(self, entry: _Entry) -> None:
        """Add a message to the queue; a late one goes before those with later stamps."""
        at = len(self.waiting)
        while entry.late and at and self.waiting[at - 1].stamp > entry.stamp:
            at -= 1
        self.waiting.insert(at, entry)

    def full(self, wait: int) -> bool:
        """Whether the oldest message has waited longer than ``wait`` ns, or more than :data:`MAX_BYTES` wait."""
        if len(self.waiting) < 2:
            return False
        return self.clock - self.waiting[0].clock > wait or sum(entry.size for entry in self.waiting) > MAX_BYTES


class Synchronizer:
    """The interface that the node uses, and what both synchronisers share. Not thread-safe: only one thread may add.

    Args:
        slop: largest difference between the stamps of a pair, in seconds.
        wait: how long a message may wait for its partner, in seconds by the stamps of its stream.

    Attributes:
        drops: number of messages that will never be paired, by cause (``color_no_partner``, ``depth_duplicate``, ...).
        jumps: how often a stream's clock jumped back.
    """

    def __init__(self, slop: float = 0.02, wait: float = 2.0):
        self.slop = slop
        self.wait = wait
        self.drops: Counter = Counter()
        self.jumps = 0
        self._streams = (_Stream(), _Stream())

    def add(self, stream: int, stamp: int, message: Any, size: int = 0) -> list[Pair]:
        """Add a message; returns the pairs that are now certain, oldest first.

        Args:
            stream: :data:`COLOR` or :data:`DEPTH`.
            stamp: of the message, in nanoseconds.
            message: returned as part of its pair.
            size: of the message in bytes; at most :data:`MAX_BYTES` of a stream wait.
        """
        raise NotImplementedError

    def clear(self) -> None:
        """Drop all waiting messages and count them as ``*_cleared``."""
        for name, stream in zip(STREAM_NAMES, self._streams, strict=True):
            if stream.waiting:
                self.drops[f"{name}_cleared"] += len(stream.waiting)
        self._streams = (_Stream(), _Stream())

    def waiting(self) -> tuple[int, int]:
        """Number of colour and of depth messages that are waiting for a partner."""
        return len(self._streams[COLOR].waiting), len(self._streams[DEPTH].waiting)

    def offset(self) -> float | None:
        """Newest colour stamp minus newest depth stamp, in seconds; None until both streams have sent a message."""
        color, depth = (stream.newest for stream in self._streams)
        return None if color is None or depth is None else (color - depth) / 1e9

    def trouble(self) -> str:
        """Why nothing is paired, judged by the last stamps, and which parameter solves it."""
        for name, stream in zip(STREAM_NAMES, self._streams, strict=True):
            if len(stream.seen) > 1 and min(stream.seen) == max(stream.seen):
                return (
                    f"all {name} images have the stamp {stream.seen[0] / 1e9:.3f}: the driver does not set "
                    f"stamps; set use_arrival_time"
                )
        colors, depths = (sorted(stream.seen) for stream in self._streams)
        if not colors or not depths:
            return f"there is no {STREAM_NAMES[COLOR if not colors else DEPTH]} image to pair"
        apart = self.offset()
        nearest = min(abs(c - d) for c in colors for d in depths) / 1e9
        if nearest <= self.slop:
            return (
                f"colour and depth with the same stamps arrive {abs(apart):.2f} s apart, and messages wait only "
                f"{self.wait:g} s; raise sync_queue_seconds"
            )
        if nearest > _ONE_CLOCK_SECONDS:
            first, second = ("depth", "colour") if apart > 0 else ("colour", "depth")
            return (
                f"{second} stamps are {abs(apart):.1f} s ahead of {first} stamps: {first} arrives that much later "
                f"(raise sync_queue_seconds above it) or uses another clock (set use_arrival_time)"
            )
        return (
            f"the nearest colour and depth stamps are {1e3 * nearest:.0f} ms apart, and sync_slop is "
            f"{1e3 * self.slop:.0f} ms; set sync_slop to {1.5 * nearest:.2g}, or set use_arrival_time if the stamps "
            f"are wrong"
        )


class NearestSynchronizer(Synchronizer):
    """Pairs each message with its nearest partner in time.

    A colour and a depth message form a pair if each is the other's nearest, they are at most ``slop`` apart, and no
    future message can be nearer. The last condition holds if their stamps are equal, if both streams already have a
    later message, or if the streams' observed periods rule a nearer message out. At a steady rate, a pair is therefore
    made as soon as its second message arrives. When the waiting time is over, the pair is made without that condition.

    Messages that arrive out of order are sorted. A pair older than the last one is held back until the next pair. If
    the next one follows it and is also older than the last, a short recording was looped, and both are returned. If it
    is newer than the last, the held pair came too late and is dropped."""

    def __init__(self, slop: float = 0.02, wait: float = 2.0):
        super().__init__(slop, wait)
        self._last: Pair | None = None
        self._late: Pair | None = None

    def add(self, stream: int, stamp: int, message: Any, size: int = 0) -> list[Pair]:
        """See :meth:`Synchronizer.add`."""
        own = self._streams[stream]
        verdict = own.judge(stamp)
        if verdict == "duplicate":
            self.drops[f"{STREAM_NAMES[stream]}_duplicate"] += 1
            return []
        # After a jump, the older messages stay until a later pair passes them: the other stream may lag a little and
        # still bring their partners.
        self.jumps += verdict == "jump"
        if verdict != "late":
            own.follow(stamp, verdict == "jump")
        own.insert(_Entry(stamp, message, size, own.clock, verdict == "late"))
        pairs: list[Pair] = []
        while (found := self._find()) is not None:
            pairs += self._in_order(self._take(*found))
        while own.full(round(self.wait * 1e9)):
            found = self._find(certain=False)
            if found is not None and found[stream] == 0:
                pairs += self._in_order(self._take(*found))
            else:
                self._drop(stream, own.waiting.popleft())
        return pairs

    def clear(self) -> None:
        """See :meth:`Synchronizer.clear`."""
        super().clear()
        self._drop_late()
        self._last = None

    def _in_order(self, pair: Pair) -> list[Pair]:
        """The pairs that may be returned now that ``pair`` has been found."""
        last, late = self._last, self._late
        behind = 0 if last is None else last.color_stamp - pair.color_stamp
        if 0 < behind < JUMP_NS and (late is None or pair.color_stamp < late.color_stamp):
            self._drop_late()
            self._late = pair
            return []
        self._last = pair
        if late is None:
            return [pair]
        if not 0 < behind < JUMP_NS:
            self._drop_late()
            return [pair]
        self._late = None
        self.jumps += len(self._streams)
        for stream, stamp in zip(self._streams, (pair.color_stamp, pair.depth_stamp), strict=True):
            stream.follow(stamp, jumped=True)
        return [late, pair]

    def _drop_late(self) -> None:
        if self._late is not None:
            for name in STREAM_NAMES:
                self.drops[f"{name}_out_of_order"] += 1
            self._late = None

    def _drop(self, stream: int, entry: _Entry) -> None:
        self.drops[f"{STREAM_NAMES[stream]}_{'out_of_order' if entry.late else 'no_partner'}"] += 1

    def waiting(self) -> tuple[int, int]:
        """See :meth:`Synchronizer.waiting`."""
        color, depth = super().waiting()
        late = self._late is not None
        return color + late, depth + late

    def _find(self, certain: bool = True) -> tuple[int, int] | None:
        """Queue positions of the first pair of mutually nearest messages.

        With ``certain``, only of a pair for which no future message can be nearer."""
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
        """Whether no future message of the partner's stream can be nearer to ``entry`` than the one at ``position``."""
        stream = self._streams[partner_stream]
        partner = stream.waiting[position]
        if position + 1 < len(stream.waiting) or partner.stamp >= entry.stamp:
            return True
        earliest_next = partner.stamp + stream.shortest_interval()
        return earliest_next - entry.stamp > entry.stamp - partner.stamp

    def _take(self, i: int, j: int) -> Pair:
        """Remove a pair, and drop the messages before it, for which no partner can come any more."""
        entries = []
        for index, (stream, position) in enumerate(zip(self._streams, (i, j), strict=True)):
            for _ in range(position):
                self._drop(index, stream.waiting.popleft())
            entries.append(stream.waiting.popleft())
        color, depth = entries
        return Pair(color.message, depth.message, color.stamp, depth.stamp)


def _nearest(stamp: int, entries: deque[_Entry]) -> int | None:
    """Position of the entry nearest to ``stamp``; among equally near ones the last (after a loop, the newest lap)."""
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
    """The real ``message_filters`` synchroniser, with workarounds for its known faults (see the module docstring).

    Raises:
        ImportError: message_filters is not installed.
    """

    _MESSAGES_PER_SECOND = 60

    def __init__(self, slop: float = 0.02, wait: float = 2.0):
        import message_filters

        super().__init__(slop, wait)
        self._genuine = message_filters.ApproximateTimeSynchronizer
        self._made: list[tuple[Any, Any]] = []
        self._late_in_a_row = [0, 0]
        self._connect()

    def add(self, stream: int, stamp: int, message: Any, size: int = 0) -> list[Pair]:
        """See :meth:`Synchronizer.add`."""
        own = self._streams[stream]
        verdict = own.judge(stamp)
        self._late_in_a_row[stream] = self._late_in_a_row[stream] + 1 if verdict == "late" else 0
        if verdict == "late":
            verdict = "jump" if self._late_in_a_row[stream] >= JUMP_COUNT else "out_of_order"
        if verdict in ("duplicate", "out_of_order"):
            self.drops[f"{STREAM_NAMES[stream]}_{verdict}"] += 1
            return []
        if verdict == "jump":
            self._late_in_a_row[stream] = 0
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
        own.waiting.append(_Entry(stamp, message, size, own.clock))
        self._inputs[stream].signal(message)
        pairs = [pair for made in self._made if (pair := self._account(*made)) is not None]
        self._made.clear()
        while own.full(round(self.wait * 1e9)):
            self._drop(own, stream, 1)
        return pairs

    def clear(self) -> None:
        """See :meth:`Synchronizer.clear`."""
        super().clear()
        self._connect()

    def _connect(self) -> None:
        self._inputs = (_Input(), _Input())
        waiting = max(10, round(self.wait * self._MESSAGES_PER_SECOND))
        self._synchronizer = self._genuine(list(self._inputs), waiting, self.slop)
        self._synchronizer.registerCallback(lambda color, depth: self._made.append((color, depth)))

    def _safe_slop(self, periods: list[int]) -> int:
        slop = round(self.slop * 1e9)
        known = [period for period in periods if period > 0]
        return min([slop, *(period // 2 for period in known)])

    def _account(self, color: Any, depth: Any) -> Pair | None:
        """Remove a pair's messages from the queues; None if one was dropped with an earlier pair (``no_partner``)."""
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
    """Whether the real message_filters can be imported (no pip package provides it for ROS 2)."""
    try:
        import message_filters
    except ImportError:
        return False
    return hasattr(message_filters, "ApproximateTimeSynchronizer")


def make_synchronizer(kind: str, slop: float, wait: float) -> Synchronizer:
    """Create the synchroniser for the parameter ``synchronizer``.

    Args:
        kind: ``own``, ``message_filters`` or ``auto`` (message_filters if it is installed, otherwise own).
        slop, wait: as :class:`Synchronizer`.

    Raises:
        ImportError: ``kind`` is ``message_filters``, which is not installed.
    """
    if kind == "message_filters" or (kind == "auto" and message_filters_available()):
        return MessageFiltersSynchronizer(slop, wait)
    return NearestSynchronizer(slop, wait)
