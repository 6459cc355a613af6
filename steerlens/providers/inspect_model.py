"""Inspect (inspect_ai) runs a steered model: `inspect eval TASK --model steerlens/NAME -M vector=love.safetensors`.

The extra `inspect` brings Inspect, which finds this module by its entry point.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)

from steerlens.arguments import finite_number, shown
from steerlens.engine import generate
from steerlens.errors import SteerlensError
from steerlens.models import load_model
from steerlens.steering import Condition, SteeringVector, as_condition
from steerlens.steering.exchange import load_torch
from steerlens.steering.prompts import read_prompt

# What Inspect's own local models take where a task says nothing.
_MAX_TOKENS = 2048


@modelapi(name="steerlens")
class SteeredModel(ModelAPI):
    """A model that `load_model` loads, steered in every generation.

    Model arguments (`-M name=value`): `vector`, the path of a vector saved with `.save`, or several with commas
    between; or `condition`, the path of a file of `save_torch`; `coeff`, which vectors are multiplied with (1);
    `placement` for vectors that are to go elsewhere than they say; `path`, a directory or GGUF file to load in place of
    the name; all others go to `load_model` (`device`, `dtype`, `bridge`, …). Without a vector the model is unsteered.

    Messages are written by the tokenizer's chat template; for a model without one their texts are joined by line
    breaks. Temperature, top-p, top-k, frequency penalty, stop sequences, seed and the number of choices are the task's;
    what it leaves out is plain sampling at temperature 1 with another seed at each call. Tools are refused.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (as Inspect's own providers have it)
        *,
        vector: str | Sequence[str] | None = None,
        condition: str | None = None,
        coeff: float = 1.0,
        placement: Any = None,
        path: str | None = None,
        **load: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.condition = _condition(vector, condition, coeff, placement)
        self.model = load_model(path or model_name, **load)

    async def generate(
        self, input: list[ChatMessage], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """The steered completion of a chat."""
        if tools:
            raise SteerlensError(f"steered models call no tools, and the task has {len(tools)}; leave them out")
        if config.logprobs or config.prompt_logprobs:
            raise SteerlensError("steered models give no log-probabilities to Inspect; use steerlens.score")
        return await anyio.to_thread.run_sync(self._completed, input, config)

    def _completed(self, messages: list[ChatMessage], config: GenerateConfig) -> ModelOutput:
        given = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "frequency_penalty": config.frequency_penalty,
            "stop": config.stop_seqs,
            "n": config.num_choices,
        }
        settings: dict[str, Any] = {"n": 1, "temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0}
        settings |= {name: value for name, value in given.items() if value is not None}
        prompt = read_prompt(self.model, _prompt(self.model, messages))
        room = int(self.model.cfg.n_ctx) - len(prompt.ids)
        frame = generate(
            self.model,
            prompt,
            self.condition,
            max_new_tokens=max(1, min(config.max_tokens or self.max_tokens() or _MAX_TOKENS, room)),
            seed=secrets.randbits(32) if config.seed is None else config.seed,
            progress=False,
            **settings,
        )
        choices = [
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=row.completion, model=self.model_name, source="generate"),
                stop_reason="stop" if row.finished else "max_tokens",
            )
            for row in frame.itertuples()
        ]
        written = int(frame["n_tokens"].sum())
        usage = ModelUsage(input_tokens=len(prompt.ids), output_tokens=written, total_tokens=len(prompt.ids) + written)
        return ModelOutput(model=self.model_name, choices=choices, usage=usage)

    def max_tokens(self) -> int | None:
        """New tokens where the task does not say how many."""
        return _MAX_TOKENS

    def max_connections(self) -> int:
        """One: completions of one model wait for each other anyway."""
        return 1

    def collapse_user_messages(self) -> bool:
        """Chat templates want users and assistants to take turns."""
        return True

    def collapse_assistant_messages(self) -> bool:
        """The same."""
        return True


def _condition(vector: Any, condition: str | None, coeff: object, placement: Any) -> Condition:
    """What the model arguments mean."""
    if condition is not None:
        if vector is not None or placement is not None or coeff != 1.0:
            raise SteerlensError("condition= says all of how it steers; leave vector=, coeff= and placement= out")
        return load_torch(condition)
    if vector is None:
        return Condition()
    named = vector.split(",") if isinstance(vector, str) else vector
    if not isinstance(named, Sequence) or not named or not all(isinstance(one, str | Path) for one in named):
        raise SteerlensError(f"vector= takes paths of saved vectors, got {shown(vector)}")
    factor = finite_number("coeff", coeff)
    vectors = [SteeringVector.load(one) for one in named]
    return as_condition(tuple(one if factor == 1.0 else factor * one for one in vectors), placement=placement)


def _prompt(model: Any, messages: list[ChatMessage]) -> Any:
    """A chat, or the text of one for a model without a template."""
    for message in messages:
        if message.role not in ("system", "user", "assistant"):
            raise SteerlensError(f"steered models read no messages of the role {message.role!r}")
    if getattr(model.tokenizer, "chat_template", None):
        return [{"role": message.role, "content": message.text} for message in messages]
    return "\n".join(message.text for message in messages)
