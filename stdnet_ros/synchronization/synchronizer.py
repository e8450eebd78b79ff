"""Pairs colour and depth messages by stamp.

:class:`NearestSynchronizer` is the node's own and its default: it pairs each message with the *nearest* partner, waits
for a following message only where that one could still be nearer, puts overtaken messages in order, survives a clock
that jumps, and knows why each message was dropped and why none is paired. It needs no package besides Python.

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
MAX_BYTES = 256 << 20
"""So much of each stream may wait, however long it would."""
_REMEMBERED = 60
_ONE_CLOCK_SECONDS = 1.0
"""Streams of one clock, of which one does not come much later, have stamps nearer to each other than this."""


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
        stamp: nanoseconds.
        message: itself.
        size: bytes.
        clock: of its stream when it came.
        late: an earlier message of its stream has a later stamp.
    """

    stamp: int
    message: Any
    size: int = 0
    clock: int = 0
    late: bool = False


class _Stream:
    """The waiting messages of one stream, in order, and what is known of its clock."""

    def __init__(self) -> None:
        self.waiting: deque[_Entry] = deque()
        self.newest: int | None = None
        self.clock = 0
        """Nanoseconds that the stream's stamps have gone on, whatever its clock jumped."""
        self.intervals: deque[int] = deque(maxlen=30)
        self.seen: deque[int] = deque(maxlen=_REMEMBERED)

    def judge(self, stamp: int) -> str | None:
        """Whether a stamp is ``"duplicate"``, ``"late"``, a ``"jump"`` or (None) as it should be."""
        self.seen.append(stamp)
        if self.newest is None or stamp > self.newest:
            return None
        if stamp == self.newest:
            return "duplicate"
        return "jump" if self.newest - stamp >= JUMP_NS else "late"

    def follow(self, stamp: int, jumped: bool) -> None:
        """Take ``stamp`` as the newest one."""
        if self.newest is not None and not jumped:
            self.intervals.append(stamp - self.newest)
            self.clock += stamp - self.newest
        self.newest = stamp

    def shortest_interval(self) -> int:
        """Nanoseconds after a message in which no other is to be expected; 0 while unknown."""
        return min(self.intervals) * 9 // 10 if len(self.intervals) >= 2 else 0

    def insert(self, entry: _Entry) -> None:
        """Take a message, a late one before those of later stamps."""
        at = len(self.waiting)
        while entry.late and at and self.waiting[at - 1].stamp > entry.stamp:
            at -= 1
        self.waiting.insert(at, entry)

    def full(self, wait: int) -> bool:
        """Whether the oldest message has waited for longer than ``wait`` ns, or too much waits."""
        if len(self.waiting) < 2:
            return False
        return self.clock - self.waiting[0].clock > wait or sum(entry.size for entry in self.waiting) > MAX_BYTES


class Synchronizer:
    """What the node needs from a synchroniser, and what both keep. Not thread-safe: one thread adds.

    Args:
        slop: greatest difference of the stamps of a pair, seconds.
        wait: how long a message may wait for its partner, in seconds of its stream's stamps.

    Attributes:
        drops: messages that will never be paired, by cause (``color_no_partner``, ``depth_duplicate``, ...).
        jumps: how often a stream's clock jumped backwards.
    """

    def __init__(self, slop: float = 0.02, wait: float = 2.0):
        self.slop = slop
        self.wait = wait
        self.drops: Counter = Counter()
        self.jumps = 0
        self._streams = (_Stream(), _Stream())

    def add(self, stream: int, stamp: int, message: Any, size: int = 0) -> list[Pair]:
        """Take a message of :data:`COLOR` or :data:`DEPTH`; returns the pairs that are now certain, oldest first.

        Args:
            stream: which.
            stamp: nanoseconds.
            message: given back in a pair.
            size: its bytes; more than :data:`MAX_BYTES` of a stream do not wait.
        """
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

    def trouble(self) -> str:
        """Why nothing is paired, measured on the last stamps, and which parameter mends it."""
        for name, stream in zip(STREAM_NAMES, self._streams, strict=True):
            if len(stream.seen) > 1 and min(stream.seen) == max(stream.seen):
                return (
                    f"all {name} images have the stamp {stream.seen[0] / 1e9:.3f}: the driver sets none; "
                    f"set use_arrival_time"
                )
        colors, depths = (sorted(stream.seen) for stream in self._streams)
        if not colors or not depths:
            return f"there is no {STREAM_NAMES[COLOR if not colors else DEPTH]} image to pair"
        apart = self.offset()
        nearest = min(abs(c - d) for c in colors for d in depths) / 1e9
        if nearest <= self.slop:
            return (
                f"colour and depth of the same stamps come {abs(apart):.2f} s apart, and messages wait for "
                f"{self.wait:g} s; raise sync_queue_seconds"
            )
        if nearest > _ONE_CLOCK_SECONDS:
            first, second = ("depth", "colour") if apart > 0 else ("colour", "depth")
            return (
                f"{second} stamps are {abs(apart):.1f} s ahead of {first} stamps: {first} comes so much later (raise "
                f"sync_queue_seconds above that) or has another clock (set use_arrival_time)"
            )
        return (
            f"the nearest colour and depth stamps are {1e3 * nearest:.0f} ms apart, and sync_slop is "
            f"{1e3 * self.slop:.0f} ms; set sync_slop to {1.5 * nearest:.2g}, or use_arrival_time if stamps are wrong"
        )


class NearestSynchronizer(Synchronizer):
    """Pairs each message with its nearest partner in time.

    A colour and a depth message make a pair when each is the other's nearest, they are at most ``slop`` apart, and no
    message that may still come could be nearer: their stamps are equal, or a later message of both streams is here
    already, or the streams' observed periods rule it out. At a steady rate a pair is therefore made as soon as its
    second message arrives. The end of the time to wait ends that too.

    Messages that overtook each other are put in order. A pair older than the last one is kept back: a second one after
    it means that a short recording was looped, and both are given; a newer one means that it came too late."""

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
        # After a jump the older messages stay until a later pair passes them: the other stream, a little late, may
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
        """The pairs that may be given now that ``pair`` is known."""
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
        """Remove a pair and what comes before it (no partner can come for those any more)."""
        entries = []
        for index, (stream, position) in enumerate(zip(self._streams, (i, j), strict=True)):
            for _ in range(position):
                self._drop(index, stream.waiting.popleft())
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


def make_synchronizer(kind: str, slop: float, wait: float) -> Synchronizer:
    """``"own"``, ``"message_filters"`` or ``"auto"`` (message_filters where it is installed, else own).

    Raises:
        ImportError: message_filters was asked for and is not installed.
    """
    if kind == "message_filters" or (kind == "auto" and message_filters_available()):
        return MessageFiltersSynchronizer(slop, wait)
    return NearestSynchronizer(slop, wait)
