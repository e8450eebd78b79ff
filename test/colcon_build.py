"""Build the package with colcon in a scratch workspace and start the node that it installed.

Run by ``make colcon``. Checks what a workspace build has to deliver: the package is listed as ``ros.ament_python``, the
executables, launch files, configuration and index marker are where ``ros2`` looks for them, and the installed node
runs from there and becomes active."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stdnet_ros.processes import free_domain

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "stdnet_ros"
CONTENT = ("stdnet_core", "stdnet_ros", "launch", "config", "resource", "package.xml", "setup.py", "setup.cfg")
EXECUTABLES = ("stdnet_node", "evaluate_bag", "stdnet_demo")
START_SECONDS = 60.0


def check(condition: bool, what: str) -> None:
    """Print what was checked; end with an error where it does not hold."""
    print(("ok      " if condition else "FAILED  ") + what, flush=True)
    if not condition:
        sys.exit(1)


def run(*command: str | Path, **options) -> str:
    """Run a command, return what it printed, end with its output if it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def copy_sources(target: Path) -> None:
    """The package as a checkout holds it, without environments and outputs."""
    target.mkdir(parents=True)
    for name in (*CONTENT, "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def becomes_active(node: subprocess.Popen, environment: dict[str, str]) -> bool:
    """Whether the node reports the lifecycle state "active" in time, asked over its own service."""
    program = (
        "import rclpy, time, sys\n"
        "from lifecycle_msgs.srv import GetState\n"
        "rclpy.init(); node = rclpy.create_node('asker')\n"
        "client = node.create_client(GetState, '/stdnet/get_state')\n"
        f"end = time.monotonic() + {START_SECONDS}\n"
        "label = ''\n"
        "while label != 'active' and time.monotonic() < end:\n"
        "    if client.wait_for_service(0.5):\n"
        "        future = client.call_async(GetState.Request())\n"
        "        rclpy.spin_until_future_complete(node, future, timeout_sec=2.0)\n"
        "        label = future.result().current_state.label if future.done() else ''\n"
        "    time.sleep(0.2)\n"
        "print(label); rclpy.shutdown()\n"
    )
    answer = run(sys.executable, "-c", program, env=environment, cwd="/")
    return answer.strip() == "active" and node.poll() is None


def main() -> None:
    """Build, inspect, start."""
    colcon = Path(sys.executable).with_name("colcon")
    with tempfile.TemporaryDirectory(prefix="colcon_ws_") as folder:
        workspace = Path(folder)
        copy_sources(workspace / "src" / PACKAGE)
        build_environment = {**os.environ, "PATH": f"{colcon.parent}:{os.environ['PATH']}"}
        listed = run(colcon, "list", cwd=workspace, env=build_environment)
        check("(ros.ament_python)" in listed, f"colcon list: {' '.join(listed.split())}")
        run(colcon, "build", "--event-handlers", "console_direct+", cwd=workspace, env=build_environment)
        prefix = workspace / "install" / PACKAGE
        for name in EXECUTABLES:
            check(os.access(prefix / "lib" / PACKAGE / name, os.X_OK), f"lib/{PACKAGE}/{name}")
        share = prefix / "share" / PACKAGE
        for name in ("package.xml", "launch/stdnet.launch.py", "config/stdnet.yaml", "config/fastdds.xml"):
            check((share / name).is_file(), f"share/{PACKAGE}/{name}")
        check((prefix / "share/ament_index/resource_index/packages" / PACKAGE).is_file(), "ament index marker")

        sourced = run(
            "bash", "-c", "source install/setup.bash && env -0", cwd=workspace,
            env={**build_environment, "AMENT_PREFIX_PATH": sys.prefix},
        )  # fmt: skip
        environment = dict(item.split("=", 1) for item in sourced.split("\0") if "=" in item)
        environment |= {
            "ROS_DOMAIN_ID": str(free_domain()),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(workspace / "ros_log"),
        }
        where = run(sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", env=environment, cwd="/")
        check(where.startswith(str(workspace)), f"the installed copy is imported: {where.strip()}")
        node = subprocess.Popen([prefix / "lib" / PACKAGE / "stdnet_node"], env=environment, cwd="/")
        try:
            check(becomes_active(node, environment), "the installed node becomes active")
        finally:
            node.send_signal(signal.SIGINT)
            deadline = time.monotonic() + 10
            while node.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            stopped = node.poll()
            node.kill()
        check(stopped == 0, f"the node ends with status 0 on Ctrl-C (status {stopped})")


if __name__ == "__main__":
    main()
