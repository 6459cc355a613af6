"""`steerlens steer`."""

from __future__ import annotations

from collections.abc import Callable

import steerlens as sl


def test_both_sides_are_shown(typed: Callable[..., int], capsys) -> None:
    quick = ["--n", "2", "--tokens", "4"]
    assert typed("steer", "Love", "Hate", "-p", "I hate you because", "--layer", "3", *quick) == 0
    out = capsys.readouterr().out
    assert "unsteered" in out and "Love − Hate" in out


def test_a_chat_is_the_users_turn(typed: Callable[..., int], monkeypatch, capsys) -> None:
    asked = []
    generate = sl.generate

    def asks(model, prompt, *rest, **options):  # type: ignore[no-untyped-def]
        asked.append(prompt)
        return generate(model, "Hello there", *rest, **options)

    monkeypatch.setattr(sl, "generate", asks)
    quick = ["--n", "1", "--tokens", "2"]
    assert typed("steer", "Love", "Hate", "-p", "Hello", "--chat", *quick) == 0
    assert typed("steer", "Love", "Hate", "-p", "Hello", "--chat", "--system", "Be brief.", *quick) == 0
    turn = {"role": "user", "content": "Hello"}
    assert asked == [[[turn]], [[{"role": "system", "content": "Be brief."}, turn]]]


def test_a_system_prompt_goes_with_a_chat(typed: Callable[..., int], capsys) -> None:
    assert typed("steer", "Love", "Hate", "--system", "Be brief.") == 2
    captured = capsys.readouterr()
    assert "--system goes with --chat" in captured.err and "loading" not in captured.err
    assert typed("steer", "--help") == 0
    assert "--system" in capsys.readouterr().out
