"""The figures in the table of docs/cameras.md, read from the matrix of docs/accuracy.md when the site is built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

HEADING = "## Which camera, what to expect"
COLUMN = "RMSE / MAE in ratios to the best rival"


def with_ratios(cameras: str, accuracy: str) -> str:
    """The page of cameras, with one more column in its table.

    Raises:
        ValueError: a page lacks its table, or a row of the matrix that the table names.
    """
    _, found, section = cameras.partition(HEADING)
    table = re.search(r"^\|.*\| rows \|\n(?:\|.*\|\n)+", section, re.M)
    if not found or table is None:
        raise ValueError(f"cameras.md has no table with a last column 'rows' below {HEADING}")
    ratios = matrix(accuracy)
    head, line, *rows = table[0].splitlines()
    new = [f"{head} {COLUMN} |", f"{line}---|", *(f"{row} {_entry(row, ratios)} |" for row in rows)]
    return cameras.replace(table[0], "\n".join(new) + "\n")


def matrix(accuracy: str) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """Cell and method -> by region (``measured``, ``holes``, or empty for all pixels) the RMSE and the MAE, each as
    geometric mean over the kinds of clips of its ratios to the best rival.

    Raises:
        ValueError: the page has no such table.
    """
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for cell, region, method, pair in _rows(accuracy.partition("## Matrix")[2].partition("\n## ")[0]):
        found.setdefault((cell, method), {}).setdefault(region, []).append(pair)
    if not found:
        raise ValueError("accuracy.md has no matrix with ratios in its last column")
    return {key: {region: _mean(pairs) for region, pairs in regions.items()} for key, regions in found.items()}


def _rows(table: str) -> Iterator[tuple[str, str, str, tuple[float, float]]]:
    cell = region = ""
    for line in table.splitlines():
        columns = [column.strip() for column in line.strip().strip("|").split("|")]
        if named := re.fullmatch(r"(\S+@\S+) \w+(?:, (\w+))?", columns[0]):
            cell, region = named[1], named[2] or ""
        if pair := re.fullmatch(r"([\d.]+), ([\d.]+)", columns[-1]):
            yield cell, region, columns[1].strip("*"), (float(pair[1]), float(pair[2]))


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    rmse, mae = (math.exp(sum(map(math.log, values)) / len(values)) for values in zip(*pairs, strict=True))
    return rmse, mae


def _entry(row: str, ratios: dict[tuple[str, str], dict[str, tuple[float, float]]]) -> str:
    """What the last column says of a row; the row's fourth column is the method."""
    columns = [column.strip() for column in row.strip("|").split("|")]
    method = columns[3].strip("`")
    cells = re.findall(r"`(\S+@\S+)`", columns[-1])
    texts = []
    for cell in cells:
        if (cell, method) not in ratios:
            raise ValueError(f"accuracy.md has no ratios of {method} for {cell}, which cameras.md names")
        texts += (f"{region} {r:.2f} / {m:.2f}".strip() for region, (r, m) in ratios[cell, method].items())
    return "<br>".join(texts).replace(" ", "&nbsp;")
