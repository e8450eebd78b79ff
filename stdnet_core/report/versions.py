"""The software and hardware that the numbers of a report were computed with."""

from __future__ import annotations

import os
import platform
from importlib import metadata

_PACKAGES = ("stdnet_ros", "torch", "numpy", "opencv-python-headless", "opencv-python", "rclpy", "rosbags")


def versions() -> dict[str, str]:
    """Versions of Python and of the relevant packages, and the machine's processor and GPU."""
    import torch

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found["processor"] = f"{_processor()}, {os.cpu_count()} cores"
    found["gpu"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
