"""Hooks of MkDocs: runs the pages' code, adds the lessons, plotly.js and llms.txt."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from mkdocs.structure.files import File, Files  # noqa: E402

from docs_site import lessons, pages, reference  # noqa: E402

RUN = os.environ.get("STEERLENS_DOCS") != "static"
"""Whether code is run; without, the site is built in seconds, and links and references are checked all the same."""

log = logging.getLogger("mkdocs.hooks.steerlens")
_described: dict[str, tuple[str, str, str]] = {}  # page → (title, address, description), in the order of the navigation


def on_config(config: Any) -> Any:
    """Put every notebook into the navigation."""
    for entry in config.nav:
        if "Lessons" in entry:
            entry["Lessons"] = [f"lessons/{path.stem}.md" for path in lessons.notebooks()]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the lessons, and plotly.js once for all pages."""
    from plotly.offline import get_plotlyjs

    documented = reference.documented()
    for name, thing in reference.public_names():
        if id(thing) not in documented and not inspect.ismodule(thing):
            log.warning("%s is public and on no page of the reference", name)
    for path in lessons.notebooks():
        files.append(File.generated(config, f"lessons/{path.stem}.md", content=lessons.as_page(path, run=RUN)))
    files.append(File.generated(config, "assets/plotly.min.js", content=get_plotlyjs()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the outputs into a page; those of a lesson are there already."""
    if page.file.src_uri.startswith("lessons/"):
        return markdown
    markdown = reference.resolved(markdown)
    if not RUN:
        return markdown
    log.info("running %s", page.file.src_uri)
    return pages.with_outputs(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Remember what a page is about: its `description:`, or else its first paragraph."""
    first = re.search(r"<p>(.*?)</p>", html, flags=re.DOTALL)
    text = page.meta.get("description") or re.sub(r"<[^>]+>", "", first.group(1) if first else "")
    _described[page.file.src_uri] = (page.title, page.canonical_url, " ".join(text.split()))
    return html


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Leave the link to the repository, but not the theme's question to GitHub how many stars it has."""
    return output.replace(' data-md-component="source"', "")


def on_post_build(config: Any) -> None:
    """Write llms.txt: what the site holds, for programs that read."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    lines += [f"- [{title}]({address}): {text}" for title, address, text in _described.values()]
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
