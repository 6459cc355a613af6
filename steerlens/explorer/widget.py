"""`explore`: the widget. Moves of the controls become views, views become figures."""

from __future__ import annotations

import asyncio
import html
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from steerlens.analysis.layer_effect import LayerEffect
from steerlens.analysis.logit_shift import LogitShift
from steerlens.arguments import flag
from steerlens.errors import SteerlensError
from steerlens.explorer.controls import PLACES, make_controls, split_words
from steerlens.explorer.panels import code_panel_class, figures_class
from steerlens.explorer.view import Numbers, View
from steerlens.extras import needs
from steerlens.figures import completions_side_by_side, theme
from steerlens.models import HookedModel, require_model
from steerlens.steering import Injection, Placement, PromptPair
from steerlens.steering.chats import template_hash

# A slider that is dragged sends a value every few milliseconds. Moves are collected for this long, then drawn once …
_SHIFT_DELAY = 0.04
# … and the layer effect, a pass over all layers, waits until the hand rests.
_EFFECT_DELAY = 0.25

_FIGURE_HEIGHT = 500


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
    """A Jupyter widget: pair, prompt, layer, coefficient and place in; next-token shift, layer effect, completions out.

    The shift is drawn at once, the effect at every layer when the hand rests, completions when asked for. Vectors of
    all layers come from one forward pass per pair, and only what changed is computed again. "As code" holds the Python
    lines that do the same.

    Args:
        pair, prompt, layer, coeff, placement: what it shows first; the middle layer by default.
        words: the next words to follow, without their leading space: "love, hate" or a list.
        coeffs: the ends of the coefficient slider.
        chat: the prompt is a user's turn in a chat, which the model answers; for models with a chat template.

    Raises:
        SteerlensError: no model of TransformerLens, a layer or coefficient off its slider, a placement that it does not
            offer, a chat without a chat template, a package of the extra "notebook" missing. What is typed
            into the widget later shows its errors there.
    """
    require_model(model)
    if not isinstance(pair, PromptPair):
        pair = PromptPair(*pair)
    n_layers = int(model.cfg.n_layers)
    layer = n_layers // 2 if layer is None else layer
    if not 0 <= layer < n_layers:
        raise SteerlensError(f"layer {layer} is out of range for a model of {n_layers} layers; use 0 to {n_layers - 1}")
    if not coeffs[0] <= coeff <= coeffs[1]:
        raise SteerlensError(f"coeff = {coeff} is off the slider from {coeffs[0]} to {coeffs[1]}; pass coeffs=")
    if isinstance(placement, str) and placement not in PLACES:
        raise SteerlensError(
            f"placement {placement!r} is none of the explorer's: {', '.join(PLACES[:-1])}, or an index"
        )
    if flag("chat", chat) and not template_hash(model):
        raise SteerlensError("this model's tokenizer has no chat template; leave chat=False, or set one")
    named = tuple(split_words(words) if isinstance(words, str) else words)
    return Explorer(Numbers(model), View(pair, prompt, layer, float(coeff), placement, named, chat=chat), coeffs)


class Explorer:
    """The widget that `explore` makes. Jupyter shows it when it is the last value of a cell.

    Attributes:
        numbers: what it shows, as results of the package's functions.
        controls: the input widgets by name; setting `.value` on one is moving it.
        shift_figure, effect_figure: the plotly figures that are shown.
        widget: all of it, to put into your own layout.
    """

    def __init__(self, numbers: Numbers, view: View, coeffs: tuple[float, float]) -> None:
        (widgets,) = needs("ipywidgets", extra="notebook")
        new_figures, new_code = figures_class(), code_panel_class()
        _let_colab_show_widgets()
        self.numbers = numbers
        self._pad = view.pair.pad
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._loop = _running_loop()
        self._effect_drawn: tuple[object, ...] = ()
        self._completed: View | None = None
        self._errors: dict[str, str] = {}
        self.controls = make_controls(
            widgets,
            view,
            n_layers=int(numbers.model.cfg.n_layers),
            coeffs=coeffs,
            chats=bool(template_hash(numbers.model)),
        )
        self.shift_figure, self.effect_figure = theme.new_figure(), theme.new_figure()
        self._figures = new_figures(figures=["{}", "{}"], stale=[False, False])
        self._status, self._error = widgets.HTML(), widgets.HTML()
        self._button = widgets.Button(description="Complete", icon="play", button_style="primary")
        self._completions = widgets.HTML()
        self._code = new_code(code=view.code(numbers.model))
        self.widget = self._laid_out(widgets)
        for control in self.controls.values():
            control.observe(self._moved, names="value")
        self._button.on_click(lambda button: self._at_home(self.complete))
        self.update()

    @property
    def view(self) -> View:
        """What the controls say now.

        Raises:
            SteerlensError: both prompts of the pair are empty.
        """
        value = {name: control.value for name, control in self.controls.items()}
        return View(
            pair=PromptPair(value["positive"], value["negative"], self._pad),
            prompt=value["prompt"],
            layer=value["layer"],
            coeff=value["coeff"],
            placement=value["index"] if value["placement"] == "index" else value["placement"],
            words=split_words(value["words"]),
            by=value["by"],
            measure=value["measure"],
            n=value["n"],
            max_new_tokens=value["max_new_tokens"],
            seed=value["seed"],
            chat=value["chat"],
        )

    @property
    def shift(self) -> LogitShift:
        """The result behind the bars."""
        return self.numbers.shift(self.view)

    @property
    def effect(self) -> LayerEffect:
        """The result behind the layer plot."""
        return self.numbers.effect(self.view)

    @property
    def code(self) -> str:
        """The Python lines that do the same."""
        return self.view.code(self.numbers.model)

    @property
    def error(self) -> str:
        """The line of error that is shown, as HTML; empty when all is well."""
        return self._error.value

    @property
    def completions_html(self) -> str:
        """The completions that are shown, all text escaped; empty before the first are asked for."""
        return self._completions.value

    def update(self) -> None:
        """Redraw everything for the current controls, now. Moving a control does so by itself, a moment later."""
        self._draw_shift()
        self._draw_effect()

    def complete(self) -> None:
        """Sample the completions and show them."""
        self._button.disabled, self._button.description = True, "sampling …"
        try:
            with self._errors_shown("completions"):
                view = self.view
                shown = completions_side_by_side(self.numbers.completions(view), n=view.n)
                self._completions.value, self._completed = shown.html, view
        finally:
            self._button.disabled, self._button.description = False, "Complete"

    def _at_home(self, act: Callable[[], None]) -> None:
        """Call `act` in the thread in which the widget was made, now if this is it.

        Newer Jupyters hand each widget's messages to a thread of its own. A model takes one pass at a time: hooks of
        one thread would act in another's, and in the passes of the user's cells.
        """
        if self._loop is None or self._loop.is_closed() or self._loop is _running_loop():
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    def _moved(self, change: Any) -> None:
        self._at_home(self._plan)

    def _plan(self) -> None:
        self.controls["index"].layout.display = "" if self.controls["placement"].value == "index" else "none"
        self._soon(self._draw_shift, _SHIFT_DELAY)
        # Each move puts it off again: it is drawn when the hand rests.
        self._soon(self._draw_effect, _EFFECT_DELAY, again=True)

    def _soon(self, draw: Callable[[], None], delay: float, *, again: bool = False) -> None:
        """Call `draw` after `delay` seconds, once for all moves until then; at once where no event loop runs."""
        loop = _running_loop()
        if loop is None:
            draw()
            return
        if draw in self._timers:
            if not again:
                return
            self._timers.pop(draw).cancel()

        def fire() -> None:
            self._timers.pop(draw, None)
            draw()

        self._timers[draw] = loop.call_later(delay, fire)

    def _draw_shift(self) -> None:
        with self._errors_shown("shift"):
            begin = time.perf_counter()
            view = self.view
            shift = self.numbers.shift(view)
            self.shift_figure = shift.plot().update_layout(height=_FIGURE_HEIGHT)
            self._show_figures()
            self._status.value = _status(shift, self.numbers.injection(view), time.perf_counter() - begin)
            self._code.code = view.code(self.numbers.model)

    def _draw_effect(self) -> None:
        with self._errors_shown("effect"):
            view = self.view
            if not view.words:
                raise SteerlensError('no words to follow; type some, such as "love, hate", to see the effect by layer')
            effect = self.numbers.effect(view)
            if view.by_layer != self._effect_drawn:
                self.effect_figure = effect.plot(view.measure).update_layout(height=_FIGURE_HEIGHT)
                self._effect_drawn = view.by_layer
            self._show_figures()

    def _show_figures(self) -> None:
        """Send the figures to the browser, the chosen layer marked."""
        layer = self.controls["layer"].value
        others = [shape for shape in self.effect_figure.layout.shapes if shape.name != "chosen layer"]
        line = {"color": theme.INK, "width": 2, "dash": "dot"}
        mark = {"type": "line", "name": "chosen layer", "x0": layer, "x1": layer, "y0": 0, "y1": 1, "line": line}
        self.effect_figure.layout.shapes = [*others, {**mark, "yref": "paper"}]
        self._figures.figures = [self.shift_figure.to_json(), self.effect_figure.to_json()]

    def _mark_stale(self) -> None:
        """Fade what does not belong to the controls as they are now: not drawn yet, failed, or sampled before."""
        try:
            view = self.view
        except SteerlensError:
            view = None
        no_shift = view is None or "shift" in self._errors
        no_effect = view is None or "effect" in self._errors or view.by_layer != self._effect_drawn
        self._figures.stale = [no_shift, no_effect]
        for widget in (self._status, self._code):
            _fade(widget, no_shift)
        _fade(
            self._completions, self._completed is not None and (view is None or view.sampled != self._completed.sampled)
        )

    @contextmanager
    def _errors_shown(self, part: str) -> Iterator[None]:
        """Errors in the block become one line in the widget, whatever they are; tracebacks are for terminals."""
        self._errors.pop(part, None)
        try:
            yield
        except Exception as error:
            text = str(error).strip().partition("\n")[0] or "no message"
            self._errors[part] = text if isinstance(error, SteerlensError) else f"{type(error).__name__}: {text}"
        # One mistake often affects every part; it is reported once.
        lines = [html.escape(text) for text in dict.fromkeys(self._errors.values())]
        shown = f'<span class="steerlens-error" role="alert">{"<br>".join(lines)}</span>' if lines else ""
        self._error.value = shown
        self._mark_stale()

    def _laid_out(self, widgets: Any) -> Any:
        def row(*names: str) -> Any:
            return widgets.HBox([self.controls[name] for name in names], layout={"flex_flow": "row wrap"})

        code = widgets.Accordion([self._code], titles=("As code",), selected_index=None)
        sampling = widgets.HBox(
            [self._button, *(self.controls[name] for name in ("n", "max_new_tokens", "seed"))],
            layout={"flex_flow": "row wrap", "align_items": "center"},
        )
        whole = widgets.VBox(
            [
                row("positive", "negative", "prompt", "chat"),
                row("layer", "coeff", "placement", "index"),
                row("words", "by", "measure"),
                self._status,
                self._error,
                self._figures,
                sampling,
                self._completions,
                code,
            ]
        )
        whole.add_class("steerlens-explorer")
        return whole

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        view = self.view
        return f"Explorer({view.coeff:g} × ({view.pair}) at layer {view.layer}, {view.placement}; {view.prompt!r})"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _fade(widget: Any, stale: bool) -> None:
    """Show a widget faded while it does not match the controls."""
    (widget.add_class if stale else widget.remove_class)("steerlens-stale")


def _status(shift: LogitShift, injection: Injection, seconds: float) -> str:
    row = shift.summary.iloc[-1]
    vector = injection.vector
    parts = [
        f"<b>{html.escape(vector.title)}</b> at layer {vector.layer}, placed at {injection.placement}",
        f"length of the vector {theme.number(vector.norm)}",
        f"KL from unsteered <b>{theme.number(row['kl'])} nats</b>",
        f"entropy {theme.number(row['entropy_base'])} → {theme.number(row['entropy'])} nats",
        f"likeliest next token <b>{html.escape(theme.visible_token(row['top_token']))}</b> "
        f"{theme.percent(row['top_prob_base'])} → {theme.percent(row['top_prob'])}",
        f"{seconds * 1000:.0f} ms",
    ]
    return f'<span class="steerlens-status">{" · ".join(parts)}</span>'


def _let_colab_show_widgets() -> None:
    """Colab shows widgets that are not its own (plotly's are not) only where the page has asked for them."""
    if "google.colab" in sys.modules:
        importlib.import_module("google.colab.output").enable_custom_widget_manager()
