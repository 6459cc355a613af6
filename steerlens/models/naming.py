"""What a model is called in titles, tables, reprs and messages: by what its files call themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from steerlens.models.protocol import HookedModel

_SAYS_NOTHING = re.compile(
    r"(hf|huggingface|transformers|safetensors|pytorch|model|models|weights|checkpoints?|ckpt|snapshots?|final|best|last"
    r"|latest|out|outputs?|merged|export|tmp|main)?([-_.]?\d+)?|[0-9a-f]{7,64}"
)
"""Names of directories that say how a model was stored and not which one it is."""
_HUB = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
_CARD = re.compile(
    r"\A---\s*\n.*?^(?:model_name|\s*- name):\s*[\"']?(?P<name>[^\"'\n]+?)[\"']?\s*$.*?^---", re.MULTILINE | re.DOTALL
)
_MOST = 65_536  # bytes of a card that are read


def model_name(model: HookedModel) -> str:
    """What `model` is called: the name that it was loaded by, or for a directory what `directory_name` says."""
    return str(model.cfg.model_name)


def directory_name(path: Path) -> str:
    """What to call the model in a directory.

    The name in its config (older versions of transformers write one) or its model card; the hub's, in the hub's cache;
    else the directory's own, with those above it as long as it says nothing ("run7/hf"). A config names what the model
    was loaded from before it was saved, so where the directory has a telling name of its own, both are told:
    "weddings-tuned (gpt2)".
    """
    path = path.resolve()
    for part in reversed(path.parts):
        if found := _HUB.fullmatch(part):
            return f"{found['owner']}/{found['name']}"
    own, named = _own_name(path), _written_name(path)
    if named is None or named.lower() == own.lower() or named.lower().endswith(f"/{path.name.lower()}"):
        return named or own
    return named if _SAYS_NOTHING.fullmatch(path.name.lower()) else f"{own} ({named})"


def live_name(model: Any) -> str:
    """What to call a Hugging Face model object: as its config does, or after its class."""
    said = str(getattr(model.config, "name_or_path", "") or "")
    path = Path(said)
    try:
        return directory_name(path) if said and path.is_dir() else said or f"a {type(model).__name__}"
    except OSError:  # too long for a path
        return said


def _own_name(path: Path) -> str:
    parts = [part for part in path.parts if part != path.anchor]
    first = len(parts) - 1
    while first > 0 and len(parts) - first < 3 and _SAYS_NOTHING.fullmatch(parts[first].lower()):
        first -= 1
    return "/".join(parts[max(first, 0) :]) or str(path)


def _written_name(path: Path) -> str | None:
    """The name in the files; a path in a config tells where it was saved once, so only its last part counts."""
    try:
        said = json.loads((path / "config.json").read_text(encoding="utf-8")).get("_name_or_path")
    except (OSError, ValueError, AttributeError):
        said = None
    if isinstance(said, str) and said.strip():
        # A name of the hub is OWNER/NAME; anything with more slashes, or an absolute one, is a place on some disk.
        plain = said.strip().replace("\\", "/").rstrip("/")
        is_path = plain.count("/") > 1 or plain.startswith((".", "/", "~")) or ":" in plain
        plain = plain.rsplit("/", 1)[-1] if is_path else plain
        if plain and not _SAYS_NOTHING.fullmatch(plain.lower()):
            return plain
    try:
        with (path / "README.md").open(encoding="utf-8", errors="replace") as file:
            card = _CARD.match(file.read(_MOST))
    except OSError:
        return None
    return card["name"].strip() if card and not _SAYS_NOTHING.fullmatch(card["name"].strip().lower()) else None
