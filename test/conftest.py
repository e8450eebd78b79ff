"""Shared set-up: tests run on few threads, so that several may run at once without fighting for cores.

In parallel (``make test``: ``-n 2 --dist loadfile``) each file is run by one worker, files with slow tests first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

# Tests borrow scenes and writers of files from each other by name, wherever they lie.
sys.path += sorted(str(folder) for folder in Path(__file__).parent.rglob("*") if any(folder.glob("test_*.py")))

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported; processes that tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell that starts the tests in the background ignores Ctrl-C, and so would every process that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (for libraries that draw from the global state)


@pytest.fixture(autouse=True)
def _float32_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """``precision: auto`` means the same on every machine: float32, also where the CPU computes bfloat16."""
    monkeypatch.setattr("stdnet_core.inference.devices.cpu_computes_bf16", lambda: False)
