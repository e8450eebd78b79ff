"""Soak test: runs the node for minutes or hours under random faults (``python -m stdnet_ros.soak --minutes 30``).

A 30 Hz camera sends damaged messages, jumps in time, restarts and is killed. A listener subscribes and unsubscribes,
changes parameters and calls services. Memory and latency are sampled and plotted. The exit status is 2 if the node
dies, and 1 if it does not recover, its counters do not add up, a parameter change has the wrong result, or its memory
grows by 5 MB or more in 30 minutes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from stdnet_core import __version__
from stdnet_core.cli import require
from stdnet_core.errors import ConfigError, StdnetError
from stdnet_ros.benchmark.session import environment, machine, node_arguments
from stdnet_ros.benchmark.statistics import counters, durations, slope, summary, unbalanced
from stdnet_ros.processes import Child, Children, options, run_child

GROWTH_LIMIT_MB = 5.0
_PERIOD = 1800.0
_SAMPLE_SECONDS = 1.0
_START_SECONDS = 90.0
_CLEAN_SECONDS = 3.0
_KILLS = 6
"""How often the camera's process is killed and replaced in a run, in addition to the restarts of its publishers."""
_LEAST_BETWEEN_KILLS = 10.0
_RECOVERED = 0.5
"""Least share of the frames of the faultless stream at the end that must be processed; a busy machine may lose some."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cli = argparse.ArgumentParser(prog="python -m stdnet_ros.soak", description=__doc__)
    cli.add_argument("--minutes", type=float, default=30.0, help="length of the test (default 30)")
    cli.add_argument("--output", type=Path, default=Path("soak_output"), help="folder for the results")
    cli.add_argument(
        "--warm-up",
        type=float,
        default=None,
        help="seconds at the start not counted for memory growth (default a fifth of the length, at most 300)",
    )
    cli.add_argument(
        "--growth-limit",
        type=float,
        default=GROWTH_LIMIT_MB,
        help="limit of memory growth, MB in 30 minutes (default 5)",
    )
    cli.add_argument("--share", type=float, default=0.1, help="share of the frames that have a fault (default 0.1)")
    cli.add_argument("--rate", type=float, default=30.0, help="frames per second (default 30)")
    cli.add_argument("--width", type=int, default=640)
    cli.add_argument("--height", type=int, default=480)
    cli.add_argument(
        "--method",
        default="bilinear",
        help="the node's parameter method (default bilinear, fast enough on any machine)",
    )
    cli.add_argument("--seed", type=int, default=0)
    return cli


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of a process in MB (10**6 bytes): without and with shared memory and files.

    Raises:
        StdnetError: the process has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError as error:
        raise StdnetError(f"process {pid} has ended") from error
    found = {key: value for key, _, value in (line.partition(":") for line in lines)}
    own, resident = (int(found[key].split()[0]) * 1024 / 1e6 for key in ("RssAnon", "VmRSS"))
    return own, resident


class Soak:
    """The running processes and the measurements; times in ``memory`` and ``kills`` are in seconds since ``start``."""

    def __init__(self, args: argparse.Namespace, children: Children, work: Path) -> None:
        from stdnet_ros.benchmark.monitor import Monitor

        self._args, self._children, self._work = args, children, work
        self.faults_log = args.output / "faults.jsonl"
        self.faults_log.unlink(missing_ok=True)
        self.node = children.start("node", "stdnet_ros.node", node_arguments({"method": args.method}))
        self.monitor = Monitor(args.seed)
        self.start = time.monotonic()
        self.memory: list[tuple[float, float, float]] = []
        self.kills: list[float] = []
        self._sampled = 0.0

    def run(self) -> None:
        """Run the part with faults.

        Raises:
            StdnetError: the node or the camera ended.
        """
        self._wait(lambda: self.monitor.reports > 0, "the node's diagnostics")
        self.start = time.monotonic()
        end = self.start + 60 * self._args.minutes
        between = max(60 * self._args.minutes / (_KILLS + 1), _LEAST_BETWEEN_KILLS)
        camera, replaced = self._camera(), self.start
        while time.monotonic() < end:
            self._spin(0.1)
            self.monitor.act()
            if time.monotonic() - replaced > between:
                os.kill(camera.pid, signal.SIGKILL)
                self._wait(lambda ended=camera: ended.poll() is not None, "the camera's end")
                self.kills.append(time.monotonic() - self.start)
                camera, replaced = self._camera(), time.monotonic()
            camera.check_running()
        camera.stop()

    def finish(self) -> tuple[float, list[str]]:
        """Send a faultless stream; returns the share that was processed, and the counters that do not add up."""
        self.monitor.finish()
        calls = self.monitor.counts
        self._wait(lambda: calls["answers"] >= calls["calls"], "answers of the node's services")
        log = self._work / "clean.json"
        size = {"width": self._args.width, "height": self._args.height, "scale": 8}
        arguments = options(rate=self._args.rate, seconds=_CLEAN_SECONDS, log=log, **size)
        clean = self._children.start("clean_camera", "stdnet_ros.benchmark.camera", arguments)
        while clean.poll() is None:
            self._spin(0.1)
        if clean.poll() != 0:
            raise clean.failure(clean.poll())
        self._spin(0.5)
        stamps = json.loads(log.read_text())["stamps"]
        through = sum(stamp in self.monitor.stamps for stamp in stamps) / len(stamps)
        self.monitor.reset()
        reports = self.monitor.reports
        self._wait(lambda: self.monitor.reports >= reports + 2, "the node's diagnostics")
        counted = counters(self.monitor.diagnostics)
        return through, unbalanced(counted["totals"], counted["drops"])

    def _camera(self) -> Child:
        arguments = options(
            rate=self._args.rate,
            seconds=60 * self._args.minutes + 60,
            width=self._args.width,
            height=self._args.height,
            share=self._args.share,
            seed=self._args.seed + len(self.kills),
            log=self.faults_log,
        )
        return self._children.start(f"camera_{len(self.kills)}", "stdnet_ros.benchmark.faulty_camera", arguments)

    def _spin(self, seconds: float) -> None:
        from stdnet_ros.demo.topics import spin_for

        spin_for(self.monitor, seconds)
        self.node.check_running()
        if time.monotonic() - self._sampled >= _SAMPLE_SECONDS:
            self._sampled = time.monotonic()
            self.memory.append((self._sampled - self.start, *memory(self.node.pid)))

    def _wait(self, condition, what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise StdnetError(f"{what} did not come within {_START_SECONDS:.0f} s; see node.log")
            self._spin(0.05)


def evaluate(args: argparse.Namespace, soak: Soak, through: float, wrong: list[str]) -> dict:
    """The report; its ``failures`` are sentences that say what is wrong."""
    total = 60.0 * args.minutes
    warm_up = min(300.0, total / 5) if args.warm_up is None else args.warm_up
    samples = np.array([row for row in soak.memory if warm_up <= row[0] <= total]).reshape(-1, 3)
    faults = [json.loads(line) for line in soak.faults_log.read_text().splitlines() if line.endswith("}")]
    latency = np.array([(t - soak.start, ms) for t, ms in soak.monitor.latencies]).reshape(-1, 2)
    growth = {
        name: slope(samples[:, 0], samples[:, column]) * _PERIOD for name, column in (("own", 1), ("resident", 2))
    }
    counted = counters(soak.monitor.diagnostics)
    failures = list(wrong)
    if growth["own"] >= args.growth_limit:
        failures.append(f"memory grows by {growth['own']:.1f} MB in 30 minutes (limit {args.growth_limit:g})")
    if through < _RECOVERED:
        failures.append(f"only {100 * through:.0f} % of the faultless stream at the end was processed")
    failures += [f"parameters: {surprise}" for surprise in soak.monitor.surprises]
    return {
        "version": __version__,
        "machine": machine(),
        "minutes": args.minutes,
        "faults": dict(Counter(fault["fault"] for fault in faults)),
        "camera_kills": len(soak.kills),
        "monitor": dict(soak.monitor.counts),
        "node": counted,
        "window_resets": {k: int(v) for k, v in soak.monitor.diagnostics.items() if k.startswith("window reset")},
        "latency_ms": summary(latency[:, 1]),
        "in_node_ms": durations(soak.monitor.diagnostics, "node"),
        "warm_up_seconds": warm_up,
        "memory_mb": None
        if not len(samples)
        else {
            "own_first": samples[0, 1],
            "own_last": samples[-1, 1],
            "own_max": float(samples[:, 1].max()),
            "resident_first": samples[0, 2],
            "resident_last": samples[-1, 2],
        },
        "growth_mb_per_30_minutes": growth,
        "good_stream_at_the_end": through,
        "failures": failures,
        "samples": [[round(value, 2) for value in row] for row in soak.memory],
    }


def _print(report: dict) -> None:
    totals, latency, used = report["node"]["totals"], report["latency_ms"], report["memory_mb"]
    faults = report["faults"]
    print(f"faults:   {sum(faults.values())} of {len(faults)} kinds, camera killed {report['camera_kills']} times")
    print(f"actions:  {report['monitor']}")
    print(f"counted:  {totals}, drops {report['node']['drops']}")
    if latency:
        print(f"latency:  p50 {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms, p99 {latency['p99']:.1f} ms")
    if used:
        growth = report["growth_mb_per_30_minutes"]
        print(
            f"memory:   {used['own_first']:.1f} MB after warm-up, {used['own_last']:.1f} MB at the end; growth "
            f"{growth['own']:+.2f} MB in 30 minutes (with shared memory {growth['resident']:+.2f})"
        )
    print(f"the end:  {100 * report['good_stream_at_the_end']:.0f} % of a faultless stream was processed")
    print("\n".join(f"FAILED: {failure}" for failure in report["failures"]) or "passed")


def main() -> int:
    args = parser().parse_args()
    if min(args.minutes, args.rate, args.width, args.height) <= 0 or not 0 <= args.share <= 1:
        raise ConfigError("minutes, rate and sizes must be positive and the share between 0 and 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy = require("rclpy", extra="ros")
    require("matplotlib", extra="report")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StdnetError(f"cannot write to {args.output} ({error}); choose another folder with --output") from error
    with tempfile.TemporaryDirectory(prefix="stdnet_soak_") as work:
        variables = environment(Path(work))
        os.environ.update(variables)
        with Children(args.output, variables) as children:
            rclpy.init()
            try:
                soak = Soak(args, children, Path(work))
                soak.run()
                report = evaluate(args, soak, *soak.finish())
            finally:
                rclpy.try_shutdown()
    (args.output / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    from stdnet_ros.benchmark import plots

    latency = [(t - soak.start, ms) for t, ms in soak.monitor.latencies]
    plots.soak(soak.memory, latency, soak.kills, report["warm_up_seconds"], args.output / "soak.png")
    _print(report)
    print(f"written to {args.output}: soak.json, soak.png, faults.jsonl, *.log")
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    run_child(main)
