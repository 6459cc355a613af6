"""How figures write tokens and numbers."""

import pytest

from steerlens.figures import theme


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" wedding", "␣wedding"), ("\n\n", "⏎⏎"), ("", "∅"), ("\t", "⇥"), ("\u200b", "\\u200b"), ("\x07", "\\u0007"),
     ("\xa0", "\\u00a0"), ("é", "é")],
)  # fmt: skip
def test_invisible_characters_of_tokens_are_shown(token, shown):
    assert theme.visible_token(token) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9999, "> 99.9 %"), (0.995, "99.5 %"),
     (0.314, "31 %"), (0.042, "4.2 %"), (0.0031, "0.31 %"),
     (1e-9, "< 0.001 %"), (float("nan"), "n/a")],
)  # fmt: skip
def test_percent(value, text):
    assert theme.percent(value) == text


def test_numbers_have_true_minus_signs():
    assert [theme.number(x) for x in (-1.5, 5512.4, 0.0, 1234567.0, -1e-9, 4.0)] == [
        "−1.5",
        "5,512",
        "0",
        "1.23e+06",
        "−1.00e−09",
        "4",
    ]
