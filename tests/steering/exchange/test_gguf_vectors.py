"""GGUF control vectors, against the gguf package and repeng's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.models import stamp
from steerlens.steering.exchange import load_gguf, save_gguf
from tests import reference
from tests.conftest import VOCAB, make_tokenizer

pytest.importorskip("gguf")


def vector(model: Any, *, seed: int = 0, **fields: Any) -> sl.SteeringVector:
    values = torch.randn(1, reference.D_MODEL, generator=torch.Generator().manual_seed(seed))
    return sl.SteeringVector(values, **{"layer": 2, "model": stamp(model), "placement": "all", **fields})


def test_another_reader_finds_the_directions(any_model: Any, tmp_path: Path) -> None:
    import gguf

    one, two = vector(any_model), vector(any_model, seed=1)
    path = save_gguf([3 * one, two], tmp_path / "v.gguf", model_hint="gpt2")
    reader = gguf.GGUFReader(str(path))
    (tensor,) = reader.tensors
    assert tensor.name == "direction.1"  # the output of block 1 is the input of block 2
    assert torch.equal(torch.tensor(tensor.data.copy()), (3 * one + two).values[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.gguf"]


def test_repeng_reads_it(any_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng 0.4 names it; NumPy 2 has it no more
    repeng = pytest.importorskip("repeng")
    one = vector(any_model)
    read = repeng.ControlVector.import_gguf(save_gguf(one, tmp_path / "v.gguf", model_hint="gpt2"))
    assert read.model_type == "gpt2"
    assert list(read.directions) == [1]
    assert torch.equal(torch.tensor(read.directions[1].copy()), one.values[0])
    read.export_gguf(tmp_path / "back.gguf")
    assert torch.equal(load_gguf(any_model, tmp_path / "back.gguf")[2].values, one.values)


def test_it_comes_back_as_a_foreign_vector(any_model: Any, tmp_path: Path) -> None:
    one = vector(any_model)
    (back,) = load_gguf(any_model, save_gguf(one, tmp_path / "v.gguf")).values()
    assert torch.equal(back.values, one.values)
    assert (back.layer, back.placement, back.model) == (2, "all", stamp(any_model))
    assert back.source["method"] == "foreign"


def test_what_the_format_cannot_say_is_refused(any_model: Any, tmp_path: Path) -> None:
    for bad, words in (
        (vector(any_model, layer=1), "has none for resid_pre of layer 1; use layer 2 or more"),
        (vector(any_model, placement="front"), "is placed at 'front'"),
        (sl.actadd(any_model, "Love", "Hate", layer=2), "at every position"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            save_gguf(bad, tmp_path / "v.gguf")
    with pytest.raises(sl.SteerlensError, match="there is no vector to save"):
        save_gguf([], tmp_path / "v.gguf")
    with pytest.raises(sl.SteerlensError, match="cannot write"):
        save_gguf(vector(any_model), tmp_path / "none" / "v.gguf")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_none(any_model: Any, tmp_path: Path) -> None:
    with pytest.raises(sl.SteerlensError, match="no file at"):
        load_gguf(any_model, tmp_path / "v.gguf")
    (tmp_path / "v.gguf").write_bytes(b"no gguf at all, whatever its name says, and some more bytes")
    with pytest.raises(sl.SteerlensError, match="is no GGUF file"):
        load_gguf(any_model, tmp_path / "v.gguf")


@pytest.mark.parametrize("path", [None, 5, "", "a\0b", b"a", "x" * 5000, "~nobody-of-that-name/x"])
def test_places_that_are_none(any_model: Any, path: Any) -> None:
    with pytest.raises(sl.SteerlensError):
        load_gguf(any_model, path)
    with pytest.raises(sl.SteerlensError):
        save_gguf(vector(any_model), path)


@pytest.mark.parametrize("hint", [5, b"gpt2", "\ud800"])
def test_hints_that_are_no_text(any_model: Any, tmp_path: Path, hint: Any) -> None:
    with pytest.raises(sl.SteerlensError, match="model_hint"):
        save_gguf(vector(any_model), tmp_path / "v.gguf", model_hint=hint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vectors", [None, 5, "x", [5], {}, []])
def test_what_is_no_vector(any_model: Any, tmp_path: Path, vectors: Any) -> None:
    with pytest.raises(sl.SteerlensError):
        save_gguf(vectors, tmp_path / "v.gguf")


def test_files_with_changed_bytes_are_refused_or_read(any_model: Any, tmp_path: Path) -> None:
    """Whatever byte of the header is changed: a SteerlensError, or vectors with finite numbers."""
    path = save_gguf(vector(any_model), tmp_path / "v.gguf")
    whole, refused = path.read_bytes(), 0
    for place in range(160):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = load_gguf(any_model, path)
        except sl.SteerlensError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert all(one.values.isfinite().all() for one in found.values())
    assert refused > 40


def test_the_direction_of_the_last_block_is_kept(any_model: Any, tmp_path: Path) -> None:
    last = vector(any_model, site="resid_post")
    (back,) = load_gguf(any_model, save_gguf(last, tmp_path / "v.gguf")).items()
    assert (back[0], back[1].layer, back[1].site) == (3, 2, "resid_post")
    assert torch.equal(back[1].values, last.values)
    plain = reference.tiny_model("gpt2", vocab=VOCAB, n_layers=5)
    deeper = sl.load_model(plain, tokenizer=make_tokenizer(), device="cpu", prove=False)
    beyond = sl.SteeringVector(last.values, 4, stamp(deeper), placement="all")
    with pytest.raises(sl.SteerlensError, match=r"holds 'direction\.3', but this model has blocks 0 to 2"):
        load_gguf(any_model, save_gguf(beyond, tmp_path / "w.gguf"))
