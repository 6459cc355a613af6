"""Every Python block of every page of the documentation runs, in order, one namespace for each page."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.docs_site import pages

MARKS = {True: pytest.mark.real, False: ()}
WITH_CODE = [
    pytest.param(path, id=path.relative_to(pages.DOCS).as_posix(), marks=MARKS["smollm2" in "".join(code)])
    for path in pages.pages()
    for code in [pages.code_of(path.read_text(encoding="utf-8"))]
]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_CODE)
def test_its_code_runs_and_shows_something(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if any("smollm2" in block for block in pages.code_of(text)):
        from steerlens.models import smollm2

        smollm2.directory()
    try:
        shown = pages.run(pages.code_of(text), path.relative_to(pages.DOCS).as_posix())
    except pages.PageError as error:
        pytest.fail(str(error), pytrace=False)
    assert any(shown), "a page whose code shows nothing"


def test_output_stands_below_its_block_and_cannot_end_the_page() -> None:
    text = 'Before.\n\n```python\nprint("<b>1</b> & \\n\\n2")\n"<script>"\n```\n\nAfter.\n\n```py\nnever = run\n```\n'
    page = pages.with_outputs(text, "a page of a test")
    assert page.startswith('Before.\n\n```python\nprint("<b>')
    assert "<pre>&lt;b&gt;1&lt;/b&gt; &amp; \n\n2</pre>" in page
    assert "&#x27;&lt;script&gt;&#x27;" in page
    assert page.endswith("After.\n\n```py\nnever = run\n```\n")


def test_a_block_that_fails_is_named() -> None:
    with pytest.raises(pages.PageError, match=r"a page of a test, block 2 failed:\s+1 / 0"):
        pages.run(["x = 1", "1 / 0"], "a page of a test")
