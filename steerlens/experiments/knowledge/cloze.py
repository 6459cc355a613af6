"""Cloze sentences (LAMA's ConceptNet, or the shipped set) as prompts with one-token answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlens.errors import SteerlensError
from steerlens.experiments.shared.prompts import SHIPPED as _FOLDER
from steerlens.experiments.shared.prompts import Source, read_records, source_name
from steerlens.models import HookedModel
from steerlens.steering.tokens import token_ids, token_strings

SHIPPED = _FOLDER / "commonsense_cloze.jsonl"
"""256 sentences written for this project (see the card beside the file)."""

MASK = "[MASK]"
# The label first: it must be text, while sentences may come as lists.
_COLUMNS = {
    "label": ("obj_label",),
    "sentence": ("masked_sentence", "masked_sentences"),
    "relation": ("pred",),
    "subject": ("sub",),
}


@dataclass(frozen=True)
class Cloze:
    """One question: the text before the mask (no trailing space), the answer, and its token id."""

    prompt: str
    answer: str
    token: int
    relation: str
    subject: str
    row: int


@dataclass(frozen=True)
class ClozeSet:
    """The questions, and how many sentences yield none, by reason.

    Attributes:
        source: where the sentences came from.
        read: how many sentences there were.
        left_out: reason → count; the reasons exclude each other.
    """

    questions: tuple[Cloze, ...]
    source: str
    read: int
    left_out: dict[str, int]


def read_cloze(source: Source = None) -> tuple[list[dict[str, Any]], str]:
    """The sentences of a source (by default the shipped ones) as rows, and its name for reports.

    Rows hold sentence, label, relation, subject. The columns of the source are `masked_sentence` (text with `[MASK]`;
    or, as LAMA has it, `masked_sentences`: a list, joined by spaces) and `obj_label`; optional `pred` and `sub`.

    Raises:
        SteerlensError: no such file, a column missing, a row without text, label or mask.
    """
    if isinstance(source, str | Path) and Path(source).suffix and not Path(source).expanduser().is_file():
        raise SteerlensError(
            f"no file at {source}; give the path of LAMA ConceptNet as parquet or JSONL (its test.jsonl is in "
            "https://dl.fbaipublicfiles.com/LAMA/data.zip), or None for the shipped sentences"
        )
    frame = read_records(source, shipped=SHIPPED.name, columns=_COLUMNS, optional=("relation", "subject"))
    name = source_name(source, "shipped sentences")
    found = []
    for number, row in enumerate(frame.to_dict("records")):
        given = row["sentence"]
        sentence = given if isinstance(given, str) else " ".join(map(str, given)) if isinstance(given, Iterable) else ""
        if MASK not in sentence:
            raise SteerlensError(f"row {number} of {name} has no {MASK}: {sentence[:60]!r}; mark the gap with {MASK}")
        about = {key: str(row.get(key) or "") for key in ("relation", "subject")}
        found.append({"sentence": sentence, "label": row["label"].strip(), **about})
    return found, name


def ask(
    model: HookedModel, rows: Iterable[dict[str, Any]], *, source: str = "", shortest: int = 1, limit: int | None = None
) -> ClozeSet:
    """The rows as questions to `model`: those with an answer of one token and a prompt long enough to steer.

    As in the original script, prompt and answer are tokenised together, and an answer counts if it is exactly the last
    token; a space before it is part of the answer where the tokenizer has it so.

    Args:
        shortest: the fewest tokens (BOS included) that a prompt may have: as many as the steering vector spans.
        limit: at most this many, spread evenly over all of them.

    Raises:
        SteerlensError: no question is left.
    """
    reasons = (
        "nothing before the mask",
        "answer of several tokens",
        "prompt shorter than the vector",
        "prompt too long",
    )
    left_out = dict.fromkeys(reasons, 0)
    questions, read = [], 0
    for number, row in enumerate(rows):
        read += 1
        before = row["sentence"].split(MASK)[0]
        if not before.strip():
            left_out[reasons[0]] += 1
            continue
        try:
            ids = token_ids(model, before.rstrip())
            whole = token_ids(model, before + row["label"])
        except SteerlensError:
            left_out[reasons[3]] += 1
            continue
        if whole[:-1] != ids or token_strings(model, whole[-1:])[0].strip() != row["label"]:
            left_out[reasons[1]] += 1
        elif len(ids) < shortest:
            left_out[reasons[2]] += 1
        else:
            questions.append(Cloze(before.rstrip(), row["label"], whole[-1], row["relation"], row["subject"], number))
    if not questions:
        why = ", ".join(f"{count} × {reason}" for reason, count in left_out.items() if count)
        raise SteerlensError(
            f"none of the {read} sentences can be asked ({why}); "
            "give sentences whose answers are single tokens of this model"
        )
    if limit is not None and limit < len(questions):
        left_out["beyond the limit"] = len(questions) - limit
        questions = [questions[i * len(questions) // limit] for i in range(limit)]
    return ClozeSet(tuple(questions), source, read, {reason: n for reason, n in left_out.items() if n})
