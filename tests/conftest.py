"""Models and tokenizers for the whole suite: every model class that the installed TransformerLens has, tiny and random,
in the four architectures of the paper; and the embedded model.

Shape annotations of steerlens are checked in every test (see `tests.typechecking`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# No test may depend on what a hub answers; must be set before the first import of huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from jaxtyping import install_import_hook

import tests.typechecking  # noqa: F401  (the hook below looks it up by name)

install_import_hook("steerlens", "tests.typechecking.check_shapes")

import steerlens as sl  # noqa: E402
from tests import reference  # noqa: E402
from tests.skips import pytest_addoption, pytest_configure  # noqa: E402, F401  (the option --allowed-skips)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("STEERLENS_DATA", ROOT.parent / "shared" / "data"))
TOKENIZER_FILE = ROOT / "steerlens" / "demo" / "model" / "tokenizer.json"

HAS_HOOKED_TRANSFORMER = int(version("transformer-lens").split(".")[0]) < 4
KINDS = ("hooked", "hooked-raw", "bridge", "bridge-raw") if HAS_HOOKED_TRANSFORMER else ("bridge", "bridge-raw")
"""HookedTransformer and TransformerBridge, with processed weights (folded, centred) and as Hugging Face has them."""

VOCAB = 8200  # the embedded model's 8,192 tokens, and room for special ones


@dataclass(frozen=True)
class Case:
    """A model under test and the plain Hugging Face model that it was made from."""

    architecture: str
    kind: str
    model: Any
    hf: Any

    @property
    def centred(self) -> bool:
        """Whether the residual stream has had its mean taken out (models with layer norm, processed)."""
        return not self.kind.endswith("raw") and self.architecture != "llama"


@cache
def make_tokenizer(kind: str = "plain") -> Any:
    """A tokenizer over the embedded model's vocabulary, never saved anywhere. Shared: change only copies.

    - `"plain"`: one token is BOS, EOS and PAD, as with GPT-2;
    - `"distinct"`: three different ones;
    - `"pad"`: BOS is EOS, PAD is another;
    - `"prepends"`: puts BOS in front by itself and has a distinct EOS, as with Llama 3.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    special = {
        "plain": {"bos_token": end, "eos_token": end, "pad_token": end},
        "distinct": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        "pad": {"bos_token": end, "eos_token": end, "pad_token": "<pad>"},
        "prepends": {"bos_token": "<s>", "eos_token": "</s>"},
    }[kind]
    core = Tokenizer.from_file(str(TOKENIZER_FILE))
    core.add_special_tokens(sorted(set(special.values())))
    if kind == "prepends":
        start = (special["bos_token"], core.token_to_id(special["bos_token"]))
        core.post_processor = TemplateProcessing(
            single=f"{start[0]} $A", pair=f"{start[0]} $A $B", special_tokens=[start]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@cache
def plain_model(architecture: str) -> Any:
    """The tiny Hugging Face model of an architecture. Shared by all tests: nothing may change it."""
    return reference.tiny_model(architecture, vocab=VOCAB)


@cache
def loaded(architecture: str, kind: str, tokenizer: str = "plain", dtype: str = "float32") -> Any:
    """The tiny model as steerlens loads it. Shared by all tests: nothing may change it."""
    return freshly_loaded(architecture, kind, tokenizer, dtype)


def freshly_loaded(architecture: str, kind: str, tokenizer: str = "plain", dtype: str = "float32") -> Any:
    """The same, for a test that changes it. (A bridge that has run cannot be copied: it keeps activations.)"""
    return sl.load_model(
        plain_model(architecture),
        tokenizer=make_tokenizer(tokenizer),
        device="cpu",
        dtype=dtype,
        bridge=kind.startswith("bridge"),
        processing=not kind.endswith("raw"),
    )


def live_hooks(model: Any) -> dict[str, int]:
    """How many hooks are on the model, by place.

    At hook points TransformerLens' own list and what PyTorch really calls; before the blocks and the wrapped model,
    where steerlens looks at the state of the forward pass.

    (transformers puts hooks of its own on the modules of a bridge at its first run; they are none of ours.)
    """
    found = {}
    points = {id(point): (name, point) for name, point in model.hook_dict.items()}  # a bridge has several names for one
    for name, point in points.values():
        found[name], found[f"{name}, PyTorch"] = len(point.fwd_hooks), len(point._forward_hooks)
    for layer, block in enumerate(model.blocks):
        found[f"before block {layer}"] = len(block._forward_pre_hooks)
    found["before all"] = len(getattr(model, "original_model", model)._forward_pre_hooks)
    return {name: count for name, count in found.items() if count}


@contextmanager
def hooks_removed(model: Any) -> Iterator[None]:
    """Takes off, at the end, every hook set inside: permanent ones too, but not those that a bridge set on itself."""
    points = list({id(point): point for point in model.hook_dict.values()}.values())
    before = {id(handle) for point in points for handle in point.fwd_hooks}
    try:
        yield
    finally:
        for point in points:
            for handle in point.fwd_hooks:
                if id(handle) not in before:
                    handle.hook.remove()
            point.fwd_hooks[:] = [handle for handle in point.fwd_hooks if id(handle) in before]


CASES = [(architecture, kind) for architecture in reference.ARCHITECTURES for kind in KINDS]


def some_cases(wanted: Callable[[str, str], bool]) -> pytest.MarkDecorator:
    """The fixture `case` for those architectures and kinds alone, on which the test has something to say."""
    chosen = [one for one in CASES if wanted(*one)]
    return pytest.mark.parametrize("case", chosen, ids=lambda p: f"{p[0]}-{p[1]}", indirect=True)


@pytest.fixture(params=CASES, ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Every architecture in every model class, and a check that the test left nothing on the model."""
    architecture, kind = request.param
    one = Case(architecture, kind, loaded(architecture, kind), plain_model(architecture))
    before, attributes = live_hooks(one.model), set(one.model.__dict__)
    yield one
    after = live_hooks(one.model)
    if after != before:
        loaded.cache_clear()  # do not let the next test suffer for it
    assert after == before, "the test left hooks on the model"
    left = {name for name in set(one.model.__dict__) - attributes if not name.startswith("_")}
    assert not left, "… or attributes"


@pytest.fixture
def model(case: Case) -> Any:
    """The model of `case`."""
    return case.model


@pytest.fixture
def hf(case: Case) -> Any:
    """The plain Hugging Face model of `case`."""
    return case.hf


@pytest.fixture(params=KINDS)
def gpt2(request: pytest.FixtureRequest) -> Any:
    """The GPT-2-shaped model in every model class, for what does not depend on the architecture."""
    return loaded("gpt2", request.param)


@pytest.fixture(scope="session")
def any_model() -> Any:
    """One model, for what depends on neither class nor architecture."""
    return loaded("gpt2", KINDS[0])


@pytest.fixture(scope="session")
def demo() -> Any:
    """The embedded model."""
    return sl.load_model("demo", device="cpu")


@pytest.fixture(scope="session")
def _gpt2_tokenizer() -> Any:
    folder = DATA / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip(
            f"GPT-2's tokenizer is not at {folder}; set STEERLENS_DATA to the folder that holds tokenizers/gpt2"
        )
    from transformers import GPT2TokenizerFast

    return GPT2TokenizerFast.from_pretrained(folder)


@pytest.fixture
def gpt2_tokenizer(_gpt2_tokenizer: Any) -> Any:
    """GPT-2's real tokenizer (a copy, to do with as one likes)."""
    return deepcopy(_gpt2_tokenizer)


@pytest.fixture
def tokenizer() -> Any:
    """A tokenizer in which one token is BOS, EOS and PAD (a copy, to do with as one likes)."""
    return deepcopy(make_tokenizer())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny matrices only lose by threads."""
    torch.set_num_threads(1)
