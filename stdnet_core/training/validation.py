"""Validation during training, on clips that are not trained on: errors in the cells of the accuracy matrix, relative to
the best method without a network."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.sensors.camera import simulate
from stdnet_core.data.sensors.cell import JUDGED, Cell, scene_gain
from stdnet_core.errors import ConfigError
from stdnet_core.evaluation.scoring import FAULTLESS_CM, cell_score
from stdnet_core.inference import classical
from stdnet_core.inference.fill import fill_invalid
from stdnet_core.training.batches import network_input, supported
from stdnet_core.training.config import SourceConfig, TrainConfig, is_recurrent, parse_size
from stdnet_core.training.pool import limit_depth, open_sequences
from stdnet_core.training.recurrent_batches import clip_flow, geometry_of, supported_pixels

FLAT = 0.02
"""Neighbouring depths that differ by at least this share of the depth form an edge."""
_CLIPS_IN_TURN = 4  # ratio of the clips that are loaded to those that each cell is measured on
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One clip as one camera measures it, ready for the network; tensors as in :mod:`stdnet_core.training.batches`,
    B = 1.

    Attributes:
        depth_range: metres, (1, 1, 1, 1, 1); 1 for a recurrent network.
        rivals: depth (T, 1, H, W) in metres of each method without a network, by name.
        flow, ratio: for a recurrent network, as in :class:`stdnet_core.training.recurrent_batches.VideoBatchBuilder`.
    """

    source: str
    cell: Cell
    clip: RgbdClip
    depth_lr: Tensor
    depth_range: Tensor
    rivals: dict[str, Tensor]
    flow: Tensor | None = None
    ratio: tuple[float, float] | None = None


class Validator:
    """Validates networks on fixed cases, which are created once.

    Args:
        config: of the run; without ``val.cells``, the cells of the accuracy matrix whose ratio is trained for are used.

    Raises:
        ConfigError: there is no cell to measure, or no clip to measure it on.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        sources = [self._clips(source) for source in config.val.sources]
        if not any(sources):
            sources = self._trained_on()
        self.cases = [
            self._case(label, clip, cell)
            for number, cell in enumerate(validated_cells(config))
            for clips in sources
            for label, clip in _in_turn(clips, number, config.val.clips)
        ]

    def _trained_on(self) -> list[list[tuple[str, RgbdClip]]]:
        """Clips of the recorded sequences that are trained on, if there are no others."""
        recorded = [source for source in self.config.data.sources if source.weight > 0 and source.source != "synthetic"]
        clips = [self._clips(source) for source in recorded]
        if not any(clips):
            raise ConfigError("no source of val.sources has a sequence; give one that has")
        _LOG.warning(
            "no source of val.sources has a sequence: validation measures on training data, and best.safetensors is "
            "the network that is best on them"
        )
        return clips

    def _clips(self, source: SourceConfig) -> list[tuple[str, RgbdClip]]:
        sequences = open_sequences(source, skip_bad=self.config.data.skip_bad)
        label = source.source.rstrip("/").rsplit("/", 1)[-1].split(":")[-1 if "/" in source.source else 0]
        wanted = self.config.val.clips * _CLIPS_IN_TURN
        if len(sequences) > wanted:
            picks = np.linspace(0, len(sequences) - 1, wanted).round().astype(int)
            sequences = [sequences[i] for i in picks]
        clips = []
        for sequence in sequences:
            length = min(self.config.val.length, len(sequence))
            clip = limit_depth(sequence.clip((len(sequence) - length) // 2, length), source)
            height, width = (
                min(have, want) // 16 * 16
                for have, want in zip(clip.frame_size, parse_size(self.config.val.crop), strict=True)
            )
            full = clip.frame_size
            top, left = (full[0] - height) // 2, (full[1] - width) // 2
            clips.append((label, dataclasses.replace(clip, depth_lr=None).crop(top, left, height, width).contiguous()))
        return clips

    def _case(self, label: str, clip: RgbdClip, cell: Cell) -> Case:
        clip, low = self._seen(clip, cell)
        clip = dataclasses.replace(clip, valid=clip.valid & supported(low, int(cell.ratio)))
        depth_lr, depth_range = network_input(low[None], self.config.data.normalization)
        filled = (depth_lr * depth_range)[0]
        rivals = {
            "bilinear": classical.bilinear(filled, clip.frame_size),
            "joint_bilateral": classical.joint_bilateral(clip.rgb, filled, scale=int(cell.ratio)),
        }
        return Case(label, cell, clip, depth_lr, depth_range, rivals)

    @staticmethod
    def _seen(clip: RgbdClip, cell: Cell) -> tuple[RgbdClip, Tensor]:
        """The clip, scaled to the camera's range, and the camera's measurement of it: (T, 1, h, w) metres."""
        clip = dataclasses.replace(clip, depth=clip.depth * scene_gain(clip.depth, cell.sensor))
        focal_px = None if clip.intrinsics is None else float(clip.intrinsics[0, 0])
        return clip, simulate(cell.sensor, clip.depth, clip.rgb, cell.ratio, focal_px=focal_px)

    def _predict(self, model: nn.Module, case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
        """Depth (T, 1, H, W) in metres of the network, and of the network without history: every frame as a clip of its
        own."""
        rgb, low = case.clip.rgb[None].to(device), case.depth_lr.to(device)
        predicted = (model(rgb=rgb, depth_lr=low).depth.float().cpu() * case.depth_range)[0]
        alone = model(rgb=rgb.transpose(0, 1), depth_lr=low.transpose(0, 1)).depth.float().cpu()[:, 0]
        return predicted, alone * case.depth_range[0]

    @torch.no_grad()
    def run(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, dict[str, float]], float, np.ndarray | None]:
        """Measure a network.

        Returns:
            Figures by ``source CAMERA@RATIO`` (:func:`summarize`); the score
            (:func:`stdnet_core.evaluation.scoring.cell_score`, lower is better); a picture (H, W, 3) uint8 RGB or None.
        """
        rows: dict[str, list[dict[str, float]]] = {}
        pictures = []
        spread = max(1, len(self.cases) // max(1, self.config.val.pictures))
        for number, case in enumerate(self.cases):
            predicted, alone = self._predict(model, case, device)
            rows.setdefault(f"{case.source} {case.cell}", []).append(
                errors(case, {"model": predicted, "alone": alone, **case.rivals})
            )
            if self.config.val.pictures and number % spread == spread // 2:
                pictures.append(draw(case, predicted))
        figures = {name: summarize(values) for name, values in rows.items()}
        return figures, score_of(figures.values()), stack(pictures) if pictures else None


class VideoValidator(Validator):
    """The validator of recurrent networks: each camera at the ratio of its cell, with holes."""

    def _case(self, label: str, clip: RgbdClip, cell: Cell) -> Case:
        clip, low = self._seen(clip, cell)
        geometry = geometry_of(clip, low, cell.ratio)
        clip = dataclasses.replace(clip, valid=clip.valid & supported_pixels(low, geometry))
        return Case(
            label,
            cell,
            clip,
            low[None],
            torch.ones(1, 1, 1, 1, 1),
            rivals_of(clip, low, geometry.ratio),
            clip_flow(clip.rgb)[None],
            geometry.ratio,
        )

    def _predict(self, model: nn.Module, case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
        assert case.flow is not None
        rgb, low, flow = (tensor.to(device) for tensor in (case.clip.rgb[None], case.depth_lr, case.flow))
        predicted = model(rgb, low, flow, case.ratio).depth.float().cpu()[0]
        frames = (tensor.transpose(0, 1) for tensor in (rgb, low, torch.zeros_like(flow)))
        return predicted, model(*frames, case.ratio).depth.float().cpu()[:, 0]


def make_validator(config: TrainConfig) -> Validator:
    """The validator for a run's network."""
    return VideoValidator(config) if is_recurrent(config) else Validator(config)


def rivals_of(clip: RgbdClip, low: Tensor, ratio: tuple[float, float]) -> dict[str, Tensor]:
    """Depth (T, 1, H, W) in metres of the methods without a network, after holes are filled: nearest-neighbour and
    bilinear interpolation and, at integer ratios, joint bilateral upsampling.

    Args:
        low: (T, 1, h, w) metres, 0 invalid.
        ratio: size of a cell in pixels (rows, columns).
    """
    filled = fill_invalid(low)
    height, width = clip.frame_size
    rows, columns = (round(cells * pixels) for cells, pixels in zip(low.shape[-2:], ratio, strict=True))
    rivals = {
        name: upsample(filled, (rows, columns))[..., :height, :width].contiguous()
        for name, upsample in (("nearest", classical.nearest), ("bilinear", classical.bilinear))
    }
    if ratio[0] == ratio[1] == int(ratio[0]):
        rivals["joint_bilateral"] = classical.joint_bilateral(clip.rgb, filled, scale=int(ratio[0]))
    return rivals


def score_of(figures: Iterable[dict[str, float]]) -> float:
    """The score (:func:`stdnet_core.evaluation.scoring.cell_score`) over the cells that have ratios. If none has, over
    all cells, with ratios to :data:`FAULTLESS_CM`."""
    figures = list(figures)
    ratios = [(f["rmse_ratio"], f["mae_ratio"]) for f in figures if "rmse_ratio" in f]
    return cell_score(ratios or [(f["rmse_cm"] / FAULTLESS_CM, f["mae_cm"] / FAULTLESS_CM) for f in figures])


def _in_turn(clips: list[tuple[str, RgbdClip]], number: int, count: int) -> list[tuple[str, RgbdClip]]:
    """``count`` of the clips, different ones for each cell in turn: all clips in all cells would take too long."""
    count = min(count, len(clips))
    return [clips[(number * count + i) % len(clips)] for i in range(count)]


def validated_cells(config: TrainConfig) -> list[Cell]:
    """The cells in which a run is validated."""
    if config.val.cells:
        return [Cell.parse(text) for text in config.val.cells]
    if is_recurrent(config):
        return list(JUDGED)
    scales = {scale for scale, weight in config.data.scales.items() if weight > 0}
    return [cell for cell in JUDGED if cell.ratio in scales]


def errors(case: Case, depths: dict[str, Tensor]) -> dict[str, float]:
    """Errors over the valid pixels of one clip, in cm, for each of the depths (T, 1, H, W) in metres."""
    depth, valid = case.clip.depth, case.clip.valid
    flat = valid & away_from_edges(depth, valid, case.cell.ratio)
    result = {}
    for name, estimate in depths.items():
        error = (estimate - depth).abs() * 100
        result[f"{name}_rmse"] = float(error[valid].square().mean().sqrt())
        result[f"{name}_mae"] = float(error[valid].mean())
        result[f"{name}_flat"] = float(error[flat].mean()) if flat.any() else 0.0
    return result


def away_from_edges(depth: Tensor, valid: Tensor, scale: float) -> Tensor:
    """Pixels (T, 1, H, W) with no depth edge and no invalid pixel within ``scale`` pixels.

    An edge is a 3x3 neighbourhood whose depths differ by :data:`FLAT` or more; gentle slopes stay below that."""
    highest = F.max_pool2d(depth, 3, 1, 1)
    lowest = -F.max_pool2d(-depth, 3, 1, 1)
    edge = (highest - lowest >= FLAT * depth) | ~valid
    reach = round(scale)
    return F.max_pool2d(edge.float(), 2 * reach + 1, 1, reach) == 0


def summarize(values: list[dict[str, float]]) -> dict[str, float]:
    """Means over clips, in cm, and their ratios: to the best rival in each figure, to bilinear interpolation away from
    edges, and to the network without history.

    Ratios to rivals with a negligible error (below :data:`FAULTLESS_CM`) are left out. Clips without valid pixels do
    not count."""
    mean = {key: float(np.nanmean([value[key] for value in values])) for key in values[0]}
    rivals = [key.removesuffix("_rmse") for key in mean if key.endswith("_rmse")]
    rivals = [name for name in rivals if name not in ("model", "alone")]
    best = {figure: min(mean[f"{rival}_{figure}"] for rival in rivals) for figure in ("rmse", "mae")}
    figures = {
        "rmse_cm": mean["model_rmse"],
        "mae_cm": mean["model_mae"],
        "rival_rmse_cm": best["rmse"],
        "rival_mae_cm": best["mae"],
    }
    if best["rmse"] >= FAULTLESS_CM:
        figures["rmse_ratio"] = mean["model_rmse"] / best["rmse"]
        figures["mae_ratio"] = mean["model_mae"] / max(best["mae"], 1e-9)
        figures["flat_mae_ratio"] = mean["model_flat"] / max(mean["bilinear_flat"], 1e-9)
    return {
        **figures,
        "history_rmse": mean["model_rmse"] / max(mean["alone_rmse"], 1e-9),
        "history_mae": mean["model_mae"] / max(mean["alone_mae"], 1e-9),
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as lines of text."""
    width = max(map(len, figures))
    head = f"{'':{width}}   RMSE cm  (rival)  ratio    MAE cm  (rival)  ratio  away from edges  history: RMSE    MAE"

    def ratio(figures: dict[str, float], name: str, width: int) -> str:
        return f"{figures[name]:{width}.3f}" if name in figures else f"{'-':>{width}}"

    lines = [
        f"{name:{width}}  {f['rmse_cm']:8.2f}  {f['rival_rmse_cm']:7.2f}  {ratio(f, 'rmse_ratio', 5)}  "
        f"{f['mae_cm']:8.2f}  {f['rival_mae_cm']:7.2f}  {ratio(f, 'mae_ratio', 5)}  "
        f"{ratio(f, 'flat_mae_ratio', 15)}  {f['history_rmse']:13.3f}  {f['history_mae']:5.3f}"
        for name, f in figures.items()
    ]
    return "\n".join([head, *lines])


def draw(case: Case, predicted: Tensor) -> np.ndarray:
    """Last frame of a case: colour, low resolution, bilinear, network, truth, both errors; (H, 7 W, 3) uint8 RGB."""
    frame = len(case.clip) - 1
    height, width = case.clip.frame_size
    truth = case.clip.depth[frame, 0].numpy()
    low = (case.depth_lr * case.depth_range)[0, frame, 0].numpy()
    low = cv2.resize(low, (width, height), interpolation=cv2.INTER_NEAREST)
    images = [low, case.rivals["bilinear"][frame, 0].numpy(), predicted[frame, 0].numpy(), truth]
    seen = truth[truth > 0]
    nearest, farthest = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
    columns = [(case.clip.rgb[frame].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)]
    columns += [colorize((image - nearest) / max(farthest - nearest, 1e-6)) for image in images]
    for image in images[1:3]:
        error = np.abs(image - truth) * (truth > 0)
        columns.append(colorize(error / max(0.1 * farthest, 1e-6)))
    return np.concatenate(columns, 1)


def colorize(values: np.ndarray) -> np.ndarray:
    """0..1 -> RGB."""
    return cv2.cvtColor(
        cv2.applyColorMap((np.clip(values, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    )


def stack(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 2), (0, width - p.shape[1]), (0, 0))) for p in pictures])
