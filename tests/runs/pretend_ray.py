"""A Ray cluster inside this process, whose workers die when they are told to."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any


class Ray:
    """What `generate_on_ray` uses of Ray, done here and now; `dies(call)` says whether the worker dies at a call.

    A call is the name of the method, the number of the worker, and the arguments.
    """

    class exceptions:
        class RayError(Exception): ...

        class RayTaskError(RayError):
            cause: Exception

    def __init__(self, dies: Callable[..., bool] = lambda *call: False, cpus: int = 2) -> None:
        self.dies, self.cpus = dies, cpus
        self.hired, self.calls, self.gone = 0, [], set()

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **resources: Any) -> Any:
        def hire_with(cls: type) -> Any:
            def hire() -> Any:
                self.hired += 1
                return Actor(self, cls(), self.hired)

            return SimpleNamespace(remote=hire)

        return hire_with

    def wait(self, answers: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return answers[-1:], answers[:-1]  # the last first: nobody promises an order

    def get(self, answer: Any) -> Any:
        actor, name, arguments = answer.call
        self.calls.append((name, actor.number, *arguments))
        if actor.number in self.gone or self.dies(name, actor.number, *arguments):
            self.gone.add(actor.number)
            raise self.exceptions.RayError("The actor died unexpectedly\nbefore finishing this task.")
        try:
            return getattr(actor.worker, name)(*arguments)
        except Exception as error:
            told = self.exceptions.RayTaskError("Traceback (most recent call last)")
            told.cause = error
            raise told from None

    def kill(self, actor: Any) -> None:
        self.gone.add(actor.number)


class Actor:
    """A worker of `Ray`."""

    def __init__(self, ray_: Ray, worker: Any, number: int) -> None:
        self.worker, self.number = worker, number

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: SimpleNamespace(call=(self, name, arguments)))


class SimpleNamespace(types.SimpleNamespace):
    """With identity for equality and hash, as object references have."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__
