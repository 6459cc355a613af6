"""Frames as the figures' documentation describes them, with text that no page may read as markup."""

import numpy as np
import pandas as pd

NASTY = "<script>alert('x')</script> & <b>bold</b> $x^2$"


def summary(layers=range(6), coeffs=(1.0, 4.0), metric="weddings", kind="share", control=False):
    rows = [{"label": "unsteered", "role": "unsteered", "layer": pd.NA, "coeff": 0.0, "mean": 0.02}]
    for role in ("steered", "random") if control else ("steered",):
        for coeff in coeffs:
            for layer in layers:
                mean = 0.1 + 0.01 * layer * abs(coeff) if role == "steered" else 0.03
                rows.append(
                    {"label": f"{role} {coeff} {layer}", "role": role, "layer": layer, "coeff": coeff, "mean": mean}
                )
    frame = pd.DataFrame(rows).astype({"layer": "Int64"})
    frame["condition"], frame["placement"], frame["n"] = range(len(frame)), "front", 50
    return frame.assign(metric=metric, kind=kind, low=frame["mean"] - 0.01, high=frame["mean"] + 0.02)


def shift(tokens=(" love", " hate", "\n", "1", NASTY), labels=("5 × love",)):
    rows = []
    for label in labels:
        for index, token in enumerate(tokens):
            before, after = np.log(0.1), np.log(0.1) + (index - 1.5)
            rows.append(
                {"condition": 1, "label": label, "layer": 6, "coeff": 5.0, "prompt": "I hate you", "position": 3}
                | {"token": token, "token_id": index, "logprob_base": before, "logprob_steered": after}
                | {"shift": after - before, "prob_base": np.exp(before), "prob_steered": np.exp(after)}
                | {"kl_part": 0.1, "rank_base": 4, "rank_steered": 1}
            )
    return pd.DataFrame(rows)


def places():
    rows = [
        {"label": "5 × love", "prompt": "p", "position": p, "context": c, "token": t, "token_id": i, "shift": p - i}
        for p, c in enumerate(["<|endoftext|>", " a", " a"])
        for i, t in enumerate([" love", NASTY])
    ]
    return pd.DataFrame(rows)


def scored():
    tokens = ["<|endoftext|>", "A", " wedding", "\n", NASTY]
    rows = [
        {"label": label, "layer": layer, "coeff": coeff, "text": "t", "position": p, "token": token}
        | {"logprob": np.nan if p == 0 else -1.0 - p + 0.5 * coeff}
        for label, layer, coeff in (("unsteered", pd.NA, 0.0), ("4 × weddings", 3, 4.0))
        for p, token in enumerate(tokens)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def lens(layers=7):
    rows = [
        {
            "label": label,
            "layer": layer,
            "coeff": coeff,
            "lens_layer": read,
            "token": token,
            "logprob": -5.0 + coeff * read,
        }
        for label, layer, coeff in (("unsteered", pd.NA, 0.0), ("1 × weddings", 3, 0.5))
        for read in range(layers)
        for token in (" wedding", NASTY)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def norms():
    rows = [
        {"series": series, "layer": layer, "position": p, "token": " a", "norm": (0.0 if p == 0 else 1.0 + layer + p)}
        for series in ("residual stream", NASTY)
        for layer in range(5)
        for p in range(3)
    ]
    return pd.DataFrame(rows)


def completions(labels=3, n=8):
    rows = [
        {
            "label": f"c{c}" if c else "unsteered",
            "layer": c or pd.NA,
            "coeff": float(c),
            "prompt": "I said",
            "sample": s,
        }
        | {"completion": f"{NASTY} wedding {s}" if c == 2 else f"plain {s}"}
        for c in range(labels)
        for s in range(n)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})
