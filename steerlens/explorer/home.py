"""`Home`: the one thread in which an explorer works with its model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Home:
    """Acts are done in the thread of an event loop, one after another; without a loop at once, where they are asked.

    A model takes one pass at a time: hooks of one thread would act in another's, and in the passes of a user's cells.
    Newer Jupyters hand each widget's messages to a thread of its own, and a server must listen while the model works.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._thread: threading.Thread | None = None

    @staticmethod
    def here() -> Home:
        """The home of whoever runs now: the running event loop, if there is one."""
        return Home(running_loop())

    @staticmethod
    def of_its_own() -> Home:
        """A new thread, which ends with the program."""
        loop = asyncio.new_event_loop()
        home = Home(loop)
        home._thread = threading.Thread(target=loop.run_forever, name="steerlens explorer", daemon=True)
        home._thread.start()
        return home

    def end(self, *, patience: float = 5.0) -> None:
        """Nothing is returned: a thread of its own ends, after what it is at; it is waited for, but not for ever."""
        if self._thread is not None and self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(patience)

    def soon(self, act: Callable[[], None], delay: float = 0.0) -> None:
        """Do `act` at home, after `delay` seconds; may be called from any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            act()
        elif delay:
            loop.call_soon_threadsafe(lambda: loop.call_later(delay, act))
        else:
            loop.call_soon_threadsafe(act)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, if one runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
