"""Noticing generation: without a cache, only the generating method knows where the prompt ended."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from steerlens.models import HookedModel
from steerlens.steering.sessions import Session


class _NoticedMethod:
    """A model's own generation method that tells sessions while it is running.

    Without a cache every pass of a generation holds the whole sequence, and nothing in the pass itself shows where the
    prompt ended.
    """

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.sessions: list[Session] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._running({}):
            result = self.original(*args, **kwargs)
        return self._streamed(result) if isinstance(result, Generator) else result

    @contextmanager
    def _running(self, prompts: dict[int, Any]) -> Iterator[None]:
        """`prompts` keeps what each session knows of the prompts, once it has seen them."""
        sessions = list(self.sessions)
        for session in sessions:
            session.generating = True
            session.recall(prompts.get(id(session)))
        try:
            yield
        finally:
            for session in sessions:
                prompts[id(session)] = session.known()
                session.generating = False
                session.recall(None)

    def _streamed(self, parts: Generator[Any, Any, Any]) -> Iterator[Any]:
        """What the caller runs between two parts does not belong to the generation."""
        prompts: dict[int, Any] = {}
        nothing = object()
        while True:
            with self._running(prompts):
                part = next(parts, nothing)
            if part is nothing:
                return
            yield part


@contextmanager
def generation_noticed(model: HookedModel, session: Session) -> Iterator[None]:
    """Inside the block, the model's generation methods tell the session that their passes grow from one prompt.

    Blocks may end in any order: the last one to end removes the wrappers from the model.
    """
    own = model.__dict__
    replaced = {name: own.get(name) for name in ("generate", "generate_stream", "hf_generate") if hasattr(model, name)}
    watching: dict[str, _NoticedMethod] = {}
    try:
        for name, before in replaced.items():
            watching[name] = before if isinstance(before, _NoticedMethod) else _NoticedMethod(getattr(model, name))
            watching[name].sessions.append(session)
            own[name] = watching[name]
        yield
    finally:
        for name, method in watching.items():
            method.sessions.remove(session)
            if own.get(name) is method and not method.sessions:
                if getattr(type(model), name, None) is getattr(method.original, "__func__", None):
                    del own[name]  # it was the class's
                else:
                    own[name] = method.original  # it was the user's
