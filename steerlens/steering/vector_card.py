"""The card of a vector: what a reader must know before using it, as a page for the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from steerlens.errors import in_one_line

_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# Where a method keeps the data it was made with, and what more is known of it; the rest are its settings.
_DATA = ("positive", "negative", "positives", "negatives", "pairs", "texts", "prompts", "contrast", "data", "target")
_NO_CONTROLS = (
    "None are recorded. Before you believe an effect, compare it with random vectors of the same norm, and with a "
    "prompt that asks for the same, at equal damage (`sl.sweep(..., control=...)`)."
)


def vector_card(record: Mapping[str, Any], *, norms: list[float], repository: str, controls: str = "") -> str:
    """The card of a vector, as Markdown with the front matter that the hub reads.

    Args:
        record: what the vector's file says of it: stamp, layer, site, placement, coefficient, source.
        norms: of the rows of its values.
        controls: what the vector was compared with, and how it came out, in the author's words.
    """
    stamp, source = record["stamp"], dict(record["source"])
    front = ["---", "library_name: steerlens", "tags:", "- steering-vector", "- activation-steering"]
    if _MODEL_ID.fullmatch(stamp["name"]):
        front += [f"base_model: {stamp['name']}"]
    method, template = source.pop("method", "not recorded"), source.pop("template", None)
    data = {name: source.pop(name) for name in _DATA if name in source}
    processing = [word for word in ("folded", "centred") if stamp[word]]
    site = record["site"]
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# {_plain(record['label'])}",
            "",
            "A steering vector: it is added to the activations of a language model while it runs.",
            "",
            "```python",
            "import steerlens as sl",
            "",
            "model = sl.load_model(...)  # the model named below",
            f'vector = sl.SteeringVector.pull("{repository}")',
            'sl.generate(model, "I think that", vector)',
            "```",
            "",
            "## Model",
            "",
            f"- name: {_plain(stamp['name'])}",
            f"- size: {stamp['n_layers']} layers, width {stamp['d_model']}, {stamp['d_vocab']} tokens",
            f"- weights: {', '.join(processing) or 'unprocessed'} (a vector fits weights of the same processing)",
            "",
            "## Method",
            "",
            _plain(method),
            "",
            "## Data",
            "",
            *_shown(data),
            "",
            "## Prompt template",
            "",
            _plain(template) if template else "None: it was made from texts, or the template is not recorded.",
            "",
            "## Settings",
            "",
            f"- layer: {record['layer']}",
            f"- site: {site}",
            f"- placement: {record['placement']}",
            f"- coefficient: {record['coeff']:g} (multiplied in)",
            f"- positions: {record['positions']}, norms {', '.join(f'{x:.3g}' for x in norms[:20])}",
            "",
            *_shown(source),
            "",
            "## Controls",
            "",
            controls.strip() or _NO_CONTROLS,
            "",
        ]
    )


def _plain(value: object) -> str:
    """A value as one line in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", in_one_line(str(value), most=300))


def _shown(data: Mapping[str, Any]) -> list[str]:
    """Plain data as a block that nothing in it can end."""
    if not data:
        return ["Not recorded."]
    body = json.dumps(data, indent=1, ensure_ascii=False)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    return [f"{fence}json", body, fence]
