"""The controls of the explorer: what can be set, and how it is labelled."""

from __future__ import annotations

from typing import Any

from steerlens.explorer.view import View

PLACES = ("front", "mid", "back", "last", "all", "prompt", "from_last", "user", "index")
_ORDERS = {"KL divergence (its part)": "kl", "log-probability": "shift", "probability": "prob"}
_MEASURES = {
    "effectiveness on the words": "effectiveness",
    "disruption of other words": "disruption",
    "KL divergence": "kl",
    "probability of the words": "prob_steered",
    "norm of vector ÷ residual stream": "norm_ratio",
}


def make_controls(
    widgets: Any, view: View, *, n_layers: int, coeffs: tuple[float, float], chats: bool
) -> dict[str, Any]:
    """The input widgets by name, set to the view.

    Args:
        chats: whether the model's tokenizer has a chat template; without one the box for it cannot be ticked.
    """

    # Text is taken when Enter is pressed or the field is left: a pair is not extracted at every letter.
    def text(value: str, description: str, width: str) -> Any:
        layout = {"width": width}
        return widgets.Text(value, description=description, continuous_update=False, layout=layout, style=style)

    style, wide = {"description_width": "initial"}, {"width": "380px"}
    places = view.placement if view.placement in PLACES else "index"
    index = view.placement if places == "index" else 0
    return {
        "positive": text(view.pair.positive, "towards", "230px"),
        "negative": text(view.pair.negative, "away from", "230px"),
        "prompt": text(view.prompt, "prompt", "480px"),
        "chat": widgets.Checkbox(
            view.chat, description="chat", disabled=not chats, indent=False, layout={"width": "80px"}
        ),
        "layer": widgets.IntSlider(view.layer, min=0, max=n_layers - 1, description="layer", layout=wide, style=style),
        "coeff": widgets.FloatSlider(
            view.coeff, min=coeffs[0], max=coeffs[1], step=0.5, description="coefficient", layout=wide, style=style
        ),
        "placement": widgets.Dropdown(
            options=PLACES, value=places, description="place", layout={"width": "150px"}, style=style
        ),
        "index": widgets.IntText(
            index,
            description="position",
            layout={"width": "130px", "display": None if places == "index" else "none"},
            style=style,
        ),
        "words": text(", ".join(view.words), "next words to follow", "380px"),
        "by": widgets.Dropdown(
            options=_ORDERS, value=view.by, description="rank tokens by change of", layout=wide, style=style
        ),
        "measure": widgets.Dropdown(
            options=_MEASURES, value=view.measure, description="by layer", layout={"width": "300px"}, style=style
        ),
        "n": widgets.BoundedIntText(
            view.n, min=1, max=20, description="samples", layout={"width": "120px"}, style=style
        ),
        "max_new_tokens": widgets.BoundedIntText(
            view.max_new_tokens, min=1, max=400, description="tokens", layout={"width": "130px"}, style=style
        ),
        "seed": widgets.BoundedIntText(
            view.seed, min=0, max=2**31 - 1, description="seed", layout={"width": "130px"}, style=style
        ),
    }


def split_words(words: str) -> tuple[str, ...]:
    """The words of a line separated by commas, each once."""
    return tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
