"""Pairing by stamp against a brute-force matching, under loops, jumps, late and lossy streams."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stdnet_ros.synchronization.synchronizer import (
    COLOR,
    DEPTH,
    MAX_BYTES,
    MessageFiltersSynchronizer,
    NearestSynchronizer,
    make_synchronizer,
    message_filters_available,
)

MS = 1_000_000
SECOND = 1_000_000_000


class Message:
    """Enough of a message for both synchronisers: a header with a stamp."""

    def __init__(self, stamp: int):
        self.stamp = stamp
        if message_filters_available():
            from std_msgs.msg import Header

            self.header = Header()
            self.header.stamp.sec, self.header.stamp.nanosec = divmod(stamp, SECOND)


def kinds():
    """Every synchroniser that can be imported here."""
    return [NearestSynchronizer] + ([MessageFiltersSynchronizer] if message_filters_available() else [])


def play(synchronizer, events):
    """Feed (stream, stamp) events in order; returns the stamps of the pairs."""
    pairs = []
    for stream, stamp in events:
        pairs += synchronizer.add(stream, stamp, Message(stamp))
    return [(pair.color_stamp, pair.depth_stamp) for pair in pairs]


def stream(start, count, period=SECOND // 30, offset=0):
    """Stamps of a steady stream."""
    return [start + offset + index * period for index in range(count)]


def by_time(colors, depths, delay=0):
    """Arrival order of two streams whose depth takes ``delay`` ns longer."""
    events = [(stamp, COLOR, stamp) for stamp in colors] + [(stamp + delay, DEPTH, stamp) for stamp in depths]
    return [(kind, stamp) for _, kind, stamp in sorted(events)]


def balanced(synchronizer, colors, depths, pairs):
    """Every message is in a pair, dropped for one cause, or waiting."""
    waiting = synchronizer.waiting()
    for name, total, left in (("color", colors, waiting[0]), ("depth", depths, waiting[1])):
        dropped = sum(count for cause, count in synchronizer.drops.items() if cause.startswith(name))
        assert total == pairs + dropped + left, (name, synchronizer.drops, waiting)


@pytest.mark.parametrize("kind", kinds())
def test_equal_stamps_pair_at_once(kind):
    synchronizer = kind()
    stamps = stream(SECOND, 30)
    assert play(synchronizer, by_time(stamps, stamps)) == [(s, s) for s in stamps]
    assert synchronizer.waiting() == (0, 0)
    assert not synchronizer.drops


def test_nearest_wins_over_first():
    synchronizer = NearestSynchronizer(slop=0.04)
    # The partner 30 ms away comes first; the one 3 ms away follows and must win.
    events = [(DEPTH, 970 * MS), (COLOR, 1000 * MS), (DEPTH, 1003 * MS), (COLOR, 1033 * MS), (DEPTH, 1036 * MS)]
    events += [(COLOR, 1066 * MS)]
    assert play(synchronizer, events) == [(1000 * MS, 1003 * MS), (1033 * MS, 1036 * MS)]
    assert synchronizer.drops == Counter(depth_no_partner=1)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("offset", [-9 * MS, -3 * MS, 4 * MS, 12 * MS])
def test_steady_offset_pairs_every_frame_without_waiting(kind, offset):
    synchronizer = kind(slop=0.02)
    colors, depths = stream(SECOND, 60), stream(SECOND, 60, offset=offset)
    arrived, late = 0, 0
    for stream_kind, stamp in by_time(colors, depths):
        for pair in synchronizer.add(stream_kind, stamp, Message(stamp)):
            assert pair.depth_stamp - pair.color_stamp == offset
            arrived += 1
            late += max(pair.color_stamp, pair.depth_stamp) < stamp
    assert arrived >= 59
    # Once the periods are known, a pair is made when its second message comes, not a frame later.
    assert late <= 3


def test_random_streams_pair_like_brute_force():
    rng = np.random.default_rng(5)
    for trial in range(30):
        period = 33 * MS
        colors = [SECOND + i * period + int(rng.integers(-4, 5)) * MS for i in range(80)]
        depths = [SECOND + i * period + int(rng.integers(-4, 5)) * MS + 5 * MS for i in range(80)]
        colors = [stamp for stamp in colors if rng.random() > 0.2]
        depths = [stamp for stamp in depths if rng.random() > 0.2]
        synchronizer = NearestSynchronizer(slop=0.015)
        pairs = play(synchronizer, by_time(colors, depths, delay=int(rng.integers(0, 60)) * MS))
        # Brute force: mutual nearest within the slop. (The last of a stream may still wait.)
        expected = set()
        for color in colors:
            depth = min(depths, key=lambda d: abs(d - color))
            if abs(depth - color) <= 15 * MS and min(colors, key=lambda c: abs(c - depth)) == color:
                expected.add((color, depth))
        assert set(pairs) <= expected, trial
        assert len(expected) - len(pairs) <= 1, trial
        balanced(synchronizer, len(colors), len(depths), len(pairs))


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("delay", [0, 20 * MS, 50 * MS])
def test_looped_bag_gives_the_same_pairs_each_lap(kind, delay):
    """Depth travels longer than colour, so at each loop the streams jump at different times."""
    synchronizer = kind(slop=0.015)
    lap = by_time(stream(SECOND, 90), stream(SECOND, 90, offset=3 * MS), delay)
    laps = []
    events = []
    for index in range(3):
        # The old lap's last depths arrive after the new lap's first colours.
        events += [
            (3 * SECOND * index + (stamp if kind_ == COLOR else stamp + delay), kind_, stamp) for kind_, stamp in lap
        ]
    counts, last = [0], 0
    for _, stream_kind, stamp in sorted(events, key=lambda event: event[0]):
        for pair in synchronizer.add(stream_kind, stamp, Message(stamp)):
            if pair.color_stamp < last:
                counts.append(0)
            last = pair.color_stamp
            counts[-1] += 1
            laps.append(pair)
    assert len(counts) == 3
    if kind is NearestSynchronizer:
        assert counts == [90, 90, 90]
    else:
        assert min(counts) >= 86
    balanced(synchronizer, 270, 270, len(laps))
    assert synchronizer.jumps == 4


@pytest.mark.parametrize("kind", kinds())
def test_clock_jumping_an_hour_forth_and_back(kind):
    synchronizer = kind()
    hour = 3600 * SECOND
    stamps = stream(SECOND, 30) + stream(SECOND + hour, 30) + stream(2 * SECOND, 30)
    pairs = play(synchronizer, [event for stamp in stamps for event in ((COLOR, stamp), (DEPTH, stamp))])
    assert pairs == [(stamp, stamp) for stamp in stamps]
    assert synchronizer.jumps == 2


def test_one_wild_stamp_does_not_stop_the_stream():
    synchronizer = NearestSynchronizer()
    events = by_time(stream(SECOND, 20), stream(SECOND, 20))
    events[20:20] = [(COLOR, 9_000_000_000 * SECOND), (DEPTH, -5 * SECOND)]
    assert len(play(synchronizer, events)) == 20


def test_duplicates_and_overtaken_messages_are_counted():
    synchronizer = NearestSynchronizer()
    events = by_time(stream(SECOND, 10), stream(SECOND, 10))
    events.insert(9, events[8])
    events.insert(13, (DEPTH, events[9][1] - 40 * MS))
    pairs = play(synchronizer, events)
    assert len(pairs) == 10
    assert synchronizer.drops["color_duplicate"] + synchronizer.drops["depth_duplicate"] == 1
    assert synchronizer.drops["depth_out_of_order"] == 1


def test_recording_shorter_than_a_jump_can_loop():
    synchronizer = NearestSynchronizer()
    lap = by_time(stream(SECOND, 8), stream(SECOND, 8))
    pairs = play(synchronizer, lap * 4)
    assert pairs == [(stamp, stamp) for stamp in stream(SECOND, 8)] * 4
    assert not synchronizer.drops
    assert synchronizer.jumps == 6


def test_slow_color_and_fast_depth():
    synchronizer = NearestSynchronizer(slop=0.02)
    colors, depths = stream(SECOND, 10, period=SECOND), stream(SECOND, 300, offset=5 * MS)
    pairs = play(synchronizer, by_time(colors, depths))
    assert len(pairs) >= 9
    assert all(0 <= depth - color <= 5 * MS for color, depth in pairs)
    balanced(synchronizer, 10, 300, len(pairs))


def test_depth_of_another_clock_pairs_nothing_and_says_so():
    synchronizer = NearestSynchronizer(wait=0.3)
    colors = stream(100 * SECOND, 60)
    events = by_time(colors, stream(90 * SECOND, 60), delay=10 * SECOND)
    assert play(synchronizer, events) == []
    assert synchronizer.waiting() == (10, 10)
    assert synchronizer.offset() == pytest.approx(10.0, abs=0.1)
    assert "colour stamps are 10.0 s ahead of depth stamps: depth arrives that much later" in synchronizer.trouble()
    balanced(synchronizer, 60, 60, 0)


def test_the_stream_whose_clock_is_behind_is_named():
    synchronizer = NearestSynchronizer(wait=0.3)
    assert play(synchronizer, by_time(stream(90 * SECOND, 30), stream(100 * SECOND, 30))) == []
    assert "depth stamps are 10.0 s ahead of colour stamps: colour arrives that much later" in synchronizer.trouble()


@pytest.mark.parametrize("delay", [0.5, 1.9])
def test_depth_that_comes_late_waits_by_time(delay):
    synchronizer = NearestSynchronizer(wait=2.0)
    stamps = stream(SECOND, 120)
    pairs = play(synchronizer, by_time(stamps, stamps, delay=round(delay * SECOND)))
    assert pairs == [(stamp, stamp) for stamp in stamps]
    assert not synchronizer.drops


def test_depth_that_comes_later_than_messages_wait_names_the_parameter():
    synchronizer = NearestSynchronizer(wait=1.0)
    stamps = stream(SECOND, 120)
    events = by_time(stamps, stamps, delay=3 * SECOND // 2)[:200]
    assert not play(synchronizer, events)
    assert "s apart, and messages wait only 1 s; raise sync_queue_seconds" in synchronizer.trouble()


def test_what_waits_is_bounded_by_its_size():
    synchronizer = NearestSynchronizer(wait=60.0)
    for stamp in stream(SECOND, 100):
        synchronizer.add(COLOR, stamp, Message(stamp), size=MAX_BYTES // 20)
    assert synchronizer.waiting() == (20, 0)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("by_size", [False, True])
def test_of_a_full_queue_the_oldest_message_goes(kind, by_size):
    """Not the newest, and none of the other stream, whose partner may still come."""
    synchronizer = kind(wait=60.0 if by_size else 0.1)
    assert synchronizer.add(DEPTH, 200 * MS, Message(200 * MS)) == []
    for stamp in (0, 40 * MS, 80 * MS, 120 * MS):  # three of the sizes may wait, and 100 ms
        assert synchronizer.add(COLOR, stamp, Message(stamp), MAX_BYTES // 3 if by_size else 0) == []
    assert synchronizer.drops == Counter(color_no_partner=1)
    assert synchronizer.waiting() == (3, 1)
    assert play(synchronizer, [(COLOR, 200 * MS)]) == [(200 * MS, 200 * MS)]


def test_a_message_may_wait_for_as_long_as_was_said_and_not_longer():
    synchronizer = NearestSynchronizer(wait=0.1)
    assert play(synchronizer, [(COLOR, 0), (COLOR, 50 * MS), (COLOR, 100 * MS)]) == []
    assert not synchronizer.drops
    assert play(synchronizer, [(COLOR, 100 * MS + 1)]) == []
    assert synchronizer.drops == Counter(color_no_partner=1)


def test_what_a_full_queue_dropped_has_no_partner_and_what_it_kept_has():
    synchronizer = NearestSynchronizer(wait=0.1)
    events = [(COLOR, 0), (COLOR, 40 * MS), (COLOR, 80 * MS), (COLOR, 120 * MS)]
    events += [(DEPTH, 0), (DEPTH, 40 * MS), (DEPTH, 80 * MS), (DEPTH, 120 * MS)]
    assert play(synchronizer, events) == [(stamp, stamp) for stamp in (40 * MS, 80 * MS, 120 * MS)]
    assert synchronizer.drops == Counter(color_no_partner=1, depth_no_partner=1)


def test_a_full_queue_gives_its_oldest_message_the_partner_that_is_there():
    """A nearer one might still have come: nothing is known of depth's period yet."""
    synchronizer = NearestSynchronizer(slop=0.02, wait=0.1)
    assert play(synchronizer, [(DEPTH, 0), (COLOR, 10 * MS), (COLOR, 50 * MS), (COLOR, 90 * MS)]) == []
    assert play(synchronizer, [(COLOR, 130 * MS)]) == [(10 * MS, 0)]
    assert not synchronizer.drops


def test_a_full_queue_does_not_hurry_the_messages_behind_its_oldest_one():
    synchronizer = NearestSynchronizer(slop=0.02, wait=0.1)
    events = [(COLOR, 0), (COLOR, 40 * MS), (DEPTH, 30 * MS), (COLOR, 80 * MS), (COLOR, 120 * MS)]
    assert play(synchronizer, events) == []
    assert synchronizer.drops == Counter(color_no_partner=1)
    assert play(synchronizer, [(DEPTH, 41 * MS)]) == [(40 * MS, 41 * MS)]
    assert synchronizer.drops == Counter(color_no_partner=1, depth_no_partner=1)


def test_an_overtaken_message_that_a_full_queue_drops_is_out_of_order():
    synchronizer = NearestSynchronizer(wait=0.1)
    assert play(synchronizer, [(COLOR, stamp * MS) for stamp in (40, 0, 80, 120, 160)]) == []
    assert synchronizer.drops == Counter(color_out_of_order=1, color_no_partner=1)
    assert play(synchronizer, [(DEPTH, stamp * MS) for stamp in (80, 120)]) == [
        (80 * MS, 80 * MS),
        (120 * MS, 120 * MS),
    ]


def test_neighbours_in_swapped_order_are_paired():
    """Of each two colour images the second comes first, as over a lossy network."""
    synchronizer = NearestSynchronizer()
    stamps = stream(SECOND, 60)
    events = []
    for first, second in zip(stamps[::2], stamps[1::2], strict=True):
        events += [(COLOR, second), (DEPTH, first), (COLOR, first), (DEPTH, second)]
    assert play(synchronizer, events) == [(stamp, stamp) for stamp in stamps]
    assert not synchronizer.drops


def test_pairs_that_come_after_a_later_one_are_out_of_order():
    synchronizer = NearestSynchronizer()
    stamps = stream(SECOND, 60)
    swapped = [stamp for pair in zip(stamps[1::2], stamps[::2], strict=True) for stamp in pair]
    pairs = play(synchronizer, [event for stamp in swapped for event in ((COLOR, stamp), (DEPTH, stamp))])
    assert pairs == [(stamp, stamp) for stamp in stamps[1::2]]
    assert synchronizer.jumps == 0
    balanced(synchronizer, 60, 60, len(pairs))
    assert synchronizer.drops["color_out_of_order"] == 29


@pytest.mark.parametrize("length", [3, 10])
def test_short_recordings_loop_without_loss(length):
    synchronizer = NearestSynchronizer()
    lap = by_time(stream(SECOND, length), stream(SECOND, length, offset=2 * MS))
    pairs = play(synchronizer, lap * 6)
    assert len(pairs) >= 6 * length - 1
    assert [color for color, _ in pairs] == (stream(SECOND, length) * 6)[: len(pairs)]


@pytest.mark.parametrize(
    ("colors", "depths", "sentence"),
    [
        ([0] * 9, stream(SECOND, 9), "all color images have the stamp 0.000: the driver does not set stamps; set use_"),
        (stream(SECOND, 9), [5 * SECOND] * 9, "all depth images have the stamp 5.000"),
        (
            stream(SECOND, 20, period=100 * MS),
            stream(SECOND, 20, period=100 * MS, offset=50 * MS),
            "stamps are 50 ms apart, and sync_slop is 20 ms; set sync_slop to 0.075",
        ),
        (stream(SECOND, 9), [], "there is no depth image to pair"),
    ],
)
def test_why_nothing_is_paired_is_measured(colors, depths, sentence):
    synchronizer = NearestSynchronizer()
    assert len(play(synchronizer, by_time(colors, depths))) <= 1
    assert sentence in synchronizer.trouble()


def test_one_stream_alone_keeps_only_what_may_wait():
    synchronizer = NearestSynchronizer(wait=0.21)
    assert play(synchronizer, [(COLOR, stamp) for stamp in stream(0, 100)]) == []
    assert synchronizer.waiting() == (7, 0)
    assert synchronizer.drops == Counter(color_no_partner=93)
    assert synchronizer.offset() is None
    synchronizer.clear()
    assert synchronizer.waiting() == (0, 0)
    assert synchronizer.drops["color_cleared"] == 7


def test_choice_by_name():
    assert isinstance(make_synchronizer("own", 0.02, 2.0), NearestSynchronizer)
    expected = MessageFiltersSynchronizer if message_filters_available() else NearestSynchronizer
    assert isinstance(make_synchronizer("auto", 0.02, 2.0), expected)
    if not message_filters_available():
        with pytest.raises(ImportError):
            make_synchronizer("message_filters", 0.02, 2.0)
