"""The README is true: its commands are parsed by the programs they name, its figures stand in docs, its links lead."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import subprocess

import numpy as np
import pytest
from ros_fixtures import ROOT, rclpy  # noqa: F401 (isolates the ROS graph before rclpy is imported)

from stdnet_ros.node.parameters import PARAMETERS

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
SHELL = [text for language, text in BLOCKS if language == "bash"]
COMMANDS = [
    words
    for text in SHELL
    for line in text.splitlines()
    for command in line.split(" && ")
    if (words := shlex.split(command, comments=True))
]
EXECUTABLES = {
    "evaluate_bag": "stdnet_ros.bag_evaluation.command",
    "stdnet_demo": "stdnet_ros.demo.__main__",
    "stdnet_node": "stdnet_ros.node.command",
}
OTHERS = {"python3", ".", "mkdir", "ln", "cd", "colcon", "rosdep", "touch"}


class Parsed(Exception):
    """The arguments were accepted; the program goes no further."""


def setup_keyword(name):
    """The keyword of that name of setup() in setup.py, a syntax tree."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    return next(node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == name)


def extras():
    return {ast.literal_eval(key) for key in setup_keyword("extras_require").keys}


def program_of(module):
    """What ``python -m module`` runs: the module, or the one that a package has for it."""
    found = importlib.import_module(module)
    return importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found


def parse_as_the_program_does(module, arguments, monkeypatch):
    """Call the program's main with its own parser, and stop where it has accepted the arguments."""
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def parse(self, args=None, namespace=None, original=original):
            raise Parsed(original(self, args, namespace))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)
    main = program_of(module).main
    with pytest.raises(Parsed):
        main(arguments)


def node_arguments(arguments):
    """Check what is given to the node: remappings of its inputs and parameters that exist."""
    if arguments == ["--help"]:
        return
    assert arguments[0] == "--ros-args"
    for option, value in zip(arguments[1::2], arguments[2::2], strict=True):
        name, _, given = value.partition(":=")
        if option == "-p":
            spec = {spec.name: spec for spec in PARAMETERS}[name]
            assert not spec.choices or given in spec.choices
        else:
            assert option == "-r"
            assert name in {"color/image", "color/camera_info", "depth/image", "depth/camera_info"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_is_accepted_by_what_it_names(words, monkeypatch):
    program, arguments = words[0].rpartition("/")[2] or words[0], words[1:]
    if program == "python":
        assert arguments[0] == "-m"
        if arguments[1] == "colcon":
            return
        parse_as_the_program_does(arguments[1], arguments[2:], monkeypatch)
    elif program == "stdnet_node":
        node_arguments(arguments)
    elif program in EXECUTABLES:
        parse_as_the_program_does(EXECUTABLES[program], arguments, monkeypatch)
    elif program == "ros2":
        assert arguments[:2] == ["launch", "stdnet_ros"]
        launch_file = (ROOT / "launch" / arguments[2]).read_text()
        assert all(f'"{argument.partition(":=")[0]}"' in launch_file for argument in arguments[3:])
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif program == "pip":
        wanted = [extra for word in arguments for found in re.findall(r"\[(.*)\]", word) for extra in found.split(",")]
        assert set(wanted) <= extras()
        assert not any("stdnet" in word for word in arguments)  # it is on no index
    else:
        assert words[0] in OTHERS


def test_there_are_commands_of_every_kind():
    programs = {words[0] for words in COMMANDS}
    assert programs >= {"make", "pip", "python", "ros2", "stdnet_node", "evaluate_bag", "colcon"}
    assert len(README.splitlines()) < 120


@pytest.mark.parametrize("text", SHELL)
def test_the_shell_can_read_it(text):
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_executables_and_extras_in_the_text_exist():
    entries = setup_keyword("entry_points")
    scripts = [text for text in ast.literal_eval(entries)["console_scripts"]]
    assert {text.partition(" = ")[0] for text in scripts} == set(EXECUTABLES)
    for text in scripts:
        module, _, function = text.partition(" = ")[2].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    table = README.split("| command | extras |")[1].split("\n\n")[0]
    column = [row.split("|")[-2] for row in table.splitlines() if row.count("|") > 2]
    named = {name for cell in column for part in re.findall(r"`([\w,]+)`", cell) for name in part.split(",")}
    assert named == extras()


def test_the_python_block_runs():
    (block,) = [text for language, text in BLOCKS if language == "python"]
    frame = np.full((48, 64, 3), 128, np.uint8), np.full((6, 8), 1500, np.uint16)
    names = {"frames": [frame, frame]}
    exec(block, names)
    assert names["result"].depth.shape == (48, 64)
    assert names["result"].confidence.shape == (48, 64)


def test_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)", README)
    assert len(targets) > 15
    for target in targets:
        assert (ROOT / target).is_file(), target


def test_figures_of_the_table_are_those_of_the_accuracy_page():
    page = (ROOT / "docs" / "accuracy.md").read_text().split("## Matrix")[1]
    rows = [[float(x) for x in found] for found in re.findall(r"\| ([\d.]+) \| ([\d.]+) \|", page)]
    table = README.split("| what measures depth |")[1].split("\n\n")[0].replace("**", "")
    cells = re.findall(r"\| ([\d.]+) / ([\d.]+) (?=\|)", table)
    assert len(cells) == 31
    for rmse, mae in cells:
        assert any(abs(r - float(rmse)) < 0.051 and abs(m - float(mae)) < 0.051 for r, m in rows), (rmse, mae)
