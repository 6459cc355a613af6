"""The models that an explorer offers: those that load without a network, and the one it was given."""

from __future__ import annotations

from steerlens.errors import SteerlensError
from steerlens.explorer.numbers import Numbers
from steerlens.models import HookedModel, load_model, model_name, source_of
from steerlens.models.smollm2 import is_there


class Models:
    """Models by the names that the explorer shows. A page can choose among these names only, never a file.

    Attributes:
        names: what can be chosen; the given model first.
    """

    def __init__(self, given: HookedModel) -> None:
        own = source_of(given) or ""
        first = own if own in ("demo", "smollm2") else model_name(given)
        others = ["demo", *(["smollm2"] if is_there() else [])]
        self.names = tuple(dict.fromkeys([first, *others]))
        self._loaded = {first: Numbers(given)}
        self._device = str(given.cfg.device)

    def loaded(self, name: object) -> bool:
        """Whether the model is in memory."""
        return name in self._loaded

    def numbers(self, name: object) -> Numbers:
        """The numbers of one of the models, which is loaded if it is not in memory.

        Raises:
            SteerlensError: none of the names.
        """
        if not isinstance(name, str) or name not in self.names:
            raise SteerlensError(f"no model {name!r:.60} is offered here; choose one of {', '.join(self.names)}")
        if name not in self._loaded:
            self._loaded[name] = Numbers(load_model(name, device=self._device))
        return self._loaded[name]
