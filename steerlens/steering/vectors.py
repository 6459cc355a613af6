"""`SteeringVector`: an immutable value with arithmetic, and its file format."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.arguments import finite_number, layer_number, listed, shown, visible, whole_number
from steerlens.errors import SteerlensError
from steerlens.models import HookedModel, ModelStamp, Site, check_site, require_model, require_site, site_width, stamp
from steerlens.showing import Shown
from steerlens.steering.placement import Placement, check_placement
from steerlens.steering.vector_facts import facts, line
from steerlens.steering.vector_files import on_device, read_vector_file, write_vector_file
from steerlens.steering.vector_hub import OnHub

# Labels go into tables and titles; the label of a long sum, or from a file, may have any length.
_LONGEST_LABEL = 1000


@dataclass(frozen=True, eq=False)
class SteeringVector(Shown, OnHub):
    """What is added to (or done with) the activations of one block: one row per position. By default at its input.

    `5 * love`, `love + other`, `-love`, `love / love.norm` give new vectors; an existing one never changes.

    Attributes:
        values: float32, [pos d_model]; at site `"z"` [pos heads·d_head], given as [pos head d_head].
        layer: the block it was read from and goes to.
        model: stamp of the model it came from; it cannot steer any other.
        label: what it is, for tables and figures.
        placement: where it goes unless the caller says otherwise.
        coeff: the product of the factors applied since extraction (a record: `values` are already multiplied).
        source: how it was made (method, prompts, tokens), as plain data.
        site: the place in the block, by default its input (`blocks.{layer}.hook_resid_pre`); see `Site`.
        heads: into how many parts a row is divided: 1, or at site `"z"` the model's heads.
    """

    values: Float[Tensor, "pos width"]
    layer: int
    model: ModelStamp
    label: str = "vector"
    placement: Placement = "front"
    coeff: float = 1.0
    source: dict[str, Any] = field(default_factory=dict)
    site: Site = "resid_pre"
    heads: int = 1

    # numpy numbers must leave the multiplication to this class instead of making an array of objects
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor):
            raise SteerlensError(
                f"values must be a torch.Tensor, got {type(self.values).__name__}; wrap them in torch.tensor(...)"
            )
        if not isinstance(self.model, ModelStamp):
            raise SteerlensError(
                f"model must be the stamp of a model, got {shown(self.model)}; give steerlens.models.stamp(model)"
            )
        if not isinstance(self.label, str):
            raise SteerlensError(f"label must be text, got {shown(self.label)}")
        if not isinstance(self.source, dict):
            raise SteerlensError(f"source must be a mapping of plain data, got {shown(self.source)}")
        plain = self.values.layout == torch.strided and not (self.values.is_quantized or self.values.is_nested)
        if self.values.is_complex() or self.values.is_meta or not plain:
            kind = f"{self.values.dtype} ({self.values.layout})" if plain else f"{self.values.dtype} that is not dense"
            raise SteerlensError(f"values must be dense real numbers in memory, got {kind} on {self.values.device}")
        check_site(self.site)
        # A private copy: if the caller later edits the tensor, this value must not change.
        values, heads = self._by_rows(self.values.detach().to(torch.float32).clone())
        if not torch.isfinite(values).all():
            raise SteerlensError("values hold NaN or infinity; extract the vector again, or scale it less")
        check_placement(self.placement)
        for name, value in (
            ("values", values),
            ("heads", heads),
            ("layer", layer_number(self.layer, self.model.n_layers)),  # numpy's whole numbers do not go into files
            ("placement", self.placement if isinstance(self.placement, str) else int(self.placement)),
            ("label", _shortened(self.label)),
            ("coeff", finite_number("coeff", self.coeff)),
        ):
            object.__setattr__(self, name, value)

    @staticmethod
    def of(
        model: HookedModel,
        tensor: Tensor,
        *,
        layer: int,
        site: Site = "resid_pre",
        placement: Placement | None = None,
        label: str = "raw tensor",
    ) -> SteeringVector:
        """The vector with the given values, declared to belong to `model`; its source says that it is foreign.

        Args:
            tensor: [d_model] or [pos d_model], at site `"z"` with [head d_head] in place of d_model; any float dtype.
            placement: by default `"all"` for one position, `"front"` for several.

        Raises:
            SteerlensError: not a tensor, a wrong width or shape, NaN, a layer or site that the model does not have.
        """
        require_model(model)
        if not isinstance(tensor, Tensor):
            raise SteerlensError(f"expected a torch.Tensor, got {shown(tensor)}; wrap it in torch.tensor(...)")
        if not tensor.is_floating_point():
            raise SteerlensError(f"a vector holds floating-point numbers, got {tensor.dtype}; convert it first")
        check_site(site)
        layer_number(layer, int(model.cfg.n_layers))
        source = {"method": "foreign", "format": "raw tensor"}
        if site == "z" and tensor.ndim and tensor.shape[-1] == site_width(model, "z"):
            tensor = tensor.unflatten(-1, (int(model.cfg.n_heads), -1))
        tensor = tensor[None] if site == "z" and tensor.ndim == 2 else tensor
        made = SteeringVector(tensor, layer, stamp(model), label=label, source=source, site=site)
        check_vector_site(model, made)
        return made.on(("all" if made.n_positions == 1 else "front") if placement is None else placement)

    def _by_rows(self, values: Tensor) -> tuple[Tensor, int]:
        """The values as rows, one per position, and how many heads a row holds."""
        heads = whole_number("heads", self.heads, least=1)
        if self.site == "z" and values.ndim == 3:
            heads, values = int(values.shape[1]), values.flatten(1)
        elif values.ndim == 1:
            values = values[None]
        if values.ndim != 2 or values.shape[0] == 0:
            shape = "[pos head d_head]" if self.site == "z" else "[pos d_model]"
            raise SteerlensError(f"values must be {shape} with at least one position, got {list(values.shape)}")
        if self.site == "z":
            if heads < 1 or values.shape[1] == 0 or values.shape[1] % heads:
                raise SteerlensError(
                    f"values {values.shape[1]} wide do not fall into {heads} heads; give them as [pos head d_head]"
                )
            return values, heads
        if heads != 1:
            raise SteerlensError(f"only vectors at site 'z' have heads, but heads={heads} was given for {self.site!r}")
        if values.shape[1] != self.model.d_model:
            raise SteerlensError(
                f"values are {values.shape[1]} wide but the model {self.model.name!r} has d_model "
                f"{self.model.d_model}; extract the vector from this model"
            )
        return values, heads

    @property
    def n_positions(self) -> int:
        """How many positions the vector spans."""
        return int(self.values.shape[0])

    @property
    def norms(self) -> Float[Tensor, " pos"]:
        """Euclidean norm at each position."""
        return self.values.norm(dim=-1)

    @property
    def norm(self) -> float:
        """Norm over all positions."""
        return float(self.values.norm())

    def __mul__(self, factor: float) -> SteeringVector:
        number = _number(factor)
        if number is None:
            return NotImplemented
        if not math.isfinite(number):
            raise SteerlensError(f"the coefficient must be a finite number, got {number}")
        return dataclasses.replace(self, values=self.values * number, coeff=self.coeff * number)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> SteeringVector:
        number = _number(divisor)
        if number is None:
            return NotImplemented
        if number == 0:
            raise SteerlensError("cannot divide a vector by 0")
        return self * (1.0 / number)

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def __add__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        if self.layer != other.layer:
            raise SteerlensError(
                f"cannot add vectors of layers {self.layer} and {other.layer} into one; "
                "pass both: steer(model, a, b) or the tuple (a, b)"
            )
        if self.site != other.site:
            raise SteerlensError(
                f"cannot add vectors of the sites {self.site!r} and {other.site!r} into one; pass both as a tuple"
            )
        if (difference := self.model.difference(other.model)) is not None:
            raise SteerlensError(f"cannot add vectors of two models: {difference}")
        if self.heads != other.heads:
            raise SteerlensError(f"cannot add vectors of {self.heads} and {other.heads} heads: two models made them")
        if self.placement != other.placement:
            raise SteerlensError(
                f"cannot add vectors placed at {self.placement!r} and {other.placement!r} into one; "
                "pass both as a tuple"
            )
        width = max(self.n_positions, other.n_positions)
        if self.placement != "front" and self.n_positions != other.n_positions:
            raise SteerlensError(
                f"cannot add vectors of {self.n_positions} and {other.n_positions} positions placed at "
                f"{self.placement!r}, where they would not line up; pass both as a tuple"
            )
        grown = [torch.nn.functional.pad(v.values, (0, 0, 0, width - v.n_positions)) for v in (self, other)]
        values = grown[0] + grown[1].to(grown[0].device)
        source = {"method": "sum", "parts": [self.describe(), other.describe()]}
        label = f"{self.title} + {other.title}"
        return dataclasses.replace(self, values=values, label=label, coeff=1.0, source=source)

    def __radd__(self, other: int) -> SteeringVector:
        return self if type(other) is int and other == 0 else NotImplemented  # sum(vectors) starts from 0

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self + -other

    def at(self, position: int) -> SteeringVector:
        """The one-position vector of the given position (for placements `"all"` and `"last"`)."""
        position = whole_number("position", position)
        if not -self.n_positions <= position < self.n_positions:
            raise SteerlensError(f"position {position} is out of range for a vector of {self.n_positions} positions")
        index = position % self.n_positions
        return dataclasses.replace(self, values=self.values[index : index + 1], label=f"{self.label}[{index}]")

    def of_heads(self, heads: Sequence[int]) -> SteeringVector:
        """The vector of the given heads alone, those of the others set to zero (site `"z"`)."""
        if self.site != "z":
            raise SteerlensError(f"only a vector at site 'z' has heads, and this one is at {self.site!r}")
        heads = listed("heads", heads, of="head numbers")
        kept = torch.zeros(self.heads, 1, device=self.values.device)
        for head in heads:
            if not 0 <= whole_number("head", head) < self.heads:
                raise SteerlensError(f"head {head} is out of range for {self.heads} heads; use 0 to {self.heads - 1}")
            kept[head] = 1.0
        label = f"{self.label}, head{'s' * (len(heads) != 1)} {', '.join(map(str, heads))}"
        return dataclasses.replace(self, values=self.values.unflatten(1, (self.heads, -1)) * kept, label=label)

    def on(self, placement: Placement) -> SteeringVector:
        """The same vector with another default placement."""
        return dataclasses.replace(self, placement=placement)

    @property
    def title(self) -> str:
        """The label with its coefficient, for tables: `5 × Love − Hate`."""
        return self.label if self.coeff == 1.0 else f"{self.coeff:g} × ({self.label})"

    def describe(self) -> dict[str, Any]:
        """The vector's description as plain data (for reports and files)."""
        return {
            "label": self.label,
            "layer": self.layer,
            "coeff": self.coeff,
            "placement": self.placement,
            "positions": self.n_positions,
            "source": self.source,
            "site": self.site,
            **({"heads": self.heads} if self.site == "z" else {}),
        }

    __repr__ = line
    _told = facts

    def save(self, path: str | Path) -> Path:
        """Write the vector as safetensors (values and a JSON header); returns the path.

        The file is written whole or not at all. Whatever can be saved can be loaded.

        Raises:
            SteerlensError: the path cannot be written; a `source` that is not plain data.
        """
        return write_vector_file(path, self.values, {"stamp": dataclasses.asdict(self.model), **self.describe()})

    @staticmethod
    def load(path: str | Path, *, device: torch.device | str = "cpu") -> SteeringVector:
        """The vector saved at `path`.

        Only safetensors is read; a pickle is refused without being opened.

        Raises:
            SteerlensError: no file, another format, or damaged content.
        """
        values, record = read_vector_file(path)
        try:
            model = ModelStamp.from_record(record["stamp"])
            names = ("layer", "label", "placement", "coeff", "source")
            # The first version of the format knew one site.
            place = {name: record[name] for name in ("site", "heads") if name in record}
            vector = SteeringVector(values, model=model, **{name: record[name] for name in names}, **place)
        except (SteerlensError, KeyError, TypeError, RecursionError) as error:
            raise SteerlensError(f"{path} is no usable steering vector: {error or type(error).__name__}") from None
        return dataclasses.replace(vector, values=on_device(vector.values, device, path=path))


def _shortened(label: str) -> str:
    """The label as shown: without control characters that would affect a terminal, and not too long."""
    label = visible(label)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _number(x: object) -> float | None:
    """`x` as a float if it is one number (of Python, numpy or torch; infinity if too large for one), else None."""
    if getattr(x, "ndim", 0) != 0 or not hasattr(x, "__float__"):
        return None
    try:
        return float(x)
    except OverflowError:
        return math.inf


def check_vector(model: HookedModel, vector: SteeringVector) -> None:
    """Check that `vector` belongs to `model`.

    Raises:
        SteerlensError: it came from another model, or from other weight processing.
    """
    if not isinstance(vector, SteeringVector):
        raise SteerlensError(f"expected a SteeringVector, got {type(vector).__name__}; make one with actadd(model, …)")
    if (difference := vector.model.difference(stamp(model))) is not None:
        raise SteerlensError(f"the vector {vector.label!r} does not belong to this model: {difference}")
    check_vector_site(model, vector)


def check_vector_site(model: HookedModel, vector: SteeringVector) -> None:
    """Check that the model has the place that `vector` goes to, with the vector's width.

    Raises:
        SteerlensError: it does not.
    """
    require_site(model, vector.site)
    if vector.site == "z" and (vector.heads, vector.values.shape[1]) != (model.cfg.n_heads, site_width(model, "z")):
        raise SteerlensError(
            f"the vector {vector.label!r} has {vector.heads} heads in {vector.values.shape[1]} numbers, but the model "
            f"{model.cfg.n_heads} heads of {model.cfg.d_head}; give values as [pos head d_head]"
        )
