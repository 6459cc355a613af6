"""What a soak counts, per kind of disturbance."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Count:
    """How often one kind was tried, and what came of it.

    Attributes:
        tried: disturbances.
        met: those that met the work on its way (it had neither ended nor not begun).
        lost: work that was finished or a file that was whole before, and is not any more.
        silent: numbers or texts that differ from those of an undisturbed run, or hooks that stay, without a word.
        tracebacks: errors that are not one line of SteerlensError.
        notes: one line for each of the last three.
    """

    tried: int = 0
    met: int = 0
    lost: int = 0
    silent: int = 0
    tracebacks: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, wrong or raw."""
        return not (self.lost or self.silent or self.tracebacks)

    def note(self, what: str, why: str) -> None:
        """Count one `what` ("lost", "silent", "tracebacks"), with the reason."""
        setattr(self, what, getattr(self, what) + 1)
        self.notes.append(f"{what}: {why}")

    @contextmanager
    def nothing_raised(self, doing: str) -> Iterator[None]:
        """Count an exception as a traceback; here nothing at all should have been raised."""
        try:
            yield
        except Exception:
            self.note("tracebacks", f"{doing}: {traceback.format_exc()}")


def table(counts: dict[str, Count]) -> str:
    """The counts, a line per kind."""
    head = f"{'kind':16s}" + "".join(f"{name:>12s}" for name in ("tried", "met", "lost", "silent", "tracebacks"))
    lines = [head]
    for kind, one in counts.items():
        lines.append(f"{kind:16s}{one.tried:12d}{one.met:12d}{one.lost:12d}{one.silent:12d}{one.tracebacks:12d}")
    return "\n".join(lines)
