"""pixi.toml has what setup.py asks for, and tasks that the programs take. pixi itself checks the rest."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex

import pytest
from doc_checks import ROOT, check_command, setup_keyword

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")

MANIFEST = tomllib.loads((ROOT / "pixi.toml").read_text())
FEATURES = {"": MANIFEST, **MANIFEST["feature"]}
CONDA = {"torch": "pytorch", "opencv-python-headless": "opencv", "matplotlib": "matplotlib-base"}
"""Names that differ: of PyPI -> of conda-forge."""
ELSEWHERE = {"ruff", "mypy", "types-tqdm", "colcon-common-extensions", "colcon-ros"}
"""For style and the colcon build, which make runs."""


def packages(environment: str) -> dict[str, str]:
    """Dependencies of an environment, by name."""
    features = ["", *MANIFEST["environments"][environment]]
    return {name: spec for f in features for name, spec in FEATURES[f].get("dependencies", {}).items()}


def required(*variables: str) -> dict[str, str]:
    """Requirements in lists of setup.py, with the names that conda has for them."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    lists = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    found = {}
    for variable in variables:
        for text in ast.literal_eval(lists[variable]):
            name, version = re.fullmatch(r"([a-z\d-]+)(.*)", text).groups()
            found[CONDA.get(name, name.replace("ros-", "ros-kilted-", 1) if variable == "ROS" else name)] = version
    return found


def test_the_lists_are_those_of_the_installation():
    assert ast.unparse(setup_keyword("install_requires")) == "RUNTIME"
    assert len(required("RUNTIME", "ROS", "BAGS", "REPORT")) > 20


@pytest.mark.parametrize(
    ("environment", "variables"),
    [("default", ("RUNTIME", "ROS", "BAGS", "REPORT")), ("test", ("TRAIN", "EXPORT", "DEV"))],
)
def test_an_environment_has_what_its_tasks_need(environment, variables):
    given = packages(environment)
    for name, version in required(*variables).items():
        if name in ELSEWHERE:
            continue
        assert name in given, name
        if variables[1] == "ROS" and name.startswith("ros-"):
            assert given[name] == "*"  # one distribution, whose packages fit each other
        else:
            assert given[name] == version, name


def test_each_task_belongs_to_one_environment_and_is_a_command_that_works():
    tasks = [(name, command) for feature in FEATURES.values() for name, command in feature.get("tasks", {}).items()]
    assert sorted(name for name, _ in tasks) == ["demo", "node", "test"]
    for name, command in tasks:
        if command == "python -m stdnet_ros.node":  # it would start
            assert importlib.util.find_spec("stdnet_ros.node.__main__")
        else:
            check_command(shlex.split(command))
        having = [
            e for e, fs in MANIFEST["environments"].items() if any(name in FEATURES[f].get("tasks", {}) for f in fs)
        ]
        assert len(having) == 1  # pixi would ask which one is meant
