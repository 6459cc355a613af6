"""The HTML report: one page that holds figures, tables, completions and settings, and opens without a network."""

import html
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from steerlens.errors import SteerlensError
from steerlens.figures import theme


@dataclass(frozen=True)
class Headline:
    """A number at the top of the report: what it is (`label`), the number as text (`value`), a smaller `note`."""

    label: str
    value: str
    note: str = ""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str = "",
    headlines: Sequence[Headline] = (),
    pages: Mapping[str, str] | None = None,
    figures: Mapping[str, go.Figure] | Sequence[go.Figure] = (),
    tables: Mapping[str, pd.DataFrame] | None = None,
    completions_html: str | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Path:
    """The path of one self-contained HTML page, written whole or not at all.

    `pages`: title to file name, for pages that lie beside this one. `figures`: in order, with captions if a mapping (an
    empty caption is none). `tables`: caption to frame; floats are shortened, missing values dashed.
    `completions_html`: the `.html` of `completions_side_by_side`, the only argument taken as HTML: everything else is
    escaped. `settings`: model, versions, seed, hash …, written as text. `command`: what to type to get the same again,
    shell or Python. Sections without content are left out. plotly.js is inlined once and the page's own security policy
    forbids it to fetch anything. An existing file is replaced. Raises SteerlensError with one line if the path cannot
    be written (see `check_report_path` to ask before long work).
    """
    target = check_report_path(path)
    page = report_html(
        title=title,
        subtitle=subtitle,
        headlines=headlines,
        pages=pages,
        figures=figures,
        tables=tables,
        completions_html=completions_html,
        settings=settings,
        command=command,
    )
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        # Lone surrogates come from broken byte sequences in completions; they must not cost the whole report.
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(page)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files for the owner alone
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise
    return target


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """`path` as a Path, if a report can be written there; nothing is left on disk. Call it before long work.

    Raises SteerlensError in one line: the folder is missing or closed, or the path is a folder.
    """
    target = Path(path).expanduser()
    folder = target.parent
    if target.is_dir():
        raise SteerlensError(f"cannot write the report to {target}: it is a folder; give a file name in it")
    if not folder.is_dir():
        raise SteerlensError(f"cannot write the report to {target}: folder {folder} does not exist; make it first")
    try:
        handle, trial = tempfile.mkstemp(dir=folder, prefix=".steerlens-", suffix=".part")
        os.close(handle)
        os.unlink(trial)
    except OSError as error:
        raise _unwritable(target, error) from None
    return target


def _unwritable(target: Path, error: OSError) -> SteerlensError:
    reason = (error.strerror or str(error)).lower()
    return SteerlensError(f"cannot write the report to {target}: {reason}; choose another path")


def report_html(
    *,
    title: str,
    subtitle: str = "",
    headlines: Sequence[Headline] = (),
    pages: Mapping[str, str] | None = None,
    figures: Mapping[str, go.Figure] | Sequence[go.Figure] = (),
    tables: Mapping[str, pd.DataFrame] | None = None,
    completions_html: str | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """The page of `write_report` as a string."""
    captioned = list(figures.items()) if isinstance(figures, Mapping) else [("", figure) for figure in figures]
    sections = []
    if headlines:
        tiles = "".join(
            f"<div class=tile><dt>{html.escape(one.label)}</dt><dd>{html.escape(one.value)}"
            f"<small>{html.escape(one.note)}</small></dd></div>"
            for one in headlines
        )
        sections.append(f"<dl class=tiles>{tiles}</dl>")
    if pages:
        links = "".join(f'<li><a href="{quote(name)}">{html.escape(title)}</a></li>' for title, name in pages.items())
        sections.append(f"<nav aria-label=Pages><ul>{links}</ul></nav>")
    if captioned:
        drawn = "".join(_figure(index, caption, figure) for index, (caption, figure) in enumerate(captioned))
        sections.append(f'<section id=figures aria-label="Figures">{drawn}</section>')
    if completions_html:
        body = f"<h2>Completions</h2><div class=wide>{completions_html}</div>"
        sections.append(f"<section id=completions>{body}</section>")
    if tables:
        drawn = "".join(_table(caption, frame) for caption, frame in tables.items())
        sections.append(f"<section id=numbers><h2>Numbers</h2>{drawn}</section>")
    if settings:
        items = "".join(
            f"<div><dt>{html.escape(str(key))}</dt><dd>{html.escape(_plain(value))}</dd></div>"
            for key, value in settings.items()
        )
        sections.append(f"<section id=settings><h2>Settings</h2><dl class=settings>{items}</dl></section>")
    if command:
        sections.append(
            "<section id=command><h2>To repeat this</h2><div class=command>"
            f"<pre><code>{html.escape(command)}</code></pre><button type=button id=copy>Copy</button></div></section>"
        )
    scripts = ""
    if captioned:
        # The library itself holds no "</script"; a stray one would end the element early.
        library = get_plotlyjs().replace("</script", "<\\/script")
        scripts = f'<script id="plotly-library">{library}</script>'
    return _PAGE.format(
        title=html.escape(title),
        subtitle=f"<p class=subtitle>{html.escape(subtitle)}</p>" if subtitle else "",
        style=_STYLE,
        sections="\n".join(sections),
        footer=html.escape(f"steerlens {_version()}"),
        scripts=f"{scripts}<script>{_SCRIPT}</script>",
    )


def _figure(index: int, caption: str, figure: go.Figure) -> str:
    # JSON in a script element ends at "</script" wherever it stands, so no "<" may remain, in user text least of all.
    data = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    height = int(figure.layout.height or 450)
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    name = html.escape(caption or figure.layout.title.text or f"figure {index + 1}", quote=True)
    return (
        f'<figure><div class=plot id="figure-{index}" role=img aria-label="{name}" style="min-height:{height}px"></div>'
        f'<script type="application/json" data-figure="figure-{index}">{data}</script>{words}</figure>'
    )


def _table(caption: str, frame: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    head = "".join(
        f"<th scope=col{' class=number' if right else ''}>{html.escape(str(column))}</th>"
        for column, right in zip(frame.columns, numeric, strict=True)
    )
    rows = []
    for values in frame.itertuples(index=False):
        cells = "".join(
            f"<td{' class=number' if right else ''}>{html.escape(_plain(value))}</td>"
            for value, right in zip(values, numeric, strict=True)
        )
        rows.append(f"<tr>{cells}</tr>")
    return (
        f"<div class=table tabindex=0><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _plain(value: Any) -> str:
    """A value as a person would write it: short floats, commas in lists, a dash for nothing."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return theme.number(float(value), 4)
    if isinstance(value, int | np.integer):
        return str(value).replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)


def _version() -> str:
    try:
        return version("steerlens")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
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

_STYLE = """
:root{--page:#fcfcfb;--card:#ffffff;--ink:#1d232b;--quiet:#5c6570;--line:#e3e6ea;--accent:#0a6aa6;--code:#f3f5f7}
@media (prefers-color-scheme:dark){
:root{--page:#12161b;--card:#191e25;--ink:#e7eaee;--quiet:#9aa4b0;--line:#2c343d;--accent:#6db8e8;--code:#20262e}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 Inter,'Source Sans 3','Segoe UI',system-ui,
-apple-system,Helvetica,Arial,sans-serif}
main{max-width:68rem;margin:0 auto;padding:clamp(1.5rem,5vw,4rem) clamp(1rem,4vw,2.5rem) 3rem}
h1{font-size:clamp(1.6rem,4vw,2.3rem);line-height:1.2;letter-spacing:-.02em;font-weight:680;margin:0;
overflow-wrap:anywhere;text-wrap:balance}
h2{font-size:1.15rem;font-weight:640;letter-spacing:-.005em;margin:0 0 .9rem}
.subtitle{color:var(--quiet);font-size:1.06rem;margin:.5rem 0 0;max-width:46rem;overflow-wrap:anywhere}
section{margin-top:3.2rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1px;margin:2.4rem 0 0;
background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden}
.tile{box-shadow:0 0 0 1px var(--line);padding:1.05rem 1.25rem 1.1rem}
.tile dt{color:var(--quiet);font-size:.88rem}
.tile dd{margin:.1rem 0 0;font-size:1.75rem;line-height:1.25;font-weight:660;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile small{display:block;font-size:.85rem;font-weight:400;letter-spacing:0;line-height:1.4;color:var(--quiet);
margin-top:.15rem}
nav ul{list-style:none;display:flex;flex-flow:row wrap;gap:.5rem 1.6rem;margin:1.6rem 0 0;padding:0}
nav a{color:var(--accent);text-underline-offset:.2em;text-decoration-thickness:1px}
#figures{margin-top:2.2rem}
figure{margin:0 0 1.6rem;background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:1rem 1rem .6rem;overflow-x:auto}
.plot{width:100%;min-width:34rem}
figcaption{color:var(--quiet);font-size:.93rem;padding:.2rem .6rem .7rem;max-width:52rem}
.wide,.table{overflow:auto}
.wide table{min-width:36rem}
.table{max-height:32rem;border:1px solid var(--line);border-radius:10px;background:var(--card);margin-bottom:1.4rem}
.table table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem;line-height:1.45}
.table caption{position:sticky;left:0;text-align:left;color:var(--quiet);padding:.7rem .9rem .3rem}
.table caption:empty{display:none}
.table th{position:sticky;top:0;background:var(--card);text-align:left;font-weight:600;padding:.5rem .9rem;
border-bottom:1px solid var(--line);white-space:nowrap}
.table td{padding:.34rem .9rem;border-bottom:1px solid var(--line);max-width:26rem;overflow-wrap:break-word}
.table tr:last-child td{border-bottom:0}
.number{text-align:right!important;font-variant-numeric:tabular-nums;white-space:nowrap}
.settings{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:.9rem 2rem;margin:0}
.settings dt{color:var(--quiet);font-size:.85rem}
.settings dd{margin:0;overflow-wrap:anywhere}
.command{position:relative}
pre{margin:0;background:var(--code);border-radius:10px;padding:1rem 5.5rem 1rem 1.2rem;overflow-x:auto;
font:.88rem/1.55 'JetBrains Mono','SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre-wrap;
overflow-wrap:anywhere}
button{position:absolute;top:.65rem;right:.7rem;font:inherit;font-size:.82rem;color:var(--accent);
background:var(--card);border:1px solid var(--line);border-radius:7px;padding:.2rem .75rem;cursor:pointer}
button:hover{border-color:var(--accent)}
footer{margin-top:3.5rem;color:var(--quiet);font-size:.85rem}
.plot text:not(:where(.hoverlayer *,.heatmap-label *)){fill:var(--quiet)!important}
.plot .infolayer .gtitle,.plot .legend .legendtext,.plot .infolayer .annotation-text{fill:var(--ink)!important}
@media (prefers-color-scheme:dark){.plot .heatmaplayer,.plot .colorbar .cbfills{opacity:.88}}
@media print{
:root{--page:#fff;--card:#fff;--ink:#000;--quiet:#444;--line:#ccc;--accent:#000;--code:#f5f5f5}
body{font-size:11pt}main{max-width:none;padding:0}button,.modebar{display:none!important}
.table{max-height:none;overflow:visible}figure,.tile,tr{break-inside:avoid}section{margin-top:1.6rem}}
"""

_SCRIPT = """
(() => {
  const options = {responsive: true, displaylogo: false, displayModeBar: 'hover',
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'], toImageButtonOptions: {format: 'svg'}};
  for (const source of document.querySelectorAll('script[data-figure]')) {
    const figure = JSON.parse(source.textContent);
    Plotly.newPlot(source.dataset.figure, figure.data, figure.layout, options);
  }
  const plots = () => document.querySelectorAll('.js-plotly-plot');
  addEventListener('beforeprint', () => plots().forEach(plot => Plotly.Plots.resize(plot)));
  const button = document.getElementById('copy');
  if (button) button.addEventListener('click', () => {
    const code = button.previousElementSibling, range = document.createRange();
    range.selectNodeContents(code);
    const selection = getSelection();
    selection.removeAllRanges(); selection.addRange(range);
    document.execCommand('copy');
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; selection.removeAllRanges(); }, 1500);
  });
})();
"""
