"""Names of models: near ones are suggested, and a hub out of reach is not asked again and again."""

from __future__ import annotations

import socket
from typing import Any

import pytest

import steerlens as sl
from steerlens.models import load_model


@pytest.mark.parametrize(
    ("name", "near"),
    [("gpt2-smal", "gpt2-small"), ("gtp2-xl", "gpt2-xl"), ("demoo", "demo"), ("pythia-70", "pythia-70m")],
)
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(name)
    message = str(caught.value)
    assert f"{near!r}" in message
    assert "hub cannot be reached" in message, "the tests run offline (conftest.py): the message must say so"
    assert "\n" not in message


@pytest.mark.parametrize("bridge", [True, None])
def test_a_known_name_without_a_network(bridge: bool | None) -> None:
    with pytest.raises(sl.SteerlensError, match=r"must be downloaded.*cannot be reached.*'demo'"):
        load_model("gpt2-xl", bridge=bridge)


@pytest.mark.parametrize("reachable", [True, False])
def test_an_unreachable_hub_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    from huggingface_hub import constants
    from transformers import AutoTokenizer

    asked: list[Any] = []

    def connect(address: Any, timeout: float) -> Any:
        asked.append((address, timeout))
        if not reachable:
            raise socket.gaierror(-2, "Name or service not known")
        return socket.socket()

    def read(repo: str, *, local_files_only: bool) -> Any:
        asked.append(local_files_only)
        raise OSError("couldn't connect")

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example:8443")
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", read)
    with pytest.raises(sl.SteerlensError, match="the Hugging Face hub cannot be reached"):
        load_model("some-user/some-model")
    assert asked == [(("hub.example", 8443), 5), not reachable]
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    asked.clear()
    with pytest.raises(sl.SteerlensError):
        load_model("some-user/some-model")
    assert asked == [False], "a proxy may know a way"


@pytest.mark.parametrize("name", ["", "no spaces allowed", "näme", "some-user/some-model-that-is-not-there"])
def test_impossible_names(name: str) -> None:
    with pytest.raises(sl.SteerlensError) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)
