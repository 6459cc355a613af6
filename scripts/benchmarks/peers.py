"""Peer libraries as contenders: each in its own process and environment, idle while others run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

PEERS = ("steering-vectors", "repeng")


class Peer:
    """A running peer library. `with Peer(…) as peer: peer.sample(…)`.

    Args:
        library: one of `PEERS`.
        python: the interpreter of an environment that has it.
        folder: a Hugging Face model.
    """

    def __init__(self, library: str, *, python: str, folder: Path, threads: int, device: str, dtype: str) -> None:
        worker = Path(__file__).with_name("peer_process.py")
        self.library = library
        self._process = subprocess.Popen(
            [python, str(worker), library, str(folder), str(threads), device, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def sample(self, tokens: list[list[int]], vectors: Mapping[int, list[float]], *, n: int, new: int) -> float:
        """Seconds for `n` completions of `new` tokens under each vector (by layer)."""
        assert self._process.stdin is not None
        job = {"tokens": tokens, "vectors": {str(k): v for k, v in vectors.items()}, "n": n, "new": new}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.library} ended; see its message above")
        return json.loads(line)
