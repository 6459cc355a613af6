"""steerlens: activation steering on TransformerLens. Which layer? How strong? Did it work? What did it break?

    import steerlens as sl

    model = sl.load_model("demo")
    love = sl.actadd(model, "Love", "Hate", layer=4)
    sl.generate(model, "I hate you because", 5 * love, n=4, seed=0)

Importing this package is quick: TransformerLens, plotly and pandas are imported when something first needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name → module that defines it; a module maps to itself
_HOMES = {
    "load_model": "steerlens.models",
    "HookedModel": "steerlens.models",
    "SteerlensError": "steerlens.errors",
    "PromptPair": "steerlens.steering",
    "Prompting": "steerlens.steering",
    "SteeringVector": "steerlens.steering",
    "Injection": "steerlens.steering",
    "Gate": "steerlens.steering",
    "Condition": "steerlens.steering",
    "ContrastSet": "steerlens.steering",
    "Placement": "steerlens.steering",
    "Ramp": "steerlens.steering",
    "actadd": "steerlens.steering",
    "iso_kl": "steerlens.steering.strengths",
    "iso_surprise": "steerlens.steering.strengths",
    "attach": "steerlens.steering.exchange",
    "save_torch": "steerlens.steering.exchange",
    "load_caa": "steerlens.steering.exchange",
    "load_steering_vectors": "steerlens.steering.exchange",
    "save_hotwire": "steerlens.steering.exchange",
    "save_lm_eval": "steerlens.steering.exchange",
    "save_vllm_lens": "steerlens.steering.exchange",
    "load_torch": "steerlens.steering.exchange",
    "save_gguf": "steerlens.steering.exchange",
    "load_gguf": "steerlens.steering.exchange",
    "latent": "steerlens.steering",
    "mean_difference": "steerlens.steering",
    "model_difference": "steerlens.steering",
    "pca": "steerlens.steering",
    "norm_share": "steerlens.steering.strengths",
    "probe": "steerlens.steering",
    "reft": "steerlens.steering",
    "sae_direction": "steerlens.steering",
    "trained": "steerlens.steering",
    "side_by_side": "steerlens.figures",
    "steer": "steerlens.steering",
    "with_system": "steerlens.steering",
    "Sampling": "steerlens.engine",
    "generate": "steerlens.engine",
    "next_token_logits": "steerlens.engine",
    "score": "steerlens.engine",
    "Comparison": "steerlens.runs.compared",
    "compare": "steerlens.runs.compare",
    "Confirmation": "steerlens.runs.confirming",
    "Sweep": "steerlens.runs.swept",
    "sweep": "steerlens.runs.sweep",
    "Search": "steerlens.runs.search_result",
    "search": "steerlens.runs.search",
    "read_store": "steerlens.runs.store",
    "metrics": "steerlens.measures.metrics",
    "logit_shift": "steerlens.analysis.logit_shift",
    "shift_parts": "steerlens.analysis.shift_parts",
    "layer_lens": "steerlens.analysis.layer_lens",
    "layer_effect": "steerlens.analysis.layer_effect",
    "reliability": "steerlens.analysis.reliability",
    "magnitudes": "steerlens.analysis.magnitudes",
    "position_effect": "steerlens.analysis.positions",
    "directions": "steerlens.analysis.directions",
    "solve_strengths": "steerlens.analysis.strengths",
    "dimension_effect": "steerlens.analysis.positions",
    "token_map": "steerlens.analysis.token_map",
    "explore": "steerlens.explorer",
    "experiments": "steerlens.experiments",
}

__all__ = [
    "Comparison",
    "Condition",
    "Confirmation",
    "ContrastSet",
    "Gate",
    "HookedModel",
    "Injection",
    "Placement",
    "PromptPair",
    "Prompting",
    "Ramp",
    "Sampling",
    "Search",
    "SteeringVector",
    "SteerlensError",
    "Sweep",
    "__version__",
    "actadd",
    "attach",
    "compare",
    "dimension_effect",
    "directions",
    "experiments",
    "explore",
    "generate",
    "iso_kl",
    "iso_surprise",
    "latent",
    "layer_effect",
    "layer_lens",
    "load_caa",
    "load_gguf",
    "load_model",
    "load_steering_vectors",
    "load_torch",
    "logit_shift",
    "magnitudes",
    "mean_difference",
    "metrics",
    "model_difference",
    "next_token_logits",
    "norm_share",
    "pca",
    "position_effect",
    "probe",
    "read_store",
    "reft",
    "reliability",
    "save_gguf",
    "save_hotwire",
    "save_lm_eval",
    "save_torch",
    "save_vllm_lens",
    "sae_direction",
    "score",
    "search",
    "shift_parts",
    "solve_strengths",
    "side_by_side",
    "steer",
    "sweep",
    "token_map",
    "trained",
    "with_system",
]

if TYPE_CHECKING:
    from steerlens import experiments
    from steerlens.analysis.directions import directions
    from steerlens.analysis.layer_effect import layer_effect
    from steerlens.analysis.layer_lens import layer_lens
    from steerlens.analysis.logit_shift import logit_shift
    from steerlens.analysis.magnitudes import magnitudes
    from steerlens.analysis.positions import dimension_effect, position_effect
    from steerlens.analysis.reliability import reliability
    from steerlens.analysis.shift_parts import shift_parts
    from steerlens.analysis.strengths import solve_strengths
    from steerlens.analysis.token_map import token_map
    from steerlens.engine import Sampling, generate, next_token_logits, score
    from steerlens.errors import SteerlensError
    from steerlens.explorer import explore
    from steerlens.figures import side_by_side
    from steerlens.measures import metrics
    from steerlens.models import HookedModel, load_model
    from steerlens.runs.compare import compare
    from steerlens.runs.compared import Comparison
    from steerlens.runs.confirming import Confirmation
    from steerlens.runs.search import search
    from steerlens.runs.search_result import Search
    from steerlens.runs.store import read_store
    from steerlens.runs.sweep import sweep
    from steerlens.runs.swept import Sweep
    from steerlens.steering import (
        Condition,
        ContrastSet,
        Gate,
        Injection,
        Placement,
        Prompting,
        PromptPair,
        Ramp,
        SteeringVector,
        actadd,
        latent,
        mean_difference,
        model_difference,
        pca,
        probe,
        reft,
        sae_direction,
        steer,
        trained,
        with_system,
    )
    from steerlens.steering.exchange import (
        attach,
        load_caa,
        load_gguf,
        load_steering_vectors,
        load_torch,
        save_gguf,
        save_hotwire,
        save_lm_eval,
        save_torch,
        save_vllm_lens,
    )
    from steerlens.steering.strengths import iso_kl, iso_surprise, norm_share


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'steerlens' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    value = module if _HOMES[name].endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
