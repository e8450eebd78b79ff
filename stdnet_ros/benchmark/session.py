"""One measurement: runs camera, node (or baseline) and listener as separate processes, and evaluates their logs."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stdnet_ros.benchmark.statistics import counters, durations, latencies, summary
from stdnet_ros.benchmark.topics import DEPTH_OUT, INFO_OUT, NAMESPACE, POINTS_OUT
from stdnet_ros.demo.topics import NODE_NAME
from stdnet_ros.processes import Children, options, ros_environment
from stdnet_ros.resources import config_file

_START_TIMEOUT = 120.0


@dataclass(frozen=True)
class Case:
    """What to run.

    Attributes:
        name: of its line in the table.
        module: Python module of the process under test.
        rate: frames per second of the camera.
        seconds: how long the camera sends.
        size: (width, height) of the colour image.
        scale: colour height / depth height.
        points: whether the listener also subscribes to the cloud.
        parameters: parameters of the node.
        warm_up: seconds at the start that are counted for losses but not for latencies.
    """

    name: str
    module: str
    rate: float
    seconds: float
    size: tuple[int, int] = (640, 480)
    scale: int = 1
    points: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)
    warm_up: float = 2.0

    @property
    def baseline(self) -> bool:
        """Whether the relay is tested, which publishes only depth images."""
        return self.module.endswith(".relay")


def node_arguments(parameters: Mapping[str, object], namespace: str = NAMESPACE) -> list[str]:
    """Command line of the node."""
    values = {name: json.dumps(value) for name, value in parameters.items()}
    assignments = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    return ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"__node:={NODE_NAME}", *assignments]


def environment(log_folder: Path) -> dict[str, str]:
    """Environment of the benchmark's processes: separate from other ROS processes, with the shipped profile."""
    variables = ros_environment(config_file("fastdds.xml"), log_folder)
    roots = [str(Path(__file__).parents[2]), variables.get("PYTHONPATH")]
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, roots))
    return variables


def run(case: Case, logs: Path) -> dict:
    """Run a case; returns its figures, and as ``series`` the (seconds, latency in ms) of each depth image.

    Raises:
        StdnetError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="stdnet_benchmark_") as work:
        sent, received = Path(work) / "sent.json", Path(work) / "received.json"
        with Children(logs, environment(Path(work))) as children:
            prefix = case.name.replace(" ", "_")
            arguments = [] if case.baseline else node_arguments(case.parameters)
            node = children.start(f"{prefix}_node", case.module, arguments)
            listener = children.start(
                f"{prefix}_listener",
                "stdnet_ros.benchmark.listener",
                options(points=int(case.points), until=sent, timeout=case.seconds + _START_TIMEOUT + 10, log=received),
            )
            camera = children.start(f"{prefix}_camera", "stdnet_ros.benchmark.camera", _camera(case, sent))
            camera.wait(node, listener, until=sent.with_suffix(".begun"))
            used = _cpu_seconds(node.pid)
            camera.wait(node, listener, until=sent)
            used = _cpu_seconds(node.pid) - used
            listener.wait(node)
        return evaluate(case, json.loads(sent.read_text()), json.loads(received.read_text()), used)


def _camera(case: Case, log: Path) -> list[str]:
    width, height = case.size
    awaited = [DEPTH_OUT] if case.baseline else [DEPTH_OUT, INFO_OUT, *([POINTS_OUT] if case.points else [])]
    optional = ["color/camera_info", "depth/camera_info"] if case.baseline else []
    return [
        *options(rate=case.rate, seconds=case.seconds, width=width, height=height, scale=case.scale, log=log),
        *("--timeout", str(_START_TIMEOUT), "--watch-node", str(int(not case.baseline))),
        *("--await", *awaited),
        *(("--optional", *optional) if optional else ()),
    ]


def evaluate(case: Case, sent: dict, received: dict, cpu_seconds: float) -> dict:
    """The figures of a case from the logs of its camera and listener."""
    stamps = sent["stamps"]
    begin = stamps[0] + int(case.warm_up * 1e9)
    arrivals = received["arrivals"]
    series = latencies(arrivals["depth"], begin)
    result = {
        "name": case.name,
        "rate_hz": case.rate,
        "seconds": case.seconds,
        "size": f"{case.size[0]}x{case.size[1]}",
        "sent": len(stamps),
        "received": {kind: len(got) for kind, got in arrivals.items()},
        "camera_late_ms": summary([1000 * late for late in sent["late"]]),
        "latency_ms": {kind: summary(latencies(got, begin)[:, 1]) for kind, got in arrivals.items()},
        "cpu_ms_per_frame": 1000 * cpu_seconds / len(stamps),
        "series": series,
    }
    if case.baseline:
        result["lost"] = {"relay": len(stamps) - len({stamp for stamp, _ in arrivals["depth"]})}
        return result
    last = received["diagnostics"][-1] if received["diagnostics"] else {}
    counted = counters(last)
    totals = counted["totals"]
    result |= {
        "node": counted,
        "summary": last.get("summary"),
        "inference_ms": durations(last, "inference"),
        "in_node_ms": durations(last, "node"),
        "lost": {
            "color in": len(stamps) - totals.get("color", 0),
            "depth in": len(stamps) - totals.get("depth", 0),
            "depth out": totals.get("published", 0) - len(arrivals["depth"]),
            "camera_info out": totals.get("published", 0) - len(arrivals["camera_info"]),
        },
    }
    if case.points:
        result["lost"]["points out"] = totals.get("published", 0) - len(arrivals["points"])
    return result


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process in seconds; NaN if /proc does not provide it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """The machine that the figures were measured on."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    loads: Sequence[float] = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in loads],
    }
