"""A recorded clip, a very small network and the command line, for the tests of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from stdnet_core.training.config import TrainConfig, load_config

REPOSITORY = Path(__file__).resolve().parents[1]

NETWORK = [
    "model={preset: tiny_causal, channels: 4, head_channels: 4, trunk_blocks: 0, reconstruction_blocks: 0}",
    "model.stages=1",
    "model.passes=[forward]",
]
SMALL = [
    *NETWORK,
    "data.crops=[32]",
    "data.lengths=[2]",
    "data.batch_size=2",
    "data.cache_gb=0.1",
    "optim.warmup_steps=0",
    "optim.horizon=steps",
    "val.every=0",
    "val.clips=1",
    "val.length=2",
    "val.crop=32",
    "val.pictures=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.threads=1",
]


def write_clip(folder: Path, frames: int = 4, height: int = 48, width: int = 64, seed: int = 0) -> Path:
    """A box that moves before a slanted wall, as a folder of this project's own layout."""
    rng = np.random.default_rng(seed)
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    wall = np.linspace(3000, 4000, width)[None].repeat(height, 0)
    texture = rng.integers(85, 95, (height, width, 3))
    for frame in range(frames):
        depth, color = wall.copy(), texture.copy()
        left, top = 6 + 3 * frame + seed, 9 + seed
        depth[top : top + 14, left : left + 13] = 1500
        color[top : top + 14, left : left + 13] = (40, 160, 230)
        cv2.imwrite(str(folder / "color" / f"{frame:06d}.png"), color.astype(np.uint8))
        cv2.imwrite(str(folder / "depth" / f"{frame:06d}.png"), depth.round().astype(np.uint16))
    (folder / "intrinsics.txt").write_text(f"50 50 {width / 2} {height / 2}\n")
    return folder


def sources(root: Path) -> list[str]:
    """Overrides that train and validate on the clips below ``root``."""
    return [f"data.sources=[{{source: 'folder:{root}'}}]", f"val.sources=[{{source: 'folder:{root}'}}]"]


def small_config(root: Path, *overrides: str) -> TrainConfig:
    """A configuration whose steps take milliseconds."""
    return load_config(None, [*SMALL, *sources(root), *overrides])


def environment() -> dict[str, str]:
    """Of a child process: one thread, this repository first."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }


def command(root: Path, output: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> list[str]:
    """The command line of such a run."""
    return [
        sys.executable,
        *launcher,
        *("-m", "stdnet_core.train"),
        *("--output", str(output)),
        *SMALL,
        *sources(root),
        *arguments,
    ]


def start(root: Path, output: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start training in a child process."""
    return subprocess.Popen(
        command(root, output, *arguments, launcher=launcher),
        env=environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
