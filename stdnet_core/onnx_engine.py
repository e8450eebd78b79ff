"""Runs an exported network (:mod:`stdnet_core.export`) with ONNX Runtime instead of PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import require
from stdnet_core.engine import EngineOutput
from stdnet_core.errors import CheckpointError, ConfigError, InputError
from stdnet_core.model import ModelConfig

FORMAT = "stdnet-onnx-1"
STATE_PREFIX = "state_"
NEXT_PREFIX = "next_"
TAIL_SUFFIX = ".tail.onnx"


def tail_path(path: Path) -> Path:
    """File beside an exported step that ends a stream (only where there is a latency)."""
    return path.with_name(path.stem + TAIL_SUFFIX)


class OnnxEngine:
    """An exported streaming step as an engine of :class:`stdnet_core.inference.DepthUpsampler`.

    Args:
        path: a ``.onnx`` file made by ``python -m stdnet_core.export``.
        fingerprint: refuse a file of another model (:attr:`fingerprint` of the one expected); None takes any.
        providers: ONNX Runtime's execution providers in order of preference; None takes what is installed.
        threads: CPU threads; None leaves the choice to ONNX Runtime.

    Attributes:
        info: what the checkpoint said about itself.
        latency: frames between input and output.
        size: (H, W) of colour, fixed when it was exported.
        depth_size: (h, w) of depth.
        scale: H / h.
        fingerprint: hash of the exported model's configuration and weights.

    Raises:
        CheckpointError: not a file, not ONNX, not from this project, or another model.
        ConfigError: an execution provider that is not installed.
        StdnetError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        providers: list[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self._path = Path(path).expanduser()
        self._runtime = require("onnxruntime", extra="export")
        self._providers = _choose_providers(self._runtime, providers)
        self._threads = threads
        self._session = self._open(self._path)
        metadata = self._metadata(self._session, self._path)
        self.info = _info(metadata, self._path)
        self.latency: int = json.loads(metadata["latency"])
        self.fingerprint: str = metadata["fingerprint"]
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{self._path} holds another model (fingerprint {self.fingerprint}, expected {fingerprint}); export it "
                "anew from the checkpoint in use"
            )
        inputs = {i.name: i for i in self._session.get_inputs()}
        self.size: tuple[int, int] = tuple(inputs["rgb"].shape[2:])
        self.depth_size: tuple[int, int] = tuple(inputs["depth_lr"].shape[2:])
        self.scale = self.size[0] // self.depth_size[0]
        self._state_shapes = {n: tuple(i.shape) for n, i in inputs.items() if n.startswith(STATE_PREFIX)}
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._tail: Any = None
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next step begins a new clip."""
        self._frames = 0
        self._state = {name: np.zeros(shape, np.float32) for name, shape in self._state_shapes.items()}

    def state_bytes(self) -> int:
        """Memory of the state."""
        return sum(array.nbytes for array in self._state.values())

    def step(self, rgb: np.ndarray, depth_lr: np.ndarray) -> EngineOutput | None:
        """Take the next frame; see :class:`stdnet_core.engine.Engine`.

        Raises:
            InputError: sizes other than the exported ones, or values that are not finite. The state is unharmed.
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
        feeds = {
            "frame": np.array([self._frames], np.int64),
            "rgb": np.ascontiguousarray(colour.transpose(2, 0, 1))[None],
            "depth_lr": depth_lr[None, None],
            **self._state,
        }
        results = dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))
        self._state = {name: results[NEXT_PREFIX + name[len(STATE_PREFIX) :]] for name in self._state}
        self._frames += 1
        return _output(results) if self._frames > self.latency else None

    def flush(self) -> list[EngineOutput]:
        """The frames still held back, oldest first; the next step begins a new clip.

        Raises:
            CheckpointError: the file that ends a stream is not beside the exported one, or of another model.
        """
        frames, state = self._frames, self._state
        due = min(self.latency, frames)
        outputs: list[EngineOutput] = []
        if due:
            tail = self._open_tail()
            names = [o.name for o in tail.get_outputs()]
            wanted = {i.name for i in tail.get_inputs()}
            feeds = {"frame": np.array([frames - 1], np.int64), **state}
            results = dict(zip(names, tail.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))
            for index in range(self.latency - due, self.latency):
                suffix = f"_{index}"
                outputs.append(_output({k[: -len(suffix)]: v for k, v in results.items() if k.endswith(suffix)}))
        self.reset()
        return outputs

    def _open_tail(self) -> Any:
        if self._tail is None:
            path = tail_path(self._path)
            tail = self._open(path)
            metadata = self._metadata(tail, path)
            if (metadata["fingerprint"], metadata["latency"]) != (self.fingerprint, str(self.latency)):
                raise CheckpointError(f"{path} belongs to another model or latency than {self._path}; export both anew")
            self._tail = tail
        return self._tail

    def _open(self, path: Path) -> Any:
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}; make it with: python -m stdnet_core.export")
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            return self._runtime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # ONNX Runtime raises types of its own without a common base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{path} cannot be opened by ONNX Runtime ({reason}); export it anew") from error

    @staticmethod
    def _metadata(session: Any, path: Path) -> dict[str, str]:
        metadata = session.get_modelmeta().custom_metadata_map
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is an ONNX file but not one of this project's models (format {metadata.get('format')!r}, "
                f"expected {FORMAT!r}); make one with: python -m stdnet_core.export"
            )
        return metadata


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
        values = {k: json.loads(metadata[k]) for k in ("config", "scales", "depth_range", "provenance", "metrics")}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the metadata of {path} cannot be used ({error}); export it anew") from error
    return CheckpointInfo(
        config=ModelConfig.from_dict(values["config"]),
        scales=tuple(values["scales"]),
        depth_range=values["depth_range"],
        provenance=values["provenance"],
        metrics=values["metrics"],
        name=path.stem,
    )


def _output(results: dict[str, np.ndarray]) -> EngineOutput:
    scale = np.exp(results["log_scale"][0, 0]) if "log_scale" in results else None
    disagreement = results["disagreement"][0, 0] if "disagreement" in results else None
    return EngineOutput(results["depth"][0, 0], scale, disagreement)
