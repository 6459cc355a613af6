"""Models whose weights are packed into 8 or 4 bits (bitsandbytes and the like): used as they are, never unpacked.

Folding, centring and casting need the numbers themselves; unpacked and packed again they would be others. So such a
model becomes a bridge around the very modules it came with, on the device and in the dtype they have.
"""

from __future__ import annotations

from typing import Any


def packed(model: Any) -> str | None:
    """Why the weights of a Hugging Face model must stay as they are, in words, or None."""
    if not getattr(model, "is_quantized", False):
        return None
    settings = getattr(model.config, "quantization_config", None)
    asked = settings if isinstance(settings, dict) else vars(settings) if settings is not None else {}
    method = str(getattr(asked.get("quant_method"), "value", asked.get("quant_method")) or "a quantiser").lower()
    bits = next((n for n in (4, 8) if any(asked.get(f"{mark}load_in_{n}bit") for mark in ("", "_"))), asked.get("bits"))
    return f"its weights are packed into {bits} bits by {method}" if bits else f"its weights are packed by {method}"
