"""What the tests of `load_model` read and ask."""

from __future__ import annotations

from typing import Any

from steerlens.models import load_model
from tests.conftest import make_tokenizer

IDS = [0, 11, 222, 3333, 44]


def load(hf: Any, kind: str, tokenizer: str = "plain", **options: Any) -> Any:
    return load_model(
        hf,
        tokenizer=make_tokenizer(tokenizer),
        device="cpu",
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
        **options,
    )
