"""The frame, the style sheet and the script that every page shares."""

from functools import cache
from pathlib import Path

_FRONT = Path(__file__).parent / "front"
_SCRIPTS = ("saving", "figures", "tables", "completions", "page")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'{beside}; \
style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{subtitle}</header>
{sections}
<footer>{footer}</footer>
</main>
{scripts}
</body>
</html>
"""


@cache
def style() -> str:
    """The style sheet: light and dark, phone and paper."""
    return (_FRONT / "page.css").read_text(encoding="utf-8")


@cache
def script() -> str:
    """The script: the files of the folder, in one function."""
    parts = "\n".join((_FRONT / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();'
