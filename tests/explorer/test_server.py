"""The server of `steerlens explore`: who is let in, what is served, and how it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import steerlens as sl

pytest.importorskip("tornado", reason='the server needs the extra: pip install "steerlens[explore]"')

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from steerlens.explorer.models import Models
from steerlens.explorer.server import Server
from steerlens.explorer.widget import first_view
from tests.explorer.serving import served

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(demo: Any) -> Iterator[Server]:
    pair, ends = ("Love", "Hate"), (-20, 20)
    view, ends = first_view(demo, pair, "I hate you because", 2, 5.0, "front", "love, hate", ends, False)
    with served(Server(Models(demo), view, ends)) as made:
        yield made


def asked(
    server: Server, path: str, *, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of a request, sent as it is written here."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or server.hosts[0])
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def test_the_address_opens_the_page(server: Server) -> None:
    status, headers, page = asked(server, f"/?token={server.token}")
    assert status == 200 and 'src="/page.js"' in page
    assert server.token not in page, "the page has it from its address"
    assert "script-src 'self';" in headers["Content-Security-Policy"] and "unsafe-eval" not in str(headers)
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    assert asked(server, f"/?token={server.token}", host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%ff%00", "?Token=x"])
def test_a_wrong_token_is_403(server: Server, query: str) -> None:
    for path in ("/", "/socket"):
        status, _, text = asked(server, path + query)
        assert status in (403, 400 if "%ff" in query else 403) and server.token not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:{port}", "[::1]"]
)
def test_another_name_of_the_server_is_403(server: Server, host: str) -> None:
    """A page of another name that resolves to this machine (DNS rebinding) must not read anything."""
    for path in (f"/?token={server.token}", "/explorer.js", "/plotly.js"):
        assert asked(server, path, host=host.format(port=server.port))[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/server.py",
        "/front/explorer.js",
        "/explorer.js/../server.py",
        "//etc/passwd",
        "/static/explorer.js",
    ],
)
def test_no_path_reaches_a_file(server: Server, path: str) -> None:
    status, _, text = asked(server, f"{path}?token={server.token}")
    assert status in (400, 403, 404) and "root:" not in text and "import" not in text


def test_nothing_can_be_posted(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert asked(server, f"/?token={server.token}", method=method)[0] in (403, 405)


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(sl.SteerlensError, match=f"port {server.port} of 127.0.0.1 cannot be had"):
        Server(server._models, server._view, server._coeffs, port=server.port)
    for port in (-1, 70_000, "80"):
        with pytest.raises(sl.SteerlensError, match="port must be a whole number"):
            Server(server._models, server._view, server._coeffs, port=port)  # type: ignore[arg-type]


def talk(
    server: Server, *messages: Any, until: Any, origin: str | None = "own", token: str | None = None
) -> dict[str, Any]:
    """What a page knows by name once `until` of it is true, having sent the messages when the server was ready."""

    async def converse() -> dict[str, Any]:
        headers = {"Origin": f"http://{server.hosts[0]}" if origin == "own" else origin} if origin else {}
        url = f"ws://{server.hosts[0]}/socket?token={token or server.token}"
        connection = await websocket_connect(HTTPRequest(url, headers=headers))
        state: dict[str, Any] = {}
        sent = False
        try:
            while not (sent and until(state)):
                message = await asyncio.wait_for(connection.read_message(), 60)
                if message is None:
                    return state | {"closed": True}
                state |= json.loads(message)
                if state.get("ready") and not sent:
                    sent = True
                    for one in messages:
                        await connection.write_message(one if isinstance(one, str) else json.dumps(one))
        finally:
            connection.close()
        return state

    return asyncio.run(converse())


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1"]
)
def test_a_socket_of_another_page_is_403(server: Server, origin: str | None) -> None:
    with pytest.raises(HTTPClientError) as refused:
        talk(server, until=lambda state: True, origin=origin and origin.format(port=server.port))
    assert refused.value.code == 403
    with pytest.raises(HTTPClientError) as refused:
        talk(server, until=lambda state: True, token="wrong")
    assert refused.value.code == 403


def test_a_page_is_told_what_the_package_computes(server: Server, demo: Any) -> None:
    move = {"set": {"settings": {"layer": 3, "coeff": 2.0, "move": 7}}}
    state = talk(server, move, until=lambda state: state["drawn"] == 7 and state["tiles"] and not state["stale"])
    vector = 2 * sl.actadd(demo, "Love", "Hate", layer=3)
    shift = sl.logit_shift(demo, "I hate you because", vector, by="kl", follow=[" love", " hate"])
    drawn = json.loads(state["shift_figure"])["data"]
    assert len(drawn) and state["errors"] == [] and "2 * vectors[3]" in state["code"]
    assert f"KL from unsteered {shift.summary['kl'].iloc[-1]:.3g} nats" in state["status"]


def test_pages_do_not_share_their_settings(server: Server) -> None:
    talk(server, {"set": {"settings": {"layer": 1, "move": 1}}}, until=lambda state: state["drawn"] == 1)
    fresh = talk(server, {"message": {"order": "update"}}, until=lambda state: state["shift_figure"])
    assert fresh["settings"]["layer"] == 2


def test_completions_stream_and_stop(server: Server) -> None:
    ask = {"set": {"settings": {"n": 1, "max_new_tokens": 100, "move": 1}}}
    done = talk(
        server,
        ask,
        {"message": {"order": "complete"}},
        {"message": {"order": "stop"}},
        until=lambda state: state["streams"].get("notes") == ["stopped", "stopped"] and state["busy"] == "",
    )
    assert done["errors"] == []
    whole = talk(
        server,
        {"set": {"settings": {"n": 1, "max_new_tokens": 4, "move": 1}}},
        {"message": {"order": "complete"}},
        until=lambda state: "surprise" in str(state["streams"].get("notes")),
    )
    assert len(whole["streams"]["rows"]) == 1


@pytest.mark.parametrize(
    "nonsense", ["", "{", "[]", "7", '{"set": 3}', '{"set": {"settings": 5}}', "[" * 5000, '{"message": {"order": []}}']
)
def test_nonsense_ends_a_conversation_at_most(server: Server, nonsense: str) -> None:
    good = {"set": {"settings": {"move": 9}}}
    state = talk(server, nonsense, good, until=lambda state: state["drawn"] == 9)
    assert state.get("closed") or state["drawn"] == 9
    assert asked(server, f"/?token={server.token}")[0] == 200


def test_ctrl_c_ends_the_command_at_any_moment(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "steerlens.cli", "explore", "Love", "Hate", "--words", "love", "--no-browser"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whatever the shell of the tests ignores
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        address = running.stdout.readline().split()[1]
        port = int(address.partition("127.0.0.1:")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            running.send_signal(signal.SIGINT)
            try:
                assert running.wait(120) == 0
            finally:
                running.kill()
        told = running.stderr.read()
    assert told.splitlines()[-1] == "steerlens explore has ended" and "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
