"""Upsamples recordings: ``python -m stdnet_core.predict --input PATH --output DIR``.

The input is any source of aligned colour and depth: a folder, a data set, a ROS bag, or a video with a folder of
depth images. The output of each sequence is

    depth/000000.png ...     16-bit, millimetres, 0 invalid; or .npy, float32 metres, NaN invalid
    preview/000000.png ...   depth in colours
    video.mp4                colour, input and output side by side
    summary.json             settings, speed, and errors if the true depth is known
    intrinsics.txt           of the depth images, if known"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stdnet_core.cli import add_unit_arguments, positive_int, print_notes, require, run_cli
from stdnet_core.data.prediction_input import VIDEO_SUFFIXES, InputFrame, InputVideo, from_sequence, from_video
from stdnet_core.data.rgbd_sequence import unique_names
from stdnet_core.data.sources import open_source
from stdnet_core.depth_units import DepthUnits
from stdnet_core.errors import ConfigError, DataError, InputError
from stdnet_core.evaluation.scoring import ScoredFrame, VideoScore
from stdnet_core.inference import BACKENDS, MAX_LATENCY, METHODS, DepthUpsampler, UpsampledDepth
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.colorize import colorize_depth
from stdnet_core.report.panels import compose, depth_limits, frame_tiles
from stdnet_core.report.video import Mp4Writer

_DEFAULT_FPS = 15.0
_TILE_WIDTH = 480
_OUTPUTS = ("depth", "confidence", "preview", "video.mp4", "summary.json", "intrinsics.txt")
_FIGURES = ("rmse_cm", "mae_cm", "delta1", "edge_rmse_cm", "flicker_cm")
_LARGEST_MM = np.iinfo(np.uint16).max


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    args = _parser().parse_args(arguments)
    videos, left_out = _open(args)
    if not args.no_video:
        require("imageio_ffmpeg", extra="report")
    upsampler = DepthUpsampler(
        args.checkpoint,
        method=args.method,
        device=args.device,
        precision=args.precision,
        backend=args.backend,
        latency=MAX_LATENCY if args.latency is None else args.latency,
        max_depth=args.max_depth,
        edge_filter=args.edge_filter,
    )
    tqdm = require("tqdm", extra="report").tqdm
    done = 0
    with tqdm(total=sum(video.length for video in videos), unit="frame", dynamic_ncols=True) as progress:
        for name, video in zip(unique_names(v.name for v in videos), videos, strict=True):
            folder = args.output if len(videos) == 1 else args.output / name.replace(":", "_")
            try:
                summary = predict(video, upsampler, folder, args, progress.update)
            except DataError as error:
                if not args.skip_bad:
                    raise
                left_out.append(str(error))
                continue
            done += 1
            progress.write(_line(folder, summary))
    for text in left_out:
        print(f"left out: {text}")
    if not done:
        raise DataError(f"{args.input}: no sequence could be predicted; the first problem was: {left_out[0]}")


def predict(
    video: InputVideo, upsampler: DepthUpsampler, folder: Path, args: argparse.Namespace, on_frame: Callable[[], object]
) -> dict[str, Any]:
    """Upsample one video into ``folder`` and return its summary.

    Args:
        video: read frame by frame.
        upsampler: reset before use.
        folder: created if missing.
        args: of the command line; they say what to write.
        on_frame: called after each frame.
    """
    _prepare(folder, _folders(args), args.overwrite)
    upsampler.reset()
    waiting: deque[InputFrame] = deque()
    first: InputFrame | None = None
    seconds = 0.0
    score: VideoScore | None = None
    with ExitStack() as stack:
        writer = _Writer(folder, args, args.fps or video.fps or _DEFAULT_FPS, stack)

        def take(results: list[UpsampledDepth]) -> None:
            for result in results:
                frame = waiting.popleft()
                writer.add(frame, result)
                if score is not None and frame.truth is not None:  # over the pixels with valid output
                    target = np.where(np.isfinite(result.depth), frame.truth, 0)
                    score.add(ScoredFrame(frame.rgb, target, {"output": result.depth}))
                on_frame()

        for number, frame in enumerate(video):
            if number == video.length:
                break
            if first is None:
                first = frame
                score = None if frame.truth is None else VideoScore(["output"])
                writer.method = upsampler.method
            waiting.append(frame)
            begin = time.perf_counter()
            try:
                result = upsampler.step(frame.rgb, frame.depth, frame.stamp)
            except InputError as error:
                raise InputError(f"{video.name}, frame {number}: {error}") from error
            geometry = upsampler.geometry
            seconds += time.perf_counter() - begin
            take([] if result is None else [result])
        begin = time.perf_counter()
        rest = upsampler.flush()
        seconds += time.perf_counter() - begin
        take(rest)
    if first is None:
        raise DataError(f"{video.name}: it has no frames")
    assert geometry is not None
    if not writer.measured:
        raise DataError(
            f"{video.name}: none of its {writer.frames} frames has a measurement of depth; look at the input with "
            "python -m stdnet_core.preview"
        )
    if video.intrinsics is not None:
        (folder / "intrinsics.txt").write_text(" ".join(f"{value:.9g}" for value in video.intrinsics) + "\n")
    notices = [text for text in upsampler.notices if args.latency is not None or not text.startswith("latency ")]
    summary = {
        "name": video.name,
        "frames": writer.frames,
        "size": list(first.rgb.shape[1::-1]),
        "input_size": list(first.depth.shape[::-1]),
        "scale": geometry.scale,
        "simulated_input": first.truth is not None,
        "method": upsampler.method,
        "checkpoint": None if upsampler.info is None else upsampler.info.name,
        "latency": upsampler.latency,
        "device": str(upsampler.placement.device),
        "precision": upsampler.placement.precision,
        "ms_per_frame": 1e3 * seconds / writer.frames,
        **writer.statistics(),
        "notices": notices,
    }
    if score is not None:
        figures = score.figures()["output"]
        summary["figures_of_shown_pixels"] = {name: figures[name] for name in _FIGURES if np.isfinite(figures[name])}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


class _Writer:
    """Writes the outputs of one video."""

    def __init__(self, folder: Path, args: argparse.Namespace, fps: float, stack: ExitStack) -> None:
        self.method = ""
        self.frames = 0
        self.measured = False
        self._folder, self._args = folder, args
        self._limits: tuple[float, float] | None = None
        self._valid = self._pixels = self._beyond = 0
        self._least, self._largest = np.inf, -np.inf
        self._video = None if args.no_video else stack.enter_context(Mp4Writer(folder / "video.mp4", fps))

    def add(self, frame: InputFrame, result: UpsampledDepth) -> None:
        """Write all outputs of one frame."""
        depth, name = result.depth, f"{self.frames:06d}"
        self.measured = self.measured or bool((frame.depth > 0).any())
        valid = np.isfinite(depth)
        if self._args.format == "npy":
            np.save(self._folder / "depth" / f"{name}.npy", depth)
        else:
            millimetres = np.rint(np.where(valid, depth, 0) * 1e3)
            self._beyond += int((millimetres > _LARGEST_MM).sum())
            millimetres[millimetres > _LARGEST_MM] = 0
            _write_image(self._folder / "depth" / f"{name}.png", millimetres.astype(np.uint16))
        if self._args.confidence:
            picture = np.rint(255 * result.confidence).astype(np.uint8)
            _write_image(self._folder / "confidence" / f"{name}.png", picture)
        if self._limits is None:
            self._limits = depth_limits(depth if frame.truth is None else frame.truth)
        if not self._args.no_preview:
            _write_image(self._folder / "preview" / f"{name}.png", colorize_depth(depth, *self._limits)[..., ::-1])
        if self._video is not None:
            truth = None if frame.truth is None else nan_where_invalid(frame.truth)
            tiles = frame_tiles(
                frame.rgb, nan_where_invalid(frame.depth), {self.method: depth}, truth, limits=self._limits
            )
            self._video.add(compose(tiles, tile_width=min(_TILE_WIDTH, frame.rgb.shape[1])))
        self.frames += 1
        self._valid += int(valid.sum())
        self._pixels += valid.size
        if valid.any():
            self._least = min(self._least, float(depth[valid].min()))
            self._largest = max(self._largest, float(depth[valid].max()))

    def statistics(self) -> dict[str, Any]:
        """Statistics of the written depth."""
        known = self._valid > 0
        return {
            "valid_share": self._valid / max(self._pixels, 1),
            "least_m": self._least if known else None,
            "largest_m": self._largest if known else None,
            "pixels_beyond_65_m": self._beyond,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stdnet_core.predict",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", required=True, metavar="[KIND:]PATH", help="source of RGB-D data, or a colour video")
    parser.add_argument("--depth", type=Path, metavar="DIR", help="depth images of a colour video, one per frame")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where to write")
    parser.add_argument(
        "--checkpoint",
        default="auto",
        metavar="FILE|NAME",
        help="of the network; auto: the shipped one, or joint bilateral upsampling if none ships",
    )
    parser.add_argument("--method", default="auto", choices=METHODS, help="(default: %(default)s)")
    parser.add_argument(
        "--scale", type=int, metavar="S", help="simulate the input from full-resolution depth, and measure the error"
    )
    parser.add_argument("--split", help="a split of the source")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="at most N sequences")
    parser.add_argument("--max-frames", type=positive_int, metavar="N", help="at most N frames of each sequence")
    parser.add_argument("--skip-bad", action="store_true", help="leave out damaged data, and list them")
    parser.add_argument("--format", choices=("png", "npy"), default="png", help="of the depth (default: %(default)s)")
    parser.add_argument("--confidence", action="store_true", help="also write confidence images, 0..255")
    parser.add_argument("--no-preview", action="store_true", help="do not write depth in colours")
    parser.add_argument("--no-video", action="store_true", help="do not write the MP4")
    parser.add_argument("--fps", type=float, help="frame rate of the MP4 (default: that of the input, else 15)")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results in the output folder")
    parser.add_argument(
        "--latency", type=int, metavar="FRAMES", help="following frames that the network uses, 0 to 8 (default: 8)"
    )
    add_unit_arguments(parser)
    parser.add_argument("--max-depth", type=float, metavar="M", help="ignore input depth above M metres")
    parser.add_argument(
        "--edge-filter", type=float, default=0.0, help="remove flying pixels; 0.03 is usual (default: off)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    parser.add_argument(
        "--backend",
        default="torch",
        choices=BACKENDS,
        help="what runs the network: torch; openvino for live on a CPU; auto: openvino where it fits and is installed, "
        "otherwise torch; onnxruntime for an exported file as checkpoint "
        "(default: %(default)s)",
    )
    return parser


def _open(args: argparse.Namespace) -> tuple[list[InputVideo], list[str]]:
    """The videos of the input, and what ``--skip-bad`` left out of it."""
    left_out: list[str] = []
    for name in ("scale", "limit", "max_frames", "fps"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be positive")
    is_video = Path(args.input).suffix.lower() in VIDEO_SUFFIXES
    if args.depth is not None and not is_video:
        raise ConfigError(f"--depth is only for colour videos ({', '.join(VIDEO_SUFFIXES)}); {args.input} is not one")
    if is_video:
        if args.depth is None:
            raise ConfigError(f"{args.input} is a colour video; give its depth images with --depth DIR")
        if args.scale is not None:
            raise ConfigError("--scale simulates depth for sequences; for a video give low-resolution depth itself")
        videos = [from_video(Path(args.input), args.depth, DepthUnits(args.depth_unit, args.invalid_above))]
        print_notes(videos[0].notes)
    else:
        sequences = open_source(
            args.input,
            split=args.split,
            skip_bad=args.skip_bad,
            depth_unit=args.depth_unit,
            invalid_above=args.invalid_above,
        )
        print_notes(sequences.notes)
        left_out += sequences.left_out
        videos = []
        for sequence in sequences[: args.limit]:
            try:
                videos.append(from_sequence(sequence, args.scale))
            except DataError as error:
                if not args.skip_bad:
                    raise
                left_out.append(str(error))
    return [video.limited(args.max_frames) for video in videos], left_out


def _folders(args: argparse.Namespace) -> list[str]:
    return ["depth"] + ["confidence"] * args.confidence + ["preview"] * (not args.no_preview)


def _prepare(folder: Path, wanted: list[str], overwrite: bool) -> None:
    """Create the ``wanted`` folders for one video's outputs, and delete those of an earlier run."""
    outputs = [folder / name for name in _OUTPUTS if (folder / name).exists()]
    earlier = [path for path in outputs if path.is_file() or any(path.iterdir())]  # a failure leaves empty folders
    if earlier and not overwrite:
        raise InputError(f"{earlier[0]} already exists; give another --output, or --overwrite to replace results")
    for path in earlier:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    try:
        for name in wanted:
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}); give another --output") from error


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise InputError(f"{path} cannot be written; is the disk full?")


def _line(folder: Path, summary: dict[str, Any]) -> str:
    width, height = summary["size"]
    text = (
        f"{folder}: {summary['frames']} frames of {width}x{height} by {summary['method']}, "
        f"{summary['ms_per_frame']:.1f} ms per frame, {100 * summary['valid_share']:.1f} % valid"
    )
    figures = summary.get("figures_of_shown_pixels")
    if figures:
        text += f", RMSE {figures['rmse_cm']:.2f} cm, MAE {figures['mae_cm']:.2f} cm"
    if summary["pixels_beyond_65_m"]:
        text += (
            f"\nnote: {summary['pixels_beyond_65_m']} pixels beyond 65.535 m do not fit a 16-bit PNG; use --format npy"
        )
    return "\n".join([text, *(f"note: {notice}" for notice in summary["notices"])])


if __name__ == "__main__":
    run_cli(main)
