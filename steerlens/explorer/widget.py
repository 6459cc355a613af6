"""`explore`: the explorer as a Jupyter widget."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.analysis.layer_effect import LayerEffect
from steerlens.analysis.logit_shift import LogitShift
from steerlens.arguments import finite_number, flag, layer_number, listed, text
from steerlens.errors import SteerlensError
from steerlens.explorer.home import Home
from steerlens.explorer.models import Models
from steerlens.explorer.numbers import Numbers
from steerlens.explorer.session import Session
from steerlens.explorer.settings import PLACES
from steerlens.explorer.view import View, split_words
from steerlens.extras import needs
from steerlens.figures.figure import CONFIG
from steerlens.models import HookedModel, require_model
from steerlens.steering import Placement, PromptPair
from steerlens.steering.chats import template_hash

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

FRONT = Path(__file__).resolve().parent / "front"
SHOWN: dict[str, Any] = {
    "options": {},
    "settings": {},
    "drawn": 0,
    "shift_figure": "",
    "effect_figure": "",
    "damage_figure": "",
    "stale": [],
    "tiles": [],
    "fields": {},
    "tokens": [],
    "streams": {},
    "progress": None,
    "busy": "",
    "errors": [],
    "code": "",
    "status": [],
}
"""By name what a front end is told, and what it is before anything is drawn."""


def explore(
    model: HookedModel,
    pair: PromptPair | tuple[str, str] = ("Love", "Hate"),
    prompt: str = "I hate you because",
    *,
    layer: int | None = None,
    coeff: float = 5.0,
    placement: Placement = "front",
    words: str | Sequence[str] = "love, hate",
    coeffs: tuple[float, float] = (-20.0, 20.0),
    chat: bool = False,
) -> Explorer:
    """A Jupyter widget: vector, prompt, layer, coefficient and place in; next-token shift, effect, damage and text out.

    The shift is drawn at once, what runs over all layers when the hand rests, completions when asked for. Vectors of
    all layers come from one forward pass per pair, and only what changed is computed again. "As code" holds the Python
    lines that do the same. Without Jupyter, `steerlens explore` opens the same in a browser.

    Args:
        pair, prompt, layer, coeff, placement: what it shows first; the middle layer by default.
        words: the next words to follow, each one token, without their leading space: "love, hate" or a list.
        coeffs: the ends of the coefficient slider.
        chat: the prompt is a user's turn in a chat, which the model answers; for models with a chat template.

    Raises:
        SteerlensError: no model of TransformerLens, a layer or coefficient off its slider, a placement that it does not
            offer, a chat without a chat template, a package of the extra "notebook" missing. What is typed
            into the widget later shows its errors there.
    """
    view, ends = first_view(model, pair, prompt, layer, coeff, placement, words, coeffs, chat)
    return Explorer(Models(model), view, ends)


def first_view(
    model: HookedModel,
    pair: PromptPair | tuple[str, str],
    prompt: str,
    layer: int | None,
    coeff: float,
    placement: Placement,
    words: str | Sequence[str],
    coeffs: tuple[float, float],
    chat: bool,
) -> tuple[View, tuple[float, float]]:
    """What an explorer shows first, and the ends of its slider; see `explore`."""
    require_model(model)
    if not isinstance(pair, PromptPair):
        pair = PromptPair(*pair)
    n_layers = int(model.cfg.n_layers)
    layer = n_layers // 2 if layer is None else layer_number(layer, n_layers)
    low, high = (finite_number("coeffs", one) for one in listed("coeffs", coeffs, of="numbers"))
    coeff = finite_number("coeff", coeff)
    if not low <= coeff <= high:
        raise SteerlensError(f"coeff = {coeff:g} is off the slider from {low:g} to {high:g}; pass coeffs=")
    if isinstance(placement, str) and placement not in PLACES:
        raise SteerlensError(
            f"placement {placement!r} is none of the explorer's: {', '.join(PLACES[:-1])}, or an index"
        )
    if flag("chat", chat) and not template_hash(model):
        raise SteerlensError("this model's tokenizer has no chat template; leave chat=False, or set one")
    named = tuple(split_words(words) if isinstance(words, str) else words)
    return View(pair, text("prompt", prompt), layer, coeff, placement, named, chat=chat), (low, high)


class Explorer:
    """The widget that `explore` makes. Jupyter shows it when it is the last value of a cell.

    Attributes:
        session: what it is set to and what it shows.
        widget: all of it, to put into your own layout.
    """

    def __init__(self, models: Models, view: View, coeffs: tuple[float, float]) -> None:
        _let_colab_show_widgets()
        self.widget = front_class()()
        self.session = Session(models, view, coeffs, lambda name, value: setattr(self.widget, name, value), Home.here())
        self.session.update()
        self.widget.observe(lambda change: self._told(change.new), names="settings")
        self.widget.on_msg(lambda widget, content, buffers: self.session.order(content.get("order")))

    def move(self, **settings: Any) -> None:
        """Set controls: `explorer.move(layer=3, coeff=8)`. The names are those of `explorer.settings`."""
        unknown = [name for name in settings if name not in self.settings]
        if unknown:
            raise SteerlensError(f"no control {unknown[0]!r}; the controls are {', '.join(self.settings)}")
        self.session.take(settings)
        self.widget.settings = self.session.settings

    def complete(self) -> pd.DataFrame:
        """Sample the completions, show them, and return them."""
        self.session.complete()
        return self.session.completions

    def update(self) -> None:
        """Redraw everything for the current controls, now. Moving a control does so by itself, a moment later."""
        self.session.update()

    @property
    def settings(self) -> dict[str, Any]:
        """The controls by name."""
        return {name: value for name, value in self.session.settings.items() if name != "move"}

    @property
    def numbers(self) -> Numbers:
        """What it shows, as results of the package's functions."""
        return self.session.numbers

    @property
    def view(self) -> View:
        """What the controls say now.

        Raises:
            SteerlensError: something that cannot be, such as a pair of two empty prompts.
        """
        return self.session.view

    @property
    def shift(self) -> LogitShift:
        """The result behind the bars."""
        return self.numbers.shift(self.view)

    @property
    def effect(self) -> LayerEffect:
        """The result behind the figures by layer."""
        return self.numbers.effect(self.view)

    @property
    def shift_figure(self) -> go.Figure:
        """The bars as shown."""
        return self.session.shift_figure

    @property
    def effect_figure(self) -> go.Figure:
        """The figure by layer as shown."""
        return self.session.effect_figure

    @property
    def damage_figure(self) -> go.Figure:
        """Effectiveness against disruption as shown."""
        return self.session.damage_figure

    @property
    def code(self) -> str:
        """The Python lines that do the same."""
        return self.view.code(self.numbers.model)

    @property
    def error(self) -> str:
        """The lines of error that are shown; empty when all is well."""
        return self.session.error

    def _told(self, settings: dict[str, Any]) -> None:
        if settings != self.session.settings:
            self.session.take(settings)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        view = self.view
        what = f"({view.pair})" if view.method == "actadd" else f"{view.method} of {view.contrast}"
        return f"Explorer({view.coeff:g} × {what} at layer {view.layer}, {view.placement}; {view.prompt!r})"


@lru_cache(maxsize=1)
def front_class() -> Any:
    """The widget class of the front end (made here, because anywidget is optional).

    plotly's own FigureWidget would do for the figures, but it loads plotly.js within the two seconds that anywidget
    gives a widget to begin (a busy machine needs more, and then shows nothing), loads it once per figure, and loses
    what changes meanwhile. Here plotly.js comes once, whenever it comes, and then draws what the state says then.
    """
    anywidget, traitlets = needs("anywidget", "traitlets", extra="notebook")
    from plotly.offline import get_plotlyjs

    shown = {name: traitlets.Any(value).tag(sync=True) for name, value in SHOWN.items()}
    return type(
        "Front",
        (anywidget.AnyWidget,),
        {
            "_esm": (FRONT / "explorer.js").read_text(encoding="utf-8"),
            "_css": (FRONT / "explorer.css").read_text(encoding="utf-8"),
            "config": traitlets.Unicode(json.dumps(CONFIG)).tag(sync=True),
            # The library travels with the widget: notebooks without a network, and servers far away, have no other.
            "plotly": traitlets.Unicode(get_plotlyjs()).tag(sync=True),
            "plotly_url": traitlets.Unicode("").tag(sync=True),
            "link": traitlets.Bool(False).tag(sync=True),
            **shown,
        },
    )


def _let_colab_show_widgets() -> None:
    """Colab shows widgets that are not its own (plotly's are not) only where the page has asked for them."""
    if "google.colab" in sys.modules:
        importlib.import_module("google.colab.output").enable_custom_widget_manager()
