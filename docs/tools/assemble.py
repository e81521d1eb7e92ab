"""A hook of MkDocs: the site has the repository's own layout, so that a relative link means the same in both.

MkDocs takes pages from one folder alone. Here the README, the pages of `docs`, and what they link to keep their paths, and
notebooks become pages. No page is written for the site, and nothing here is needed to read them elsewhere.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "examples/*.md", "vnncomp/*.md", "LICENSE")
ASSETS = ("docs/images/*.png", "docs/images/*.svg", "docs/tools/*.css")
NOTEBOOKS = "examples/*.ipynb"
NOTEBOOK_LINK = re.compile(r"(\]\([^)\s]+)\.ipynb\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and the repository's pages and what they show under their own paths."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    found = [path for pattern in (*PAGES, *ASSETS, NOTEBOOKS) for path in sorted(ROOT.glob(pattern))]
    return Files([*theme, *(file_of(path, config) for path in found)])


def file_of(path: Path, config: MkDocsConfig) -> File:
    """A file of the site for one of the repository; a notebook as the Markdown that it holds."""
    place = path.relative_to(ROOT)
    if path.suffix == ".ipynb":
        return File.generated(config, place.with_suffix(".md").as_posix(), content=markdown_of(json.loads(path.read_text())))
    return File(place.as_posix(), str(ROOT), config.site_dir, config.use_directory_urls)


def markdown_of(notebook: dict[str, Any]) -> str:
    """A notebook as a page: text as it stands, code and printed outputs as blocks."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = "".join("".join(output.get("text", ())) for output in cell.get("outputs", ()))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to notebooks lead to the pages made of them."""
    return NOTEBOOK_LINK.sub(r"\1.md)", markdown)
