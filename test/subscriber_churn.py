"""Runs the node while subscribers come and go and a quarter of their processes is killed.

    python test/subscriber_churn.py --subscribers 100 --seconds 300 --output churn_output

A camera sends pairs at a fixed rate. The subscribers are spread over processes, each of which lives for a while (in it,
too, subscriptions are destroyed and made anew), ends by Ctrl-C or, every fourth, by SIGKILL, and is replaced. One
observer stays and notes each depth image's age (stamp to receipt), the gaps between diagnostics and the frames that it
did not get; the node's memory is sampled, and at the end the node is asked to stop while subscribers are still there.
Writes churn.json, prints a table; exit status 1 where a limit is exceeded."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stdnet_core.cli import require
from stdnet_core.errors import ConfigError, StdnetError
from stdnet_ros.benchmark.session import environment, machine, node_arguments
from stdnet_ros.benchmark.statistics import counters, durations, slope, summary
from stdnet_ros.processes import Child, Children, options, run_child
from stdnet_ros.soak import memory

_ROOT = Path(__file__).resolve().parents[1]
GAP_LIMIT = 4.0
"""Seconds without diagnostics, which come once a second, or without a depth image."""
STOP_LIMIT = 2.0
"""Seconds from SIGINT to the node's end; 1 s where others do not use the processors."""
_STACKS_AFTER = 20.0
"""Seconds without diagnostics after which stacks are written. gdb stops the node meanwhile, for a minute if busy."""
_START_SECONDS = 120.0
_ROWS = 10
_READY = "subscribed"
_CROWD = "subscriber_"
_KINDS = ("depth", "depth", "camera_info", "depth")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(prog="subscriber_churn.py", description=__doc__.splitlines()[0])
    cli.add_argument("--subscribers", type=int, default=100, help="at a time, over all processes (default 100)")
    cli.add_argument("--processes", type=int, default=20, help="that they are spread over (default 20)")
    cli.add_argument("--seconds", type=float, default=300.0, help="how long the camera sends (default 300)")
    cli.add_argument("--life", type=float, nargs=2, default=(10.0, 60.0), help="shortest and longest life of a process")
    cli.add_argument("--killed", type=float, default=0.25, help="share of the processes that SIGKILL ends")
    cli.add_argument("--rate", type=float, default=10.0, help="frames per second (default 10)")
    cli.add_argument("--width", type=int, default=640)
    cli.add_argument("--height", type=int, default=480)
    cli.add_argument("--scale", type=int, default=8, help="colour height / depth height")
    cli.add_argument("--method", default="bilinear", help="of the node (default bilinear, which keeps up everywhere)")
    cli.add_argument(
        "--transport",
        default="config/fastdds.xml",
        help="of all: a Fast DDS profile, or what goes into FASTDDS_BUILTIN_TRANSPORTS (DEFAULT, UDPv4, LARGE_DATA); "
        "default config/fastdds.xml",
    )
    cli.add_argument("--subscriber-transport", help="of those that come and go, if another one")
    cli.add_argument("--reliable-inputs", action="store_true", help="the node asks for reliable images")
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--output", type=Path, default=Path("churn_output"), help="folder for results and logs")
    cli.add_argument("--stacks", action="store_true", help="write the node's stacks (gdb) when diagnostics stay away")
    cli.add_argument("--subscribe", type=int, help=argparse.SUPPRESS)  # be one of the subscribers' processes
    return cli


def subscribe(count: int, seed: int) -> None:
    """One process of subscribers: ``count`` subscriptions, of which one is replaced every second.

    Prints how many depth images they got, at the end of each second with one."""
    import rclpy
    from sensor_msgs.msg import CameraInfo, Image

    from stdnet_ros.benchmark.topics import DEPTH_OUT, INFO_OUT, NAMESPACE, qos
    from stdnet_ros.demo.topics import spin_for
    from stdnet_ros.node.node import sensor_qos

    rclpy.init()
    node = rclpy.create_node(f"subscriber_{os.getpid()}", namespace=NAMESPACE)
    chance = random.Random(seed)
    images = 0

    def note(message) -> None:
        nonlocal images
        images += 1

    def subscription(number: int):
        kind, topic = (Image, DEPTH_OUT) if _KINDS[number % len(_KINDS)] == "depth" else (CameraInfo, INFO_OUT)
        policy = qos() if number % 2 else sensor_qos()
        callback = note if kind is Image else lambda message: None
        return node.create_subscription(kind, topic, callback, policy, raw=True)

    subscriptions = [subscription(number) for number in range(count)]
    print(_READY, flush=True)
    try:
        while True:
            spin_for(node, 1.0)
            if images:
                print(images, flush=True)
                images = 0
            number = chance.randrange(count)
            node.destroy_subscription(subscriptions[number])
            subscriptions[number] = subscription(number)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


@dataclass
class Seen:
    """What was noted; times are seconds since the camera's first frame, ages in ms.

    Attributes:
        arrivals: (time, age) of each depth image at the observer.
        diagnostics: time of each of the node's diagnostics.
        subscribers: (time, of the depth image as the node knows them).
        memory: (time, own MB, resident MB) of the node.
        kills: time of each SIGKILL.
        ended: processes that ended by Ctrl-C.
        stalls: (begin, seconds) of each time without diagnostics for longer than :data:`GAP_LIMIT`.
    """

    arrivals: list[tuple[float, float]] = field(default_factory=list)
    diagnostics: list[float] = field(default_factory=list)
    subscribers: list[tuple[float, int]] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    ended: int = 0
    stalls: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class _Living:
    """A process of subscribers, whether it will be killed, and when its life ends; it begins when it has subscribed."""

    child: Child
    killed: bool
    until: float | None = None


def make_observer():
    """A listener that knows when diagnostics came."""
    from stdnet_ros.benchmark.listener import Listener
    from stdnet_ros.benchmark.topics import DEPTH_OUT

    class Observer(Listener):
        def __init__(self) -> None:
            self.diagnosed: list[tuple[float, int]] = []
            super().__init__(points=False)

        def _on_diagnostics(self, message) -> None:
            before = len(self.diagnostics)
            super()._on_diagnostics(message)
            if len(self.diagnostics) > before:
                counts = [int(v) for k, v in self.diagnostics[-1].items() if k.endswith(f"/{DEPTH_OUT}")]
                self.diagnosed.append((time.monotonic(), max(counts, default=0)))

    return Observer()


class Churn:
    """The node, its camera, the observer and the processes that come and go.

    Args:
        args: of :func:`parser`.
        children: starts the node and its camera.
        crowd: starts those that come and go.
        work: folder for what the camera notes.
    """

    def __init__(self, args: argparse.Namespace, children: Children, crowd: Children, work: Path) -> None:
        from stdnet_ros.benchmark.topics import DEPTH_OUT, NAMESPACE

        self._args, self._crowd = args, crowd
        self._sent = work / "sent.json"
        self._chance = random.Random(args.seed)
        self._living: list[_Living] = []
        self._leaving: list[Child] = []
        self._started = 0
        self.seen = Seen()
        parameters = {"method": args.method}
        if args.reliable_inputs:
            inputs = (f"{NAMESPACE}/{name}/image" for name in ("color", "depth"))
            parameters |= {f"qos_overrides.{name}.subscription.reliability": "reliable" for name in inputs}
        self.node = children.start("node", "stdnet_ros.node", node_arguments(parameters))
        self.observer = make_observer()
        self.camera = children.start(
            "camera",
            "stdnet_ros.benchmark.camera",
            [
                *options(rate=args.rate, seconds=args.seconds, width=args.width, height=args.height, scale=args.scale),
                *options(log=self._sent, timeout=_START_SECONDS, watch_node=1),
                *("--await", DEPTH_OUT),
            ],
        )
        self._sampled = 0.0
        self._stacks = 0

    def run(self) -> dict:
        """The whole of it; returns the report.

        Raises:
            StdnetError: the node or the camera failed.
        """
        while not self._sent.with_suffix(".begun").exists():
            self._spin()
            self.camera.check_running()
        self._start = time.monotonic()
        shown = 0.0
        while self.camera.poll() is None:
            self._spin()
            self._come_and_go()
            self._sample()
            if time.monotonic() - shown > 10.0:
                shown = time.monotonic()
                self._show()
        if self.camera.poll() != 0:
            raise self.camera.failure(self.camera.poll())
        self._length = time.monotonic() - self._start
        rest = time.monotonic() + 2.5  # the node's next diagnostics count the last frame as well
        while time.monotonic() < rest:
            self._spin()
        self._note()
        stop = self._stop()
        for child in [*(each.child for each in self._living), *self._leaving]:  # nothing more is to be seen of them
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        return self._report(stop)

    def _spin(self) -> None:
        from stdnet_ros.demo.topics import spin_for

        spin_for(self.observer, 0.1)
        self.node.check_running()

    def _come_and_go(self) -> None:
        now, args = time.monotonic(), self._args
        for each in list(self._living):
            each.child.check_running()
            if each.until is None and _READY in each.child.log.read_text():
                each.until = now + self._chance.uniform(*args.life)
            if each.until is None or now < each.until:
                continue
            self._living.remove(each)
            os.kill(each.child.pid, signal.SIGKILL if each.killed else signal.SIGINT)
            if each.killed:
                self.seen.kills.append(now - self._start)
            else:
                self.seen.ended += 1
                self._leaving.append(each.child)
        self._leaving = [child for child in self._leaving if child.poll() is None]
        # One at a time: starting takes a second of a processor.
        if len(self._living) < args.processes and len(self._leaving) < args.processes:
            least, more = divmod(args.subscribers, args.processes)
            share = least + (self._started % args.processes < more)
            arguments = options(subscribe=share, seed=self._started)
            child = self._crowd.start(f"{_CROWD}{self._started}", "subscriber_churn", arguments)
            killed = int((self._started + 1) * args.killed) > int(self._started * args.killed)
            self._living.append(_Living(child, killed))
            self._started += 1

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled >= 1.0:
            self._sampled = now
            self.seen.memory.append((now - self._start, *memory(self.node.pid)))
            last = self.observer.diagnosed[-1][0]
            if now - last > _STACKS_AFTER and self._args.stacks and self._stacks < 2 and shutil.which("gdb"):
                self._stacks += 1
                with (self._args.output / f"stacks_{self._stacks}.txt").open("w") as file:
                    command = ["gdb", "-batch", "-ex", "thread apply all bt 25", "-p", str(self.node.pid)]
                    subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=120, check=False)

    def _show(self) -> None:
        now = time.monotonic()
        known = self.observer.diagnosed[-1][1] if self.observer.diagnosed else 0
        print(
            f"{now - self._start:5.0f} s: {len(self.observer.arrivals['depth'])} images, {known} subscribers of the "
            f"depth image, {len(self.seen.kills)} processes killed, {self.seen.ended} ended; last diagnostics "
            f"{now - self.observer.diagnosed[-1][0]:.1f} s ago",
            flush=True,
        )

    def _note(self) -> None:
        sent = json.loads(self._sent.read_text())
        first = sent["stamps"][0]
        depth = sorted(self.observer.arrivals["depth"], key=lambda pair: pair[1])
        self.seen.arrivals = [((got - first) / 1e9, (got - stamp) / 1e6) for stamp, got in depth]
        diagnosed = [(at - self._start, known) for at, known in self.observer.diagnosed if at >= self._start]
        self.seen.diagnostics = [at for at, _ in diagnosed]
        self.seen.subscribers = diagnosed
        times = [0.0, *self.seen.diagnostics, self._length]
        self.seen.stalls = [(round(a, 1), round(b - a, 1)) for a, b in itertools.pairwise(times) if b - a > GAP_LIMIT]
        self._stamps = sent["stamps"]
        self._late = summary([1000 * late for late in sent["late"]])

    def _stop(self) -> dict:
        """Ask the node to end as Ctrl-C does, among the subscribers that are there."""
        began = time.monotonic()
        os.kill(self.node.pid, signal.SIGINT)
        while self.node.poll() is None and time.monotonic() - began < 60.0:
            time.sleep(0.005)
        return {"seconds": time.monotonic() - began, "status": self.node.poll(), "processes_there": len(self._living)}

    def _report(self, stop: dict) -> dict:
        seen, args = self.seen, self._args
        diagnostics = self.observer.diagnostics[-1]
        counted = counters(diagnostics)
        totals = counted["totals"]
        got = {stamp for stamp, _ in self.observer.arrivals["depth"]}
        times = {"diagnostics": seen.diagnostics, "depth": [at for at, _ in seen.arrivals]}
        longest = {name: float(np.diff([0.0, *at, self._length]).max()) for name, at in times.items()}
        samples = np.array([row for row in seen.memory if row[0] >= self._length / 3]).reshape(-1, 3)
        failures = [f"{gap:.1f} s without {name}" for name, gap in longest.items() if gap > GAP_LIMIT]
        if stop["status"] != 0 or stop["seconds"] > STOP_LIMIT:
            failures.append(f"{stop['seconds']:.1f} s from SIGINT to the end, status {stop['status']}")
        return {
            "machine": machine(),
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k != "subscribe"},
            "seconds": self._length,
            "processes_started": self._started,
            "processes_killed": len(seen.kills),
            "processes_ended": seen.ended,
            "subscribers_most": max((known for _, known in seen.subscribers), default=0),
            "crowd_received": sum(_numbers(args.output / f"{_CROWD}{n}.log") for n in range(self._started)),
            "sent": len(self._stamps),
            "camera_late_ms": self._late,
            "received": len(got),
            "lost": {
                "colour before the node": len(self._stamps) - totals.get("color", 0),
                "depth before the node": len(self._stamps) - totals.get("depth", 0),
                "in the node": totals.get("color", 0) - totals.get("published", 0),
                "after the node": totals.get("published", 0) - len(got),
            },
            "node": counted,
            "age_ms": summary([age for _, age in seen.arrivals]),
            "in_node_ms": durations(diagnostics, "node"),
            "longest_gap_s": longest,
            "stalls": seen.stalls,
            "kills": [round(at, 1) for at in seen.kills],
            "memory_mb": {
                name: {"first": samples[0, column], "last": samples[-1, column], "max": float(samples[:, column].max())}
                for name, column in (("own", 1), ("resident", 2))
            }
            if len(samples)
            else None,
            "growth_mb_per_minute": {
                name: 60 * slope(samples[:, 0], samples[:, column]) for name, column in (("own", 1), ("resident", 2))
            },
            "stop": stop,
            "over_time": self._over_time(),
            "failures": failures,
        }

    def _over_time(self) -> list[dict]:
        edges = np.linspace(0, self._length, _ROWS + 1).tolist()
        rows = []
        for begin, end in itertools.pairwise(edges):
            ages = [age for at, age in self.seen.arrivals if begin <= at < end]
            times = [at for at in self.seen.diagnostics if begin <= at < end]
            used = [row for row in self.seen.memory if begin <= row[0] < end]
            rows.append(
                {
                    "from": float(begin),
                    "to": float(end),
                    "images": len(ages),
                    "age_ms": summary(ages),
                    "diagnostics": len(times),
                    "longest_gap_s": float(np.diff([begin, *times, end]).max()),
                    "subscribers": max((known for at, known in self.seen.subscribers if begin <= at < end), default=0),
                    "kills": sum(begin <= at < end for at in self.seen.kills),
                    "own_mb": used[-1][1] if used else None,
                    "resident_mb": used[-1][2] if used else None,
                }
            )
        return rows


def _numbers(log: Path) -> int:
    """Sum of the lines that are a number."""
    return sum(int(line) for line in log.read_text(errors="replace").splitlines() if line.isdigit())


def show(report: dict) -> None:
    """The table."""
    print("\n   s      images  age p50   p99   max ms  gap s  subscribers  kills  own MB  resident MB")
    for row in report["over_time"]:
        age = row["age_ms"] or dict.fromkeys(("p50", "p99", "max"), float("nan"))
        print(
            f"{row['from']:5.0f}-{row['to']:<5.0f} {row['images']:5d} {age['p50']:9.1f} {age['p99']:6.0f} "
            f"{age['max']:8.0f} {row['longest_gap_s']:6.1f} {row['subscribers']:12d} {row['kills']:6d} "
            f"{row['own_mb'] or 0:7.1f} {row['resident_mb'] or 0:12.1f}"
        )
    age, gap, stop = report["age_ms"], report["longest_gap_s"], report["stop"]
    print(
        f"processes: {report['processes_started']} started, {report['processes_killed']} killed, "
        f"{report['processes_ended']} ended; at most {report['subscribers_most']} subscribers of the depth image"
    )
    print(f"frames:    {report['sent']} sent, {report['received']} received; lost {report['lost']}")
    print(f"           {report['crowd_received']} depth images received by the subscribers that came and went")
    if age:
        print("age:       " + ", ".join(f"{name} {age[name]:.1f} ms" for name in ("p50", "p95", "p99", "max")))
    print(f"gaps:      {gap['diagnostics']:.1f} s of diagnostics, {gap['depth']:.1f} s of depth; {report['stalls']}")
    growth = report["growth_mb_per_minute"]
    print(f"memory:    {growth['own']:+.2f} MB a minute in the last two thirds (resident {growth['resident']:+.2f})")
    print(f"stop:      {stop['seconds']:.2f} s with {stop['processes_there']} processes there, status {stop['status']}")
    print("\n".join(f"FAILED: {failure}" for failure in report["failures"]) or "passed")


def churn(args: argparse.Namespace) -> dict:
    """Run it with processes, domain and environment of its own; returns the report.

    Raises:
        ConfigError: an argument makes no sense.
        StdnetError: a process failed.
    """
    if min(args.subscribers, args.processes, args.seconds, args.rate, *args.life) <= 0 or not 0 <= args.killed <= 1:
        raise ConfigError("numbers and times must be positive and the share of killed processes between 0 and 1")
    rclpy = require("rclpy", extra="ros")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StdnetError(f"cannot write to {args.output} ({error}); choose another folder with --output") from error
    with tempfile.TemporaryDirectory(prefix="stdnet_churn_") as work:
        variables = environment(Path(work))
        variables["PYTHONPATH"] = os.pathsep.join([str(_ROOT / "test"), variables["PYTHONPATH"]])
        os.environ.update(variables)
        _use_transport(os.environ, args.transport)
        _use_transport(variables, args.subscriber_transport or args.transport)
        with Children(args.output, os.environ) as children, Children(args.output, variables) as crowd:
            rclpy.init()
            try:
                report = Churn(args, children, crowd, Path(work)).run()
            finally:
                rclpy.try_shutdown()
    (args.output / "churn.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _use_transport(variables: MutableMapping[str, str], transport: str) -> None:
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"):
        variables.pop(name, None)
    if transport.endswith(".xml"):
        path = Path(transport) if Path(transport).exists() else _ROOT / transport
        if not path.exists():
            raise ConfigError(f"--transport {transport}: there is no such file")
        variables["FASTDDS_DEFAULT_PROFILES_FILE"] = str(path.resolve())
    else:
        variables["FASTDDS_BUILTIN_TRANSPORTS"] = transport


def main() -> int:
    args = parser().parse_args()
    if args.subscribe is not None:
        subscribe(args.subscribe, args.seed)
        return 0
    report = churn(args)
    show(report)
    print(f"written to {args.output}: churn.json, *.log")
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    run_child(main)
