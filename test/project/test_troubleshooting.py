"""The table of symptoms quotes what the node and the commands really say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "troubleshooting.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith("|--")
][1:]


def said() -> list[str]:
    """Every text in the packages; what is filled into one is a NUL."""
    texts = []
    for package in ("stdnet_core", "stdnet_ros"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    texts.append("".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values))
    return texts


def quoted() -> list[str]:
    """What stands in code marks as something that is said, as pieces without what is filled in."""
    pieces = []
    for _, words, _ in ROWS:
        for quote in re.findall(r"`([^`]+)`", words):
            pieces += [piece.strip("; ") for piece in re.split(r"\.\.\.|: |^dropped |^rate ", quote)]
    return [piece for piece in pieces if piece]


def test_every_quoted_text_is_one_of_the_code() -> None:
    texts = said()

    def found(piece: str) -> bool:
        # color_no_partner is made of the stream's name and the rest
        counter = re.sub(r"^(color|depth)_", "\0_", piece)
        return any(piece in text or counter == text for text in texts)

    pieces = quoted()
    assert len(pieces) > 50
    assert [piece for piece in pieces if not found(piece)] == []


def test_every_counter_of_refused_messages_is_explained() -> None:
    """Those of which a user can do something about the cause."""
    table = (ROOT / "docs" / "troubleshooting.md").read_text()
    for cause in ("no_partner", "out_of_order", "duplicate", "damaged", "bad_color", "bad_depth", "not_registered"):
        assert cause in table, cause
    for cause in ("too_old", "busy"):
        assert f"dropped {cause}" in table, cause
