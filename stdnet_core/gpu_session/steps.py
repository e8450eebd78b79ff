"""The steps of a session, the most informative first, and their sizes on a GPU and in a dry run on the CPU."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stdnet_core.model import PRESETS, ModelConfig, RecurrentConfig, build

RESULTS, LOG, TRAINING = "results.json", "log.txt", "training"
GROUPS = {"checks": 60.0, "benchmark": 180.0, "training": float("inf")}
"""Groups of steps in their order -> time limit of the group in seconds."""
REPOSITORY = Path(__file__).resolve().parents[2]
_SHORTEST_SLICE_S = 60.0
SLICE_MARGIN_S = 25.0
"""Reserved for the start of a slice, and for a last validation that takes longer than planned."""


@dataclass(frozen=True)
class Sizes:
    """What a session measures and trains, and its sizes.

    Attributes:
        device: of the benchmark.
        paper: the network to measure in all modes, as arguments of the benchmark.
        others: further presets.
        precisions: to measure.
        compiled: arguments of the benchmark for compiled streams.
        shortest_slice_s, longest_slice_s: of training.
        slices: largest number of slices.
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
"""The dry run on the CPU: the same steps in tiny sizes, but without the compiler, which takes minutes."""
_DRY_NETWORK = dict(channels=4, head_channels=4, trunk_blocks=1, reconstruction_blocks=1, fusion_blocks=1, stages=1)


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        command: arguments of ``python``.
        limit_s: its own time limit; those of its group and of the session also apply.
        figures: reads its results, also after a failure.
        environment: additional variables.
    """

    name: str
    group: str
    command: list[str]
    limit_s: float
    figures: Callable[[], dict[str, Any]] = dict
    environment: dict[str, str] = field(default_factory=dict)


def dry_network(work: Path) -> tuple[str, ...]:
    """A tiny STDNet, as arguments of the benchmark."""
    from stdnet_core import checkpoints

    model = build(ModelConfig.preset("tiny", **_DRY_NETWORK)).eval()
    checkpoints.save(work / "paper.safetensors", model, checkpoints.CheckpointInfo(model.config, (8,), None))
    return "--presets", "", "--checkpoints", str(work / "paper.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def test_figures(path: Path) -> dict[str, Any]:
    """Numbers of passed, failed and skipped tests from a JUnit file, with reasons for the last two."""
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
    """Checks and benchmark, the most informative first."""
    about = work / "environment.json"
    code = "import json, sys; from stdnet_core.benchmark import measure; "
    code += "json.dump(measure.machine(), open(sys.argv[1], 'w'))"
    yield Step("environment", "checks", ["-c", code, str(about)], 30, lambda: read_json(about))
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
        return Step(name, "benchmark", command, limit_s, lambda: read_json(path), environment)

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
    """The next training slice, which takes ``seconds`` in total."""
    command = ["-m", "stdnet_core.training.gpu_slice", "--config", options.config]
    command += ["--from", str(start), "--output", str(output), "--minutes", f"{seconds / 60:.3f}"]
    if options.shards is not None:
        command += ["--shards", str(options.shards)]
    command += [*sizes.training, *options.overrides]
    figures = output / "slice.json"
    return Step(f"slice{number}", "training", command, seconds + 30, lambda: read_json(figures))
