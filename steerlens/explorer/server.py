"""`Server`: the explorer in a browser without Jupyter, for this machine and whoever has the address."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any

from steerlens.arguments import whole_number
from steerlens.errors import SteerlensError
from steerlens.explorer.home import Home
from steerlens.explorer.models import Models
from steerlens.explorer.session import Session
from steerlens.explorer.view import View
from steerlens.explorer.widget import FRONT, SHOWN
from steerlens.extras import needs
from steerlens.figures.figure import CONFIG

# Pages open at a time: each has its own settings, all share the model.
_MOST_PAGES = 16
# Nothing but what this server serves may run in the page; plotly sets styles by itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>steerlens explore</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/explorer.css"><link rel="stylesheet" href="/page.css">
<script type="module" src="/page.js"></script>
</head>
<body>
<header><h1>steerlens explore</h1><p id="connection" role="status">connecting …</p></header>
<main id="explorer"></main>
</body>
</html>
"""


class Server:
    """Serves one page on 127.0.0.1, and a socket for each page that is open.

    Page and socket want the token of the address; every request wants the name of this server as its Host, and the
    socket as its Origin too, so that other pages in the same browser have no way in. No path of a request reaches a
    file: what is served are a few texts of this package.

    Attributes:
        port: where it listens (a free one, if 0 was asked for).
        token: what the address must hold.
    """

    def __init__(self, models: Models, view: View, coeffs: tuple[float, float], *, port: int = 0) -> None:
        netutil, httpserver, web = needs("tornado.netutil", "tornado.httpserver", "tornado.web", extra="explore")
        self._models, self._view, self._coeffs = models, view, coeffs
        whole_number("port", port, least=0, most=65535)
        try:
            (self._socket,) = netutil.bind_sockets(port, "127.0.0.1")
        except OSError as error:
            raise SteerlensError(
                f"port {port} of 127.0.0.1 cannot be had: {error.strerror or error}; take another, or 0 for a free one"
            ) from None
        self.port = int(self._socket.getsockname()[1])
        self.token = secrets.token_urlsafe(24)
        self.home = Home.of_its_own()
        self.sessions: set[Any] = set()
        self._application = web.Application(_handlers(self), websocket_max_message_size=1 << 20)
        self._server = httpserver.HTTPServer(self._application)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def hosts(self) -> tuple[str, str]:
        """The names under which a browser of this machine knows it."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until Ctrl-C; what a page asks for then is not finished.

        Args:
            ready: called once the server listens.
        """
        try:
            asyncio.run(self._serve(ready))
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Nothing is returned: pages are cut off, and their work ends."""
        self._server.stop()
        self._socket.close()
        for page in list(self.sessions):
            page.end()
        self.home.end()

    async def _serve(self, ready: Callable[[], None]) -> None:
        self._server.add_socket(self._socket)
        ready()
        await asyncio.Event().wait()

    def session(self, show: Callable[[str, Any], None]) -> Session:
        """A new session, as the command line asked for it."""
        return Session(self._models, self._view, self._coeffs, show, self.home)


def _handlers(server: Server) -> list[tuple[Any, ...]]:
    """The paths and what answers them (made here, because tornado is optional)."""
    web, websocket = needs("tornado.web", "tornado.websocket", extra="explore")
    from plotly.offline import get_plotlyjs

    class Guarded(web.RequestHandler):  # type: ignore[name-defined]
        """Turns away whoever does not come from this machine's browser by the address that was printed."""

        secret = True

        def prepare(self) -> None:
            given = self.get_query_argument("token", "")
            if self.request.host not in server.hosts:
                raise web.HTTPError(403, reason="not the name of this server")
            if self.secret and not hmac.compare_digest(given.encode(), server.token.encode()):
                raise web.HTTPError(403, reason="wrong or missing token: open the address that was printed")

        def set_default_headers(self) -> None:
            self.set_header("Content-Security-Policy", _POLICY.format(host=server.hosts[0]))
            for name, value in (
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
                ("Cache-Control", "no-store"),
                ("Server", "steerlens"),
            ):
                self.set_header(name, value)

        def write_error(self, status_code: int, **options: Any) -> None:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"{status_code}: {self._reason}\n")

    class Page(Guarded):
        def get(self) -> None:
            self.finish(_PAGE)

    class Part(Guarded):
        """A text of this package; nothing secret, so that the page may name it without the token."""

        secret = False

        def initialize(self, content: str, kind: str) -> None:
            self._content, self._kind = content, kind

        def get(self) -> None:
            self.set_header("Content-Type", f"{self._kind}; charset=utf-8")
            self.finish(self._content)

    class Socket(Guarded, websocket.WebSocketHandler):  # type: ignore[name-defined]
        def prepare(self) -> None:
            super().prepare()
            if len(server.sessions) >= _MOST_PAGES:
                raise web.HTTPError(503, reason=f"{_MOST_PAGES} pages are open; close one")
            # (tornado's own check passes what has no Origin, or another scheme)
            if self.request.headers.get("Origin") not in {f"http://{host}" for host in server.hosts}:
                raise web.HTTPError(403, reason="not asked for by a page of this server")

        def open(self, *args: str, **named: str) -> None:
            self._loop = asyncio.get_running_loop()
            self._session: Session | None = None
            server.sessions.add(self)
            self._send(SHOWN)
            server.home.soon(self._begin)

        def _begin(self) -> None:
            self._session = server.session(self._show)
            fixed = {"config": json.dumps(CONFIG), "plotly_url": "/plotly.js", "link": True, "ready": True}
            self._loop.call_soon_threadsafe(self._send, fixed)

        def _show(self, name: str, value: Any) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._send, {name: value})

        def _send(self, values: dict[str, Any]) -> None:
            with contextlib.suppress(websocket.WebSocketClosedError):
                self.write_message(json.dumps(values))

        def on_message(self, message: str | bytes) -> None:
            try:
                given = json.loads(message)
                settings, order = given.get("set", {}).get("settings"), given.get("message", {}).get("order")
            except (ValueError, AttributeError, RecursionError):
                self.close(1003, "not understood")
                return
            if self._session is not None and isinstance(settings, dict):
                self._session.take(settings)
            if self._session is not None and order is not None:
                self._session.order(order)

        def on_close(self) -> None:
            server.sessions.discard(self)
            self.end()

        def end(self) -> None:
            if self._session is not None:
                self._session.end()

    parts: list[tuple[Any, ...]] = [
        (f"/{path.name}", Part, {"content": path.read_text(encoding="utf-8"), "kind": kind})
        for path, kind in (
            *((FRONT / name, "text/javascript") for name in ("explorer.js", "page.js")),
            *((FRONT / name, "text/css") for name in ("explorer.css", "page.css")),
        )
    ]
    plotly = ("/plotly.js", Part, {"content": get_plotlyjs(), "kind": "text/javascript"})
    return [("/", Page), ("/socket", Socket), *parts, plotly]
