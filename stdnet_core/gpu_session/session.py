"""Runs steps, each as a process with a time limit, and keeps the results so far in the output folder."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stdnet_core.gpu_session.steps import GROUPS, LOG, REPOSITORY, RESULTS, Sizes, Step

_END_S = 20.0
"""Reserved at the end, for writing."""
_GRACE_S = 20.0
"""Time for a process to end after SIGTERM."""
_SHORTEST_S = 5.0
_TAIL = 12


class GpuMeter:
    """Samples the GPU's utilisation and memory with ``nvidia-smi`` twice a second; without it, there are no figures."""

    def __enter__(self) -> GpuMeter:
        self.samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None
        query = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu,memory.used",
            "--format=csv,noheader,nounits",
            "-lms",
            "500",
        ]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
            self._thread.start()
        return self

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            with contextlib.suppress(ValueError):
                use, memory = line.split(",")
                self.samples.append((float(use), float(memory)))

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._thread.join(2)

    def figures(self) -> dict[str, float]:
        """Mean utilisation in per cent, and peak memory in MB."""
        if not self.samples:
            return {}
        use, memory = zip(*self.samples, strict=True)
        return {"gpu_percent": round(sum(use) / len(use), 1), "gpu_memory_mb": max(memory)}


def run_step(step: Step, limit_s: float, log: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run one step until it ends or reaches its time limit.

    Returns:
        ``outcome`` ("done", "failed" or "timed out"), ``seconds``, use of CPU and GPU, last lines of output, figures.
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
    except Exception as error:  # a file that is incomplete because the process was killed
        result["figures"] = {"unreadable": str(error)}
    return result


def _end(process: subprocess.Popen[Any]) -> None:
    """End a process and its children: first with SIGTERM, on which training saves its state."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


class Session:
    """Runs steps within the time limit and keeps the output folder up to date.

    Args:
        output: folder of the results.
        deadline: ``time.monotonic()`` by which everything must be written.
        sizes: of the steps.
        about: values at the top of the results.
    """

    def __init__(self, output: Path, deadline: float, sizes: Sizes, about: dict[str, Any]) -> None:
        self.output, self.deadline, self.sizes = output, deadline, sizes
        self.results: dict[str, Any] = {**about, "steps": {}}
        self._left = {name: seconds * sizes.patience for name, seconds in GROUPS.items()}
        output.mkdir(parents=True, exist_ok=True)
        (output / LOG).unlink(missing_ok=True)
        self.write()

    def left(self) -> float:
        """Seconds left for steps, without the time reserved for writing."""
        return self.deadline - time.monotonic() - _END_S

    def run(self, step: Step) -> dict[str, Any]:
        """Run a step, or record that there is no time for it."""
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
        """Write the results so far; the file is replaced as a whole."""
        temporary = self.output / (RESULTS + ".partial")
        temporary.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.output / RESULTS)


def describe(name: str, result: dict[str, Any]) -> str:
    """A step's result in one line, followed by its last output if it failed or timed out."""
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
