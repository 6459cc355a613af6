"""Activations are read at every site that the architecture has."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

import steerlens as sl
from tests import reference
from tests.conftest import KINDS, Case, loaded, plain_model
from tests.steering.sites.cases import HEADS, close, sites_of, steered


def seen_at(hf: Any, ids: list[int], site: str) -> Tensor:
    """The activation of the plain model at a site of block 1, [pos width]."""
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.clone())
        return x

    reference.changed_log_probs(hf, ids, [(1, site, keep)])
    return kept[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("raw")])
@pytest.mark.parametrize("architecture", reference.ARCHITECTURES)
def test_activations_of_every_site_are_read(architecture: str, kind: str) -> None:
    case = Case(architecture, kind, loaded(architecture, kind), plain_model(architecture))
    texts = ["The dog", "Once upon a time there was"]
    rows = [case.model.to_tokens(text)[0].tolist() for text in texts]
    for site in sites_of(case):
        means = [seen_at(case.hf, row, site)[-1] for row in rows]
        vector = sl.mean_difference(case.model, texts[:1], texts[1:], layer=1, site=site)
        assert (vector.site, vector.heads) == (site, HEADS if site == "z" else 1)
        close(vector.values[0], means[0] - means[1])
        both = sl.mean_difference(case.model, texts, [texts[0]], layer=1, site=site)
        close(both.values[0], (means[1] - means[0]) / 2)
        pair = sl.actadd(case.model, "Love", "Hate", layer=1, site=site)
        plus, minus = (seen_at(case.hf, row, site) for row in pair.source["tokens"])
        close(pair.values, plus - minus)
        assert not pair.values[0].any()
        steered(case.model, rows[1], 2 * pair)


def test_a_site_to_read_that_is_not_there() -> None:
    model = loaded("gptj", KINDS[0])
    for site, words in (("resid_mid", "no site 'resid_mid'"), ("somewhere", "site 'somewhere' is unknown")):
        with pytest.raises(sl.SteerlensError, match=words):
            sl.actadd(model, "Love", "Hate", layer=1, site=site)  # type: ignore[call-overload]
        with pytest.raises(sl.SteerlensError, match=words):
            sl.mean_difference(model, ["Love"], ["Hate"], layer=1, site=site)  # type: ignore[call-overload]
