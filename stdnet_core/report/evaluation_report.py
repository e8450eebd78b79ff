"""Reports of ``python -m stdnet_core.evaluate``: one for each sequence and scale, and an index page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stdnet_core.cli import require
from stdnet_core.data.sensors.arguments import simulation_sentences
from stdnet_core.evaluation.scoring import ScoredFrame
from stdnet_core.inference.engine import as_bytes
from stdnet_core.inference.fill import nan_where_invalid
from stdnet_core.report.analysis import Analysis, AnalysisFrame
from stdnet_core.report.page import Overview, ReportData
from stdnet_core.report.preview import PreviewVideo
from stdnet_core.report.recording_report import REFERENCE, analysis_frame, recording_parts, with_flicker
from stdnet_core.report.writer import write_overview, write_report

if TYPE_CHECKING:
    from stdnet_core.evaluation.recording import JudgedFrame, RecordingScore
    from stdnet_core.evaluation.sequence import EvaluationFrame, SequenceResult

_FLOWS = {
    "true": "TEPE is computed along the data's own optical flow.",
    "estimated": "TEPE is computed along optical flow estimated from colour; not comparable with published values.",
    "mixed": "TEPE is computed along optical flow that is estimated from colour for some of the frames.",
}


def check_installed() -> None:
    """Check before a long run that the report can be written at its end.

    Raises:
        StdnetError: a package is missing; the error gives the command to install it.
    """
    for module in ("matplotlib", "jinja2", "PIL", "imageio_ffmpeg"):
        require(module, extra="report")


class EvaluationReport:
    """Collects the frames of one sequence in constant memory; use it in a ``with`` statement.

    Args:
        folder: of the report; created if absent.
        methods: names; the first one is the subject of the report.
        expected: approximate number of frames.
        device: on which figures are computed.
        recording: scores of a recording without ground truth, if the report is on one.
    """

    def __init__(
        self,
        folder: Path,
        methods: Sequence[str],
        expected: int,
        device: torch.device | str = "cpu",
        recording: RecordingScore | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._recording = folder, recording
        reference = "truth" if recording is None else REFERENCE
        self._analysis = Analysis(methods, temporal=recording is None, device=device, reference=reference)
        self._video = PreviewVideo(folder / "video.mp4", methods[0], expected, reference)

    def __len__(self) -> int:
        return len(self._analysis)

    def __enter__(self) -> EvaluationReport:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._video.close()

    def add(self, index: int, frame: EvaluationFrame, scored: ScoredFrame) -> None:
        """Add the next frame with what was scored."""
        rgb = as_bytes(frame.rgb)
        truth, low = nan_where_invalid(frame.target), nan_where_invalid(frame.depth_lr)
        self._analysis.add(
            AnalysisFrame(
                index,
                None,
                rgb,
                low,
                # As in the scores, a missing depth counts as 0 m.
                {name: np.nan_to_num(depth, nan=0.0) for name, depth in scored.predictions.items()},
                truth,
                upsampled=scored.upsampled,
                flow=frame.flow,
                shown=scored.supported,
            )
        )
        self._video.add(rgb, low, scored.predictions[self._analysis.methods[0]], truth)

    def add_judged(self, judged: JudgedFrame) -> None:
        """Add the next frame of a recording."""
        frame = analysis_frame(judged)
        with_flicker(self._analysis.add(frame), judged.flicker)
        self._video.add(frame.rgb, frame.depth_lr, frame.outputs[self._analysis.methods[0]], frame.truth)

    def write_recording(
        self,
        name: str,
        configuration: Mapping[str, Any],
        notices: Mapping[str, Sequence[str]] | None,
        milliseconds: float,
    ) -> Path:
        """Write the report of a recording; returns its HTML file.

        Args:
            name: of the sequence.
            configuration: settings by name.
            notices: of the methods; None if the run was interrupted.
            milliseconds: time per frame of the method that is the subject.
        """
        assert self._recording is not None
        analysis = self._analysis
        parts = recording_parts(self._recording, analysis.methods[0])
        parts["facts"] = [*parts["facts"], ("time per frame", f"{milliseconds:.0f} ms")]
        return self._write(f"Depth of {name}, judged by itself", {"sequence": name, **configuration}, notices, parts)

    def write(
        self,
        name: str,
        scale: float,
        configuration: Mapping[str, Any],
        result: SequenceResult | None,
        warnings: Sequence[str] = (),
    ) -> Path:
        """Write the report; returns its HTML file.

        Args:
            name: of the sequence.
            scale: of the upsampling.
            configuration: settings by name.
            result: figures of the whole sequence; None if the run was interrupted.
            warnings: what makes the figures doubtful.
        """
        analysis = self._analysis
        main = analysis.methods[0]
        camera = configuration.get("low-resolution depth: sensor")
        protocol, facts = "All methods see the same input.", []
        if result is not None:
            protocol = f"{protocol} {_FLOWS.get(result.flow, '')}".strip()
        if len(analysis):
            figures = analysis.figures()[main]
            facts += [
                (f"RMSE of {main}", f"{figures['rmse_cm']:.2f} cm"),
                (f"MAE of {main}", f"{figures['mae_cm']:.2f} cm"),
                (f"flicker of {main}", f"{figures['flicker_cm']:.2f} cm" if len(analysis) > 1 else "-"),
                ("coverage", f"{100 * figures['coverage']:.1f} %"),
            ]
        if result is not None and np.isfinite(result.figures[main]["ms_per_frame"]):
            facts.append(("time per frame", f"{result.figures[main]['ms_per_frame']:.0f} ms"))
        parts = {
            "lead": "" if camera is None else simulation_sentences(camera, scale),
            "protocol": protocol,
            "facts": facts,
        }
        configuration = {"sequence": name, "scale": scale, **configuration}
        notices = None if result is None else result.notices
        return self._write(f"Depth upsampling x{scale} of {name}", configuration, notices, parts, warnings)

    def _write(
        self,
        title: str,
        configuration: Mapping[str, Any],
        notices: Mapping[str, Sequence[str]] | None,
        parts: dict[str, Any],
        warnings: Sequence[str] = (),
    ) -> Path:
        """Write the common part of both kinds of report; without ``notices``, the run was interrupted."""
        self._video.close()
        frames = len(self._analysis)
        lines = [f"WARNING: {text}" for text in warnings]
        if notices is None:
            lines.append(f"Interrupted: this report covers the first {frames} frames.")
        parts["warnings"] = [*lines, *parts.get("warnings", ())]
        parts["facts"] = [("frames scored", str(frames)), *parts["facts"]]
        data = ReportData(
            title=title,
            subtitle=str(configuration.get("data", "")),
            analysis=self._analysis,
            notes=[f"{method}: {text}" for method, texts in (notices or {}).items() for text in texts],
            video=self._video.path,
            video_caption=self._video.caption,
            configuration=configuration,
            **parts,
        )
        return write_report(data, self._folder)


def write_index(
    folder: Path,
    source: str,
    columns: Mapping[str, tuple[str, float]],
    scales: Mapping[float, Mapping[str, Any]],
    folders: Mapping[tuple[str, float], str],
) -> Path:
    """Write index.html, which links the reports of several sequences or scales; returns its path.

    Args:
        folder: contains the reports' folders.
        source: what was evaluated.
        columns: title -> (figure, factor).
        scales: scale -> its results: ``sequences``, ``mean``, ``warnings`` and ``skipped``, as written by
            :mod:`stdnet_core.evaluate`.
        folders: (sequence, scale) -> folder of its report.
    """
    rows = []
    for scale, results in scales.items():
        entries = [*results["sequences"].items()]
        if len(entries) > 1:
            entries.append(("mean", results["mean"]))
        for name, methods in entries:
            link = f"{folders[name, scale]}/report.html" if (name, scale) in folders else ""
            for method, figures in methods.items():
                values = (figures[key] * factor for key, factor in columns.values())
                cells = [f"{value:.2f}" if np.isfinite(value) else "-" for value in values]
                rows.append((f"{name}, x{scale}", link, method, cells))
    notes = [f"left out: {text}" for text in dict.fromkeys(t for r in scales.values() for t in r["skipped"])]
    warnings = [f"WARNING: {text}" for text in dict.fromkeys(t for r in scales.values() for t in r["warnings"])]
    title = f"Depth upsampling of {len({name for name, _ in folders})} sequences"
    page = Overview(title, source, list(columns), rows, notes, warnings)
    write_overview(page, folder / "index.html")
    return folder / "index.html"
