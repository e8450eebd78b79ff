"""Runs of training: learning, going on after a kill, several processes, compact state, divergence."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_fixtures import command, environment, small_config, start, write_clip

from stdnet_core import checkpoints
from stdnet_core.errors import CheckpointError, ConfigError
from stdnet_core.training import compact, gpu_slice
from stdnet_core.training import state as run_state
from stdnet_core.training.keeper import read_log
from stdnet_core.training.lock import FILE_NAME, locked
from stdnet_core.training.module import TrainingDiverged
from stdnet_core.training.run import run

UNVARIED = (
    "data.augmentation={flip_horizontal: 0, flip_vertical: 0, transpose: 0, reverse: 0, gamma: [1,1], exposure: [1,1], "
    "contrast: [1,1], balance: [1,1], depth_gain: [1,1]}"
)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_log(folder / "log.jsonl") if "loss" in line]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clips" / "clip")
    return tmp_path / "clips"


@pytest.mark.slow
def test_one_clip_is_learned_by_heart(tmp_path: Path) -> None:
    root = tmp_path / "one"
    write_clip(root / "clip", frames=2, height=32, width=32)
    config = small_config(
        root,
        "model={preset: tiny_causal, channels: 16, head_channels: 16, trunk_blocks: 1, reconstruction_blocks: 1}",
        "model.uncertainty=false",
        "loss.regularization_weight=0",
        "data.batch_size=1",
        "data.scales={4: 1}",
        "data.sensors={presets: {exact: 1}, uniform: {dtof.jitter_bins: [0,0]}, log_uniform: {dtof.range_m: [10,10]}}",
        "data.normalization.gain=[1,1]",
        UNVARIED,
        "val.cells=[exact@4]",
        "optim={steps: 450, lr: 3.0e-3, ema: 0.9, clip_norm: 0}",
    )
    result = run(config, tmp_path / "run")
    history = losses(tmp_path / "run")
    assert len(history) == 450
    assert history[0] / history[-1] > 20
    (figures,) = (v for k, v in result.figures.items() if k.endswith("@4"))
    assert figures["mae_ratio"] < 0.1
    model, info = checkpoints.load(tmp_path / "run" / "best.safetensors")
    assert model.config == info.config
    assert info.scales == (4,)
    assert info.depth_range is None
    assert info.provenance["step"] == 450
    assert str(tmp_path) not in json.dumps(info.provenance)


@pytest.mark.slow
def test_killed_run_goes_on_as_if_it_had_not_been(clips: Path, tmp_path: Path) -> None:
    settings = ("trainer.save_minutes=0", "data.scales={4: 1, 8: 1}", "optim.schedule=constant")
    child = start(clips, tmp_path / "killed", *settings, "optim.steps=100000")
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "killed")) < 5 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    child.kill()
    output, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL, output
    done = run_state.read(tmp_path / "killed" / run_state.FILE_NAME).step
    assert done >= 4
    config = small_config(clips, *settings, f"optim.steps={done + 6}")
    assert run(config, tmp_path / "killed").first_step == done
    run(config, tmp_path / "whole")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    killed, whole = (run_state.read(tmp_path / n / run_state.FILE_NAME).tensors() for n in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)


def test_a_kill_while_writing_leaves_the_previous_state(clips: Path, tmp_path: Path) -> None:
    run(small_config(clips, "optim.steps=2"), tmp_path / "run")
    (tmp_path / "run" / (run_state.FILE_NAME + ".partial")).write_bytes(b"half of it")
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')
    result = run(small_config(clips, "optim.steps=3"), tmp_path / "run")
    assert (result.first_step, result.last_step) == (2, 3)
    assert [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if "loss" in line] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_interrupt_saves(workers: int, clips: Path, tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches the loader's workers too."""
    child = start(clips, tmp_path / "run", "optim.steps=100000", f"data.workers={workers}")
    deadline = time.monotonic() + 120
    while len(losses(tmp_path / "run")) < 3 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGINT)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 130, output
    assert "Traceback" not in output
    assert run_state.read(tmp_path / "run" / run_state.FILE_NAME).step == len(losses(tmp_path / "run"))


def wait_for_steps(child: subprocess.Popen[str], folder: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while len(losses(folder)) < steps and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.02)


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_a_killed_one_leaves_no_lock(clips: Path, tmp_path: Path) -> None:
    """The killed run's loader is another process, which outlives it for some seconds."""
    child = start(clips, tmp_path / "run", "optim.steps=100000", "trainer.save_minutes=0", "data.workers=1")
    try:
        wait_for_steps(child, tmp_path / "run", 2)
        before = (tmp_path / "run" / "config.yaml").stat().st_mtime_ns
        second = command(clips, tmp_path / "run", "optim.steps=3")
        refused = subprocess.run(second, env=environment(), capture_output=True, text=True, check=False)
        assert refused.returncode == 2, refused.stderr
        said = rf"error: process {child.pid} on \S+ since 20\d\d-.* is training into \S+/run; wait until it ends"
        assert re.search(said, refused.stderr)
        assert (tmp_path / "run" / "config.yaml").stat().st_mtime_ns == before
    finally:
        child.kill()
    child.wait()
    lock = tmp_path / "run" / FILE_NAME
    assert f"process {child.pid} " in lock.read_text()
    with locked(tmp_path / "run"):
        assert f"process {os.getpid()} " in lock.read_text()
    assert not lock.exists()
    child.stdout.close()


def test_a_lock_ends_with_its_run(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=f"process {os.getpid()} .* another --output"),
        locked(tmp_path),
    ):
        pass
    assert not (tmp_path / FILE_NAME).exists()
    run(small_config(clips, "optim.steps=1"), folder)
    with pytest.raises(CheckpointError, match="another network"):
        run(small_config(clips, "optim.steps=2", "model.channels=8"), folder)
    with locked(folder), pytest.raises(ConfigError, match="is training into"):
        run(small_config(clips, "optim.steps=2"), folder)
    assert run(small_config(clips, "optim.steps=2"), folder).first_step == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["state", "log"])
def test_a_disk_that_is_full_is_one_error_that_says_what_is_safe(what: str, clips: Path, tmp_path: Path) -> None:
    """The system refuses to let a file grow beyond a limit, as it does where there is no room."""
    run(small_config(clips, "optim.steps=2"), tmp_path / "run")
    folder = tmp_path / ("run" if what != "state" else "fresh")
    limit = (tmp_path / "run" / run_state.FILE_NAME).stat().st_size + (-1000 if what == "state" else 1000)
    if what == "log":
        with open(folder / "log.jsonl", "r+") as log:
            text = log.read()
            line = json.dumps({"step": 1, "note": "x" * (limit - len(text) - 900)}) + "\n"
            log.seek(0)
            log.write(line + text)
    arguments = command(clips, folder, "optim.steps=100000", "trainer.save_minutes=0", f"val.every={2**31}")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # Under make coverage the child would have to write its measurement, too, and could not.
    unmeasured = {name: value for name, value in environment().items() if not name.startswith("COVERAGE_")}
    result = subprocess.run(
        arguments, env=unmeasured, capture_output=True, text=True, check=False, preexec_fn=limited, timeout=200
    )
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (error,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert "cannot be written: File too large" in error
    assert not list(folder.glob("*.partial"))
    if what == "state":
        assert error.startswith(f"error: {folder / run_state.FILE_NAME}")
        assert error.endswith("nothing of this run has been saved; free some space and run the same command again")
        done = 0
    else:
        done = run_state.read(folder / run_state.FILE_NAME).step
        assert done >= 2
        said = rf"everything up to step ({done}|{done - 1}) is safe in .*; free some space, and the same command"
        assert re.search(said, error)
    result = run(small_config(clips, f"optim.steps={done + 2}"), folder)
    assert (result.first_step, result.last_step) == (done, done + 2)


def test_time_allowed_ends_the_run_and_a_finished_run_can_be_extended(clips: Path, tmp_path: Path) -> None:
    result = run(small_config(clips, "optim.steps=100000", "optim.horizon=time"), tmp_path / "timed", minutes=0.05)
    assert not result.finished
    assert not result.interrupted
    rates = [line["lr"] for line in read_log(tmp_path / "timed" / "log.jsonl") if "lr" in line]
    assert rates[-1] < rates[0]
    assert run(small_config(clips, "optim.steps=2"), tmp_path / "short").finished
    again = run(small_config(clips, "optim.steps=2"), tmp_path / "short")
    assert (again.first_step, again.last_step) == (2, 2)
    assert run(small_config(clips, "optim.steps=3"), tmp_path / "short").last_step == 3


def test_time_in_all_is_counted_over_the_calls(clips: Path, tmp_path: Path) -> None:
    """The second call has what the first left, and the schedule goes on instead of starting anew."""
    config = small_config(clips, "optim.steps=100000", "optim.horizon=time")
    state = tmp_path / "run" / run_state.FILE_NAME

    def rates() -> list[float]:
        return [line["lr"] for line in read_log(tmp_path / "run" / "log.jsonl") if "lr" in line]

    # The state has the time of the last step, which may be some way from the end of the time allowed (1.5 s).
    assert run(config, tmp_path / "run", minutes=0.025).finished is False
    first, used = len(rates()), run_state.read(state).seconds
    assert used >= 1.2
    total = 2 * used / 60
    result = run(config, tmp_path / "run", minutes_in_all=total)
    assert result.finished
    assert not result.interrupted
    assert result.seconds > 0.5 * used
    rest = rates()[first:]
    assert rest[0] < 0.6 * config.optim.lr  # half of the time is gone
    assert rest[-1] <= rest[0]
    again = run(config, tmp_path / "run", minutes_in_all=total)
    assert again.finished
    assert again.first_step == again.last_step == result.last_step
    with pytest.raises(ConfigError, match="not both"):
        run(config, tmp_path / "run", minutes=1, minutes_in_all=1)


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_the_joint_batch(clips: Path, tmp_path: Path) -> None:
    settings = ("optim.steps=3", "data.batch_size=4", "data.workers=0")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d")
    child = start(clips, tmp_path / "two", *settings, launcher=(*launcher, "--rdzv-endpoint=localhost:0"))
    output, _ = child.communicate(timeout=240)
    assert child.returncode == 0, output
    run(small_config(clips, *settings), tmp_path / "one")
    one, two = ([line for line in read_log(tmp_path / name / "log.jsonl") if "loss" in line] for name in ("one", "two"))
    assert [line["batch"]["clips"] for line in two] == [2, 2, 2]
    assert [line["batch"]["clips"] for line in one] == [4, 4, 4]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    first, second = (run_state.read(tmp_path / name / run_state.FILE_NAME) for name in ("one", "two"))
    for name, moment in first.moments["exp_avg"].items():
        scale = float(moment.abs().max()) + 1e-6
        torch.testing.assert_close(second.moments["exp_avg"][name], moment, rtol=0, atol=2e-3 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("wild", [False, True])
def test_two_processes_leave_their_group_however_the_run_ends(wild: bool, clips: Path, tmp_path: Path) -> None:
    """The second process has nothing to do while the first validates and saves."""
    script = tmp_path / "leaving.py"
    script.write_text(
        "import os, sys, time\n"
        "import torch\n"
        "from stdnet_core import train\n"
        "from stdnet_core.errors import StdnetError\n"
        "from stdnet_core.training.keeper import Keeper\n"
        "validate = Keeper._validate\n"
        "def slowly(self, module):\n"
        "    time.sleep(1.5)\n"
        "    validate(self, module)\n"
        "Keeper._validate = slowly\n"
        "try:\n"
        "    ended = str(train.main(sys.argv[1:]))\n"
        "except StdnetError as error:\n"
        "    ended = type(error).__name__\n"
        f"saved = os.path.exists(r'{tmp_path}/run/best.safetensors')\n"
        f"with open(r'{tmp_path}/ended' + os.environ['RANK'], 'w') as file:\n"
        "    print(ended, saved, torch.distributed.is_initialized(), file=file)\n"
    )
    settings = (*WILD, "optim.steps=300") if wild else ("optim.steps=2",)
    arguments = command(clips, tmp_path / "run", *settings, "--export-compact", str(tmp_path / "compact"))
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d")
    child = [sys.executable, *launcher, "--rdzv-endpoint=localhost:0", str(script), *arguments[3:]]
    result = subprocess.run(child, env=environment(), check=False, timeout=240, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    expected = ["TrainingDiverged", "False", "False"] if wild else ["0", "True", "False"]
    assert [(tmp_path / f"ended{rank}").read_text().split() for rank in (0, 1)] == [expected] * 2
    assert wild or compact.read(tmp_path / "compact").step == 2


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_clock(clips: Path, tmp_path: Path) -> None:
    script = tmp_path / "rates.py"
    script.write_text(
        "import os, sys\n"
        "from stdnet_core import train\n"
        "from stdnet_core.training.module import TrainingModule\n"
        "begin = TrainingModule.on_train_batch_start\n"
        "def note(self, batch, index):\n"
        "    begin(self, batch, index)\n"
        f"    print(self.lr, file=open(r'{tmp_path}/rates' + os.environ['RANK'], 'a'))\n"
        "TrainingModule.on_train_batch_start = note\n"
        "train.main(sys.argv[1:])\n"
    )
    arguments = command(clips, tmp_path / "run", "optim.horizon=time", "optim.steps=100000", "--max-minutes", "0.08")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d")
    child = [sys.executable, *launcher, "--rdzv-endpoint=localhost:0", str(script), *arguments[3:]]
    subprocess.run(child, env=environment(), check=True, timeout=240, capture_output=True)
    first, second = ((tmp_path / f"rates{rank}").read_text().split() for rank in (0, 1))
    assert len(first) > 3
    assert first == second
    assert len(set(first)) > 3


def test_bf16_learns_as_float_does(clips: Path, tmp_path: Path) -> None:
    for precision in ("32-true", "bf16-mixed"):
        run(small_config(clips, "optim.steps=8", f"trainer.precision={precision}"), tmp_path / precision)
    exact, half = losses(tmp_path / "32-true"), losses(tmp_path / "bf16-mixed")
    assert half != exact
    assert half == pytest.approx(exact, rel=0.05)


def test_accumulated_batches_make_one_step(clips: Path, tmp_path: Path) -> None:
    result = run(small_config(clips, "optim.steps=2", "optim.accumulate=2"), tmp_path / "run")
    assert result.last_step == 2
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "loss" in line]
    assert [line["batch"]["clips"] for line in lines] == [1, 1]


def test_compact_state_goes_on_nearly_alike(clips: Path, tmp_path: Path) -> None:
    run(small_config(clips, "optim.steps=8"), tmp_path / "run")
    exact = run_state.read(tmp_path / "run" / run_state.FILE_NAME)
    assert compact.write(tmp_path / "compact", exact) == []
    rounded = compact.read(tmp_path / "compact")
    assert (rounded.step, rounded.updates, rounded.about) == (exact.step, exact.updates, exact.about)
    for name, tensor in exact.tensors().items():
        tolerance = 2**-8 if name.startswith("exp") else 2**-11
        torch.testing.assert_close(rounded.tensors()[name], tensor, rtol=tolerance, atol=1e-7)
    size = sum(f.stat().st_size for f in (tmp_path / "compact").glob("*.safetensors"))
    assert size < 0.65 * (tmp_path / "run" / run_state.FILE_NAME).stat().st_size
    extended = small_config(clips, "optim.steps=10")
    run(extended, tmp_path / "again", resume_compact=tmp_path / "compact")
    run(extended, tmp_path / "run")
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "run")[8:], rel=0.02)


def test_compact_state_is_split_and_shrinks_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "FILE_LIMIT", 1000)
    weights = {"model.a": torch.randn(30, 40), "model.b": torch.randn(7), "heads.c": torch.randn(1)}
    average = {"a": torch.randn(30, 40), "b": torch.randn(7)}
    moments = {name: {k: torch.rand_like(v) for k, v in weights.items()} for name in run_state.MOMENTS}
    state = run_state.RunState(5, 1.5, weights, average, moments, dict.fromkeys(weights, 5.0), {"seed": 1})
    compact.write(tmp_path, state)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 9
    assert all(file.stat().st_size < 1000 + 1000 for file in files)
    back = compact.read(tmp_path).tensors()
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in state.tensors().items()}
    torch.testing.assert_close(back["weights/model.a"], weights["model.a"], rtol=2**-10, atol=1e-6)
    assert compact.write(tmp_path, state, total_mb=0.0080) == ["exp_avg"]
    assert compact.write(tmp_path, state, total_mb=0.0055) == ["exp_avg", "exp_avg_sq"]
    assert compact.write(tmp_path, state, total_mb=0.0030) == ["exp_avg", "exp_avg_sq", "average"]
    torch.testing.assert_close(compact.read(tmp_path).average["a"], weights["model.a"], rtol=2**-10, atol=1e-6)
    with pytest.raises(CheckpointError, match="weights alone"):
        compact.write(tmp_path, state, total_mb=0.001)
    next(tmp_path.glob("part00*")).unlink()
    with pytest.raises(CheckpointError, match="part00"):
        compact.read(tmp_path)


def test_slices_go_on_from_each_other(clips: Path, tmp_path: Path) -> None:
    from stdnet_core.training import shards

    shards.pack(clips, tmp_path / "shards")
    yaml = tmp_path / "slice.yaml"
    yaml.write_text(
        "data:\n  sources: [{source: 'folder:${data.root}'}]\nval:\n  sources: [{source: 'folder:${data.root}'}]\n"
    )
    config = [o for o in command(clips, tmp_path) if "=" in o and not o.startswith(("data.sources", "val.sources"))]
    steps: list[tuple[int, int]] = []
    for number in range(2):
        summary = gpu_slice.train_slice(
            tmp_path / "gpu",
            tmp_path / "gpu",
            1.0,
            config=str(yaml),
            overrides=(*config, f"optim.steps={2 * number + 2}"),
            shard_folder=tmp_path / "shards",
        )
        steps.append((summary["first_step"], summary["last_step"]))
    assert steps == [(0, 2), (2, 4)]
    assert [line["step"] for line in read_log(tmp_path / "gpu" / "log.jsonl") if "loss" in line] == [1, 2, 3, 4]
    assert checkpoints.load(tmp_path / "gpu" / "last.safetensors")[1].provenance["step"] == 4
    assert compact.read(tmp_path / "gpu" / "compact").step == 4
    assert summary["steps_per_s"] > 0


@pytest.mark.parametrize(("device_seconds", "workers"), [(0.05, 0), (0.5, 6)])
def test_data_are_made_where_that_is_faster(device_seconds, workers, monkeypatch, clips: Path) -> None:
    config = small_config(clips)
    assert 0 < gpu_slice.batch_seconds(config, "cpu") < 10
    seconds = {"cuda": device_seconds, "cpu": 1.2}
    monkeypatch.setattr(gpu_slice, "batch_seconds", lambda config, device: seconds[device])
    choice = gpu_slice.choose_workers(config, "cuda", cores=8)
    assert choice == {"on_device": device_seconds, "by_workers": 0.2, "workers": workers}


def test_throughput_counts_the_steps_of_this_slice_alone(tmp_path: Path) -> None:
    batch = {"clips": 2, "frames": 5, "height": 100, "width": 200}
    lines = [{"step": n, "loss": 1.0, "seconds": s, "data_seconds": s / 4, "batch": batch} for n, s in ((1, 9), (2, 2))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"step": 2, "score": 1}]))
    assert gpu_slice.throughput(tmp_path / "log.jsonl", 1) == {
        "steps_per_s": 0.5,
        "frames_per_s": 5.0,
        "megapixels_per_s": 0.1,
        "waiting_for_data": 0.25,
    }
    assert gpu_slice.throughput(tmp_path / "log.jsonl", 2) == {}


WILD = ("optim.lr=9", "optim.clip_norm=0", "optim.schedule=constant")


@pytest.mark.parametrize("model_output", ["residual", None])
def test_divergence_stops_with_a_diagnosis_and_keeps_the_last_good_state(
    model_output: str | None, clips: Path, tmp_path: Path
) -> None:
    wild = (*WILD, f"model.output={model_output}") if model_output else WILD
    with pytest.raises(TrainingDiverged, match=r"lower optim\.lr") as caught:
        run(small_config(clips, *wild, "optim.steps=300"), tmp_path / "run")
    state = run_state.read(tmp_path / "run" / run_state.FILE_NAME)
    assert f"step {state.step + 1}:" in str(caught.value)
    assert "clip" in str(caught.value)
    assert all(torch.isfinite(tensor).all() for tensor in state.tensors().values())
    assert (tmp_path / "run" / "diverged.txt").read_text().startswith("training diverged")


def test_a_slice_that_diverges_ends_itself_alone(clips: Path, tmp_path: Path) -> None:
    common = [o for o in command(clips, tmp_path) if "=" in o and not o.startswith(("data.sources", "val.sources"))]
    yaml = tmp_path / "slice.yaml"
    yaml.write_text(f"data:\n  sources: [{{source: 'folder:{clips}'}}, {{source: synthetic}}]\n")
    folder = tmp_path / "gpu"

    def train(output: Path, *overrides: str) -> dict:
        overrides = (*common, "optim.schedule=constant", *overrides)
        return gpu_slice.train_slice(folder, output, 2.0, config=str(yaml), overrides=overrides)

    diverged = train(folder, *WILD, "optim.steps=300")
    assert diverged["diverged"].startswith("training diverged")
    assert (folder / "diverged.txt").is_file()
    assert not (folder / "compact").exists()

    train(folder, "optim.lr=1e-3", "optim.steps=2")
    assert not (folder / "diverged.txt").exists()
    assert [line["lr"] for line in read_log(folder / "log.jsonl") if "loss" in line] == pytest.approx([5e-4, 5e-4])

    weights = compact.read(folder / "compact").weights
    for output in (tmp_path / "elsewhere", folder):
        assert train(output, *WILD, "optim.steps=300")["diverged"]
        state = compact.read(output / "compact")
        assert state.step == 2
        assert checkpoints.load(output / "last.safetensors")[1].provenance["step"] == 2
        assert all(torch.equal(weights[name], value) for name, value in state.weights.items())

    summary = train(folder, "optim.lr=1e-3", "optim.steps=4")
    assert (summary["first_step"], summary["last_step"]) == (2, 4)
    rates = [line["lr"] for line in read_log(folder / "log.jsonl") if "loss" in line]
    assert rates == pytest.approx([5e-4, 5e-4, 2.5e-4, 2.5e-4])
    with pytest.raises(ConfigError, match="has finished its"):
        train(folder, "optim.steps=1")
    with pytest.raises(ConfigError, match="no shards"):
        gpu_slice.main(["--shards", str(tmp_path), "--from", str(folder)])


def test_the_best_score_counts_for_the_same_validation_alone(clips: Path, tmp_path: Path) -> None:
    file = tmp_path / "run" / run_state.FILE_NAME
    run(small_config(clips, "optim.steps=1"), tmp_path / "run")
    state = run_state.read(file)
    state.about["best_score"] = 0.0
    run_state.write(file, state)
    run(small_config(clips, "optim.steps=2"), tmp_path / "run")
    assert run_state.read(file).about["best_score"] == 0.0
    run(small_config(clips, "optim.steps=3", "val.cells=[area@4]"), tmp_path / "run")
    assert run_state.read(file).about["best_score"] == read_log(tmp_path / "run" / "log.jsonl")[-1]["score"]
    assert checkpoints.load(tmp_path / "run" / "best.safetensors")[1].provenance["step"] == 3


def test_a_run_of_another_network_is_not_gone_on_from(clips: Path, tmp_path: Path) -> None:
    run(small_config(clips, "optim.steps=1"), tmp_path / "run")
    with pytest.raises(CheckpointError, match="another network"):
        run(small_config(clips, "optim.steps=2", "model.channels=8"), tmp_path / "run")
    with pytest.raises(CheckpointError, match="already holds a run"):
        run(small_config(clips, "optim.steps=2"), tmp_path / "run", fresh=True)
    (tmp_path / "run" / run_state.FILE_NAME).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run(small_config(clips, "optim.steps=2"), tmp_path / "run")


def test_the_command_reports_errors_in_one_line(clips: Path, tmp_path: Path) -> None:
    arguments = command(clips, tmp_path / "run", "optim.steps=0")
    result = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: optim.steps is 0")
    assert sys.executable == arguments[0]
