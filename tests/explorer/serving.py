"""A server of the explorer at work in a thread, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from steerlens.explorer.server import Server


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    """The server, listening; closed after the block."""
    ready, holder = threading.Event(), []  # type: tuple[threading.Event, list[Any]]

    async def serve() -> None:
        holder.extend((asyncio.get_running_loop(), asyncio.current_task()))
        with contextlib.suppress(asyncio.CancelledError):
            await server._serve(ready.set)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield server
    finally:
        holder[0].call_soon_threadsafe(holder[1].cancel)
        thread.join(60)
        server.close()
