"""`token_map`: what was extracted, padded and injected, position by position, as a forward pass really did it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch

from steerlens.analysis.compared import shared_columns
from steerlens.analysis.injected import injected_norms, injected_rows
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, for_one_thread, kept_values, require_model, site_hook
from steerlens.showing import Shown
from steerlens.steering import Condition, Placement, Steering, SteeringVector, as_condition, steer
from steerlens.steering.pairs import PromptPair
from steerlens.steering.prompts import PromptLike, read_prompt
from steerlens.steering.roles import at_positions
from steerlens.steering.tokens import token_strings

# (each class twice, so that the rules win over those that Jupyter has for any table)
_STYLE = """
.sl-map.sl-map{border-collapse:separate;border-spacing:0;font-size:.93em;line-height:1.45;color:inherit;background:none}
.sl-map.sl-map caption{caption-side:top;text-align:left;padding:.9em 0 .4em;color:inherit}
.sl-map.sl-map th{text-align:left;font-weight:600;padding:.3em 1.2em .4em 0;
border-bottom:2px solid rgba(128,136,148,.45)}
.sl-map.sl-map td{text-align:left;padding:.28em 1.2em .28em 0;border-bottom:1px solid rgba(128,136,148,.22)}
.sl-map.sl-map tr,.sl-map.sl-map tr:nth-child(even),.sl-map.sl-map tr:hover{background:none}
.sl-map.sl-map .sl-n{text-align:right;font-variant-numeric:tabular-nums}
.sl-map.sl-map .sl-t{font-family:'JetBrains Mono','SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}
.sl-map.sl-map .sl-in td{background:rgba(10,120,184,.13)}
.sl-map.sl-map .sl-pad{opacity:.55;font-style:italic}
""".strip().replace("\n", "")


@dataclass(frozen=True, eq=False, repr=False)
class TokenMap(Shown):
    """Positions of a prompt and what each vector adds there. `print` it, or let Jupyter show the table.

    Attributes:
        frame: one row per injection × prompt position. Columns: injection (int), label, layer, coeff, placement,
            position (BOS at 0), token (of the prompt), injected (bool), row (of the vector; NA where nothing goes),
            positive, negative (the tokens that the row was extracted from; "" where unknown), positive_padded,
            negative_padded (bool: the token is padding), norm (of the row as injected, 0 where nothing goes),
            resid_norm (of the unsteered activation there, at the vector's site), ratio.
        prompt: the steered prompt.
    """

    frame: pd.DataFrame
    prompt: str

    @property
    def text(self) -> str:
        """The map for a terminal: spaces shown as ␣, padding in [brackets], injected rows with an arrow."""
        out = []
        for _, rows in self.frame.groupby("injection", sort=False):
            out += [self._head(rows), ""]
            table: list[tuple[str, ...]] = [("pos", "prompt", "", "row", "positive", "negative", "norm", "/ stream")]
            for row in rows.itertuples():
                if not row.injected:
                    table.append((str(row.position), _shown(row.token), "", "", "", "", "", ""))
                    continue
                pieces = [
                    f"[{_shown(token)}]" if padded else _shown(token)
                    for token, padded in (
                        (row.positive, row.positive_padded),
                        (row.negative, row.negative_padded),
                    )
                ]
                numbers = (f"{row.norm:.3g}", f"{row.ratio:.2g}")
                table.append((str(row.position), _shown(row.token), "←", str(row.row), *pieces, *numbers))
            widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
            out += ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
            out.append("")
        out.append("[…] is padding; BOS rows of an ActAdd vector are zero.")
        return "\n".join(out)

    @property
    def html(self) -> str:
        """The map as one HTML fragment, all text escaped, with its own small style sheet."""
        tables = []
        for _, rows in self.frame.groupby("injection", sort=False):
            body = "".join(self._html_row(row) for row in rows.itertuples())
            heads = ("position", "prompt token", "row", "positive", "negative", "norm added", "of the stream's norm")
            tables.append(
                f'<table class="sl-map"><caption>{html.escape(self._head(rows))}</caption><thead><tr>'
                + "".join(f'<th scope="col">{head}</th>' for head in heads)
                + f"</tr></thead><tbody>{body}</tbody></table>"
            )
        note = "Italic tokens are padding; coloured rows are those that the vector covers."
        return f"<style>{_STYLE}</style>{''.join(tables)}<p><small>{note}</small></p>"

    def _told(self) -> tuple[str, Mapping[str, object]]:
        return f"into {self.prompt!r:.60}", {
            "injections": self.frame["injection"].nunique(),
            "positions that are changed": f"{self.frame.loc[self.frame['injected'], 'position'].nunique()} of "
            f"{self.frame['position'].nunique()}",
        }

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        return self.text

    def _head(self, rows: pd.DataFrame) -> str:
        first = rows.iloc[0]
        return f"{first['label']}, layer {first['layer']}, placement {first['placement']}, into “{self.prompt}”"

    def _html_row(self, row) -> str:  # type: ignore[no-untyped-def]
        def token(text: str, padded: bool = False) -> str:
            return f'<td class="sl-t{" sl-pad" * padded}">{html.escape(_shown(text))}</td>'

        cells = [f'<td class="sl-n">{row.position}</td>', token(row.token)]
        if not row.injected:
            return f"<tr>{''.join(cells)}<td></td><td></td><td></td><td></td><td></td></tr>"
        cells += [
            f'<td class="sl-n">{row.row}</td>',
            token(row.positive, row.positive_padded),
            token(row.negative, row.negative_padded),
            f'<td class="sl-n">{row.norm:.3g}</td>',
            f'<td class="sl-n">{row.ratio:.0%}</td>',
        ]
        return f'<tr class="sl-in">{"".join(cells)}</tr>'


@for_one_thread
@torch.no_grad()
def token_map(
    model: HookedModel, prompt: PromptLike, steering: Steering, *, placement: Placement | None = None
) -> TokenMap:
    """What each vector of one condition was made of and where it went in `prompt`.

    The positions are those at which the residual stream of a real forward pass changed hands, not a calculation of
    where it should: the receipt of every vector is compared with the map.

    Args:
        prompt: one prompt: a text, a chat or token ids.
        steering: a vector, or several as a tuple or a Condition.
        placement: where vectors go, for those that come without an Injection; by default each vector's own.

    Raises:
        SteerlensError: nothing steered, an empty prompt, a vector that does not fit.
    """
    require_model(model)
    condition = as_condition(steering, placement=placement)
    if not condition.injections:
        raise SteerlensError("a token map needs a vector; give one, such as actadd(model, …)")
    read = read_prompt(model, prompt)
    ids = list(read.ids)
    strings = token_strings(model, ids)
    tokens = torch.tensor([ids], device=model.cfg.device)
    mask = torch.ones_like(tokens)
    rows: list[dict[str, object]] = []
    for number, injection in enumerate(condition.injections):
        vector = injection.vector
        name = site_hook(vector.layer, vector.site)
        stream = _input_of(model, tokens, mask, name)
        with steer(model, at_positions(Condition((injection,)), read.spans)) as receipts:
            model(tokens, attention_mask=mask)
        went = injected_rows(model, injection, ids, read.spans)
        norms = injected_norms(injection, went)
        reached = {position for receipt in receipts for position in receipt.positions}
        if reached != set(went):
            raise RuntimeError(f"the receipt says positions {sorted(reached)}, the map {sorted(went)}")
        made_of = _made_of(model, vector)
        shared = shared_columns(0, Condition((injection,)))
        for at, token in enumerate(strings):
            row = went.get(at)
            norm = norms.get(at, 0.0)
            length = float(stream[at].norm())
            plus, minus, plus_pad, minus_pad = made_of[row] if row is not None and made_of else ("", "", False, False)
            rows.append(
                {
                    "injection": number,
                    "label": shared["label"],
                    "layer": vector.layer,
                    "coeff": vector.coeff,
                    "placement": shared["placement"],
                    "position": at,
                    "token": token,
                    "injected": row is not None,
                    "row": pd.NA if row is None else row,
                    "positive": plus,
                    "negative": minus,
                    "positive_padded": plus_pad,
                    "negative_padded": minus_pad,
                    "norm": norm,
                    "resid_norm": length,
                    "ratio": norm / length if length else float("nan"),
                }
            )
    return TokenMap(pd.DataFrame(rows).astype({"row": "Int64"}), read.text)


def _input_of(model: HookedModel, tokens: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
    """The unsteered activation at a hook point, [pos width]."""
    with kept_values(model, [name]) as kept:
        model(tokens, return_type=None, attention_mask=mask)
    return kept[name].reshape(tokens.shape[1], -1).float()


def _made_of(model: HookedModel, vector: SteeringVector) -> list[tuple[str, str, bool, bool]] | None:
    """For every row of an ActAdd vector its two tokens, and whether each is padding; None where it is not known."""
    source = vector.source
    if source.get("method") != "actadd" or len(source["tokens"][0]) != vector.n_positions:
        return None  # a sum, a mean, one row of a vector: no two tokens stand behind a row
    plus, minus = (token_strings(model, row) for row in source["tokens"])
    real = [len(prompt.ids) for prompt in PromptPair(source["positive"], source["negative"], source["pad"]).read(model)]
    return [(p, m, i >= real[0], i >= real[1]) for i, (p, m) in enumerate(zip(plus, minus, strict=True))]


def _shown(token: str) -> str:
    """The token with its spaces and line ends visible, control characters written out."""
    written = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in written)
