"""docs/live_network.md: its table of parts names what is in the files, and the input channels add up."""

from __future__ import annotations

import importlib
import re

import pytest
from doc_checks import ROOT

from stdnet_core.model import RecurrentNet

PAGE = (ROOT / "docs" / "live_network.md").read_text(encoding="utf-8")
HOME = "stdnet_core/model/recurrent/network.py"


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table after a heading."""
    text = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


PARTS = [
    (name, (re.findall(r" in `([\w/.]+)`", cell) or [HOME])[0])
    for _, cell in table("Where each part is")
    for name in re.findall(r"`([\w.]+)`", cell)
]


def test_the_table_lists_the_parts():
    assert len(PARTS) > 20
    assert f"`{HOME}`" in PAGE


@pytest.mark.parametrize(("name", "file"), PARTS)
def test_parts_are_where_the_page_says(name, file):
    found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)


def test_input_channels_are_those_of_the_network():
    counts = [int(row[0]) for row in table("What goes in")]
    assert sum(counts) == RecurrentNet.inputs
    assert f"these {sum(counts)} channels" in PAGE
