"""What ipywidgets lacks: figures that fill their cell, and code with a copy button; and the style sheet.

plotly's own FigureWidget would do, but it loads plotly.js within the two seconds that anywidget gives a widget to begin
(a busy machine needs more, and then shows nothing), loads it once per figure, and loses what changes meanwhile.
Here plotly.js comes once, whenever it comes, and then draws what the state says at that time.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from steerlens.extras import needs
from steerlens.figures.figure import CONFIG


@lru_cache(maxsize=1)
def figures_class() -> Any:
    """The widget class that shows plotly figures side by side (made here, because anywidget is optional).

    Its `figures` are plotly JSON, one text each; `stale` says which of them to fade.
    """
    anywidget, traitlets = needs("anywidget", "traitlets", extra="notebook")
    from plotly.offline import get_plotlyjs

    class Figures(anywidget.AnyWidget):  # type: ignore[name-defined]
        _esm = _FIGURES_JS
        figures = traitlets.List(traitlets.Unicode()).tag(sync=True)
        stale = traitlets.List(traitlets.Bool()).tag(sync=True)
        config = traitlets.Unicode(json.dumps(CONFIG)).tag(sync=True)
        # The library travels with the widget: notebooks without a network, and servers far away, have no other source.
        plotly = traitlets.Unicode(get_plotlyjs()).tag(sync=True)

    return Figures


@lru_cache(maxsize=1)
def code_panel_class() -> Any:
    """The widget class that shows its `code`, with a button to copy it."""
    anywidget, traitlets = needs("anywidget", "traitlets", extra="notebook")

    class CodePanel(anywidget.AnyWidget):  # type: ignore[name-defined]
        _esm = _CODE_PANEL_JS
        _css = _CSS
        code = traitlets.Unicode("").tag(sync=True)

    return CodePanel


_FIGURES_JS = """
// One copy of plotly.js for the page, however many widgets ask for it.
function library(source) {
  self.steerlensPlotly ??= new Promise((resolve, reject) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const script = document.createElement("script");
    script.onload = () => { URL.revokeObjectURL(url); resolve(self.Plotly ?? self.moduleName); };
    script.onerror = () => reject(new Error("plotly.js did not load"));
    script.src = url;
    document.head.append(script);
  });
  return self.steerlensPlotly;
}

async function fill(model, el, signal) {
  const Plotly = await library(model.get("plotly"));
  if (signal.aborted) return;
  const places = [], drawn = [];
  const draw = () => {
    model.get("figures").forEach((json, i) => {
      if (!places[i]) {
        places[i] = document.createElement("div");
        places[i].className = "steerlens-figure";
        el.append(places[i]);
      }
      places[i].classList.toggle("steerlens-stale", Boolean(model.get("stale")[i]));
      if (drawn[i] === json) return;
      drawn[i] = json;
      const { data, layout } = JSON.parse(json);
      Plotly.react(places[i], data, layout, JSON.parse(model.get("config")));
    });
  };
  model.on("change:figures", draw);
  model.on("change:stale", draw);
  draw();
  const watch = new ResizeObserver(() => {
    places.forEach((place) => { if (place.clientWidth > 0) Plotly.Plots.resize(place); });
  });
  watch.observe(el);
  signal.addEventListener("abort", () => {
    model.off("change:figures", draw);
    model.off("change:stale", draw);
    watch.disconnect();
    places.forEach((place) => Plotly.purge(place));
  });
}

function render({ model, el }) {
  el.classList.add("steerlens-figures");
  const end = new AbortController();
  fill(model, el, end.signal).catch((error) => { el.textContent = String(error); });
  return () => end.abort();
}
export default { render };
"""

_CODE_PANEL_JS = """
function render({ model, el }) {
  el.classList.add("steerlens-code");
  const button = document.createElement("button");
  const pre = document.createElement("pre");
  button.type = "button";
  button.textContent = "Copy";
  const show = () => { pre.textContent = model.get("code"); };
  model.on("change:code", show);
  show();
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(model.get("code"));
    } catch {  // pages that are not served safely have no clipboard: select, and copy the old way
      getSelection().selectAllChildren(pre);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
  el.append(button, pre);
  return () => model.off("change:code", show);
}
export default { render };
"""

_CSS = """
.steerlens-explorer { max-width: 1240px; overflow: hidden; }
.steerlens-figures { display: flex; flex-flow: row wrap; width: 100%; }
.steerlens-figure { flex: 1 1 460px; min-width: 0; overflow: hidden; transition: opacity .15s; }
.steerlens-stale { opacity: .35; }
.steerlens-explorer .steerlens-status { font-variant-numeric: tabular-nums; opacity: .85; }
.steerlens-explorer .steerlens-error { color: #d55e00; font-weight: 600; }
.steerlens-code { position: relative; }
.steerlens-code pre { margin: 0; padding: .9em 1em; overflow-x: auto; font-size: 12.5px; line-height: 1.5;
  border: 1px solid rgba(128,136,148,.35); border-radius: 4px; background: none; color: inherit; }
.steerlens-code button { position: absolute; top: .6em; right: .6em; padding: .3em .9em; font: inherit; font-size: 12px;
  cursor: pointer; color: inherit; background: rgba(128,136,148,.15); border: 1px solid rgba(128,136,148,.45);
  border-radius: 4px; }
"""
