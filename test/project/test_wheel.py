"""The wheel is whole: installed into an empty environment, its programs run from a folder without the sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from ros_fixtures import ROOT, rclpy  # noqa: F401 (isolates the ROS graph before rclpy is imported)

pytestmark = pytest.mark.slow
SOURCES = ("stdnet_core", "stdnet_ros", "launch", "config", "resource")
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "package.xml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run a program of the environment into which the wheel alone was installed.

    Its dependencies are those of this environment, without the .pth file that makes the sources importable."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Neither the sources nor what was installed of them may be found, or pip would take the wheel for installed.
    hidden = ("PYTHONPATH", "AMENT_PREFIX_PATH", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"OMP_NUM_THREADS": "1"}
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(build, check=True, cwd=folder, env=environment)
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(folder / "source")
    venv.create(folder / "env", symlinks=True, with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, cwd=folder, env=environment)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    here = Path(sysconfig.get_path("purelib"))
    (site / "dependencies.pth").write_text(f"{here}\n")
    for hook in here.glob("ros_wheels*.pth"):
        shutil.copy(hook, site)
    work = folder / "work"
    work.mkdir()

    def run(program, *arguments):
        command = [str(folder / "env" / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = folder
    return run


def test_only_the_installed_copy_is_imported(installed):
    program = "import stdnet_core, stdnet_ros; print(stdnet_core.__file__, stdnet_ros.__file__)"
    for where in installed("python", "-c", program).split():
        assert where.startswith(str(installed.folder / "env"))


def test_every_file_of_config_and_launch_is_installed(installed):
    share = installed.folder / "env" / "share" / "stdnet_ros"
    for folder in ("config", "launch"):
        shipped = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert shipped
        for path in shipped:
            assert (share / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_type_checkers_find_both_packages_typed(installed):
    (site,) = (installed.folder / "env").glob("lib/python*/site-packages")
    assert all((site / package / "py.typed").is_file() for package in ("stdnet_core", "stdnet_ros"))


@pytest.mark.parametrize("program", ["stdnet_node", "evaluate_bag"])
def test_programs_explain_themselves(installed, program):
    assert "usage" in installed(program, "--help").lower()


def test_the_node_answers_a_camera_with_the_shipped_network(installed):
    installed("stdnet_demo", "--output", "demo", "--frames", "4", "--rate", "auto")
    metrics = json.loads((installed.folder / "work" / "demo" / "metrics.json").read_text())
    assert metrics["input"]["frames"] == 4
    assert metrics["node"]["method"] == "stdnet"
    assert (installed.folder / "work" / "demo" / "cloud.ply").stat().st_size > 10_000


def test_a_shipped_configuration_trains(installed):
    small = ["model={preset: live, channels: 4, channels_8: 8, channels_16: 8, blocks: 0}"]
    small += ["data.sources=[{source: synthetic}]", "data.video.crops=[{from_ratio: 1, sides: [64]}]"]
    small += ["data.cells={area@4: 1}", "data.lengths=[2]", "data.pixel_budget=0", "data.workers=0", "optim.steps=2"]
    small += ["val.sources=[{source: 'synthetic:900001,1,64x64,3'}]", "val.cells=[area@4]", "val.every=0"]
    small += ["val.crop=64", "val.length=3", "trainer.accelerator=cpu"]
    installed("python", "-m", "stdnet_core.train", "--config", "live", "--output", "run", *small)
    assert list((installed.folder / "work" / "run").rglob("*.safetensors"))


def test_evaluation_writes_a_report(installed):
    arguments = ["--data", "synthetic:1,1,64x64,3", "--scale", "8", "--checkpoint", "live", "--report", "pages"]
    installed("python", "-m", "stdnet_core.evaluate", *arguments, "--json", "scores.json")
    assert json.loads((installed.folder / "work" / "scores.json").read_text())
    assert list((installed.folder / "work" / "pages").rglob("*.html"))
