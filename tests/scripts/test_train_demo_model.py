"""The trainer of the embedded model, on a corpus of a few made-up documents and a network of two layers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow", reason="the corpus is read from parquet files")
if not hasattr(torch.optim, "Muon"):
    pytest.skip("the trainer needs torch.optim.Muon (torch 2.9)", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import pandas as pd
import train_demo_model
from demo_model import corpus as corpora
from demo_model import export
from demo_model.network import PRESETS, Network, cross_entropy_chunk, from_hugging_face, to_hugging_face
from demo_model.training import Plan, Trainer

TEXT = "the film was good and bad we saw a friend at her wedding she said that he married then went home"
TINY = PRESETS["tiny"]


def sentences(rng: np.random.Generator, n: int) -> str:
    return " ".join(" ".join(rng.choice(TEXT.split(), 8)).capitalize() + "." for _ in range(n))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files of the shape that the trainer reads."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("imdb", "books", "web"):
        (folder / name).mkdir()
    for split in ("train", "test", "unsup"):
        texts = [sentences(rng, 6) + "<br /><br />" + sentences(rng, 6) for _ in range(20)]
        pd.DataFrame({"id": range(20), "text": texts}).to_parquet(folder / "imdb" / f"{split}.parquet")
    books = [(f"book {i}", sentences(rng, 30) + "\n\n" + sentences(rng, 30)) for i in range(8)]
    pd.DataFrame(books, columns=["title", "text"]).to_parquet(folder / "books" / "chapters.parquet")
    web = [("tinystories", sentences(rng, 5)) for _ in range(40)]
    pd.DataFrame(web, columns=["source", "text"]).to_parquet(folder / "web" / "docs.parquet")
    return folder


@pytest.fixture(scope="module")
def corpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> corpora.Corpus:
    return corpora.prepare(data, tmp_path_factory.mktemp("corpus"), TINY.vocab_size)


def test_held_out_documents_are_not_trained_on(data: Path, corpus: corpora.Corpus) -> None:
    documents = corpora.read_documents(data)
    assert set(documents.source[documents.held_out]) == {"imdb", "books", "tinystories"}
    assert not set(documents.group[documents.held_out]) & set(documents.group[~documents.held_out])
    assert not documents.text.str.contains("<br").any()
    stream = corpus.tokenizer.decode(corpus.tokens.tolist(), skip_special_tokens=False)
    for text in documents.text[documents.held_out]:
        assert text not in stream


def test_tokens_give_the_text_back(data: Path, corpus: corpora.Corpus) -> None:
    text = "She said  so.\n\nA “wedding”, naïve — 5 %"
    assert corpus.tokenizer.decode(corpus.tokenizer.encode(text).ids) == text
    assert corpus.tokenizer.token_to_id(corpora.END_OF_TEXT) == 0
    assert corpus.tokenizer.token_to_id("Ġ") is not None


def test_windows_begin_with_token_0_and_depend_on_seed_and_step_alone(corpus: corpora.Corpus) -> None:
    windows = corpora.Windows(corpus, 64, seed=3)
    batch = windows.batch(5, 32)
    assert batch.shape == (32, 65)
    assert (batch[:, 0] == 0).all()
    assert (batch == corpora.Windows(corpus, 64, seed=3).batch(5, 32)).all()
    assert (batch != windows.batch(6, 32)).any()
    assert 0 < windows.topic_share <= 1


def test_a_source_outside_the_mix_is_never_drawn(corpus: corpora.Corpus) -> None:
    windows = corpora.Windows(corpus, 64, seed=0, mix={"books": 1.0})
    books = corpus.sources.index("books")
    for starts, cumulative in windows._tables.values():
        drawn = starts[np.diff(cumulative, prepend=0.0) > 0]
        assert (corpus.source_of[drawn] == books).all()


def test_written_gradient_equals_autograd() -> None:
    hidden, unembed = torch.randn(7, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (7,))
    loss, grad_hidden, grad_unembed = cross_entropy_chunk(hidden.detach(), unembed.detach(), targets, 0.5)
    expected = torch.nn.functional.cross_entropy(hidden @ unembed.t(), targets, reduction="sum")
    (0.5 * expected).backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad_hidden, hidden.grad)
    torch.testing.assert_close(grad_unembed, unembed.grad)


def test_logits_equal_those_of_hugging_face() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    network = Network(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    state = to_hugging_face(network.state_dict(), TINY)
    config = GPT2Config(
        vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=1, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    assert model.load_state_dict(state, strict=False).missing_keys == ["lm_head.weight"]
    tokens = torch.randint(1, 512, (3, 64))
    with torch.no_grad():
        ours = network(tokens) @ network.wte.weight.t()
        torch.testing.assert_close(ours, model(tokens).logits, atol=1e-4, rtol=1e-4)
    back = from_hugging_face(state, TINY)
    assert all(torch.equal(back[name], value) for name, value in network.state_dict().items())


def test_a_resumed_run_takes_the_same_steps(corpus: corpora.Corpus, tmp_path: Path) -> None:
    plan = Plan(total_tokens=6_000, warmup_tokens=500, small_batch_tokens=1_000, micro_rows=4)
    windows = corpora.Windows(corpus, TINY.n_ctx, plan.seed)
    whole = Trainer(TINY, windows, plan, "cpu", compiled=False)
    for _ in range(4):
        whole.step()
    whole.save(tmp_path / "half.pt")
    resumed = Trainer(TINY, windows, plan, "cpu", compiled=False)
    resumed.load(tmp_path / "half.pt")
    assert [whole.step() for _ in range(3)] == [resumed.step() for _ in range(3)]
    assert all(torch.equal(whole.masters[name], resumed.masters[name]) for name in whole.masters)


def test_rates_warm_up_stay_and_decay_to_zero(corpus: corpora.Corpus) -> None:
    plan = Plan(total_tokens=100_000, warmup_tokens=10_000, decay_share=0.2)
    trainer = Trainer(TINY, corpora.Windows(corpus, TINY.n_ctx, 0), plan, "cpu", compiled=False)
    rates = []
    for trainer.progress.tokens in (0, 5_000, 50_000, 79_000, 90_000, 100_000):
        rates.append(trainer.rate())
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.5, 0], abs=1e-3)
    assert trainer.finished


def test_from_parquet_files_to_the_model_card(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    out, common = tmp_path / "out", ["--data", str(data), "--device", "cpu", "--no-compile", "--micro-rows", "4"]
    first = ["--work", str(tmp_path / "work"), "--out", str(out), "--preset", "tiny"]
    train_demo_model.main([*common, *first, "--tokens", "8e3"])
    assert "nats per byte" in capsys.readouterr().out
    log = json.loads((out / "training_log.json").read_text())
    assert log["finished"]
    assert log["held_out"]["reviews"]["nats_per_token"] < np.log(TINY.vocab_size)
    assert "Finished" in (out / "MODEL_CARD.md").read_text()

    model = GPT2LMHeadModel.from_pretrained(str(out / "model"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(out / "model"))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 0)
    assert tokenizer.model_max_length == 64
    assert tokenizer.decode(tokenizer(" a  wedding").input_ids) == " a  wedding"
    weights, shape, _ = export.load_model(out / "model")
    assert shape == TINY
    torch.testing.assert_close(weights["wte.weight"], model.transformer.wte.weight.detach())

    # On from the stable checkpoint with a larger budget, and on from the exported weights.
    train_demo_model.main([*common, *first, "--tokens", "12e3", "--resume", "stable"])
    longer = json.loads((out / "training_log.json").read_text())
    assert longer["tokens"] >= 12_000 > log["tokens"]
    second = ["--work", str(tmp_path / "other"), "--out", str(tmp_path / "on"), "--tokens", "2e3"]
    train_demo_model.main([*common, *second, "--init-from", str(out / "model")])
    assert "It went on from `model`" in (tmp_path / "on" / "MODEL_CARD.md").read_text()
