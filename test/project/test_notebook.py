"""The notebook of the Python API runs as it is committed, and says what NumPy says.

Its cells are executed as Jupyter would, one after the other in one namespace, with the value of a last expression kept.
Jupyter itself is not needed: the notebook shows pictures as Pillow images, which it displays by itself, and imports
nothing of IPython."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from stdnet_core.data.sensors import sensor, simulate

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "examples" / "python_api.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "numpy": "numpy", "torch": "torch"}
STANDARD = {"pathlib", "tempfile"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The notebook's names after its last cell, what each cell displayed, and the folder it wrote to."""
    names, shown = {"__name__": "__main__"}, []
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(tempfile, "tempdir", str(folder))
        for number, text in enumerate(CODE):
            tree = ast.parse(text)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, f"cell {number}", "exec"), names)
            value = None
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            shown.append(value)
    return names, shown, folder


def test_it_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert NOTEBOOK["metadata"]["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in ids)
    for cell in NOTEBOOK["cells"]:
        common = {"cell_type", "id", "metadata", "source"}
        assert cell["metadata"] == {}
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        assert cell["source"]
        assert not cell["source"][-1].endswith("\n")
        if cell["cell_type"] == "code":
            assert set(cell) == {*common, "execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert cell["cell_type"] == "markdown"
            assert set(cell) == common
    kinds = [cell["cell_type"] for cell in NOTEBOOK["cells"]]
    assert 8 <= len(CODE) <= 12
    assert kinds == ["markdown", "code"] * len(CODE) + ["markdown"], "text before every cell"
    assert "examples/python_api.ipynb" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_it_names_files_and_options_that_exist():
    text = "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "markdown")
    pages = re.findall(r"`(docs/\w+\.md)`", text)
    assert len(pages) >= 4
    for page in pages:
        assert (ROOT / page).is_file(), page
    for module in re.findall(r"python -m (stdnet_core\.\w+)", text):
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        for option in re.findall(rf"{module} ([^`]*)`", text)[0].split():
            assert not option.startswith("--") or f'"{option}"' in source, (module, option)


def test_it_imports_public_names_of_what_the_extra_installs():
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists = {node.targets[0].id: node.value for node in setup.body if isinstance(node, ast.Assign)}
    wanted = [*ast.literal_eval(lists["RUNTIME"]), *(e.value for e in lists["REPORT"].elts)]
    installed = {re.match(r"[\w-]+", text).group() for text in wanted}
    modules = set()
    for tree in map(ast.parse, CODE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
            elif isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module)
                for name in (alias.name for alias in node.names):
                    assert not name.startswith("_"), name
                    if node.module.startswith("stdnet_core"):
                        assert is_offered(node.module, name), f"{node.module} does not offer {name}"
    for name in modules:
        first = name.partition(".")[0]
        assert not any(part.startswith("_") for part in name.split("."))
        assert first in {"stdnet_core", *STANDARD} or DISTRIBUTIONS[first] in installed, name


def is_offered(module, name):
    """Whether it is a module in there, or in ``__all__``, or without that defined there."""
    found = importlib.import_module(module)
    if hasattr(found, "__path__") and importlib.util.find_spec(f"{module}.{name}"):
        return True
    offered = getattr(found, "__all__", None)
    return name in offered if offered is not None else getattr(getattr(found, name), "__module__", module) == module


def test_its_figures_are_those_of_numpy(ran):
    names, _, _ = ran
    truth, valid = names["truth"], names["valid"][:, 0].numpy()
    assert list(names["scores"]) == ["live network", "bilinear", "joint_bilateral", "guided_temporal"]
    assert valid.mean() > 0.9
    for method, scores in names["scores"].items():
        error = 100 * (names["outputs"][method].astype(np.float64) - truth)
        assert scores["RMSE"] == pytest.approx(np.sqrt(np.mean(error[valid] ** 2)), rel=1e-5), method
        assert scores["MAE"] == pytest.approx(np.abs(error[valid]).mean(), rel=1e-5), method
        change = np.abs(np.diff(error, axis=0))[valid[1:] & valid[:-1]]
        assert scores["flicker"] == pytest.approx(change.mean(), rel=1e-4), method
        edges = near_edges(truth, valid)
        assert scores["RMSE at edges"] == pytest.approx(np.sqrt(np.mean(error[edges] ** 2)), rel=1e-5), method


def near_edges(truth, valid):
    """Valid pixels at most 2 rows and columns from neighbours that differ by more than 5 % of the nearer."""
    near = np.zeros_like(valid)
    for frame, depth in enumerate(truth):
        edge = np.zeros(depth.shape, np.uint8)
        for axis in (0, 1):
            first, second = (np.moveaxis(depth, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
            both = np.moveaxis(valid[frame], axis, 0)
            jump = (np.abs(second - first) > 0.05 * np.fmin(first, second)) & both[1:] & both[:-1]
            view = np.moveaxis(edge, axis, 0)
            view[:-1][jump], view[1:][jump] = 1, 1
        near[frame] = cv2.dilate(edge, np.ones((5, 5), np.uint8)) > 0
    return near & valid


def test_the_camera_and_the_interpolation_are_what_they_are_said_to_be(ran):
    names, _, _ = ran
    clip, measured = names["clip"], names["measured"]
    assert (measured.shape, measured.dtype) == ((10, 30, 40), np.float32)
    camera = sensor("dtof_jitter").with_values({"dtof.range_m": 8.0})
    np.testing.assert_array_equal(measured, simulate(camera, clip.depth, clip.rgb, 8)[:, 0].numpy())
    assert (measured > 0).all()
    for depth, cells in zip(names["outputs"]["bilinear"], measured, strict=True):
        np.testing.assert_allclose(depth, cv2.resize(cells, (320, 240), interpolation=cv2.INTER_LINEAR), atol=1e-4)


def test_the_network_is_better_and_history_makes_it_steadier(ran):
    """What its text says of the figures."""
    names, _, _ = ran
    scores, history = names["scores"], names["history"]
    for rival in ("bilinear", "joint_bilateral"):
        assert scores["live network"]["RMSE"] < scores[rival]["RMSE"]
        assert scores["live network"]["MAE"] < scores[rival]["MAE"]
    assert history["network, time of flight"] is scores["live network"]
    assert history["network, time of flight"]["RMSE"] < history["network without history"]["RMSE"]
    for method, without in (("network, time of flight", "network"), ("guided_temporal, stereo", "guided_temporal")):
        assert history[method]["flicker"] < 0.95 * history[f"{without} without history"]["flicker"], method
    first, *_, last = names["alone"](names["upsampler"], names["measured"])
    np.testing.assert_array_equal(first, names["outputs"]["live network"][0])  # nothing came before it
    assert np.abs(last - names["last"].depth).mean() > 1e-3


def test_fine_depth_is_denoised_and_filled(ran):
    names, _, _ = ran
    assert names["fine"].shape == (10, 240, 320)
    assert (names["fine"] == 0).mean() > 0.02
    truth, there = names["truth"], names["fine"] > 0
    raw = np.abs(names["fine"] - truth)[there].mean()
    for name in ("denoised", "filtered"):
        assert np.isfinite(names[name]).mean() > 0.99  # holes are filled
        assert np.nanmean(np.abs(names[name] - truth)[there]) < raw
    assert list(names["shown"]) == ["measured by stereo", "live network", "guided_temporal", "truth"]


def test_its_pictures_show_the_arrays(ran):
    names, shown, _ = ran
    pictures = [value for value in shown if isinstance(value, Image.Image)]
    assert [picture.size for picture in pictures] == [(984, 546), (990, 426), (1310, 276), (480, 360)]
    first = np.asarray(pictures[0])[30 : 30 + 240, 6 : 6 + 320]  # below its caption, beside the margin
    rgb = (255 * names["clip"].rgb[0]).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(first, rgb)
    side_by_side = np.asarray(pictures[1]).astype(int)
    assert all(side_by_side[i : i + 180, j : j + 240].std() > 10 for i in (30, 240) for j in (6, 252, 498, 744))


def test_points_project_onto_their_pixels(ran):
    names, _, _ = ran
    points, k = names["points"], names["clip"].intrinsics.numpy()
    assert points.shape == (240, 320, 3)
    known = np.isfinite(points).all(-1)
    rows, columns = np.nonzero(known)
    assert len(names["known"]) == len(rows) > 75_000
    np.testing.assert_array_equal(points[..., 2][known], names["last"].depth[known])
    pixels = points[known] @ k.astype(float).T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], np.stack((columns, rows), 1), atol=1e-3)
    assert names["flat"].cloud_rms < 0.03


def test_saved_files_are_the_depth(ran):
    names, _, folder = ran
    (saved,) = folder.iterdir()
    assert saved == names["folder"]
    assert sorted(path.name for path in saved.iterdir()) == [f"{index:06d}.png" for index in range(10)]
    for index, depth in enumerate(names["outputs"]["live network"]):
        with Image.open(saved / f"{index:06d}.png") as picture:
            millimetres = np.asarray(picture)
        np.testing.assert_allclose(millimetres / 1000, np.nan_to_num(depth), atol=5.1e-4)
