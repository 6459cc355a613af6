"""Growths: where each row of a batch branches off its parent, and what is added to it there, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.engine.jobs import Batch, Branch, Passage, recipe
from steerlens.models import SITES, HookedModel, Site
from steerlens.steering.beginnings import after_bos
from steerlens.steering.changing import Changes, Round, change_, in_rounds
from steerlens.steering.chats import Span, role_positions
from steerlens.steering.conditions import Injection, rows_of
from steerlens.steering.operations import Table, joined
from steerlens.steering.placement import Placement, bounds, check_fit, first_positions, is_range, is_role
from steerlens.steering.ramps import ramp_strengths


class Bank:
    """What all injections of a job need, one table per layer and site, moved to each device and dtype once."""

    def __init__(self, injections: Iterable[Injection]) -> None:
        self._injections: dict[tuple[int, Site], list[Injection]] = {}
        self._begin: dict[tuple[object, ...], int] = {}
        sizes: dict[tuple[int, Site], int] = {}
        for injection in injections:
            vector, key = injection.vector, recipe(injection)
            if key not in self._begin:
                place = (vector.layer, vector.site)
                self._begin[key] = sizes.get(place, 0)
                sizes[place] = sizes.get(place, 0) + vector.n_positions
                self._injections.setdefault(place, []).append(injection)
        self._ready: dict[tuple[int, Site, torch.device, torch.dtype], Table] = {}

    def begin(self, injection: Injection) -> int:
        """The row of its table at which an injection begins."""
        return self._begin[recipe(injection)]

    def table_like(self, x: Tensor, layer: int, site: Site) -> Table:
        """The table of a site of a layer."""
        key = (layer, site, x.device, x.dtype)
        if key not in self._ready:
            # Vectors may live on several devices; they are joined where the least has to be moved.
            tables = [rows_of(injection) for injection in self._injections[layer, site]]
            home = tables[0].values.device
            self._ready[key] = joined([one.to(home, torch.float32) for one in tables]).to(x.device, x.dtype)
        return self._ready[key]


@dataclass(frozen=True, eq=False)
class Prompts:
    """What determines placements.

    Attributes:
        lengths: of the prompts that passages begin with.
        after_bos: the first position after BOS in each.
        spans: where the messages of each stand, if it is a chat.
        opened: for which of them each gate opens, by the gate's id.
    """

    lengths: Int[Tensor, " passages"]
    after_bos: Int[Tensor, " passages"]
    spans: tuple[tuple[Span, ...], ...]
    opened: Mapping[int, Bool[Tensor, " passages"]] = field(default_factory=dict)

    @staticmethod
    def of(model: HookedModel, passages: Sequence[Passage], opened: Mapping[int, Bool[Tensor, " passages"]]) -> Prompts:
        """The prompts of `passages`."""
        after = [after_bos(model, passage.ids[: passage.prompt_length]) for passage in passages]
        lengths = torch.tensor([passage.prompt_length for passage in passages])
        return Prompts(lengths, torch.tensor(after), tuple(passage.spans for passage in passages), opened)


@dataclass
class Growth:
    """What happens to a batch in one layer.

    Attributes:
        layer: the layer.
        sources: for every row after the layer's input, the row before it that it continues; None if rows stay the same.
        rounds: what is changed where, by site, of the site's table.
        width: how many tokens a row has.
    """

    layer: int
    sources: Int[Tensor, " rows"] | None
    rounds: dict[Site, list[Round]]
    width: int

    @property
    def inside(self) -> list[Site]:
        """The sites after the block's input at which something is changed, in their order."""
        return [site for site in self.rounds if site != "resid_pre"]

    def to(self, device: torch.device | str) -> Growth:
        """The same with its indices on `device`."""
        self.sources = None if self.sources is None else self.sources.to(device)
        self.rounds = {site: [one.to(device) for one in rounds] for site, rounds in self.rounds.items()}
        return self

    def of(self, resid: Float[Tensor, "batch pos d_model"], bank: Bank) -> Float[Tensor, "rows pos d_model"]:
        """The residual stream after the layer's input, as a new tensor."""
        self.to(resid.device)  # of a model spread over several devices, where each layer has its own
        grown = resid.clone() if self.sources is None else resid.index_select(0, self.sources)
        self._change_(grown, "resid_pre", bank)
        return grown

    def at(self, site: Site, x: Float[Tensor, "*rows_pos width"], bank: Bank) -> Float[Tensor, "*rows_pos width"]:
        """An activation after a site inside the block, as a new tensor (OPT's MLP lays all tokens in one row)."""
        changed = x.clone(memory_format=torch.contiguous_format)
        self._change_(changed.view(-1, self.width, x.shape[-1]), site, bank)
        return changed

    def _change_(self, x: Tensor, site: Site, bank: Bank) -> None:
        if rounds := self.rounds.get(site):
            change_(x, rounds, bank.table_like(x, self.layer, site))


def grown(
    batch: Batch, root: Branch, prompts: Prompts, bank: Bank, *, n_layers: int
) -> tuple[list[Growth], list[Branch]]:
    """What happens at each layer of a walk that starts from the clean rows, and the branches at its end.

    Rows are laid out branch by branch, within a branch in the order of the batch's passages.

    Args:
        prompts: of the batch's passages.

    Raises:
        SteerlensError: a vector that does not fit its prompt.
    """
    needed_until = {root: -1 if batch.hand_on is None else batch.hand_on}
    beginning: dict[int, list[Branch]] = {}
    for leaf in batch.leaves:
        for branch in leaf.path():
            if branch not in needed_until:
                beginning.setdefault(branch.layer, []).append(branch)
            needed_until.setdefault(branch, -1)
            assert branch.parent is not None
            needed_until[branch.parent] = max(needed_until[branch.parent], branch.layer)
        needed_until[leaf] = n_layers
    growths = []
    active = [root]
    for layer in range(batch.start, n_layers):
        kept = [place for place, branch in enumerate(active) if needed_until[branch] > layer]
        new = beginning.get(layer, [])
        if not new and len(kept) == len(active):
            continue
        place_of = {branch: place for place, branch in enumerate(active)}
        sources = kept + [place_of[branch.parent] for branch in new if branch.parent is not None]
        active = [active[place] for place in kept] + new
        additions = [(len(kept) + i, injection) for i, branch in enumerate(new) for injection in branch.injections]
        same = sources == list(range(len(place_of)))
        growths.append(_growth(layer, None if same else sources, additions, prompts, batch.width, bank))
    return growths, active


def laid_out(batch: Batch, prompts: Prompts, bank: Bank) -> list[Growth]:
    """What happens at each layer if all rows of a batch are present from the start, in the order of its leaves."""
    additions: dict[int, list[tuple[int, Injection]]] = {}
    for place, leaf in enumerate(batch.leaves):
        for branch in leaf.path():
            additions.setdefault(branch.layer, []).extend((place, injection) for injection in branch.injections)
    return [_growth(layer, None, here, prompts, batch.width, bank) for layer, here in sorted(additions.items())]


def _growth(
    layer: int,
    sources: Sequence[int] | None,
    additions: Sequence[tuple[int, Injection]],
    prompts: Prompts,
    width: int,
    bank: Bank,
) -> Growth:
    """The rows, columns and table entries of injections into the branches at the given places."""
    n = len(prompts.lengths)
    within = torch.arange(n)
    changes: dict[Site, list[Changes]] = {}
    known: dict[tuple[object, int], _Touched] = {}
    for place, injection in additions:
        placement, span = injection.placement, injection.vector.n_positions
        assert placement is not None
        if (placement, span) not in known:
            known[placement, span] = _touched(placement, span, prompts, width)
        row, column, entry, index, count = known[placement, span]
        here = torch.stack([place * n + row, column, bank.begin(injection) + entry])
        strengths = None if injection.ramp is None else ramp_strengths(injection.ramp, index, count)
        if injection.gate is not None:
            through = prompts.opened[id(injection.gate)][row]
            here, strengths = here[:, through], None if strengths is None else strengths[through]
        changes.setdefault(injection.vector.site, []).append(Changes(injection.kind, here, strengths))
    row_sources = None
    if sources is not None:
        row_sources = (torch.tensor(sources, dtype=torch.long)[:, None] * n + within).flatten()
    rounds = {site: in_rounds(changes[site]) for site in sorted(changes, key=list(SITES).index)}
    return Growth(layer, row_sources, rounds, width)


_Touched = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of all that an injection touches: passage, column, row of the vector; which of the touched positions of the passage
it is, and how many of them lie in the prompt."""


def _touched(placement: Placement, span: int, prompts: Prompts, width: int) -> _Touched:
    """What a vector of `span` positions touches in rows of `width`."""
    check_fit(placement, span, int(prompts.lengths.min()))
    column = torch.arange(width)
    if is_role(placement):
        places = [role_positions(spans, str(placement)) for spans in prompts.spans]
        row, column = torch.tensor([(row, place) for row, here in enumerate(places) for place in here]).unbind(1)
        index = torch.tensor([number for here in places for number in range(len(here))])
        return row, column, torch.zeros_like(row), index, torch.tensor([len(here) for here in places])[row]
    if is_range(placement):
        first, stop = bounds(placement, prompts.lengths, prompts.after_bos)
        row, column = ((column >= first[:, None]) & (column < stop[:, None])).nonzero().unbind(1)
        return row, column, torch.zeros_like(row), column - first[row], (prompts.lengths - first)[row]
    entry = torch.arange(span).repeat(len(prompts.lengths))
    row = torch.arange(len(prompts.lengths)).repeat_interleave(span)
    column = first_positions(placement, span, prompts.lengths)[row] + entry
    return row, column, entry, entry, torch.full_like(entry, span)
