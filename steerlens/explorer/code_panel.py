"""The panel that shows code with a button to copy it, and the explorer's style sheet."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from steerlens.extras import needs


@lru_cache(maxsize=1)
def code_panel_class() -> Any:
    """The widget class that shows code with a button to copy it (made here, because anywidget is optional)."""
    anywidget, traitlets = needs("anywidget", "traitlets", extra="notebook")

    class CodePanel(anywidget.AnyWidget):  # type: ignore[name-defined]
        _esm = _CODE_PANEL_JS
        _css = _CSS
        code = traitlets.Unicode("").tag(sync=True)

    return CodePanel


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
.steerlens-explorer .steerlens-figure { flex: 1 1 480px; min-width: 0; overflow: hidden; transition: opacity .15s; }
.steerlens-explorer .steerlens-figure > * { width: 100%; }
.steerlens-explorer .steerlens-stale { opacity: .35; }
.steerlens-explorer .steerlens-status { font-variant-numeric: tabular-nums; opacity: .85; }
.steerlens-explorer .steerlens-error { color: #d55e00; font-weight: 600; }
.steerlens-code { position: relative; }
.steerlens-code pre { margin: 0; padding: .9em 1em; overflow-x: auto; font-size: 12.5px; line-height: 1.5;
  border: 1px solid rgba(128,136,148,.35); border-radius: 4px; background: none; color: inherit; }
.steerlens-code button { position: absolute; top: .6em; right: .6em; padding: .3em .9em; font: inherit; font-size: 12px;
  cursor: pointer; color: inherit; background: rgba(128,136,148,.15); border: 1px solid rgba(128,136,148,.45);
  border-radius: 4px; }
"""
