"""Choice of device and precision, with a reason if it is not what was requested."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from stdnet_core.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """The device and the precision to compute with.

    Attributes:
        device: a device that was tested to work.
        dtype: type of the network's convolutions; float32 or a half precision.
        reason: why the device or the precision is not the requested one, or why ``auto`` chose the CPU; otherwise
            None.
        fallback: whether the request could not be met (``auto`` on a machine without a GPU is not a fallback).
    """

    device: torch.device
    dtype: torch.dtype
    reason: str | None = None
    fallback: bool = False

    @property
    def precision(self) -> str:
        """Name of the precision: fp32, bf16 or fp16."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)


def place(device: str = "auto", precision: str = "auto") -> Placement:
    """Choose a device and a precision.

    Args:
        device: ``auto`` (the first CUDA device that works, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``. A CUDA
            device that is missing or does not work falls back to the CPU.
        precision: ``auto`` (on CUDA, bf16, or fp16 if the device does not support bf16; on the CPU, bf16 if it has
            instructions for it, else fp32), ``fp32``, ``bf16`` or ``fp16``. If the device does not support the
            precision, the next supported one is used.

    Raises:
        ConfigError: any other value.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device is {device!r}; choose auto, cpu, cuda or cuda:N")
    if precision != "auto" and precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; choose auto, {', '.join(PRECISIONS)}")
    chosen, reason, fallback = _choose_device(device)
    dtype, precision_reason = _choose_dtype(precision, chosen)
    reasons = [text for text in (reason, precision_reason) if text]
    return Placement(chosen, dtype, "; ".join(reasons) or None, fallback or precision_reason is not None)


def cpu_computes_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX512-BF16 or AMX), which make it faster than float32."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def _choose_device(request: str) -> tuple[torch.device, str | None, bool]:
    cpu = torch.device("cpu")
    if request == "cpu":
        return cpu, None, False
    missing = _why_no_cuda()
    if missing:
        return cpu, f"device {request}: {missing}, so this runs on the CPU", request != "auto"
    index = int(request.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        found = f"there are only {count} CUDA devices" if count != 1 else "there is only one CUDA device, cuda:0"
        return cpu, f"device {request}: {found}, so this runs on the CPU", True
    device = torch.device("cuda", index)
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:  # driver too old, no kernels for this GPU, memory used up by other programs
        why = str(error).splitlines()[0]
        return cpu, f"device {request}: {device} does not work ({why}), so this runs on the CPU", True
    return device, None, False


def _why_no_cuda() -> str | None:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    return None if torch.cuda.is_available() else "PyTorch finds no usable CUDA device or driver"


def _choose_dtype(request: str, device: torch.device) -> tuple[torch.dtype, str | None]:
    if device.type == "cpu":
        if request == "fp16":
            return torch.float32, "precision fp16: the CPU computes it slowly, so fp32 is used"
        if request == "auto" and cpu_computes_bf16():
            return torch.bfloat16, None
        return PRECISIONS.get(request, torch.float32), None
    has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    if request == "auto":
        return (torch.bfloat16 if has_bf16 else torch.float16), None
    if request == "bf16" and not has_bf16:
        return torch.float16, f"precision bf16: {torch.cuda.get_device_name(device)} has none, so fp16 is used"
    return PRECISIONS[request], None
