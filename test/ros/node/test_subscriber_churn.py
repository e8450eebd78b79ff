"""Subscribers that come, go and are killed do not keep the node from publishing, diagnosing and stopping."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed; pip install '.[ros]'")

SCRIPT = Path(__file__).resolve().parents[2] / "subscriber_churn.py"


def test_the_node_serves_others_after_subscribers_were_killed(tmp_path: Path) -> None:
    """A few of them, over UDP: what Fast DDS's shared memory does after kills is in docs/troubleshooting.md."""
    options = ["--subscribers", "6", "--processes", "3", "--life", "1", "2", "--killed", "1", "--seconds", "7"]
    options += ["--width", "160", "--height", "120", "--transport", "UDPv4", "--reliable-inputs"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--output", str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "churn.json").read_text())
    assert report["failures"] == []  # of gaps and of the time to stop
    assert report["processes_killed"] >= 1
    assert report["subscribers_most"] >= 3  # the observer and those of a process
    after = [row for row in report["over_time"] if row["from"] > report["kills"][0]]
    assert sum(row["images"] for row in after) > 0
    assert sum(row["diagnostics"] for row in after) > 0
    assert report["received"] > 0.5 * report["sent"]
