"""The Hugging Face hub as a place for vectors: one repository, one vector, and a card that says what it is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from steerlens.arguments import flag, text
from steerlens.errors import SteerlensError, first_line
from steerlens.steering.vector_card import vector_card
from steerlens.steering.vector_files import vector_bytes

VECTOR_FILE, CARD_FILE = "vector.safetensors", "README.md"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class OnHub:
    """What can be pushed to the hub and pulled from it: a vector, in terms of its own `load` and `describe`."""

    def push(
        self: Any,
        repository: str,
        *,
        controls: str = "",
        private: bool = False,
        message: str = "Upload a steering vector",
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """The address of the commit that holds the vector and its card, in a repository of the Hugging Face hub.

        The repository is made if it is not there. The card says all that the vector knows: model and weight processing,
        method, data (the prompts it was made of are published with it), prompt template, settings.

        Args:
            repository: `"user/name"`.
            controls: Markdown for the card: what the vector was compared with, and how it came out. Without it the card
                says that no controls are recorded.
            private: whether a new repository is private.
            message: of the commit.
            revision: the branch; by default the main one.
            token: by default that of `hf auth login`, or `HF_TOKEN`.

        Raises:
            SteerlensError: no name of a repository, no right to write there, no network; a `source` that is not plain
                data.
        """
        flag("private", private), text("message", message, empty=False), text("controls", controls)
        for name, given in (("revision", revision), ("token", token)):
            if given is not None:
                text(name, given, empty=False)
        record = {"stamp": dataclasses.asdict(self.model), **self.describe()}
        content = vector_bytes(self.values, record)
        card = vector_card(record, norms=self.norms.tolist(), repository=repository_name(repository), controls=controls)
        files = {VECTOR_FILE: content, CARD_FILE: card.encode()}
        return push_files(repository, files, private=private, token=token, message=message, revision=revision)

    @staticmethod
    def load(path: str | Path, *, device: torch.device | str = "cpu") -> Any:
        """What was saved at `path`."""
        raise NotImplementedError

    @classmethod
    def pull(
        cls,
        repository: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The vector of a repository of the Hugging Face hub, through the hub's own cache. Nothing else is fetched.

        Args:
            repository: `"user/name"`, as `push` was given it.
            revision: a branch, tag or commit; name a commit where a result must be repeatable.
            token: by default that of `hf auth login`, or `HF_TOKEN`.

        Raises:
            SteerlensError: no such repository or no vector in it, no right to read it, no network and nothing in the
                cache, a file that is no vector.
        """
        for name, given in (("revision", revision), ("token", token)):
            if given is not None:
                text(name, given, empty=False)
        return cls.load(pull_file(repository, revision=revision, token=token), device=device)


def push_files(
    repository: str, files: Mapping[str, bytes], *, private: bool, token: str | None, message: str, revision: str | None
) -> str:
    """The address of a commit with these files, in a repository that is made if it is not there.

    Raises:
        SteerlensError: no such name, no right to write there, no network.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    named, api = repository_name(repository), HfApi(token=token)
    with _told(f"cannot push to {named}"):
        api.create_repo(named, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        done = api.create_commit(named, operations, commit_message=message, revision=revision)
    return str(done.commit_url)


def pull_file(repository: str, *, revision: str | None, token: str | None) -> Path:
    """The vector's file of a repository, in the hub's own cache.

    Raises:
        SteerlensError: no such repository or no vector in it, no right to read it, no network and nothing in the cache.
    """
    from huggingface_hub import hf_hub_download

    named = repository_name(repository)
    with _told(f"cannot pull a vector from {named}"):
        return Path(hf_hub_download(named, VECTOR_FILE, revision=revision, token=token))


def repository_name(repository: object) -> str:
    """`"user/name"`.

    Raises:
        SteerlensError: anything else.
    """
    named = text("a repository", repository, empty=False)
    if not _REPOSITORY.fullmatch(named):
        raise SteerlensError(f"{named!r:.120} is no repository of the hub; give it as 'user/name'")
    return named


class _told:
    """Inside the block, whatever the hub's client raises becomes one line of ours."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, SteerlensError):
            reason = first_line(error).rstrip(".")
            raise SteerlensError(
                f"{self.what}: {type(error).__name__}: {reason}; check the name, `hf auth login` and the network"
            ) from None
