"""The README is true: its Python runs, its figures stand in docs, its links lead. Commands: test_docs_commands.py."""

from __future__ import annotations

import importlib
import re

import numpy as np
from doc_checks import ROOT, commands, executables, extras

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
COMMANDS = [words for language, text in BLOCKS if language == "bash" for words in commands(text)]


def test_there_are_commands_of_every_kind():
    programs = {words[0] for words in COMMANDS}
    assert programs >= {"make", "pip", "python", "ros2", "stdnet_node", "evaluate_bag", "colcon"}
    assert len(README.splitlines()) < 120


def test_executables_and_extras_in_the_text_exist():
    assert set(executables()) == {"evaluate_bag", "stdnet_demo", "stdnet_node"}
    for text in executables().values():
        module, _, function = text.partition(":")
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
