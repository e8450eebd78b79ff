"""Traces a module and writes it as an ONNX file, with a description of the network as metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stdnet_core.checkpoints import CheckpointInfo
from stdnet_core.cli import require
from stdnet_core.errors import ConfigError
from stdnet_core.model import RecurrentNet, STDNet
from stdnet_core.streaming.stream import model_fingerprint

OPSET = 18


def prepare_output(path: str | Path) -> Path:
    """The path to write to, after creating its folder and checking that the packages for the export are installed.

    Raises:
        ConfigError: it does not end in ``.onnx``.
        StdnetError: a package for the export is missing.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(f"the output {path} must end in .onnx")
    for package in ("onnx", "onnxscript"):
        require(package, extra="export")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def export_metadata(
    model: STDNet | RecurrentNet, info: CheckpointInfo, file_format: str, latency: int = 0
) -> dict[str, str]:
    """Metadata of an exported file about its network; all but the format and the fingerprint are JSON."""
    values = {
        "config": info.config.to_dict(),
        "scales": list(info.scales),
        "depth_range": info.depth_range,
        "provenance": info.provenance,
        "metrics": info.metrics,
        "latency": latency,
    }
    texts = {key: json.dumps(value) for key, value in values.items()}
    return {"format": file_format, "fingerprint": model_fingerprint(model), **texts}


def write_onnx(
    path: Path,
    graph: nn.Module,
    arguments: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    metadata: dict[str, str],
    *,
    grad: bool = False,
) -> None:
    """Trace a module and write it; the file is either complete or does not exist.

    Args:
        path: of the file, in an existing folder.
        arguments: of the module: tensors with the sizes of the export.
        inputs, outputs: names in the file.
        grad: trace with gradients enabled, for modules that process the image in bands when gradients are disabled.
    """
    from onnx_ir.passes.common import OutputFixPass
    from onnxscript import optimizer

    with warnings.catch_warnings(), _quiet(), torch.set_grad_enabled(grad):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            verbose=False,
            # Of its passes, only these are needed. Searching for patterns took three quarters of the time and made
            # no file faster, since what reads the file rewrites it in its own way.
            optimize=False,
        )
    assert program is not None
    for simplify in (optimizer.inline, optimizer.fold_constants, optimizer.remove_unused_nodes, OutputFixPass()):
        simplify(program.model)
    for output, name in zip(program.model.graph.outputs, outputs, strict=True):
        output.name = name
    for node in program.model.graph:
        node.metadata_props.clear()  # source lines of every operator; they need more space than a small model's weights
    program.model.metadata_props.update(metadata)
    temporary = path.with_name(path.name + ".partial")
    program.save(str(temporary), external_data=False)
    temporary.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress output and its remarks about further packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
