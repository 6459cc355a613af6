"""`Figure`: a plotly figure without a button that uploads it and without a logo, wherever it is shown."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from steerlens.figures.cell_output import cell_output, current_cell

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,  # plotly.js 3 has "Share chart…" by default, which uploads to Plotly Cloud
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "svg"},
}
"""How plotly.js shows figures: in reports, in the explorer, in notebooks and in a browser window."""


class Figure(go.Figure):
    """A plotly figure that is shown and written with `CONFIG`, unless another config is given."""

    def show(self, *args: Any, **options: Any) -> Any:
        return super().show(*args, **{"config": CONFIG, **options})

    def to_html(self, *args: Any, **options: Any) -> str:
        return super().to_html(*args, **_configured(args, options))

    def write_html(self, file: Any, *args: Any, **options: Any) -> None:
        super().write_html(file, *args, **_configured(args, options))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, validate: bool = True, **options: Any) -> Any:
        return super()._repr_mimebundle_(include, exclude, validate, **{"config": CONFIG, **options})

    def _ipython_display_(self) -> None:
        import plotly.io as pio

        if pio.renderers.default == "plotly_mimetype":  # in a kernel, where nobody has chosen another
            from IPython.display import display

            display(cell_output(self, CONFIG, cell=current_cell()), raw=True)
        elif pio.renderers.render_on_display and pio.renderers.default:
            self.show()
        else:
            print(repr(self))


def _configured(args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return options if args else {"config": CONFIG, **options}
