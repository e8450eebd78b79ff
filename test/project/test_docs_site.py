"""What scripts/ add to the pages, without the site's own packages: figures of docs/cameras.md, drawings of a stream."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from doc_checks import ROOT

from stdnet_core import DepthUpsampler
from stdnet_core.data.sensors.cell import JUDGED, Cell
from stdnet_ros.cameras import CAMERAS


def script(name: str) -> ModuleType:
    """A module in scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs_cameras = script("docs_cameras")
streaming_diagram = script("streaming_diagram")

CAMERA_PAGE = (ROOT / "docs" / "cameras.md").read_text()
ACCURACY_PAGE = (ROOT / "docs" / "accuracy.md").read_text()
SECTION = CAMERA_PAGE.split(docs_cameras.HEADING)[1].split("\n## ")[0]
ROWS = [line for line in SECTION.splitlines() if line.startswith("|")][2:]

MATRIX = """\
## Matrix

| | method | RMSE | RMSE, MAE / best rival |
|---|---|---|---|
| far@1 procedural, measured | **live** | 1.00 | 0.500, 0.800 |
|  | **guided_temporal** | 1.00 | 2.000, 1.000 |
| far@1 rendered, measured | **live** | 1.00 | 0.500, 0.200 |
|  | **guided_temporal** | 1.00 | 0.500, 1.000 |
| far@1 rendered, holes | **live** | 1.00 | 0.900, 0.700 |
| exact@1 rendered, measured | **live** | 0.00 | -, - |
| far@8 real | **live** | 1.00 | 1.250, 0.750 |

## History gain
| live | far@8 | 9.000, 9.000 |
"""


def page(rows: str) -> str:
    return f"{docs_cameras.HEADING}\n\n| a | b | c | d | e | rows |\n|---|---|---|---|---|---|\n{rows}\n\n## Next\n"


def test_figures_are_geometric_means_of_the_method_in_the_row():
    text = docs_cameras.with_ratios(
        page(
            "| x | | | `live` | | `far@1`, `far@8` |\n| y | | | `guided_temporal` | | `far@1` |\n| z | | | `live` | | |"
        ),
        MATRIX,
    )
    assert f"| rows | {docs_cameras.COLUMN} |" in text
    both = "measured 0.50 / 0.40<br>holes 0.90 / 0.70<br>1.25 / 0.75".replace(" ", "&nbsp;")
    assert f"| `far@1`, `far@8` | {both} |\n" in text
    assert "| y | | | `guided_temporal` | | `far@1` | measured&nbsp;1.00&nbsp;/&nbsp;1.00 |\n" in text
    assert "| z | | | `live` | | |  |\n" in text


@pytest.mark.parametrize(
    ("cameras", "accuracy", "message"),
    [
        (page("| x | | | `live` | | `near@1` |"), MATRIX, "no ratios of live for near@1"),
        (page("| x | | | `live` | | `exact@1` |"), MATRIX, "no ratios of live for exact@1"),
        ("# Cameras\n", MATRIX, "no table"),
        (page("| x | | | `live` | | |"), "# Accuracy\n", "no matrix"),
    ],
)
def test_a_page_without_what_is_needed_is_refused(cameras, accuracy, message):
    with pytest.raises(ValueError, match=message):
        docs_cameras.with_ratios(cameras, accuracy)


def test_the_pages_fit_each_other():
    text = docs_cameras.with_ratios(CAMERA_PAGE, ACCURACY_PAGE)
    assert text.count("&nbsp;/&nbsp;") > 15
    named = {Cell.parse(cell) for row in ROWS for cell in re.findall(r"`(\w+@[\d.]+)`", row)}
    assert named <= set(JUDGED)
    assert len(named) > 10
    for name in CAMERAS:
        assert name == "generic" or f"(`{name}`)" in SECTION


def test_auto_takes_what_the_table_says():
    methods = {"live": "stdnet", "guided_temporal": "guided_temporal"}
    ratios = {}
    for row in ROWS:
        _, _, _, ratio, method, *_ = (column.strip() for column in row.split("|"))
        ratios |= {float(text): methods[method.strip("`")] for text in re.findall(r"x([\d.]+)", ratio)}
    assert len(ratios) > 6
    for ratio, method in ratios.items():
        upsampler = DepthUpsampler.from_pretrained("live", method="auto")
        depth = np.full((8, 8), 1500, np.uint16)
        side = round(8 * ratio)
        upsampler.step(np.full((side, side, 3), 128, np.uint8), depth)
        assert upsampler.method == method, ratio


@pytest.mark.parametrize("latency", streaming_diagram.LATENCIES)
def test_drawings_of_a_stream_are_up_to_date(latency):
    text = (ROOT / "docs" / "images" / f"streaming_{latency}.svg").read_text()
    assert text == streaming_diagram.diagram(latency), "run: python scripts/streaming_diagram.py docs/images"


def test_a_drawing_shows_what_the_table_of_the_page_says():
    """Calls are the slanted lines; encoders of stage 2 are the discs of its row."""
    lines = (ROOT / "docs" / "streaming.md").read_text().splitlines()
    table = {
        line.split("|")[1].strip(): line.split("|")[2:] for line in lines if re.match(r"\| (calls|frames thr)", line)
    }
    for latency in streaming_diagram.LATENCIES:
        drawing = ElementTree.fromstring(streaming_diagram.diagram(latency))
        lines = [element.attrib for element in drawing if element.tag.endswith("line")]
        assert sum(line["x1"] != line["x2"] for line in lines) == int(table["calls"][latency])
        (row,) = [e.attrib["y"] for e in drawing if e.text == "stage 2: encoders"]
        discs = [e.attrib for e in drawing if e.tag.endswith("circle") and e.attrib["cy"] == str(int(row) - 4)]
        computed = [disc for disc in discs if disc["class"] in ("final", "again")]
        assert len(computed) == int(table["frames through stage 2's encoders"][latency])


def test_roles_become_links_where_the_site_has_an_entry(tmp_path, caplog):
    griffe = pytest.importorskip("griffe", reason="comes with the extra docs")
    package = tmp_path / "stdnet_example"
    package.mkdir()
    (package / "__init__.py").write_text('"""See :func:`.inside.shown`."""\n')
    (package / "inside.py").write_text(
        '"""A module."""\nimport torch\n\n\n'
        "def shown():\n"
        '    """Calls :func:`_hidden`, :func:`bare`; as :meth:`Kind.act` and :class:`torch.Tensor`."""\n\n\n'
        'def _hidden():\n    """Private."""\n\n\ndef bare(): ...\n\n\n'
        'class Kind:\n    """Has :meth:`act`, :mod:`stdnet_example.inside` and :data:`NOTHING`."""\n\n'
        '    def act(self):\n        """Act."""\n'
    )
    extensions = griffe.load_extensions(script("docs_roles").Roles)
    loaded = griffe.GriffeLoader(extensions=extensions, search_paths=[tmp_path]).load("stdnet_example")
    inside = "stdnet_example.inside"
    assert loaded.docstring.value == f"See [`inside.shown`][{inside}.shown]."
    act = f"[{inside}.Kind.act]"
    assert loaded["inside.shown"].docstring.value == (
        f"Calls `_hidden`, `bare`; as [`Kind.act`]{act} and `torch.Tensor`."
    )
    assert loaded["inside.Kind"].docstring.value == f"Has [`act`]{act}, [`{inside}`][{inside}] and `NOTHING`."
    assert [record.getMessage() for record in caplog.records] == [f"{inside}.Kind: there is no NOTHING"]
