"""All that a GPU which is there for minutes is to do, in one command: ``bash scripts/gpu_session.sh`` (docs/gpu.md).

A session is a list of steps in three groups: checks (the tests that need a GPU), benchmark, and training slices with
whatever time is left. Each step is a process of its own with a time limit: one that fails, hangs or crashes is noted,
and the next one runs. What is known so far is always in the output folder: ``results.json``, ``log.txt`` with all that
the steps print, and after each slice ``training_*.zip``, small files by design. ``--dry-run`` goes through all of it in
tiny sizes on the CPU. ``--take-over FOLDER`` puts what came back where it belongs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdnet_core.cli import run_cli
from stdnet_core.errors import ConfigError
from stdnet_core.model import PRESETS, ModelConfig, RecurrentConfig, STDNet

RESULTS, LOG, TRAINING = "results.json", "log.txt", "training"
GROUPS = {"checks": 60.0, "benchmark": 180.0, "training": float("inf")}
"""Groups of steps in their order -> seconds that they may take together."""
FILE_MB = 14.9
"""Largest file of the output."""
REPOSITORY = Path(__file__).resolve().parents[1]
_END_S = 20.0
"""Kept at the end, for writing."""
_GRACE_S = 20.0
"""What a process that is told to end has for it."""
_SHORTEST_S = 5.0
_SHORTEST_SLICE_S = 60.0
_SLICE_MARGIN_S = 25.0
"""Kept for a slice's start and for a last validation that takes longer than planned."""
_TAIL = 12


@dataclass(frozen=True)
class Sizes:
    """What a session measures and trains, and how large.

    Attributes:
        device: of the benchmark.
        paper: the network to measure in all modes, as arguments of the benchmark.
        others: further presets.
        precisions: to measure.
        compiled: arguments that ask for compiled streams.
        shortest_slice_s, longest_slice_s: of training.
        slices: at most so many.
        training: overrides of its configuration.
        patience: factor on the limits of steps and groups.
        environment: variables of all steps.
    """

    device: str = "cuda"
    paper: tuple[str, ...] = ("--presets", "base")
    others: str = "small,tiny_causal"
    precisions: str = "bf16,fp32"
    compiled: tuple[str, ...] = ("--compile", "--cuda-graphs")
    frame: str = "640x480"
    frames: int = 24
    live_frames: int = 100
    shortest_slice_s: float = _SHORTEST_SLICE_S
    longest_slice_s: float = float("inf")
    slices: int = 100
    patience: float = 1.0
    training: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


DRY_RUN = Sizes(
    device="cpu",
    others="tiny_causal",
    precisions="fp32",
    compiled=("--cuda-graphs",),
    frame="32x24",
    frames=2,
    live_frames=2,
    shortest_slice_s=1.0,
    longest_slice_s=4.0,
    slices=2,
    patience=5.0,
    training=(
        "model={preset: live, channels: 8, channels_8: 8, channels_16: 8, blocks: 1}",
        "data.cells={exact@1: 1, area@8: 1}",
        "data.video.crops=[{from_ratio: 1, sides: [32]}]",
        "data.lengths=[2]",
        "data.pixel_budget=4000",
        "val.sources=[{source: 'synthetic:900001,1,48x64,2'}]",
        "val.cells=[area@8]",
        "val.length=2",
        "val.pictures=1",
        "optim.warmup_steps=0",
        "trainer.accelerator=cpu",
        "trainer.precision=32-true",
        "trainer.threads=1",
    ),
    environment={"STDNET_TEST_DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
)
"""The CPU's rehearsal: as many steps, tiny sizes, but without the compiler, which takes minutes."""
_DRY_NETWORK = dict(channels=4, head_channels=4, trunk_blocks=1, reconstruction_blocks=1, fusion_blocks=1, stages=1)


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        command: what follows ``python``.
        limit_s: its own time limit, beside what is left of its group's and the session's.
        figures: reads what it has left behind, also after a failure.
        environment: variables on top.
    """

    name: str
    group: str
    command: list[str]
    limit_s: float
    figures: Callable[[], dict[str, Any]] = dict
    environment: dict[str, str] = field(default_factory=dict)


# --- the steps --------------------------------------------------------------------------------------------------------


def _dry_network(work: Path) -> tuple[str, ...]:
    """A minute network of the paper's kind, as arguments of the benchmark."""
    from stdnet_core import checkpoints

    model = STDNet(ModelConfig.preset("tiny", **_DRY_NETWORK)).eval()
    checkpoints.save(work / "paper.safetensors", model, checkpoints.CheckpointInfo(model.config, (8,), None))
    return "--presets", "", "--checkpoints", str(work / "paper.safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def test_figures(path: Path) -> dict[str, Any]:
    """Numbers of tests passed, failed and skipped from a JUnit file, with the reasons of the latter two."""
    if not path.is_file():
        return {}
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": {}, "reasons": {}}
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("test.")
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if problem is not None:
            counts["failed"] += 1
            counts["failures"][name] = (problem.get("message") or "").splitlines()[0][:300]
        elif skip is not None:
            counts["skipped"] += 1
            counts["reasons"][name] = (skip.get("message") or "")[:200]
        else:
            counts["passed"] += 1
    return counts


def steps(sizes: Sizes, work: Path) -> Iterator[Step]:
    """Checks and benchmark, the most telling first."""
    about = work / "environment.json"
    code = "import json, sys; from stdnet_core.benchmark import measure; "
    code += "json.dump(measure.machine(), open(sys.argv[1], 'w'))"
    yield Step("environment", "checks", ["-c", code, str(about)], 30, lambda: _read_json(about))
    files = [
        str(path.relative_to(REPOSITORY))
        for path in sorted((REPOSITORY / "test").rglob("test_*.py"))
        if "pytest.mark.cuda" in path.read_text(encoding="utf-8")
    ]
    junit = work / "tests.xml"
    options = ["-q", "-p", "no:cacheprovider", "--timeout=30", "--continue-on-collection-errors", f"--junitxml={junit}"]
    yield Step("tests", "checks", ["-m", "pytest", "-m", "cuda", *options, *files], 60, lambda: test_figures(junit))
    recurrent = [name for name, config in PRESETS.items() if isinstance(config, RecurrentConfig)]

    def benchmark(name: str, limit_s: float, *arguments: str, frames: int = sizes.frames, **environment: str) -> Step:
        path = work / f"{name}.json"
        command = ["-m", "stdnet_core.benchmark", "--devices", sizes.device, "--sizes", sizes.frame, "--scale", "8"]
        command += ["--frames", str(frames), "--keep-going", "--quiet", "--json", str(path), *arguments]
        return Step(name, "benchmark", command, limit_s, lambda: _read_json(path), environment)

    both = ("--precisions", sizes.precisions)
    paper = sizes.paper
    yield benchmark("paper", 75, *paper, *both, "--modes", "naive,latency0,latency8,offline", "--cuda-graphs")
    yield benchmark("live", 25, "--presets", ",".join(recurrent), *both, "--modes", "frame", frames=sizes.live_frames)
    for choice in ("grid_sample", "triton"):
        arguments = (*paper, "--precisions", sizes.precisions.split(",")[0], "--modes", "latency0", "--cuda-graphs")
        yield benchmark(f"deformable_{choice}", 25, *arguments, STDNET_DEFORM_CONV=choice)
    for latency in (0, 8):
        arguments = (*paper, *both, "--modes", f"latency{latency}", *sizes.compiled)
        yield benchmark(f"compiled_latency{latency}", 90, *arguments)
    yield benchmark("small", 25, "--presets", sizes.others, *both, "--modes", "latency0", "--cuda-graphs")


def slice_step(
    sizes: Sizes, number: int, seconds: float, start: Path, output: Path, options: argparse.Namespace
) -> Step:
    """The next training slice, all in all ``seconds`` long."""
    command = ["-m", "stdnet_core.training.gpu_slice", "--config", options.config]
    command += ["--from", str(start), "--output", str(output), "--minutes", f"{seconds / 60:.3f}"]
    if options.shards is not None:
        command += ["--shards", str(options.shards)]
    command += [*sizes.training, *options.overrides]
    figures = output / "slice.json"
    return Step(f"slice{number}", "training", command, seconds + 30, lambda: _read_json(figures))


# --- running them -----------------------------------------------------------------------------------------------------


class GpuMeter:
    """Samples the GPU's use with ``nvidia-smi`` twice a second; without that it has nothing to say."""

    def __enter__(self) -> GpuMeter:
        self.samples: list[tuple[float, float]] = []
        self._process = None
        query = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu,memory.used",
            "--format=csv,noheader,nounits",
            "-lms",
            "500",
        ]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def _read(self) -> None:
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                use, memory = line.split(",")
                self.samples.append((float(use), float(memory)))

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join(2)

    def figures(self) -> dict[str, float]:
        """Mean use in per cent, and the most memory in MB."""
        if not self.samples:
            return {}
        use, memory = zip(*self.samples, strict=True)
        return {"gpu_percent": round(sum(use) / len(use), 1), "gpu_memory_mb": max(memory)}


def run_step(step: Step, limit_s: float, log: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run one step to its end or its limit.

    Returns:
        ``outcome`` ("done", "failed" or "timed out"), ``seconds``, use of CPU and GPU, its last lines, its figures.
    """
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment, **step.environment}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), variables.get("PYTHONPATH")]))
    with open(log, "ab") as file, GpuMeter() as meter:
        file.write(f"\n=== {step.name} (at most {limit_s:.0f} s): python {' '.join(step.command)}\n".encode())
        file.flush()
        position = file.tell()
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=REPOSITORY,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    with open(log, "rb") as file:
        file.seek(position)
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    result: dict[str, Any] = {
        "outcome": "timed out" if status is None else "done" if status == 0 else "failed",
        "status": status,
        "seconds": round(seconds, 1),
        "cpu_cores": round(cpu / seconds, 2),
        **meter.figures(),
        "last_lines": [line[:300] for line in lines if line.strip()][-_TAIL:],
    }
    try:
        result["figures"] = step.figures()
    except Exception as error:  # a file cut off by a kill
        result["figures"] = {"unreadable": str(error)}
    return result


def _end(process: subprocess.Popen) -> None:
    """End a process and those it has started: first politely, for training saves its state then."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


class Session:
    """Runs steps within the time allowed and keeps the output folder up to date.

    Args:
        output: folder of the results.
        deadline: ``time.monotonic()`` at which all must be written.
        sizes: of what is done.
        about: values for the top of the results.
    """

    def __init__(self, output: Path, deadline: float, sizes: Sizes, about: dict[str, Any]) -> None:
        self.output, self.deadline, self.sizes = output, deadline, sizes
        self.results: dict[str, Any] = {**about, "steps": {}}
        self._left = {name: seconds * sizes.patience for name, seconds in GROUPS.items()}
        output.mkdir(parents=True, exist_ok=True)
        (output / LOG).unlink(missing_ok=True)
        self.write()

    def left(self) -> float:
        """Seconds until what remains is writing."""
        return self.deadline - time.monotonic() - _END_S

    def run(self, step: Step) -> dict[str, Any]:
        """Run a step, or note that there is no time for it."""
        limit = min(step.limit_s * self.sizes.patience, self._left[step.group], self.left())
        if limit < min(_SHORTEST_S, step.limit_s):
            result: dict[str, Any] = {"outcome": "skipped", "reason": "no time left"}
        else:
            result = run_step(step, limit, self.output / LOG, self.sizes.environment)
            self._left[step.group] -= result["seconds"]
        self.results["steps"][step.name] = {"group": step.group, **result}
        self.write()
        print(describe(step.name, result), flush=True)
        return result

    def write(self) -> None:
        """Write the results so far, as a whole."""
        temporary = self.output / (RESULTS + ".partial")
        temporary.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.output / RESULTS)


def describe(name: str, result: dict[str, Any]) -> str:
    """A step's result in a line, and why where it is not done."""
    line = f"{name:22} {result['outcome']:9}"
    if "seconds" in result:
        line += f" {result['seconds']:6.1f} s, {result['cpu_cores']:.1f} cores"
    if "gpu_percent" in result:
        line += f", GPU {result['gpu_percent']:.0f} %"
    figures = result.get("figures", {})
    if "passed" in figures:
        line += f"; {figures['passed']} passed, {figures['failed']} failed, {figures['skipped']} skipped"
    if "measurements" in figures:
        line += f"; {len(figures['measurements'])} measured, {len(figures['failed'])} failed"
    if "steps_per_s" in figures:
        line += (
            f"; steps {figures['first_step']} to {figures['last_step']}, {figures['steps_per_s']:.1f} a second, "
            f"{100 * figures['waiting_for_data']:.0f} % waiting for data"
        )
    if figures.get("diverged"):
        line += "; diverged"
    if result["outcome"] in ("failed", "timed out"):
        line += "".join(f"\n    {text}" for text in result["last_lines"])
    return line


def _train(session: Session, work: Path, options: argparse.Namespace) -> None:
    """Slices until the time is over: one, and another after each that ends early because it diverged."""
    from stdnet_core.training import shards

    start, output = options.start, work / TRAINING
    for number in range(1, session.sizes.slices + 1):
        seconds = min(session.left() - _SLICE_MARGIN_S, session.sizes.longest_slice_s)
        if options.slice_minutes is not None:
            seconds = min(seconds, 60 * options.slice_minutes)
        if seconds < session.sizes.shortest_slice_s:
            break
        result = session.run(slice_step(session.sizes, number, seconds, start, output, options))
        if not output.is_dir():
            break
        written = shards.pack(output, session.output, FILE_MB, TRAINING)
        session.results["training_files"] = [path.name for path in written]
        session.write()
        start = output
        if result["outcome"] != "done":
            break


# --- taking over ------------------------------------------------------------------------------------------------------

_BEGIN, _FINISH = "<!-- measured: begin -->", "<!-- measured: end -->"


def take_over(came_back: Path, runs: Path, page: Path) -> list[str]:
    """Put what a session left where it belongs.

    The state and the weights go to ``runs``, where the next session goes on; results are joined with those of earlier
    sessions there, step by step; the tables of ``page`` are made anew from these.

    Returns:
        What was done, in lines.

    Raises:
        ConfigError: there is nothing, it is a dry run's, or it is older than what is in ``runs``.
    """
    from stdnet_core.training import compact, shards

    results = _read_json(came_back / RESULTS)
    if not results:
        raise ConfigError(f"{came_back} holds no {RESULTS}; give the output folder of a session")
    known = _read_json(runs / RESULTS)
    if results["dry_run"] and page.resolve() == (REPOSITORY / "docs" / "gpu.md").resolve():
        raise ConfigError(f"{came_back} is of a dry run, which measures nothing; give --page FILE to try the tables")
    if page.is_file() and _BEGIN not in page.read_text(encoding="utf-8"):
        raise ConfigError(f"{page} has no line {_BEGIN}, after which the tables would go")
    lines = []
    if any(came_back.glob(f"{TRAINING}_*.zip")):
        with tempfile.TemporaryDirectory() as place:
            shards.unpack(came_back, place, TRAINING)
            if (Path(place) / "compact" / compact.INDEX).is_file():
                step = compact.read(Path(place) / "compact").step
                there = (runs / "compact" / compact.INDEX).is_file()
                before = compact.read(runs / "compact").step if there else 0
                if step < before:
                    raise ConfigError(
                        f"{came_back} ends at step {step}, but {runs} is at step {before} already; move one away"
                    )
                shutil.rmtree(runs / "compact", ignore_errors=True)
                lines.append(f"training: step {before} to {step}; state and weights are in {runs}")
            shutil.copytree(place, runs, dirs_exist_ok=True)
            if not (Path(place) / "diverged.txt").is_file():
                (runs / "diverged.txt").unlink(missing_ok=True)
    joined = {**results, "steps": {**known.get("steps", {}), **_worth_keeping(results["steps"], known)}}
    runs.mkdir(parents=True, exist_ok=True)
    (runs / RESULTS).write_text(json.dumps(joined, indent=1) + "\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{_BEGIN}\n{_FINISH}\n"
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_FINISH)[2]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{head}{_BEGIN}\n\n{tables(joined)}\n\n{_FINISH}{tail}", encoding="utf-8")
    lines.append(f"tables: {page}")
    lines += [f"{name}: {r['outcome']}" for name, r in results["steps"].items() if r["outcome"] != "done"]
    return lines


def _worth_keeping(new: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Steps that did something, and those of which nothing better is known."""
    before = known.get("steps", {})
    return {name: step for name, step in new.items() if step["outcome"] != "skipped" or name not in before}


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    done = results["steps"]
    about = done.get("environment", {}).get("figures", {})
    where = f"{about.get('gpu') or about.get('processor', 'an unknown machine')}, torch {about.get('torch', '?')}"
    parts = [f"{where}, {results['date']}." + (" A dry run: these figures mean nothing." if results["dry_run"] else "")]
    tests = done.get("tests", {}).get("figures", {})
    if tests:
        failed = "".join(f"\n- `{name}`: {text}" for name, text in tests["failures"].items())
        parts.append(f"Tests: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped.{failed}")
    rows = [
        "| model | size | precision | mode | deformable | ms: median | p95 | frames/s | GFLOP | % of peak | state MB | "
        "peak MB | times naive |"
    ]
    rows.append("|" + "---|" * (rows[0].count("|") - 1))
    peaks: dict[str, float] = {}
    naive: dict[tuple, float] = {}
    seen = set()
    failures = []
    for name, step in done.items():
        figures = step.get("figures", {})
        peaks |= figures.get("peaks_gflops", {})
        failures += (
            [f"{name}: {line}: {why}" for line, why in figures.get("failed", {}).items()]
            if "measurements" in figures
            else []
        )
        choice = name.removeprefix("deformable_") if name.startswith("deformable_") else ""
        for row in figures.get("measurements", []):
            case = (row["model"], row["size"], row["scale"])
            if row["mode"] == "naive":
                naive[case] = row["median_ms"]
            key = (*case, row["precision"], row["mode"], row["engine"], choice)
            if key not in seen:
                seen.add(key)
                rows.append(_row(row, choice, naive.get(case)))
    if seen:
        parts.append("Matrix products: " + ", ".join(f"{v / 1e3:.1f} TFLOP/s ({k})" for k, v in peaks.items()) + ".")
        parts.append("\n".join(rows))
    if failures:
        parts.append("What failed:\n" + "\n".join(f"- {line}" for line in failures))
    slices = [(name, step) for name, step in done.items() if step["group"] == "training" and step.get("figures")]
    if slices:
        parts.append(_slices_table(slices))
    rows = ["| step | outcome | seconds | cores used | GPU % | GPU memory MB |", "|---|---|---|---|---|---|"]
    for name, step in done.items():
        cells = [step.get(k, "") for k in ("outcome", "seconds", "cpu_cores", "gpu_percent", "gpu_memory_mb")]
        rows.append("| " + " | ".join(map(str, [name, *cells])) + " |")
    parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _row(row: dict[str, Any], choice: str, naive_ms: float | None) -> str:
    mode = row["mode"] if row["engine"] == "eager" else f"{row['mode']}, {row['engine']}"
    ratio = "" if naive_ms is None else f"{naive_ms / row['median_ms']:.1f}"
    cells = [
        row["model"],
        f"{row['size']} x{row['scale']}",
        row["precision"],
        mode,
        choice,
        f"{row['median_ms']:.2f}",
        f"{row['p95_ms']:.2f}",
        f"{row['frames_per_s']:.1f}",
        "" if row["gflop"] is None else f"{row['gflop']:.1f}",
        "" if row["peak_share"] is None else f"{100 * row['peak_share']:.1f}",
        f"{row['state_mb']:.1f}",
        f"{row['peak_mb']:.0f}",
        ratio,
    ]
    return "| " + " | ".join(cells) + " |"


def _slices_table(slices: list[tuple[str, dict[str, Any]]]) -> str:
    lines = [
        "| slice | configuration | steps | steps/s | frames/s | waiting for data | GPU % | validation score | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, step in slices:
        f = step["figures"]
        score = f.get("validation", {}).get("score")
        cells = [
            name,
            f.get("config", ""),
            f"{f.get('first_step')} to {f.get('last_step')}",
            f.get("steps_per_s", ""),
            f.get("frames_per_s", ""),
            f"{100 * f['waiting_for_data']:.0f} %" if "waiting_for_data" in f else "",
            step.get("gpu_percent", ""),
            "" if score is None else f"{score:.4f}",
            "diverged" if f.get("diverged") else "",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


# --- command line -----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_session.sh", description="Use a GPU that is there for minutes: check, measure, train."
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY.SUB=VALUE", help="change the training's configuration")
    parser.add_argument("--output", type=Path, default=Path("gpu_session"), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=9.0, help="all in all (default: %(default)s)")
    parser.add_argument("--groups", default=",".join(GROUPS), help="what to do (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="all steps on the CPU in tiny sizes")
    parser.add_argument("--config", default="live_wide", help="of the training (default: %(default)s)")
    parser.add_argument("--from", dest="start", type=Path, help="state to go on from (default: runs/gpu)")
    parser.add_argument("--shards", type=Path, help="folder of shards of clips (default: runs/shards, if any)")
    parser.add_argument("--slice-minutes", type=float, help="length of a slice (default: all the time left)")
    parser.add_argument("--take-over", type=Path, metavar="FOLDER", help="take over what a session left, and end")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="where to (default: %(default)s)")
    parser.add_argument(
        "--page", type=Path, default=REPOSITORY / "docs" / "gpu.md", help="tables (default: docs/gpu.md)"
    )
    parser.add_argument("--setup-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; ``arguments`` default to those of the process. The status: 1 if a step failed."""
    started = time.monotonic()
    options = _parser().parse_intermixed_args(arguments)
    if options.take_over is not None:
        print("\n".join(take_over(options.take_over, options.runs, options.page)))
        return 0
    wanted = options.groups.split(",")
    unknown = sorted(set(wanted) - set(GROUPS))
    if unknown:
        raise ConfigError(f"there are no groups {', '.join(unknown)}; choose among {', '.join(GROUPS)}")
    if not options.minutes > 0:
        raise ConfigError(f"--minutes is {options.minutes}; give a positive number")
    sizes = DRY_RUN if options.dry_run else Sizes()
    options.output = options.output.resolve()
    deadline = started - options.setup_seconds + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="stdnet_gpu_") as place:
        work = Path(place)
        if options.dry_run:
            sizes = dataclasses.replace(sizes, paper=_dry_network(work))
        if options.start is None:  # a rehearsal must not go on from the real thing
            options.start = work / "nothing" if options.dry_run else Path("runs/gpu")
        options.start = options.start.resolve()
        options.shards = None if options.shards is None else options.shards.resolve()
        about = {"date": time.strftime("%Y-%m-%d"), "dry_run": options.dry_run, "minutes": options.minutes}
        about |= {"setup_seconds": options.setup_seconds, "groups": wanted}
        session = Session(options.output, deadline, sizes, about)
        for step in steps(sizes, work):
            if step.group in wanted:
                session.run(step)
        if "training" in wanted:
            _train(session, work, options)
    session.results["seconds"] = round(options.setup_seconds + time.monotonic() - started, 1)
    session.write()
    (options.output / "report.md").write_text(tables(session.results) + "\n", encoding="utf-8")
    print(f"{session.results['seconds']:.0f} s in all; results in {options.output}")
    return 1 if any(s["outcome"] in ("failed", "timed out") for s in session.results["steps"].values()) else 0


if __name__ == "__main__":
    run_cli(main)
