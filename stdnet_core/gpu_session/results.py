"""Results of a session: merges them with earlier ones and generates the tables of docs/gpu.md."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from stdnet_core.errors import ConfigError
from stdnet_core.gpu_session.steps import REPOSITORY, RESULTS, TRAINING, read_json

_BEGIN, _FINISH = "<!-- measured: begin -->", "<!-- measured: end -->"


def take_over(came_back: Path, runs: Path, page: Path) -> list[str]:
    """Take over the results of a session.

    The state and the weights are copied to ``runs``, from where the next session resumes. The results are merged, step
    by step, with those of earlier sessions there, and the tables of ``page`` are generated from them.

    Returns:
        What was done, in lines.

    Raises:
        ConfigError: there are no results, they are from a dry run (for docs/gpu.md), the page has no place for the
            tables, or the state is older than the one in ``runs``.
    """
    from stdnet_core.training import compact, shards

    results = read_json(came_back / RESULTS)
    if not results:
        raise ConfigError(f"{came_back} holds no {RESULTS}; give the output folder of a session")
    known = read_json(runs / RESULTS)
    if results["dry_run"] and page.resolve() == (REPOSITORY / "docs" / "gpu.md").resolve():
        raise ConfigError(f"{came_back} is from a dry run, which measures nothing; use --page FILE to try the tables")
    if page.is_file() and _BEGIN not in page.read_text(encoding="utf-8"):
        raise ConfigError(f"{page} has no line {_BEGIN}, which marks the place for the tables")
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
                        f"{came_back} ends at step {step}, but {runs} is already at step {before}; move one away"
                    )
                shutil.rmtree(runs / "compact", ignore_errors=True)
                lines.append(f"training: steps {before} to {step}; state and weights are in {runs}")
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
    """All new steps, except skipped ones that have an earlier result."""
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
    naive: dict[tuple[Any, ...], float] = {}
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
        parts.append("Failed measurements:\n" + "\n".join(f"- {line}" for line in failures))
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
