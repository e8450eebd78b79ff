"""The rooms of the code: who may import whom, how long modules are, where their tests lie (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOUNDATIONS = {"errors", "cli", "short_repr", "whole_files", "shipped", "memory", "depth_units", "optical_flow"}
COMMANDS = {*{"train", "evaluate", "predict", "accuracy", "analyze", "ablate", "convert", "make_lr", "preview"}}
CORE_ROOMS = {
    "model": set(),
    "checkpoints": {"model"},
    "data": set(),
    "filtering": set(),
    "streaming": {"model"},
    "inference": {"checkpoints", "model", "streaming", "filtering"},
    "evaluation": {"checkpoints", "data", "filtering", "inference"},
    "export": {"checkpoints", "data", "model", "streaming", "inference"},
    "training": {"checkpoints", "data", "model", "inference", "evaluation"},
    "benchmark": {"checkpoints", "model", "streaming", "inference", "export"},
    "gpu_session": {"checkpoints", "model", "training"},
    "report": {"checkpoints", "data", "inference", "evaluation"},
    "analyses": {"checkpoints", "data", "model", "inference", "evaluation", "report"},
}
"""Rooms of stdnet_core -> the rooms that each may import, beside the foundations."""
ROS_ROOMS = {
    "processes": set(),
    "resources": set(),
    "cameras": set(),
    "simulated_sensor": {"core.data"},
    "integration_launch": {"cameras"},
    "messages": {"core.data"},
    "synchronization": set(),
    "node": {"messages", "synchronization", "core.data", "core.inference"},
    "demo": {"messages", "processes", "resources", "simulated_sensor", "core.data", "core.inference", "core.report"},
    "benchmark": {"demo", "messages", "node", "processes", "resources", "core.inference"},
    "soak": {"benchmark", "demo", "processes"},
    "bag_evaluation": {
        *{"demo", "messages", "node", "processes", "resources", "simulated_sensor", "synchronization"},
        *{"core.data", "core.evaluation", "core.inference", "core.report"},
    },
    "evaluate_bag": {"bag_evaluation"},
}
"""The same of stdnet_ros; rooms of stdnet_core have ``core.`` before their name."""

LIMIT = 400
LONG = {
    "stdnet_core/model/recurrent/network.py": "one network, read from top to bottom",
    "stdnet_core/inference/upsampler.py": "one class with what only it uses",
    "stdnet_core/checkpoints.py": "one file format, written and read",
    "stdnet_core/data/synthetic/layouts.py": "a list of rooms, each a function",
    "stdnet_core/data/synthetic/objects.py": "a list of things, each a function",
    "stdnet_core/training/config.py": "one table of settings and their checks",
    "stdnet_ros/synchronization/synchronizer.py": "one interface and its two implementations",
    "stdnet_ros/node/node.py": "one class, whose methods are the callbacks that rclpy wants in one object",
    "stdnet_ros/node/pipeline.py": "one class: all steps from a pair of messages to a depth image",
    "stdnet_ros/bag_evaluation/evaluation.py": "scoring and writing of results share the task",
    "stdnet_ros/bag_evaluation/live.py": "the live replay and its comparison with the offline run",
}
"""Modules above LIMIT lines -> why."""


def modules() -> list[Path]:
    return sorted(path for name in ("stdnet_core", "stdnet_ros") for path in (ROOT / name).rglob("*.py"))


def room_of(package: str, name: str) -> str:
    """Room of a dotted name in one of the packages, as the tables have it."""
    first = name.partition(".")[0] or "__init__"
    return f"core.{first}" if package == "stdnet_core" else first


def imports(path: Path) -> Iterator[str]:
    """Dotted names of this project that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("stdnet_"))
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("stdnet_"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package, *parts = path.relative_to(ROOT).with_suffix("").parts
    here = room_of(package, parts[0])
    if here == "core.__init__" or here.removeprefix("core.") in COMMANDS:
        allowed = {f"core.{name}" for name in CORE_ROOMS}  # and no command imports another one
    elif here.removeprefix("core.") in FOUNDATIONS:
        allowed = set()
    elif package == "stdnet_core":
        allowed = {f"core.{name}" for name in CORE_ROOMS[parts[0]]}
    else:
        allowed = ROS_ROOMS.get(parts[0], set())
    allowed = allowed | {here, "core.__version__", *(f"core.{name}" for name in FOUNDATIONS)}
    found = {room_of(name.partition(".")[0], name.partition(".")[2]) for name in imports(path)}
    assert found <= allowed, f"{path.name} of {here} may not import {', '.join(sorted(found - allowed))}"


def test_the_tables_name_what_is_there():
    for package, rooms in (("stdnet_core", {*CORE_ROOMS, *FOUNDATIONS, *COMMANDS}), ("stdnet_ros", set(ROS_ROOMS))):
        there = {
            path.relative_to(ROOT / package).with_suffix("").parts[0] for path in modules() if package in path.parts
        }
        assert there - {"__init__"} == rooms


def test_modules_are_short_or_have_a_reason():
    lines = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in modules()}
    assert {name for name, count in lines.items() if count > LIMIT} == set(LONG)


def test_tests_lie_where_their_code_does():
    files = list((ROOT / "test").rglob("test_*.py"))
    assert len({path.name for path in files}) == len(files), "two test files of one name"
    for path in files:
        where = path.parent.relative_to(ROOT / "test").parts
        assert where, f"{path.name} lies in no folder"
        if where != ("project",):
            code = ROOT / {"core": "stdnet_core", "ros": "stdnet_ros"}[where[0]] / Path(*where[1:])
            assert code.is_dir(), f"{path} mirrors no package"


def test_the_page_names_what_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:stdnet_core|stdnet_ros|test)/[\w/.]*)`", page):
        if "NAME" not in name:
            assert (ROOT / name).exists(), name
    for name in re.findall(r"`(stdnet_(?:core|ros)\.[\w.]+)`", page):
        assert (ROOT / (name.replace(".", "/") + ".py")).exists(), name
    core, _, ros = page.partition("## stdnet_ros")
    rooms = {name for name in re.findall(r"^\| `(\w+)/` \|", core, re.M)} - {"weights"}
    assert rooms == {path.parent.name for path in (ROOT / "stdnet_core").glob("*/__init__.py")}
    rooms = set(re.findall(r"^\| `(\w+)/` \|", ros, re.M))
    assert rooms == {path.parent.name for path in (ROOT / "stdnet_ros").glob("*/__init__.py")}
