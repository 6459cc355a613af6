"""Relevance: how close a completion is to its prompt in meaning, as the cosine similarity of two embeddings.

The ActAdd paper follows Pei et al. 2023 (PREADD): the cosine similarity of sentence embeddings of prompt and
completion, from a sentence-transformers model. That needs a download, so the default here works offline: the embedding
of a text is the mean of the UNSTEERED model's residual stream over its tokens (without BOS) at the input of the layer
at three quarters of the depth. Such means point in similar directions, and prompts and completions have different
offsets, so both are centred: prompts on the mean prompt, completions on the mean unsteered completion. A relevance of 0
then means: no closer to its own prompt than to any other. For scale: on the embedded model, the first 32 tokens of a
film review and the 40 that follow in the same review have a relevance of 0.17. The two definitions are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.models import HookedModel
from steerlens.steering.extraction.activations import resid_pre
from steerlens.steering.tokens import continuation_ids, pad_id, pad_left, token_ids


@dataclass(frozen=True, eq=False)
class Embedder:
    """Texts as vectors.

    Attributes:
        name: for the settings.
        key: everything that its vectors depend on; empty: nothing is kept between runs.
        centred: whether means are taken off before the cosine.
        embed: texts in, one row each; NaN for a text without a token.
    """

    name: str
    key: str
    centred: bool
    embed: Callable[[Sequence[str]], Float[Tensor, "text d"]]


def model_embedder(model: HookedModel, *, layer: int | None = None, batch_size: int = 128) -> Embedder:
    """Mean residual stream of the model itself, unsteered, at the input of `layer` (by default at 3/4 of the depth)."""
    where = 3 * int(model.cfg.n_layers) // 4 if layer is None else layer
    width, reach = int(model.cfg.d_model), int(model.cfg.n_ctx)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Float[Tensor, "text d"]:
        found = torch.full((len(texts), width), float("nan"))
        rows = {}
        for number, text in enumerate(texts):
            ids = _cut(model, text, reach)
            if ids is not None:
                rows[number] = ids
        # Like lengths together: less padding.
        order = sorted(rows, key=lambda number: len(rows[number][0]))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            tokens, mask = pad_left([rows[n][0] for n in numbers], pad=pad_id(model), device=model.cfg.device)
            resid = resid_pre(model, tokens, [where], attention_mask=mask)[where]
            own = mask.clone()
            for place, n in enumerate(numbers):  # BOS is the first real token of a row
                own[place, own.shape[1] - len(rows[n][0]) :][: rows[n][1]] = 0
            weight = own[..., None].to(resid.dtype)
            found[numbers] = ((resid * weight).sum(1) / weight.sum(1)).cpu()
        return found

    name = f"mean residual stream of the unsteered model at the input of layer {where}, centred"
    return Embedder(name, f"residual {where}", True, embed)


def hugging_face_embedder(name: str, *, batch_size: int = 64, device: str | None = None) -> Embedder:
    """Mean-pooled last hidden states of a Hugging Face encoder, as sentence-transformers models are meant to be used.

    The paper's relevance: `"sentence-transformers/all-MiniLM-L6-v2"` is such a model. Not centred.

    Raises:
        SteerlensError: it cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        encoder: Any = AutoModel.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SteerlensError(
            f"cannot load the embedder {name!r} ({reason}); download it and give its directory, or leave embedder out "
            "to use the model's own activations"
        ) from None
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.eval().to(place)
    longest = min(int(getattr(tokenizer, "model_max_length", 512) or 512), 512)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Float[Tensor, "text d"]:
        parts = []
        for start in range(0, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            rows = tokenizer(
                [text or " " for text in batch], padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(place)
            weight = rows["attention_mask"][..., None].float()
            hidden = encoder(**rows).last_hidden_state.float()
            mean = ((hidden * weight).sum(1) / weight.sum(1)).cpu()
            mean[[i for i, text in enumerate(batch) if not text.strip()]] = float("nan")
            parts.append(mean)
        return torch.cat(parts)

    commit = getattr(encoder.config, "_commit_hash", None)
    return Embedder(name, f"{name} {commit}" if commit else "", False, embed)


def cosines(
    one: Float[Tensor, "text d"], other: Float[Tensor, "text d"], centres: tuple[Tensor, Tensor] | None = None
) -> list[float]:
    """The cosine of each pair of rows, less a centre on each side; NaN where a text had no token."""
    if centres is not None:
        one, other = one - centres[0], other - centres[1]
    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=-1).tolist()


def centre(rows: Float[Tensor, "text d"]) -> Float[Tensor, " d"]:
    """The mean of the rows that are not NaN."""
    known = rows[~rows.isnan().any(-1)]
    return known.mean(0) if len(known) else torch.zeros(rows.shape[1])


def _cut(model: HookedModel, text: str, reach: int) -> tuple[list[int], int] | None:
    """Token ids and how many of them are BOS; None if the text is none."""
    body = continuation_ids(model, text)
    if not body:
        return None
    n_bos = len(token_ids(model, "a")) - len(continuation_ids(model, "a"))
    ids = token_ids(model, text) if len(body) + n_bos <= reach else [*token_ids(model, "")[:n_bos], *body][:reach]
    return ids, n_bos
