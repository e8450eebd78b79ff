"""The session on a GPU, rehearsed: every step, its limits, and what is taken over."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stdnet_core.errors import ConfigError
from stdnet_core.gpu_session import __main__ as program
from stdnet_core.gpu_session import results as results_module
from stdnet_core.gpu_session import session as session_module
from stdnet_core.gpu_session import steps as steps_module
from stdnet_core.gpu_session.results import take_over
from stdnet_core.gpu_session.session import Session
from stdnet_core.gpu_session.steps import GROUPS, RESULTS, Sizes, Step
from stdnet_core.training import compact

REPOSITORY = Path(__file__).resolve().parents[3]


def session(folder: Path, seconds: float = 60.0, **changes) -> Session:
    sizes = dataclasses.replace(Sizes(), **changes)
    return Session(
        folder, time.monotonic() + seconds + session_module._END_S, sizes, {"dry_run": True, "date": "today"}
    )


def python(name: str, code: str, limit_s: float = 30.0, **fields) -> Step:
    return Step(name, "benchmark", ["-c", code], limit_s, **fields)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dry_run_goes_through_every_step_and_is_taken_over(tmp_path):
    out, runs, page = tmp_path / "out", tmp_path / "runs", tmp_path / "gpu.md"
    script = ["bash", str(REPOSITORY / "scripts" / "gpu_session.sh")]
    environment = {**os.environ, "PYTHON": sys.executable}
    dry_run = [*script, "--dry-run", "--output", str(out)]
    done = subprocess.run(dry_run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((out / RESULTS).read_text())
    planned = [step.name for step in steps_module.steps(Sizes(), tmp_path)]
    assert list(results["steps"]) == [*planned, "slice1", "slice2"]
    assert {step["group"] for step in results["steps"].values()} == set(GROUPS)
    assert {step["outcome"] for step in results["steps"].values()} == {"done"}
    figures = {name: step["figures"] for name, step in results["steps"].items()}
    assert figures["environment"]["torch"]
    assert figures["tests"]["passed"] > 10
    modes = [row["mode"] for row in figures["paper"]["measurements"]]
    assert modes == ["naive", "latency0", "latency8", "offline"]
    assert all(value["measurements"] and not value["failed"] for value in figures.values() if "measurements" in value)
    assert figures["slice1"]["last_step"] == figures["slice2"]["first_step"] > 0
    assert figures["slice2"]["steps_per_s"] > 0
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) < 15e6

    taken = [*script, "--take-over", str(out), "--runs", str(runs), "--page", str(page)]
    subprocess.run(taken, env=environment, capture_output=True, text=True, check=True)
    assert compact.read(runs / "compact").step == figures["slice2"]["last_step"]
    text = page.read_text()
    assert "these figures mean nothing" in text
    assert "| paper | 32x24 x8 | fp32 | naive |" in text
    assert "| slice2 | live_wide |" in text


def test_a_step_that_fails_hangs_or_crashes_stops_no_other(tmp_path):
    run = session(tmp_path)
    figures = tmp_path / "figures.json"
    write = f"open({str(figures)!r}, 'w').write('{{\"measurements\": [], \"failed\": {{}}}}')"
    run.run(python("fails", f"{write}; print('last words'); raise SystemExit(3)", figures=lambda: {"kept": 1}))
    hangs = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(99)"
    )
    began = time.monotonic()
    grace, session_module._GRACE_S = session_module._GRACE_S, 0.5
    try:
        run.run(python("hangs", hangs, 3.0))
    finally:
        session_module._GRACE_S = grace
    assert time.monotonic() - began < 15
    run.run(python("crashes", "import os; os.kill(os.getpid(), 11)"))
    run.run(python("works", "import os; print(os.environ['EXTRA'])", environment={"EXTRA": "heard"}))
    results = json.loads((tmp_path / RESULTS).read_text())["steps"]
    assert [r["outcome"] for r in results.values()] == ["failed", "timed out", "failed", "done"]
    assert results["fails"]["status"] == 3
    assert results["fails"]["last_lines"] == ["last words"]
    assert results["fails"]["figures"] == {"kept": 1}
    assert results["works"]["last_lines"] == ["heard"]
    assert "on" in (tmp_path / "log.txt").read_text()


def test_time_is_shared_out_over_steps_groups_and_the_session(tmp_path):
    run = session(tmp_path, seconds=100)
    run._left["benchmark"] = 8.0
    assert run.run(python("sleeps", "import time; time.sleep(30)", 6.0))["outcome"] == "timed out"
    assert run.run(python("late", ""))["outcome"] == "skipped"
    assert run.run(Step("other", "checks", ["-c", ""], 30.0))["outcome"] == "done"
    over = session(tmp_path, seconds=-1)
    assert over.run(python("late", ""))["outcome"] == "skipped"
    assert json.loads((tmp_path / RESULTS).read_text())["steps"]["late"]["reason"] == "no time left"


def test_tests_are_counted_with_their_reasons(tmp_path):
    (tmp_path / "t.xml").write_text(
        '<testsuites><testsuite><testcase classname="test.test_a" name="one"/>'
        '<testcase classname="test.test_a" name="two"><failure message="assert 1 == 2&#10;more">x</failure></testcase>'
        '<testcase classname="test.test_b" name="three"><skipped message="no CUDA device"/></testcase>'
        "</testsuite></testsuites>"
    )
    figures = steps_module.test_figures(tmp_path / "t.xml")
    assert (figures["passed"], figures["failed"], figures["skipped"]) == (1, 1, 1)
    assert figures["failures"] == {"test_a.two": "assert 1 == 2"}
    assert figures["reasons"] == {"test_b.three": "no CUDA device"}


def measured(mode: str, median: float, engine: str = "eager") -> dict:
    row = dict(model="base", size="640x480", scale=8, device="cuda:0", precision="bf16", mode=mode, engine=engine)
    row |= dict(frames=24, median_ms=median, p95_ms=median, p99_ms=median, frames_per_s=1e3 / median, calls=1)
    return row | dict(gflop=400.0, peak_share=0.25, state_mb=1.0, peak_mb=900.0, speedup=None)


def came_back(folder: Path, dry_run: bool, **steps: dict) -> Path:
    folder.mkdir()
    results = {"date": "2026-11-29", "dry_run": dry_run, "steps": steps}
    (folder / RESULTS).write_text(json.dumps(results))
    return folder


def benchmark_step(*rows: dict, **failed: str) -> dict:
    figures = {"measurements": list(rows), "failed": failed, "peaks_gflops": {"cuda:0 bf16": 7.8e5}}
    return {"group": "benchmark", "outcome": "failed" if failed else "done", "seconds": 9.0, "figures": figures}


def test_results_of_two_sessions_become_one_page(tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text("# GPU\n\n<!-- measured: begin -->\nold\n<!-- measured: end -->\n\nAfter.\n")
    skipped = {"group": "benchmark", "outcome": "skipped", "reason": "no time left"}
    first = came_back(
        tmp_path / "first",
        False,
        paper=benchmark_step(measured("naive", 900.0), measured("latency0", 30.0)),
        compiled_latency0=skipped,
    )
    take_over(first, tmp_path / "runs", page)
    second = came_back(
        tmp_path / "second",
        False,
        paper=skipped,
        compiled_latency0=benchmark_step(measured("latency0", 10.0, "compiled"), graph="out of memory"),
    )
    lines = take_over(second, tmp_path / "runs", page)
    text = page.read_text()
    assert text.startswith("# GPU\n\n<!-- measured: begin -->")
    assert text.endswith("<!-- measured: end -->\n\nAfter.\n")
    assert "old" not in text
    assert "| base | 640x480 x8 | bf16 | latency0 |  | 30.00 | 30.00 | 33.3 | 400.0 | 25.0 | 1.0 | 900 | 30.0 |" in text
    assert "| base | 640x480 x8 | bf16 | latency0, compiled |  | 10.00 |" in text
    assert "compiled_latency0: graph: out of memory" in text
    assert "780.0 TFLOP/s (cuda:0 bf16)" in text
    assert "paper: skipped" in lines
    assert "compiled_latency0: failed" in lines


def test_what_must_not_be_taken_over_is_refused(tmp_path):
    page = tmp_path / "gpu.md"
    with pytest.raises(ConfigError, match="holds no results"):
        take_over(tmp_path, tmp_path / "runs", page)
    with pytest.raises(ConfigError, match="dry run, which measures nothing"):
        take_over(came_back(tmp_path / "dry", True), tmp_path / "runs", REPOSITORY / "docs" / "gpu.md")
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="has no line"):
        take_over(came_back(tmp_path / "real", False), tmp_path / "runs", page)
    with pytest.raises(ConfigError, match="unknown groups of steps: paint"):
        program.main(["--groups", "checks,paint"])


def test_the_page_of_the_docs_can_take_tables():
    text = (REPOSITORY / "docs" / "gpu.md").read_text()
    assert text.index(results_module._BEGIN) < text.index(results_module._FINISH)
