"""Accuracy during training, on clips that are not trained on, against bilinear interpolation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stdnet_core.data.clip import RgbdClip
from stdnet_core.data.degradation import DegradationConfig, degrade
from stdnet_core.errors import ConfigError
from stdnet_core.training.batches import network_input, supported
from stdnet_core.training.config import SourceConfig, TrainConfig, parse_size
from stdnet_core.training.pool import limit_depth, open_sequences

FLAT = 0.02
"""Neighbouring depths that differ by more than this fraction make an edge."""


@dataclass(frozen=True)
class Case:
    """One clip at one scale, ready for the network; tensors as in :mod:`stdnet_core.training.batches`, B = 1."""

    source: str
    clip: RgbdClip
    depth_lr: Tensor
    depth_range: Tensor
    scale: int


class Validator:
    """Fixed cases, made once.

    Args:
        config: of the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        scales = config.val.scales or sorted(s for s, weight in config.data.scales.items() if weight > 0)
        try:
            self.degradation = DegradationConfig.from_dict(config.val.degradation)
        except TypeError as error:
            raise ConfigError(f"val.degradation: {error}") from error
        clips = [(label, clip) for source in config.val.sources for label, clip in self._clips(source)]
        self.cases = [self._case(label, clip, scale) for scale in scales for label, clip in clips]

    def _clips(self, source: SourceConfig) -> list[tuple[str, RgbdClip]]:
        sequences = open_sequences(source, skip_bad=self.config.data.skip_bad)
        label = source.source.rstrip("/").rsplit("/", 1)[-1].split(":")[-1 if "/" in source.source else 0]
        wanted = self.config.val.clips
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

    def _case(self, label: str, clip: RgbdClip, scale: int) -> Case:
        generator = torch.Generator().manual_seed(scale)
        degradation = self.degradation
        if degradation.range_m is not None:  # what no sensor saw would hide what the network does
            range_m = max(degradation.range_m, 1.001 * float(clip.depth.max()))
            degradation = dataclasses.replace(degradation, range_m=range_m)
        low = degrade(clip.depth, clip.rgb, scale, degradation, generator)
        clip = dataclasses.replace(clip, valid=clip.valid & supported(low, scale))
        depth_lr, depth_range = network_input(low[None], self.config.data.normalization)
        return Case(label, clip, depth_lr, depth_range, scale)

    @torch.no_grad()
    def run(
        self, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, dict[str, float]], float, np.ndarray | None]:
        """Measure a network.

        Returns:
            Figures by ``source xSCALE``: RMSE and MAE in cm of the network and of bilinear interpolation, averaged over
            clips, their ratios, and the ratio of MAE away from edges; the score, which is the mean of all RMSE and MAE
            ratios; and a picture (H, W, 3) uint8 RGB.
        """
        rows: dict[str, list[dict[str, float]]] = {}
        pictures = []
        spread = max(1, len(self.cases) // max(1, self.config.val.pictures))
        for number, case in enumerate(self.cases):
            output = model(rgb=case.clip.rgb[None].to(device), depth_lr=case.depth_lr.to(device))
            predicted = (output.depth.float().cpu() * case.depth_range)[0]
            bilinear = interpolate(case)
            rows.setdefault(f"{case.source} x{case.scale}", []).append(errors(case, predicted, bilinear))
            if self.config.val.pictures and number % spread == spread // 2:
                pictures.append(draw(case, predicted, bilinear))
        figures = {name: summarize(values) for name, values in rows.items()}
        score = float(np.mean([figures[n][k] for n in figures for k in ("rmse_ratio", "mae_ratio")]))
        return figures, score, stack(pictures) if pictures else None


def interpolate(case: Case) -> Tensor:
    """Bilinear interpolation of the filled low-resolution depth, (T, 1, H, W) metres."""
    low = (case.depth_lr * case.depth_range)[0]
    return F.interpolate(low, size=case.clip.frame_size, mode="bilinear", align_corners=False)


def errors(case: Case, predicted: Tensor, bilinear: Tensor) -> dict[str, float]:
    """Errors of one clip in cm over valid pixels."""
    depth, valid = case.clip.depth, case.clip.valid
    flat = valid & away_from_edges(depth, valid, case.scale)
    result = {}
    for name, estimate in (("model", predicted), ("bilinear", bilinear)):
        error = (estimate - depth).abs() * 100
        result[f"{name}_rmse"] = float(error[valid].square().mean().sqrt())
        result[f"{name}_mae"] = float(error[valid].mean())
        result[f"{name}_flat"] = float(error[flat].mean()) if flat.any() else 0.0
    return result


def away_from_edges(depth: Tensor, valid: Tensor, scale: int) -> Tensor:
    """Pixels (T, 1, H, W) with no depth edge and no invalid pixel within ``scale``.

    An edge is a 3x3 neighbourhood whose depths differ by :data:`FLAT` or more; slopes are not."""
    highest = F.max_pool2d(depth, 3, 1, 1)
    lowest = -F.max_pool2d(-depth, 3, 1, 1)
    edge = (highest - lowest >= FLAT * depth) | ~valid
    return F.max_pool2d(edge.float(), 2 * scale + 1, 1, scale) == 0


def summarize(values: list[dict[str, float]]) -> dict[str, float]:
    """Means over clips and ratios of the means."""
    mean = {key: float(np.nanmean([value[key] for value in values])) for key in values[0]}
    return {
        "rmse_cm": mean["model_rmse"],
        "mae_cm": mean["model_mae"],
        "bilinear_rmse_cm": mean["bilinear_rmse"],
        "bilinear_mae_cm": mean["bilinear_mae"],
        "rmse_ratio": mean["model_rmse"] / max(mean["bilinear_rmse"], 1e-9),
        "mae_ratio": mean["model_mae"] / max(mean["bilinear_mae"], 1e-9),
        "flat_mae_ratio": mean["model_flat"] / max(mean["bilinear_flat"], 1e-9),
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as lines of text."""
    width = max(map(len, figures))
    head = f"{'':{width}}   RMSE cm  (bilinear)  ratio    MAE cm  (bilinear)  ratio  away from edges"
    lines = [
        f"{name:{width}}  {f['rmse_cm']:8.2f}  {f['bilinear_rmse_cm']:10.2f}  {f['rmse_ratio']:5.3f}  "
        f"{f['mae_cm']:8.2f}  {f['bilinear_mae_cm']:10.2f}  {f['mae_ratio']:5.3f}  {f['flat_mae_ratio']:15.3f}"
        for name, f in figures.items()
    ]
    return "\n".join([head, *lines])


def draw(case: Case, predicted: Tensor, bilinear: Tensor) -> np.ndarray:
    """Last frame of a case: colour, low resolution, bilinear, network, truth, both errors; (H, 7 W, 3) uint8 RGB."""
    frame = len(case.clip) - 1
    height, width = case.clip.frame_size
    truth = case.clip.depth[frame, 0].numpy()
    low = (case.depth_lr * case.depth_range)[0, frame, 0].numpy()
    low = cv2.resize(low, (width, height), interpolation=cv2.INTER_NEAREST)
    images = [low, bilinear[frame, 0].numpy(), predicted[frame, 0].numpy(), truth]
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
