"""Which device and precision are chosen, and what is said, where PyTorch reports GPUs that this machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stdnet_core.errors import ConfigError
from stdnet_core.inference.devices import cpu_computes_bf16, place  # before conftest.py replaces it


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch):
    """Makes PyTorch report so many CUDA devices of a capability, which work or fail with an error."""
    ones = torch.ones

    def report(count: int, capability: tuple[int, int] = (9, 0), error: str | None = None) -> None:
        def tried(*size: int, device: torch.device) -> torch.Tensor:
            assert device.type == "cuda"
            if error is not None:
                raise RuntimeError(error)
            return ones(*size)

        monkeypatch.setattr(torch.version, "cuda", "12.4")
        monkeypatch.setattr(torch.version, "hip", None, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
        monkeypatch.setattr(torch, "ones", tried)

    return report


def test_a_device_that_works_is_taken_without_a_word(reported) -> None:
    reported(2)
    for request, device in (("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        placement = place(request, "fp32")
        assert placement.device == torch.device(device)
        assert (placement.reason, placement.fallback) == (None, False)


@pytest.mark.parametrize(
    ("count", "said"), [(1, "there is only one CUDA device, cuda:0"), (2, "there are only 2 CUDA devices")]
)
def test_a_device_beyond_the_last_falls_back(count: int, said: str, reported) -> None:
    reported(count)
    placement = place(f"cuda:{count}", "fp32")
    assert (placement.device.type, placement.fallback) == ("cpu", True)
    assert placement.reason == f"device cuda:{count}: {said}, so this runs on the CPU"
    assert place(f"cuda:{count - 1}", "fp32").device == torch.device("cuda", count - 1)


@pytest.mark.parametrize("request_", ["auto", "cuda"])
def test_a_device_that_fails_falls_back_and_says_why(request_: str, reported) -> None:
    reported(1, error="CUDA error: no kernel image is available\nCUDA kernel errors might be ...")
    placement = place(request_, "fp32")
    assert (placement.device.type, placement.fallback) == ("cpu", True)
    assert placement.reason == (
        f"device {request_}: cuda:0 does not work (CUDA error: no kernel image is available), so this runs on the CPU"
    )


def test_a_build_for_cuda_without_a_driver_says_so(reported) -> None:
    reported(0)
    assert place("auto", "fp32").reason == (
        "device auto: PyTorch finds no usable CUDA device or driver, so this runs on the CPU"
    )


@pytest.mark.parametrize(
    ("capability", "request_", "precision", "said"),
    [
        ((8, 0), "auto", "bf16", None),
        ((8, 0), "bf16", "bf16", None),
        ((7, 5), "auto", "fp16", None),
        ((7, 5), "bf16", "fp16", "precision bf16: Tesla T4 has none, so fp16 is used"),
        ((7, 5), "fp32", "fp32", None),
        ((9, 0), "fp16", "fp16", None),
    ],
)
def test_precision_is_what_the_gpu_has(capability, request_, precision, said, reported) -> None:
    reported(1, capability)
    placement = place("auto", request_)
    assert (placement.precision, placement.reason, placement.fallback) == (precision, said, said is not None)


@pytest.mark.parametrize(("device", "precision"), [("gpu", "auto"), ("cuda:", "auto"), ("cuda:x", "auto")])
def test_unknown_devices_are_refused(device: str, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}'; choose auto, cpu, cuda or cuda:N"):
        place(device, precision)


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ConfigError, match="precision is 'fp8'; choose auto, fp32"):
        place("cpu", "fp8")


@pytest.mark.parametrize(
    ("flags", "computes"),
    [("fpu avx512f avx512_bf16 sse", True), ("amx_bf16", True), ("fpu avx512f avx512_vnni", False), ("", False)],
)
def test_processors_that_compute_bfloat16(flags: str, computes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    info = f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx512_bf16 in another line\n"
    monkeypatch.setattr(Path, "read_text", lambda self: info if str(self) == "/proc/cpuinfo" else "")
    assert cpu_computes_bf16() is computes


def test_a_processor_that_says_nothing_computes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_computes_bf16() is False
