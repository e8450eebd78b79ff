"""Hook of mkdocs: what of the site is made when it is built.

That is a page of the Python API for each public module, from its docstrings, a page that lists them, and the figures on
the page of cameras."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docs_cameras import with_ratios
from docs_roles import ROLE
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stdnet_core", "stdnet_ros")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, which exist nowhere on the disk."""
    lines = ["# Python API", "", "`from stdnet_core import DepthUpsampler` is where most users begin."]
    for package in PACKAGES:
        lines += ["", f"## {package}", "", "| module | |", "|---|---|"]
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            if not summary or any(part.startswith("_") for part in parts):
                continue
            name = ".".join(parts)
            summary = ROLE.sub(r"`\1`", " ".join(summary.split())).replace("|", "\\|")
            lines.append(f"| [`{name}`]({name}.md) | {summary} |")
            content = f"# `{name}`\n\n::: {name}\n"
            files.append(File.generated(config, f"api/{name}.md", content=content))
    files.append(File.generated(config, "api/index.md", content="\n".join(lines) + "\n"))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Put the figures into the page of cameras."""
    if page.file.src_uri != "cameras.md":
        return markdown
    try:
        return with_ratios(markdown, (Path(config.docs_dir) / "accuracy.md").read_text(encoding="utf-8"))
    except ValueError as error:
        raise PluginError(str(error)) from error
