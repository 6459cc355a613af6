"""A hub on this machine: what `push` and `pull` need of one, and what was sent to it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub holds, and what it was asked.

    Attributes:
        files: by repository and name.
        private: by repository.
        tokens: the authorisation of every request.
        refuses: an HTTP status instead of an answer.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    refuses: int = 0


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub at `.url`, until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None: ...

        def _answer(self, content: bytes | dict[str, Any], status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _begin(self) -> bytes:
            hub.tokens.append(self.headers.get("authorization"))
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def do_POST(self) -> None:
            sent = self._begin()
            if hub.refuses:
                return self._answer({"error": "You do not have the right"}, hub.refuses)
            path = self.path.split("?")[0].strip("/").split("/")
            if path[:2] == ["api", "repos"]:
                wanted = json.loads(sent)
                name = "/".join(part for part in (wanted.get("organization"), wanted["name"]) if part)
                hub.files.setdefault(name, {})
                hub.private[name] = bool(wanted.get("private") or wanted.get("visibility") == "private")
                return self._answer({"url": f"{hub.url}/{name}", "id": name, "name": name})
            if path[:2] == ["api", "validate-yaml"]:
                return self._answer({"errors": [], "warnings": []})
            name = "/".join(path[2:4])
            if path[4] == "preupload":
                asked = json.loads(sent)["files"]
                modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
                return self._answer({"files": modes})
            assert path[4] == "commit", path
            for line in sent.splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    hub.messages.append(entry["value"]["summary"])
                if entry["key"] == "file":
                    hub.files[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self._answer(
                {"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{name}/commit/{COMMIT}"}
            )

        def do_GET(self) -> None:
            self._begin()
            path = self.path.split("?")[0].strip("/").split("/")
            if path[0] == "api":
                name = "/".join(path[2:4])
                return self._answer({"id": name, "sha": COMMIT, "siblings": []})
            name, file = "/".join(path[:2]), "/".join(path[4:])
            if name not in hub.files:
                return self._answer(b"", 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            if file not in hub.files[name]:
                return self._answer(b"", 404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
            content = hub.files[name][file]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._answer(content, ETag=etag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
