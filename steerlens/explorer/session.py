"""`Session`: one explorer at work. Settings and orders come in from any thread, what is shown goes out by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from steerlens.errors import SteerlensError
from steerlens.explorer import drawing
from steerlens.explorer.home import Home
from steerlens.explorer.models import Models
from steerlens.explorer.numbers import Numbers
from steerlens.explorer.settings import Settings, read_settings, settings_of
from steerlens.explorer.view import View
from steerlens.interruptions import Interrupted, interruptible
from steerlens.steering.chats import template_hash

Show = Callable[[str, Any], None]

# What runs over all layers, and over all positions, waits until the hand rests for this long.
_REST = 0.2
# New tokens are shown at most this often: a browser draws no faster, and each picture is sent.
_STREAM = 0.1


class Session:
    """What an explorer is set to, and what it shows for it.

    A move of a control redraws the shift at once, for the newest settings only; the figures by layer, the damage and
    the tokens of the prompt follow when the hand rests, and stop when it moves again. Completions are sampled when
    asked for; moves are answered between two of their tokens.

    Attributes:
        settings: the controls, as plain data (see `settings_of`).
        shift_figure, effect_figure, damage_figure: the figures shown.
        completions: the frame of the last completions, or None.
    """

    def __init__(self, models: Models, view: View, coeffs: tuple[float, float], show: Show, home: Home) -> None:
        self._models, self._coeffs, self._show, self._home = models, coeffs, show, home
        self._pad = view.pair.pad if view.pair else "space"
        self.settings: Settings = settings_of(view, models.names[0])
        self._moves, self._planned, self._sampling = 0, False, False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: dict[str, str] = {}
        self._failed: dict[str, Hashable] = {}  # by part, what it was asked for when it failed
        self._drawn: dict[str, Any] = {}
        self.shift_figure, self.effect_figure, self.damage_figure = (drawing.nothing() for _ in range(3))
        self.completions: Any = None
        self._show_options()
        self._show("settings", self.settings)

    @property
    def numbers(self) -> Numbers:
        """The numbers of the chosen model."""
        return self._models.numbers(self.settings["model"])

    @property
    def view(self) -> View:
        """What the controls say.

        Raises:
            SteerlensError: something that cannot be.
        """
        n_layers = int(self.numbers.model.cfg.n_layers)
        return read_settings(self.settings, n_layers=n_layers, coeffs=self._coeffs, pad=self._pad)

    @property
    def error(self) -> str:
        """The errors shown, a line each; empty when all is well."""
        return "\n".join(dict.fromkeys(self._errors.values()))

    def take(self, settings: Mapping[str, Any]) -> None:
        """Take new settings; those that are not named stay. May be called from any thread."""
        with self._lock:
            known = {name: value for name, value in settings.items() if name in self.settings or name == "move"}
            self.settings = {**self.settings, **known}
            self._moves += 1
            planned, self._planned = self._planned, True
        if not planned and not self._sampling:
            self._home.soon(self._answer)

    def order(self, what: object) -> None:
        """`"complete"` samples completions, `"stop"` ends that, `"update"` draws. May be called from any thread."""
        if what == "stop" and self._sampling:
            self._stop.set()
        elif what == "complete" and not self._sampling:
            self._sampling = True
            self._home.soon(self.complete)
        elif what == "update":
            self._home.soon(self.update)

    def end(self) -> None:
        """Nothing is returned: what is being worked on ends soon. May be called from any thread."""
        self._stop.set()
        with self._lock:
            self._moves += 1

    def update(self) -> None:
        """Redraw everything now."""
        self._answer()
        self._rest(self._moves)

    def complete(self) -> None:
        """Sample the completions, showing them as they are written."""
        self._sampling = True
        try:
            with self._working("sampling …"), self._errors_shown("completions"):
                self._stream(self.view)
        finally:
            self._sampling = False
            self._stop.clear()
            self._show("progress", None)
            if self._planned:
                self._home.soon(self._answer)

    def _stream(self, view: View) -> None:
        shown_at = 0.0
        pairs: list[tuple[str, str]] = []

        def watch(now: list[tuple[str, str]], share: float) -> None:
            nonlocal shown_at, pairs
            pairs = now
            if self._stop.is_set():
                raise Interrupted
            if self._planned:  # a hand on a slider does not wait for the last token
                self._answer()
            if time.monotonic() - shown_at > _STREAM:
                shown_at = time.monotonic()
                self._show("streams", drawing.streams(view, pairs))
                self._show("progress", share)

        self._drawn["completions"] = view.sampled
        self._mark_stale()
        try:
            self.completions = self.numbers.completions(view, watch)
        except Interrupted:
            self._show("streams", drawing.streams(view, pairs, note="stopped"))
            return
        self._show("streams", drawing.completed(view, self.completions))

    def _answer(self) -> None:
        """Draw the shift for the settings as they are now, and plan the rest."""
        with self._lock:
            self._planned = False
            moves = self._moves
        loading = self.settings["model"] in self._models.names and not self._models.loaded(self.settings["model"])
        with self._working(f"loading {self.settings['model']} …" if loading else "computing …"):
            self._draw_shift(new_model=loading)
        self._show("drawn", self.settings.get("move", 0))
        # Each move puts it off again: it is drawn when the hand rests.
        self._home.soon(lambda: self._rest(moves), _REST)

    def _draw_shift(self, *, new_model: bool) -> None:
        with self._errors_shown("shift"):
            self._forget_errors()
            begin = time.perf_counter()
            if new_model or self._drawn.get("model") != self.settings["model"]:
                self._change_model()
            view, numbers = self.view, self.numbers
            self._show("fields", drawing.fields(numbers, view))
            shift = numbers.shift(view)
            self.shift_figure = drawing.shift_figure(shift)
            self._show("shift_figure", self.shift_figure.to_json())
            self._show("status", drawing.status(shift, numbers.injection(view), time.perf_counter() - begin))
            self._show("code", view.code(numbers.model))

    def _change_model(self) -> None:
        """Load the chosen model, and keep the layer at its depth."""
        before, numbers = self._drawn.get("model"), self.numbers
        if before is not None:
            old = int(self._models.numbers(before).model.cfg.n_layers) - 1
            new = int(numbers.model.cfg.n_layers) - 1
            self.settings = {**self.settings, "layer": round(self.settings["layer"] / max(old, 1) * new)}
            self._show("settings", self.settings)
        self._drawn["model"] = self.settings["model"]
        self._show_options()

    def _rest(self, moves: int) -> None:
        """Draw what takes longer, unless something has moved since."""
        if moves != self._moves:
            return
        try:
            with self._working("computing …"), interruptible(lambda: self._moves != moves):
                with self._errors_shown("changes"):
                    view = self.view
                    self._show("tokens", drawing.tokens(self.numbers.changes(view)))
                    self._drawn["changes"] = self._asked_for(view)["changes"]
                with self._errors_shown("effect"):
                    self._draw_effect()
        except Interrupted:
            pass  # the newer move has planned its own

    def _draw_effect(self) -> None:
        view = self.view
        if not view.words:
            raise SteerlensError('no words to follow; type some, such as "love, hate", to see the effect by layer')
        effect = self.numbers.effect(view)
        drawn = (view.by_layer, view.measure)
        if drawn != self._drawn.get("effect"):
            self.effect_figure, self.damage_figure = drawing.effect_figure(effect, view), drawing.damage_figure(effect)
            self._drawn["effect"] = drawn
        drawing.mark_layer(self.effect_figure, self.damage_figure, effect, view.layer)
        self._show("effect_figure", self.effect_figure.to_json())
        self._show("damage_figure", self.damage_figure.to_json())
        self._show("tiles", drawing.tiles(effect, view.layer))
        self._drawn["layer"] = view.layer

    def _show_options(self) -> None:
        model = self.numbers.model
        self._show(
            "options", drawing.options(model, self._models.names, self._coeffs, chats=bool(template_hash(model)))
        )

    def _mark_stale(self) -> None:
        """Say what does not belong to the controls as they are now: not drawn yet, failed, or sampled before."""
        view = self._readable()
        stale = ["shift"] * (view is None or "shift" in self._errors)
        if view is None or "effect" in self._errors or self._drawn.get("effect") != (view.by_layer, view.measure):
            stale.append("effect")
        if view is None or "changes" in self._errors or self._drawn.get("changes") != self._asked_for(view)["changes"]:
            stale.append("tokens")
        sampled = self._drawn.get("completions")
        if sampled is not None and (view is None or view.sampled != sampled):
            stale.append("completions")
        self._show("stale", stale)

    def _asked_for(self, view: View | None) -> dict[str, Hashable]:
        """What the parts that are not drawn at once depend on."""
        if view is None:
            return {}
        changes = (view.made, view.given, view.layer, view.coeff, view.placement)
        model = self.settings["model"]
        return {
            "changes": (model, changes),
            "effect": (model, view.by_layer, view.measure),
            "completions": (model, view.sampled),
        }

    def _readable(self) -> View | None:
        """The view, or None where the settings cannot be."""
        try:
            return self.view
        except SteerlensError:
            return None

    def _forget_errors(self) -> None:
        """Nothing is returned: an error of other settings is gone at the next move, before its part is drawn anew."""
        now = self._asked_for(self._readable())
        for part in [part for part in self._errors if self._failed.get(part) != now.get(part)]:
            del self._errors[part]

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        """Say in the block what is being done."""
        before = self._drawn.get("busy", "")
        self._drawn["busy"] = what
        self._show("busy", what)
        try:
            yield
        finally:
            self._drawn["busy"] = before
            self._show("busy", before)

    @contextmanager
    def _errors_shown(self, part: str) -> Iterator[None]:
        """Errors in the block become one line, whatever they are; tracebacks are for terminals."""
        self._errors.pop(part, None)
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            text = str(error).strip().partition("\n")[0] or "no message"
            self._errors[part] = text if isinstance(error, SteerlensError) else f"{type(error).__name__}: {text}"
            self._failed[part] = self._asked_for(self._readable()).get(part)
        # One mistake often affects every part; it is reported once.
        self._show("errors", list(dict.fromkeys(self._errors.values())))
        self._mark_stale()
