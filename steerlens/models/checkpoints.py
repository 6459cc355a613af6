"""Checkpoints: a Hugging Face model and its tokenizer, from a directory, the cache on the disk, or the hub.

What goes wrong on the way is told in a line: a name that is nearly right, a hub out of reach, a file that is damaged.
"""

from __future__ import annotations

import difflib
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from steerlens import demo
from steerlens.errors import SteerlensError, first_line
from steerlens.models import smollm2
from steerlens.models.gguf_files import read_gguf
from steerlens.models.naming import directory_name
from steerlens.models.whole_weights import read_weights

DEMO_MODEL_PATH = demo.MODEL
"""Directory of the embedded model (Hugging Face layout)."""
_LONGEST_NAME = 1000  # a name on the hub has 96 characters at most


def read_checkpoint(source: str | Path, tokenizer: Any, **options: Any) -> tuple[Any, Any, str]:
    """A Hugging Face model, its tokenizer, and what to call it.

    Args:
        source: `"demo"`, `"smollm2"`, a directory in Hugging Face layout, a GGUF file, a name of the hub or an alias
            of TransformerLens.
        tokenizer: taken instead of the one beside the weights, unless None.
        options: for Hugging Face's `from_pretrained`: `device_map`, and `dtype`, which may be None: float32, or the
            dtype of the files where the model is large.

    Raises:
        SteerlensError: no such directory or model, one that cannot be read, or a hub out of reach.
    """
    from transformers import AutoTokenizer

    ours = {"demo": _demo_path, "smollm2": smollm2.directory}.get(str(source))
    if not ours and str(source).lower().endswith(".gguf") and not directory(source):
        return read_gguf(Path(source), tokenizer, **options | {"dtype": options.get("dtype") or torch.float32})
    path = ours() if ours else directory(source)
    if path is not None:
        if not (path / "config.json").is_file():
            raise SteerlensError(f"{path} holds no config.json; give a directory in Hugging Face layout")
        try:
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(path)
            model = read_weights(path, **options)
        except SteerlensError:
            raise
        except Exception as error:  # the reasons are as many as file formats; each is the user's to read
            raise SteerlensError(f"cannot read a model from {path}: {first_line(error)}") from None
        return model, tokenizer, {"demo": "demo", "smollm2": smollm2.NAME}.get(str(source)) or directory_name(path)
    name = str(source)
    if len(name) > _LONGEST_NAME:
        raise SteerlensError(f"no model is called {name[:40]!r}… ({len(name)} characters)")
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_a_path and official_name(name) is None:
        raise SteerlensError(f"no directory at {name!r}; give an existing directory, a Hugging Face name, or 'demo'")
    try:
        repo, local = official_name(name) or name, _hub_is_out_of_reach()
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(repo, local_files_only=local)
        return read_weights(repo, local_files_only=local, **options), tokenizer, name
    except SteerlensError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a device that is not there, or too small
        raise unavailable(name, error) from None


def directory(source: str | Path) -> Path | None:
    """The directory that a text stands for, `~` written out, or None if there is none."""
    try:
        path = Path(source).expanduser()
        return path if path.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        return None


def official_name(name: str) -> str | None:
    """The hub's name for an alias that TransformerLens knows, or None."""
    try:
        from transformer_lens.loading_from_pretrained import get_official_model_name

        return get_official_model_name(name)
    except ImportError:
        from transformer_lens import supported_models

        for official, aliases in getattr(supported_models, "MODEL_ALIASES", {}).items():
            if name == official or name in aliases:
                return official
        return name if name in getattr(supported_models, "OFFICIAL_MODEL_NAMES", []) else None
    except ValueError:
        return None


def unavailable(name: str, error: Exception) -> SteerlensError:
    """The error that says why a name could not be loaded, with names near it."""
    text = f"{type(error).__name__} {error} {error.__cause__ or ''}".lower()
    offline = any(
        sign in text for sign in ("couldn't connect", "offline", "connection", "resolve", "max retries", "proxy")
    )
    if official_name(name) is not None and offline:
        return SteerlensError(
            f"model {name!r} must be downloaded and the Hugging Face hub cannot be reached; connect, or use 'demo'"
        )
    near = difflib.get_close_matches(name, ["demo", "smollm2", *_known_names()], n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else "; try 'demo', 'gpt2', or a local directory"
    if offline:
        return SteerlensError(f"no model {name!r} on this machine, and the Hugging Face hub cannot be reached{hint}")
    return SteerlensError(f"no model {name!r} could be loaded ({first_line(error)}){hint}")


def _known_names() -> list[str]:
    try:  # 3.x
        from transformer_lens.loading_from_pretrained import make_model_alias_map

        aliases = make_model_alias_map()
        return sorted({*aliases.keys(), *aliases.values()})
    except ImportError:  # 4.x
        from transformer_lens import supported_models

        names = getattr(supported_models, "OFFICIAL_MODEL_NAMES", [])
        aliases = getattr(supported_models, "MODEL_ALIASES", {})
        return sorted({*names, *aliases, *(alias for many in aliases.values() for alias in many)})


def _hub_is_out_of_reach() -> bool:
    """Whether the hub cannot be connected to. huggingface_hub tries for the better part of a minute, for every file,
    even for those that are on the disk; behind a proxy, which may know a way, it is left to that.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if getproxies():
        return False
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((hub.hostname, hub.port or (80 if hub.scheme == "http" else 443)), timeout=5).close()
    except OSError:
        return True
    return False


def _demo_path() -> Path:
    if not (DEMO_MODEL_PATH / "model.safetensors").is_file():
        raise SteerlensError(
            f"the embedded model is missing at {DEMO_MODEL_PATH}; reinstall steerlens, "
            "or make it with scripts/train_demo_model.py"
        )
    return DEMO_MODEL_PATH
