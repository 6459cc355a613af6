"""Jobs: which rows a grid of conditions needs, at which layer each branches off, and which rows run together.

Conditions that begin alike share rows. A condition is a path in a tree: the root is the clean model, and each branch
adds its injections at one layer to the row of its parent. Conditions with no (or only zero) vectors are the root itself
and equal conditions are one branch, so neither costs a row.

Rows are padded on the right and run without an attention mask: attention is causal, so no real position ever attends to
the padding after it, every position embedding is the row's own, and nothing about a row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from steerlens.models import SITES, HookedModel
from steerlens.steering.chats import Span
from steerlens.steering.conditions import Condition, Injection, check_conditions

# Padding is wasted work: allowed up to this share of a batch …
_PADDING_SHARE = 0.2
# … or freely in batches so small that a pass costs the same either way.
_SMALL_BATCH_TOKENS = 256


@dataclass(frozen=True)
class Passage:
    """A token row to run the model on, and the positions whose next-token distribution is wanted.

    Attributes:
        ids: all tokens.
        prompt_length: how many of them are the prompt; these alone determine placements.
        first, stop: the wanted positions, `range(first, stop)`.
        spans: where the messages stand, if the prompt is a chat.
    """

    ids: tuple[int, ...]
    prompt_length: int
    first: int
    stop: int
    spans: tuple[Span, ...] = ()

    @property
    def n_wanted(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True, eq=False)
class Branch:
    """A condition, or the shared beginning of several: the parent's row with injections added at the input of `layer`.

    The root (no parent, layer −1) is the clean model.
    """

    parent: Branch | None = None
    layer: int = -1
    injections: tuple[Injection, ...] = ()

    def path(self) -> tuple[Branch, ...]:
        """The branches from the first injection to this one; empty for the root."""
        return () if self.parent is None else (*self.parent.path(), self)

    @property
    def first_layer(self) -> int:
        """The layer at which it branches off the clean row; −1 for the root."""
        return self.path()[0].layer if self.parent is not None else -1


@dataclass(frozen=True, eq=False)
class Tree:
    """The conditions of a job as branches.

    Attributes:
        root: the clean model.
        leaves: the distinct conditions, in the order in which the job first names them.
        leaf_of: for every condition of the job, its place in `leaves`.
    """

    root: Branch
    leaves: tuple[Branch, ...]
    leaf_of: tuple[int, ...]

    @staticmethod
    def of(model: HookedModel, conditions: Sequence[Condition]) -> Tree:
        """The tree of `conditions`.

        Raises:
            SteerlensError: a vector from another model.
        """
        check_conditions(model, conditions)
        root = Branch()
        branches: dict[tuple[Branch, int, tuple[object, ...]], Branch] = {}
        acts = _which_act(conditions)
        leaves: dict[Branch, int] = {}
        leaf_of = []
        for condition in conditions:
            by_layer: dict[int, list[Injection]] = {}
            for injection in condition.injections:
                if injection.kind == "project" or acts[id(injection.vector)]:
                    by_layer.setdefault(injection.vector.layer, []).append(injection)
            branch = root
            for layer in sorted(by_layer):
                here = _in_one_order(by_layer[layer])
                key = (branch, layer, tuple((recipe(one), one.placement) for one in here))
                branch = branches.setdefault(key, Branch(branch, layer, here))
            leaf_of.append(leaves.setdefault(branch, len(leaves)))
        return Tree(root, tuple(leaves), tuple(leaf_of))

    def injections(self) -> Iterator[Injection]:
        """All injections that have an effect, possibly with repeats."""
        for leaf in self.leaves:
            for branch in leaf.path():
                yield from branch.injections

    def in_walking_order(self, first: Branch | None = None) -> list[Branch]:
        """The leaves by the layers at which they branch off the clean row, `first` before all others."""
        order = {leaf: place for place, leaf in enumerate(self.leaves)}

        def key(leaf: Branch) -> tuple[object, ...]:
            return (leaf is not first, leaf.first_layer, order[leaf])

        return sorted(self.leaves, key=key)


def recipe(injection: Injection) -> tuple[object, ...]:
    """What distinguishes the rows that injections need (see `rows_of`); their vectors must be kept alive."""
    what = (id(injection.vector), injection.operation, injection.value, id(injection.mean), id(injection.reads))
    return *what, id(injection.gate), injection.ramp


def _in_one_order(injections: Sequence[Injection]) -> tuple[Injection, ...]:
    """The injections at one layer, so that the same ones come in the same order.

    Sites are passed in their own order. At one site the order given counts, unless everything there is added.
    """
    sites = list(SITES)
    found: list[Injection] = []
    for site in sorted({one.vector.site for one in injections}, key=sites.index):
        here = [one for one in injections if one.vector.site == site]
        if all(one.kind == "add" for one in here):
            here.sort(key=lambda one: (id(one.vector), str(one.placement), id(one.gate), str(one.ramp)))
        found += here
    return tuple(found)


def _which_act(conditions: Sequence[Condition]) -> dict[int, bool]:
    """Whether a vector (by its id) adds anything: one of zeros (coefficient 0, two equal prompts) does not."""
    vectors = {id(one.vector): one.vector for condition in conditions for one in condition.injections}
    by_device: dict[torch.device, list[int]] = {}
    for key, vector in vectors.items():
        by_device.setdefault(vector.values.device, []).append(key)
    acts: dict[int, bool] = {}
    for keys in by_device.values():  # read from each device at once
        flags = torch.stack([vectors[key].values.any() for key in keys]).tolist()
        acts.update(zip(keys, flags, strict=True))
    return acts


@dataclass(frozen=True, eq=False)
class Batch:
    """Some conditions on some passages, to be run together.

    Attributes:
        passages: indices into the job's passages, shortest first.
        leaves: the conditions, in the order in which their results are wanted.
        width: length of the longest passage; the others are padded on the right.
        start: the layer at which the walk starts, from the clean rows that the previous batch has left there.
        hand_on: the layer from whose clean input the next batch (of the same passages) starts, if any.
    """

    passages: tuple[int, ...]
    leaves: tuple[Branch, ...]
    width: int
    start: int = 0
    hand_on: int | None = None


def batches(
    passages: Sequence[Passage],
    leaves: Sequence[Branch],
    row_limit: Callable[[int], int],
    *,
    same_length: bool = False,
    resume: bool = False,
    wanted_limit: int | None = None,
) -> list[Batch]:
    """The job as batches: passages of similar length under all conditions if they fit, else some conditions at a time.

    Args:
        leaves: conditions in walking order (`Tree.in_walking_order`).
        row_limit: how many rows of a given width may run together.
        same_length: never pad.
        resume: batches of the same passages pass clean rows on to each other.
        wanted_limit: how many wanted positions the passages of a batch may have in total (a single one may have more).
    """
    result = []
    for group, width in _groups(passages, len(leaves), row_limit, same_length, wanted_limit):
        at_once = max(row_limit(width) // len(group), 1)
        chunks = [tuple(leaves[i : i + at_once]) for i in range(0, len(leaves), at_once)]
        starts = [0] * len(chunks)
        if resume:
            starts[1:] = [max(min(leaf.first_layer for leaf in chunk), 0) for chunk in chunks[1:]]
        for i, chunk in enumerate(chunks):
            hand_on = starts[i + 1] if resume and i + 1 < len(chunks) else None
            result.append(Batch(group, chunk, width, starts[i], hand_on))
    return result


def _groups(
    passages: Sequence[Passage],
    n_leaves: int,
    row_limit: Callable[[int], int],
    same_length: bool,
    wanted_limit: int | None,
) -> list[tuple[tuple[int, ...], int]]:
    """Passages to run together, and the longest one's length; shortest first."""
    lengths = [len(passage.ids) for passage in passages]
    groups: list[tuple[tuple[int, ...], int]] = []
    group: list[int] = []
    for index in sorted(range(len(passages)), key=lambda i: lengths[i]):
        width, size = lengths[index], len(group) + 1
        if group:
            real = sum(lengths[i] for i in group) + width
            padded = size * width
            wasteful = padded - real > _PADDING_SHARE * padded and padded * n_leaves > _SMALL_BATCH_TOKENS
            full = size * n_leaves > row_limit(width)
            if wanted_limit is not None:
                full |= sum(passages[i].n_wanted for i in (*group, index)) > wanted_limit
            if full or wasteful or (same_length and lengths[group[0]] != width):
                groups.append((tuple(group), lengths[group[-1]]))
                group = []
        group.append(index)
    groups.append((tuple(group), lengths[group[-1]]))
    return groups
