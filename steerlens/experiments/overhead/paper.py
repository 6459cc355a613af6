"""What the paper reports of the time that steering costs, and where its text, its script and this experiment differ."""

from __future__ import annotations

from steerlens.experiments.shared.beside import PAPER, Reported

DIFFERENCES = (
    "The text says layer 6 and 100 passes; the script takes the middle layer and 1,000 passes. The defaults are "
    "those of the text, or the middle layer where the model has no layer 6.",
    "The script times the baseline first and steering afterwards, with a clock that does not wait for the GPU. "
    "Here the device is synchronised before every reading of the clock, baseline and steered passes alternate in "
    "an order that a coin decides, and warm-up passes precede the first measured one.",
    "The script uses plain Hugging Face models and a hook of its own, added and removed with every pass. Here it "
    "is steer on the TransformerLens model, entered anew for every pass, so that its set-up is included.",
    "The paper gives no intervals. Here the premium has Student's interval for a ratio of means over the seeds (95 %).",
    "Added here: the premium without the extraction (the cost of each further pass), and that of the median "
    "passes, which a busy machine disturbs less.",
)

PREMIUM = Reported(
    "time that steering adds, with the vector's extraction",
    "“appears stable or improving over increasing model size” (abstract); the numbers are in a figure only",
    "models of several sizes",
    f"{PAPER}, version 1, figure of the premium by model size; abstract of version 4",
)
