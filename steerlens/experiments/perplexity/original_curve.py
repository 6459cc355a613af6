"""The perplexity curve of the original post, as data, to be drawn beside one's own.

Source: Turner, MacDiarmid, Udell, Thiergart, Mini, "Steering GPT-2-XL by adding an activation vector" (2023), figure of
the perplexity ratio of two essays by injection layer: GPT-2-XL, " weddings" − "" padded with a space, coefficient 1,
the first two positions of every sentence masked. Nine of its 48 layers.
"""

MODEL, N_LAYERS, COEFFICIENT, MASKED_POSITIONS = "GPT-2-XL, original post", 48, 1.0, 2

RATIO: dict[str, dict[int, float]] = {
    "wedding": {
        0: 0.9948, 1: 0.9665, 4: 0.8793, 6: 0.8938, 10: 0.9094, 16: 0.9170, 20: 0.9406, 30: 0.9713, 47: 0.9993,
    },
    "shipping": {
        0: 1.1671, 1: 1.2557, 4: 1.1250, 6: 1.0444, 10: 0.9971, 16: 1.0033, 20: 1.0003, 30: 1.0040, 47: 0.9997,
    },
}  # fmt: skip
"""Essay → layer → perplexity of the steered model over that of the unsteered one."""
