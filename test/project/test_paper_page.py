"""docs/paper.md: every file, symbol, command, figure name and setting that it names is there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from stdnet_core import ablate, analyze
from stdnet_core.training.config import load_config
from stdnet_core.training.module import loss_config, model_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\|[^|]*\|[^|]*\| `(stdnet_core/[\w/]+\.py)` \| ([^|]+) \|$", PAGE, re.MULTILINE)
COMMANDS = re.findall(r"python -m (stdnet_core\.\w+)([^`\n]*)", re.sub(r"\\\n\s*", "", PAGE))


def test_every_equation_has_its_place():
    numbers = {int(n) for cell in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for n in cell.split(", ")}
    assert numbers >= set(range(1, 14))
    assert len(ROWS) >= 17


@pytest.mark.parametrize(("file", "symbols"), ROWS)
def test_symbols_are_in_their_files(file, symbols):
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    names = re.findall(r"`([\w.]+)`", symbols)
    assert names
    for name in names:
        found = module
        for part in name.split("."):
            found = getattr(found, part)
        if callable(found):
            assert found.__module__ == module.__name__, f"{name} is defined elsewhere"


def test_files_are_there():
    named = re.findall(r"`((?:stdnet_core|config|test|docs)/[\w/.]+)`", PAGE)
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS}))
def test_commands_are_there(module):
    found = importlib.import_module(module)
    program = importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found
    assert callable(program.main)


def test_figures_of_analyze_and_ablate_are_all_on_the_page():
    drawn = {rest.split()[0] for module, rest in COMMANDS if module == "stdnet_core.analyze"}
    assert drawn == set(analyze._FIGURES)
    compared = {name for _, rest in COMMANDS for name in re.findall(r"--figures (\w+)", rest)}
    assert compared == set(ablate.FIGURES)


@pytest.mark.parametrize("rest", sorted({rest for module, rest in COMMANDS if module == "stdnet_core.analyze"}))
def test_options_of_analyze_are_known(rest):
    arguments = rest.split()
    if arguments[0] in ("features", "offsets", "differences"):
        assert "--checkpoint" in arguments
    options = analyze._parser().parse_args(arguments)
    if getattr(options, "row", None) is not None:
        assert "--data" in arguments, "a row of the paper's frames is outside of the default scenes, which are smaller"


@pytest.mark.parametrize("rest", sorted({rest for module, rest in COMMANDS if module == "stdnet_core.ablate"}))
def test_options_of_ablate_are_known(rest, tmp_path):
    args = ablate._parser().parse_intermixed_args(
        shlex.split(rest.replace("data.root=TARTANAIR", f"data.root={tmp_path}"))
    )
    for name in ablate.VARIANTS:
        assert ablate._config(args, name).optim.steps == args.steps


def test_settings_are_known(tmp_path):
    settings = re.findall(r"`((?:model|loss)\.\w+=\w+)`", PAGE)
    assert len(settings) >= 6
    for setting in settings:
        config = load_config("paper_x8", [f"data.root={tmp_path}", setting])
        model_config(config)
        loss_config(config)


def test_published_figures_are_those_of_the_text():
    """What the paper's text says of its tables follows from the figures as they stand on the page."""
    rows = re.findall(r"^\|([^|]*)\| x(4|8|16) \| ([\d./ ]+) \| ([\d./ ]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(rows) == 9
    gains, table = {}, ""
    for name, scale, theirs, ours in rows:
        table = name.strip().partition(",")[0] or table
        pairs = zip(map(float, theirs.split("/")), map(float, ours.split("/")), strict=True)
        gains[table, int(scale)] = [round(a - b, 2) for a, b in pairs]
    assert gains["1", 16] == [15.24, 2.38, 2.16]
    assert gains["1", 8][0] == 4.93
    assert gains["2", 16][0] == 4.31
    assert gains["3", 16][0] == 0.15
