"""The settings that come from a browser: plain data, read strictly, since a page may send anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from steerlens.analysis.logit_shift import By
from steerlens.arguments import choice, finite_number, flag, text, whole_number
from steerlens.errors import SteerlensError
from steerlens.explorer.contrasts import METHODS, SETS
from steerlens.explorer.view import View, split_words
from steerlens.steering import PromptPair

PLACES = ("front", "mid", "back", "last", "all", "prompt", "generated", "from_last", "user", "index")
ORDERS = {"kl": "KL divergence (its part)", "shift": "log-probability", "prob": "probability"}
MEASURES = {
    "effectiveness": "effectiveness on the words",
    "disruption": "disruption of other words",
    "kl": "KL divergence",
    "prob_steered": "probability of the words",
    "norm_ratio": "norm of vector ÷ residual stream",
}
_LONGEST = 20_000  # characters of a prompt

Settings = dict[str, Any]


def settings_of(view: View, model: str) -> Settings:
    """The view as plain data."""
    index = isinstance(view.placement, int)
    return {
        "model": model,
        "method": view.method,
        "contrast": view.contrast,
        "positive": view.pair.positive if view.pair else "",
        "negative": view.pair.negative if view.pair else "",
        "prompt": view.prompt,
        "chat": view.chat,
        "system": view.system,
        "layer": view.layer,
        "coeff": view.coeff,
        "placement": "index" if index else view.placement,
        "index": view.placement if index else 1,
        "words": ", ".join(view.words),
        "by": view.by,
        "measure": view.measure,
        "n": view.n,
        "max_new_tokens": view.max_new_tokens,
        "seed": view.seed,
    }


def read_settings(given: Mapping[str, Any], *, n_layers: int, coeffs: tuple[float, float], pad: str) -> View:
    """The view that settings stand for.

    Raises:
        SteerlensError: one is missing or of the wrong kind, a prompt that is too long, a layer that the model lacks.
    """
    try:
        texts = {
            name: text(name, given[name]) for name in ("positive", "negative", "prompt", "system", "words", "contrast")
        }
        place = choice("placement", given["placement"], PLACES)
        index = whole_number("position", given["index"], least=-(2**31), most=2**31)
        method = choice("method", given["method"], tuple(METHODS))
        layer = whole_number("layer", given["layer"], least=0, most=n_layers - 1)
        coeff = finite_number("coefficient", given["coeff"], least=coeffs[0], most=coeffs[1])
        by = choice("by", given["by"], get_args(By))
        measure = choice("measure", given["measure"], tuple(MEASURES))
        n = whole_number("samples", given["n"], least=1, most=20)
        max_new_tokens = whole_number("tokens", given["max_new_tokens"], least=1, most=400)
        seed = whole_number("seed", given["seed"], least=0, most=2**31 - 1)
        chat = flag("chat", given["chat"])
    except KeyError as error:
        raise SteerlensError(f"the settings lack {error.args[0]!r}; reload the page") from None
    for name, value in texts.items():
        if len(value) > _LONGEST:
            raise SteerlensError(f"{name} has {len(value):,} characters; the explorer takes {_LONGEST:,} at most")
    choice("contrast", texts["contrast"], SETS)
    positive, negative = texts["positive"], texts["negative"]
    if method == "actadd" and not positive and not negative:
        raise SteerlensError("both prompts of the pair are empty; type at least one")
    return View(
        pair=PromptPair(positive, negative, pad) if positive or negative else None,
        prompt=texts["prompt"],
        layer=layer,
        coeff=coeff,
        placement=index if place == "index" else place,
        words=split_words(texts["words"]),
        by=by,
        measure=measure,
        n=n,
        max_new_tokens=max_new_tokens,
        seed=seed,
        chat=chat,
        system=texts["system"],
        method=method,
        contrast=texts["contrast"],
    )
