"""Inspect runs tasks on steered models, and gets what `generate` gives."""

from __future__ import annotations

import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl
from tests.conftest import ROOT, make_tokenizer, plain_model

pytestmark = pytest.mark.exchange

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SETTINGS = {"temperature": 0.0, "max_tokens": 8}


@pytest.fixture
def inspect_ai() -> Any:
    package = pytest.importorskip("inspect_ai")
    import steerlens.providers.inspect_model  # noqa: F401 (as the entry point does)

    return package


def evaluated(inspect_ai: Any, folder: Path, model: str, questions: list[Any], **arguments: Any) -> list[str]:
    """The completions of a task with these questions."""
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    task = inspect_ai.Task(
        dataset=[Sample(input=one, target="e") for one in questions], solver=generate(), scorer=includes()
    )
    (log,) = inspect_ai.eval(
        task, model=model, model_args=arguments, log_dir=str(folder / "logs"), display="none", **SETTINGS
    )
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(
        sum("e" in sample.output.completion for sample in log.samples) / len(questions)
    )
    return [sample.output.completion for sample in log.samples]


def greedy(model: Any, prompt: Any, *steering: Any) -> str:
    settings = {"temperature": 0, "top_p": 1.0, "frequency_penalty": 0, "max_new_tokens": 8}
    return str(sl.generate(model, [prompt], tuple(steering) or None, **settings)["completion"][0])


def test_the_embedded_model_with_a_vector(inspect_ai: Any, demo: Any, tmp_path: Path) -> None:
    love = sl.actadd(demo, " wedding", " ", layer=2)
    love.save(tmp_path / "love.safetensors")
    sl.save_torch(8 * love, tmp_path / "love.pt")
    questions = ["I went up to my friend and said", "The dog ran"]
    expected = [greedy(demo, one, 8 * love) for one in questions]
    assert expected != [greedy(demo, one) for one in questions]
    named = {"vector": str(tmp_path / "love.safetensors"), "coeff": 8, "device": "cpu"}
    assert evaluated(inspect_ai, tmp_path, "steerlens/demo", questions, **named) == expected
    given = {"condition": str(tmp_path / "love.pt"), "device": "cpu"}
    assert evaluated(inspect_ai, tmp_path, "steerlens/demo", questions, **given) == expected


def test_chats_are_written_by_the_template(inspect_ai: Any, tmp_path: Path) -> None:
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser

    tokenizer = deepcopy(make_tokenizer())
    tokenizer.chat_template = TEMPLATE
    plain_model("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = sl.load_model(tmp_path / "model", device="cpu")
    vector = sl.actadd(model, " love", " hate", layer=1)
    vector.save(tmp_path / "v.safetensors")
    chat = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="How are you?")]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How are you?"}]
    found = evaluated(
        inspect_ai,
        tmp_path,
        "steerlens/tiny",
        [chat],
        path=str(tmp_path / "model"),
        vector=str(tmp_path / "v.safetensors"),
        placement="back",
        device="cpu",
    )
    assert found == [greedy(model, plain, sl.Injection(vector, "back"))]


def test_arguments_that_do_not_go_together(inspect_ai: Any, tmp_path: Path) -> None:
    from inspect_ai.model import get_model

    for arguments, words in (
        ({"vector": "none.safetensors"}, "no file at none.safetensors"),
        ({"vector": 4}, "takes paths of saved vectors"),
        ({"condition": "a.pt", "coeff": 2}, "says all of how it steers"),
        ({"condition": "none.pt"}, "no file at none.pt"),
    ):
        with pytest.raises(sl.SteerlensError, match=words):
            get_model("steerlens/demo", memoize=False, **arguments)


def test_inspect_finds_it_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["inspect_ai"] == {"steerlens": "steerlens.providers.inspect_model"}
    assert (ROOT / "steerlens" / "providers" / "inspect_model.py").is_file()
    assert any(one.startswith("inspect-ai") for one in project["optional-dependencies"]["inspect"])
