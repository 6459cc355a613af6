"""`TokenSums`: for every token of the vocabulary, its number of occurrences and the change in its log-probability."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlens.measures.statistics import t_quantile
from steerlens.models import HookedModel
from steerlens.steering.tokens import token_strings


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Occurrences, sum and sum of squares of the change of log-probability (nats), per token id."""

    n: Int[np.ndarray, " vocab"]
    total: Float[np.ndarray, " vocab"]
    squares: Float[np.ndarray, " vocab"]

    @staticmethod
    def of(ids: Int[np.ndarray, " token"], change: Float[np.ndarray, " token"], vocab: int) -> TokenSums:
        """The sums over tokens as they stand in texts."""
        return TokenSums(
            np.bincount(ids, minlength=vocab),
            np.bincount(ids, change, minlength=vocab).astype(np.float64),  # whole numbers where there is no token
            np.bincount(ids, change**2, minlength=vocab).astype(np.float64),
        )

    def __add__(self, other: TokenSums) -> TokenSums:
        return TokenSums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def table(self, model: HookedModel, *, least: int, top: int) -> pd.DataFrame:
        """The tokens that rose and fell most on average, of those with more than `least` occurrences.

        Columns: direction ("rose", "fell"), token, token_id, n, change (mean, nats), low, high (95 %, Student-t over
        occurrences). Rising tokens first, the largest change first; no token is in both.
        """
        ids = np.flatnonzero(self.n > least)
        mean = self.total[ids] / self.n[ids]
        order = np.argsort(-mean, kind="stable")
        rose = [index for index in order[:top] if mean[index] > 0]
        fell = [index for index in order[::-1][:top] if mean[index] < 0]
        rows = []
        for direction, chosen in (("rose", rose), ("fell", fell)):
            for index in chosen:
                token, n, change = int(ids[index]), int(self.n[ids[index]]), float(mean[index])
                half = math.nan
                if n > 1:
                    spread = max(float(self.squares[token]) - n * change**2, 0.0) / (n - 1)
                    half = t_quantile(0.975, n - 1) * math.sqrt(spread / n)
                text = token_strings(model, [token])[0]
                rows.append((direction, text, token, n, change, change - half, change + half))
        return pd.DataFrame(rows, columns=["direction", "token", "token_id", "n", "change", "low", "high"])

    def plain(self) -> dict[str, str]:
        """As plain data, small: only tokens that came, packed."""
        ids = np.flatnonzero(self.n)
        steps = np.diff(ids, prepend=0).astype(np.int32)  # small numbers pack well
        return {
            "ids": _packed(steps),
            "n": _packed(self.n[ids].astype(np.int32)),
            "total": _packed(self.total[ids].astype(np.float64)),
            "squares": _packed(self.squares[ids].astype(np.float64)),
        }

    @staticmethod
    def from_plain(plain: dict[str, str], vocab: int) -> TokenSums:
        ids = _unpacked(plain["ids"], np.int32).cumsum()
        sums = TokenSums(np.zeros(vocab, dtype=np.int64), np.zeros(vocab), np.zeros(vocab))
        sums.n[ids] = _unpacked(plain["n"], np.int32)
        sums.total[ids] = _unpacked(plain["total"], np.float64)
        sums.squares[ids] = _unpacked(plain["squares"], np.float64)
        return sums


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype(values.dtype.newbyteorder("<")).tobytes())).decode("ascii")


def _unpacked(text: str, dtype: type) -> np.ndarray:
    raw = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(raw, dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype)
