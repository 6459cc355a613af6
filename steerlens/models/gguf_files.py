"""GGUF files (llama.cpp's format): read by transformers, which turns quantised weights into float numbers.

Transformers knows a dozen architectures, and passes over what it does not know in the file: rotary scaling, biases,
windows. So what it made is held against the file, and refused where the two disagree.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from steerlens.errors import SteerlensError, first_line
from steerlens.extras import needs

# What decides the computation, by the file's name for it → the configuration's.
_MUST_AGREE = {
    "attention.sliding_window": "sliding_window",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "logit_scale": "logit_scale",
}
# How texts are cut before they are merged, by the file's name for it. Transformers takes GPT-2's way for all of these.
_DIGITS_ALONE = ("smollm", "starcoder", "refact", "command-r")
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_gguf(path: Path, tokenizer: Any, **options: Any) -> tuple[Any, Any, str]:
    """The Hugging Face model in a GGUF file, its tokenizer, and what to call it.

    Args:
        tokenizer: taken instead of the file's, unless None.
        options: for Hugging Face's `from_pretrained`: `dtype`, `device_map`.

    Raises:
        SteerlensError: no such file, one that is damaged or cut short, an architecture that transformers does not
            read from GGUF, or a model that it reads otherwise than the file says.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fields, n_elements = _facts(path)
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(**where)
            _cut_as_the_file_says(tokenizer, fields.get("tokenizer.ggml.pre"))
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that cannot be switched off
            model, report = AutoModelForCausalLM.from_pretrained(**where, output_loading_info=True, **options)
    except Exception as error:  # the reasons are as many as architectures; each is the user's to read
        raise _unreadable(path, error) from None
    _check_against_the_file(path, model, report, fields, n_elements)
    # The numbers are plain ones from here on; with these marks the model could be neither saved nor cast.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    ends = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
    if known := list(dict.fromkeys(end for end in ends if end is not None)):
        model.generation_config.eos_token_id = known if len(known) > 1 else known[0]
    return model, tokenizer, path.stem


def _facts(path: Path) -> tuple[dict[str, Any], int]:
    """The file's short entries by name, and how many numbers its tensors hold."""
    if not path.is_file():
        raise SteerlensError(f"no file at {str(path)!r}; give the path of a GGUF file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise SteerlensError(f"{path} is no GGUF file (it does not begin with GGUF); give one, or a directory")
    (gguf,) = needs("gguf", extra="gguf")
    try:
        reader = gguf.GGUFReader(path)
        short = {
            name: field.contents()
            for name, field in reader.fields.items()
            if field.types and field.types[0] != gguf.GGUFValueType.ARRAY
        }
        names = [tensor.name for tensor in reader.tensors]
        n_elements = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except Exception as error:  # of numpy, at whichever entry the file breaks off
        raise _unreadable(path, error) from None
    arch = short.get("general.architecture")
    scaling = short.get(f"{arch}.rope.scaling.type", "none")
    factors = next((name for name in names if name.startswith("rope_")), None)
    if arch != "gpt-oss" and (scaling != "none" or factors):
        raise SteerlensError(
            f"{path} scales its rotary positions ({factors or scaling}), which transformers does not read from GGUF; "
            "load the Hugging Face model it was made from"
        )
    return short, n_elements


def _check_against_the_file(path: Path, model: Any, report: Any, fields: dict[str, Any], n_elements: int) -> None:
    arch = fields.get("general.architecture")
    for key, name in _MUST_AGREE.items():
        said, read = fields.get(f"{arch}.{key}"), getattr(model.config, name, None)
        if said and read is not None and abs(float(said) - float(read)) > 1e-6 * abs(float(said)):
            raise SteerlensError(
                f"{path} says {key} = {said:g} but transformers reads {read:g}; "
                "load the Hugging Face model it was made from"
            )
    lacking = sorted(report["missing_keys"]) + sorted(str(one) for one in report["mismatched_keys"])
    held = sum(weight.numel() for weight in model.parameters())
    if lacking or held != n_elements:
        what = f"lacks {lacking[0]}" if lacking else f"holds {n_elements:,} numbers"
        raise SteerlensError(
            f"{path} {what} where the {type(model).__name__} that transformers makes of it has {held:,} numbers; "
            "load the Hugging Face model it was made from"
        )


def _cut_as_the_file_says(tokenizer: Any, pre: str | None) -> None:
    """Nothing is returned: the tokenizer cuts texts before merging as the file's own did."""
    from tokenizers import Regex, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if pre in _DIGITS_ALONE:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif pre in ("llama-bpe", "llama3", "llama-v3"):
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA_3), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )


def _unreadable(path: Path, error: Exception) -> SteerlensError:
    return SteerlensError(f"cannot read a model from {path}: {first_line(error)}")
