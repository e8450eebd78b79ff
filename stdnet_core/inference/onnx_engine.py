"""Runs an exported network (:mod:`stdnet_core.export`) with ONNX Runtime instead of PyTorch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core.checkpoints import CheckpointInfo, info_from_metadata
from stdnet_core.cli import require
from stdnet_core.errors import CheckpointError, ConfigError, InputError
from stdnet_core.inference.engine import EngineOutput, recurrent_inputs
from stdnet_core.optical_flow import FlowEstimator

FORMAT = "stdnet-onnx-1"
RECURRENT_FORMAT = "stdnet-recurrent-onnx-2"
STATE_PREFIX = "state_"
NEXT_PREFIX = "next_"
TAIL_SUFFIX = ".tail.onnx"


def tail_path(path: Path) -> Path:
    """The second file of an export, which computes the last frames of a stream (only if the latency is not 0)."""
    return path.with_name(path.stem + TAIL_SUFFIX)


def open_engine(
    path: str | Path,
    *,
    fingerprint: str | None = None,
    providers: list[str] | None = None,
    threads: int | None = None,
) -> OnnxEngine | RecurrentOnnxEngine:
    """The engine for an exported file; the kind of network is read from the file's metadata.

    Arguments and errors as for :class:`OnnxEngine`."""
    file = ExportedFile(path, (FORMAT, RECURRENT_FORMAT), fingerprint=fingerprint, providers=providers, threads=threads)
    return (OnnxEngine if file.metadata["format"] == FORMAT else RecurrentOnnxEngine)(file)


class ExportedFile:
    """A file opened by ONNX Runtime.

    Args:
        path: of the file.
        formats: values of ``format`` that its metadata may have.
        fingerprint, providers, threads: see :class:`OnnxEngine`.

    Attributes:
        path: of the file.
        session: ONNX Runtime's.
        metadata: strings by name.
        info: the checkpoint's description.
        fingerprint: hash of the exported model's configuration and weights.
        inputs: shapes by name.
        outputs: names in order.

    Raises:
        CheckpointError: not a file, not ONNX, not from this project, or another model.
        ConfigError: an execution provider that is not installed.
        StdnetError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        formats: tuple[str, ...],
        *,
        fingerprint: str | None = None,
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self._runtime = require("onnxruntime", extra="export")
        self._providers = _choose_providers(self._runtime, providers)
        self._threads = threads
        self.session = self._open()
        self.metadata = self._read_metadata(formats)
        self.info = _info(self.metadata, self.path)
        self.fingerprint: str = self.metadata["fingerprint"]
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{self.path} holds another model (fingerprint {self.fingerprint}, expected {fingerprint}); export it "
                "again from the checkpoint in use"
            )
        self.inputs: dict[str, tuple[int, ...]] = {i.name: tuple(i.shape) for i in self.session.get_inputs()}
        self.outputs: list[str] = [o.name for o in self.session.get_outputs()]

    def beside(self, path: Path) -> ExportedFile:
        """Open another file of the same format with the same settings."""
        return ExportedFile(path, (self.metadata["format"],), providers=self._providers, threads=self._threads)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; feeds that are not an input of the file are ignored."""
        feeds = {name: array for name, array in feeds.items() if name in self.inputs}
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds), strict=True))

    def start(self) -> dict[str, np.ndarray]:
        """The state before the first frame."""
        shapes = {name: shape for name, shape in self.inputs.items() if name.startswith(STATE_PREFIX)}
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def _open(self) -> Any:
        if not self.path.is_file():
            raise CheckpointError(f"there is no file {self.path}; create it with: python -m stdnet_core.export")
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            return self._runtime.InferenceSession(str(self.path), options, providers=self._providers)
        except Exception as error:  # ONNX Runtime's own exception types have no common base class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{self.path} cannot be opened by ONNX Runtime ({reason}); re-export it") from error

    def _read_metadata(self, formats: tuple[str, ...]) -> dict[str, str]:
        metadata = self.session.get_modelmeta().custom_metadata_map
        found = metadata.get("format")
        if found in formats:
            return metadata
        if found in (FORMAT, RECURRENT_FORMAT):
            raise CheckpointError(
                f"{self.path} holds another kind of network (format {found!r}, expected {formats[0]!r}); open it with "
                "stdnet_core.inference.onnx_engine.open_engine, which accepts both"
            )
        raise CheckpointError(
            f"{self.path} is an ONNX file but not one of this project's models (format {found!r}, "
            f"expected {formats[0]!r}); create one with: python -m stdnet_core.export"
        )


def _advanced(state: dict[str, np.ndarray], results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The new state, taken from the results of a step."""
    return {name: results[NEXT_PREFIX + name[len(STATE_PREFIX) :]] for name in state}


class _ExportedStep:
    """The exported step of either kind of network, with its state between frames."""

    file_format: str

    def __init__(
        self,
        path: str | Path | ExportedFile,
        fingerprint: str | None,
        providers: list[str] | None,
        threads: int | None,
    ) -> None:
        if not isinstance(path, ExportedFile):
            path = ExportedFile(
                path, (self.file_format,), fingerprint=fingerprint, providers=providers, threads=threads
            )
        self._file = path
        self._state: dict[str, np.ndarray] = {}
        self.info = path.info
        self.fingerprint = path.fingerprint
        self.depth_size = _size(path.inputs["depth_lr"])

    def state_bytes(self) -> int:
        """Bytes of memory of the state."""
        return sum(array.nbytes for array in self._state.values())


class OnnxEngine(_ExportedStep):
    """An exported streaming step, as an engine for :class:`stdnet_core.inference.DepthUpsampler`.

    Args:
        path: a ``.onnx`` file from ``python -m stdnet_core.export``, or one that is open already.
        fingerprint: expected :attr:`fingerprint`; files of other models are refused. None accepts any.
        providers: ONNX Runtime's execution providers in order of preference; None: all that are installed.
        threads: CPU threads; None: ONNX Runtime chooses.

    Attributes:
        info: the checkpoint's description.
        latency: frames between input and output.
        size: (H, W) of colour, fixed by the export.
        depth_size: (h, w) of depth.
        scale: H / h.
        fingerprint: hash of the exported model's configuration and weights.

    Raises:
        CheckpointError: not a file, not ONNX, not from this project, or another model.
        ConfigError: an execution provider that is not installed.
        StdnetError: ONNX Runtime is not installed.
    """

    file_format = FORMAT

    def __init__(
        self,
        path: str | Path | ExportedFile,
        *,
        fingerprint: str | None = None,
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(path, fingerprint, providers, threads)
        self._path = self._file.path
        self.latency: int = json.loads(self._file.metadata["latency"])
        self.size = _size(self._file.inputs["rgb"])
        self.scale = self.size[0] // self.depth_size[0]
        self._tail: ExportedFile | None = None
        self.reset()

    def reset(self) -> None:
        """Clear the state; the next step begins a new clip."""
        self._frames = 0
        self._state = self._file.start()

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> EngineOutput | None:
        """Process the next frame; see :class:`stdnet_core.inference.engine.Engine`.

        Raises:
            InputError: sizes other than the exported ones, or values that are not finite. The state does not change.
        """
        if rgb.shape != (*self.size, 3) or depth_lr.shape != self.depth_size:
            (height, width), (rows, columns) = self.size, self.depth_size
            raise InputError(
                f"{self._path.name} was exported for colour of {width}x{height} and depth of {columns}x{rows}, and got "
                f"arrays {rgb.shape} and {depth_lr.shape}; export it for these sizes"
            )
        colour = rgb * np.float32(1 / 255) if rgb.dtype == np.uint8 else rgb.astype(np.float32, copy=False)
        depth_lr = depth_lr.astype(np.float32, copy=False)
        if not (np.isfinite(depth_lr).all() and np.isfinite(colour).all()):
            raise InputError("rgb or depth_lr holds NaN or infinite values; fill invalid depth first")
        feeds: dict[str, np.ndarray] = {
            "frame": np.array([self._frames], np.int64),
            "rgb": np.ascontiguousarray(colour.transpose(2, 0, 1))[None],
            "depth_lr": depth_lr[None, None],
            **self._state,
        }
        results = self._file.run(feeds)
        self._state = _advanced(self._state, results)
        self._frames += 1
        return _output(results) if self._frames > self.latency else None

    def flush(self) -> list[EngineOutput]:
        """Return the outputs of the frames still pending, oldest first; the next step begins a new clip.

        Raises:
            CheckpointError: the file for the last frames (:func:`tail_path`) is missing or belongs to another model.
        """
        frames, state = self._frames, self._state
        due = min(self.latency, frames)
        outputs: list[EngineOutput] = []
        if due:
            results = self._open_tail().run({"frame": np.array([frames - 1], np.int64), **state})
            for index in range(self.latency - due, self.latency):
                suffix = f"_{index}"
                outputs.append(_output({k[: -len(suffix)]: v for k, v in results.items() if k.endswith(suffix)}))
        self.reset()
        return outputs

    def _open_tail(self) -> ExportedFile:
        if self._tail is None:
            tail = self._file.beside(tail_path(self._path))
            if (tail.fingerprint, tail.metadata["latency"]) != (self.fingerprint, str(self.latency)):
                raise CheckpointError(
                    f"{tail.path} belongs to another model or latency than {self._path}; export both again"
                )
            self._tail = tail
        return self._tail


class RecurrentOnnxEngine(_ExportedStep):
    """An exported recurrent network; see :class:`stdnet_core.inference.engine.RecurrentEngine`.

    Arguments and errors as for :class:`OnnxEngine`.

    Attributes:
        info: the checkpoint's description.
        latency: 0, because the network is causal.
        size: (H, W) of colour, fixed by the export.
        covered: (H', W') of colour that the depth cells cover, at least (H, W); frames may be padded to it.
        depth_size: (h, w) of depth.
        ratio: size of a depth cell in pixels on each axis (rows, columns).
        fingerprint: hash of the exported model's configuration and weights.
    """

    file_format = RECURRENT_FORMAT
    latency = 0
    executes = "onnxruntime"

    def __init__(
        self,
        path: str | Path | ExportedFile,
        *,
        fingerprint: str | None = None,
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(path, fingerprint, providers, threads)
        self._padded = _size(self._file.inputs["rgb"])
        try:
            self.size, self.covered, self.ratio = (
                tuple(json.loads(self._file.metadata[name])) for name in ("size", "covered", "ratio")
            )
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the metadata of {self._file.path} cannot be used ({error}); export it again"
            ) from error
        self._flow = FlowEstimator()
        self.reset()

    def reset(self) -> None:
        """Clear the state; the next step begins a new clip."""
        self._flow.reset()
        self._state = self._file.start()

    def step(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float] | None = None) -> EngineOutput:
        """Process the next frame.

        Args:
            rgb: ``size`` or ``covered``, (H, W, 3), uint8 or float in 0..1.
            depth: ``depth_size``, (h, w) float32 metres, 0 invalid.
            ratio: size of a depth cell in pixels on each axis, to check against the exported one.

        Returns:
            Depth and error scale, (H, W) of ``rgb``, in metres.

        Raises:
            InputError: sizes or a ratio other than the exported ones, or values that are not finite or negative. The
                state does not change.
        """
        self._check(rgb, depth, ratio)
        height, width = rgb.shape[:2]
        results = self._file.run({**recurrent_inputs(rgb, depth, self._padded, self._flow), **self._state})
        self._state = _advanced(self._state, results)
        metres, scale = (results[name][0, 0, :height, :width] for name in ("depth", "error_scale"))
        return EngineOutput(metres, scale, registration=results["next_registration"][0])

    def _check(self, rgb: np.ndarray, depth: np.ndarray, ratio: tuple[float, float] | None) -> None:
        if rgb.shape not in ((*self.size, 3), (*self.covered, 3)) or depth.shape != self.depth_size:
            (height, width), (rows, columns) = self.size, self.depth_size
            raise InputError(
                f"{self._file.path.name} was exported for colour of {width}x{height} and depth of {columns}x{rows}, "
                f"and got arrays {rgb.shape} and {depth.shape}; export it for these sizes"
            )
        ratio = self.ratio if ratio is None else ratio
        if not all(math.isclose(given, wanted, rel_tol=1e-6) for given, wanted in zip(ratio, self.ratio, strict=True)):
            raise InputError(
                f"{self._file.path.name} was exported for cells of {_by(self.ratio)} pixels, and got cells of "
                f"{_by(ratio)}; export it for this ratio"
            )
        if not (np.isfinite(depth).all() and depth.min() >= 0):
            raise InputError("depth holds NaN, infinite or negative values; set it to 0 where it is invalid")
        if rgb.dtype != np.uint8 and not np.isfinite(rgb).all():
            raise InputError("rgb holds NaN or infinite values")


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of images (N, C, rows, columns)."""
    rows, columns = shape[2:]
    return rows, columns


def _by(ratio: tuple[float, float]) -> str:
    return f"{ratio[1]:g}x{ratio[0]:g}"


def _choose_providers(runtime: Any, wanted: list[str] | None) -> list[str]:
    installed = runtime.get_available_providers()
    if wanted is None:
        return installed
    missing = [p for p in wanted if p not in installed]
    if missing:
        raise ConfigError(
            f"ONNX Runtime has no execution provider {', '.join(missing)} here; installed are {', '.join(installed)}"
        )
    return wanted


def _info(metadata: dict[str, str], path: Path) -> CheckpointInfo:
    try:
        return info_from_metadata(metadata, path.stem)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"the metadata of {path} cannot be used: {error}; export it again") from error


def _output(results: dict[str, np.ndarray]) -> EngineOutput:
    scale = np.exp(results["log_scale"][0, 0]) if "log_scale" in results else None
    disagreement = results["disagreement"][0, 0] if "disagreement" in results else None
    return EngineOutput(results["depth"][0, 0], scale, disagreement)
