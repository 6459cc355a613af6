"""`load_model`: the embedded model, a Hugging Face name, a directory or a live model, as a TransformerLens model."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
import logging
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from steerlens.errors import SteerlensError
from steerlens.models.protocol import HookedModel, is_bridge, require_model
from steerlens.models.strides import fix_strides

DEMO_MODEL_PATH = Path(__file__).resolve().parent.parent / "demo" / "model"
"""Directory of the embedded model (Hugging Face layout)."""

Device = Literal["auto", "cuda", "mps", "cpu"] | str | torch.device
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: Any = "demo",
    *,
    tokenizer: Any = None,
    device: Device = "auto",
    dtype: torch.dtype | str = torch.float32,
    bridge: bool | None = None,
    processing: bool = True,
    strides: bool = True,
) -> HookedModel:
    """A TransformerLens model, ready to steer.

    Args:
        source: `"demo"` (the embedded model; never touches a network), a Hugging Face name (`"gpt2-xl"`), a local
            directory in Hugging Face layout, a Hugging Face model object (give `tokenizer` too), or a live
            HookedTransformer or TransformerBridge (returned as it is).
        tokenizer: a Hugging Face tokenizer; needed for a Hugging Face model object, else found beside the weights.
        device: `"auto"` takes cuda, then mps, then cpu.
        dtype: of the weights and activations; float32, bfloat16 or float16. Weights are processed in float32 first.
        bridge: True for a TransformerBridge. By default a HookedTransformer where TransformerLens has one (3.x),
            a bridge under 4.x.
        processing: fold layer norms, centre the writing weights and the unembedding, as HookedTransformer does by
            default (a bridge gets the same through its compatibility mode, so that numbers agree). Outputs are the
            same probabilities either way; the residual stream differs, so vectors of the two do not mix.
        strides: store a HookedTransformer's weights in the order in which its forward pass reads them: bitwise the
            same values, much faster decoding (see `steerlens.models.strides`). Live models are returned as they are.

    Raises:
        SteerlensError: unknown name (with near names; says when a network is needed and missing), an architecture
            that TransformerLens does not convert, a missing tokenizer, a device or dtype that is not there.
    """
    target_device, target_dtype = _device(device), _dtype(dtype)
    if isinstance(source, torch.nn.Module) and hasattr(source, "hook_dict"):
        model = require_model(source)
        if bridge is not None and bridge != is_bridge(model):
            raise SteerlensError(
                f"bridge={bridge} was asked for but the model is a {type(model).__name__} already; "
                "load it from its Hugging Face model instead"
            )
        if device != "auto" and torch.device(model.cfg.device).type != target_device.type:
            raise SteerlensError(
                f"device={str(device)!r} was asked for but the model is live on {model.cfg.device}; "
                "move it yourself with model.to(...)"
            )
        return model
    # Weights are drawn at random before they are read; the caller's random state is none of our business.
    with _quiet(), torch.random.fork_rng(devices=[]):
        use_bridge = _choose_bridge(bridge)
        if isinstance(source, torch.nn.Module) and hasattr(source, "config"):
            if tokenizer is None:
                raise SteerlensError(
                    f"a {type(source).__name__} object came without a tokenizer; "
                    "call load_model(model, tokenizer=AutoTokenizer.from_pretrained(...))"
                )
            # The bridge wraps in place and processing rewrites weights: the caller's model stays as it is.
            hf_model, name = copy.deepcopy(source), str(getattr(source.config, "name_or_path", "") or "live")
        elif isinstance(source, str | Path):
            if source == "demo":
                path = _demo_path()
            else:
                path = Path(source)
            if path.is_dir():
                hf_model, tokenizer = _read_directory(path, tokenizer)
                name = "demo" if source == "demo" else path.name
            else:
                model = _load_by_name(str(source), tokenizer, target_device, target_dtype, use_bridge, processing)
                if strides:
                    fix_strides(model)
                return model
        else:
            raise SteerlensError(
                f"cannot load a model from a {type(source).__name__}; "
                'give "demo", a Hugging Face name, a directory, or a model object'
            )
        model = _from_hf(hf_model, tokenizer, name, target_device, target_dtype, use_bridge, processing)
        if strides:
            fix_strides(model)
        return model


def _from_hf(
    hf_model: Any,
    tokenizer: Any,
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    use_bridge: bool,
    processing: bool,
) -> HookedModel:
    """A Hugging Face model (owned by us) as a HookedTransformer or bridge."""
    if not hasattr(tokenizer, "init_kwargs"):
        raise SteerlensError(
            f"tokenizer must be a Hugging Face tokenizer, got {type(tokenizer).__name__}; "
            "make one with AutoTokenizer.from_pretrained(...)"
        )
    tokenizer = copy.deepcopy(tokenizer)  # TransformerLens fills in its special tokens
    # Without this word TransformerLens reads the tokenizer anew from its name: from the hub if it was made in memory,
    # without what the caller changed if it was not. It puts BOS in front itself where the tokenizer does not.
    tokenizer.init_kwargs |= {"name_or_path": tokenizer.init_kwargs.get("name_or_path", name), "add_bos_token": True}
    # Folding in half precision would round twice; convert in float32, cast at the end.
    hf_model = hf_model.to("cpu", torch.float32).eval().requires_grad_(False)
    model: Any
    if use_bridge:
        from transformer_lens.model_bridge import TransformerBridge

        model = TransformerBridge.boot_transformers(name, hf_model=hf_model, tokenizer=tokenizer, device="cpu")
        if processing:
            model.enable_compatibility_mode(disable_warnings=True)
        model.cfg.model_name = name
    else:
        from steerlens.models.conversion import hooked_transformer

        model = hooked_transformer(hf_model, tokenizer, name=name, processing=processing)
    if dtype != torch.float32:
        model = _moved(model, dtype)
    if device.type != "cpu":
        model = _moved(model, device)
    return model.eval()


def _moved(model: Any, to: torch.dtype | torch.device) -> Any:
    """The model on another device or in another dtype, all of it."""
    model = model.to(to)
    for module in model.modules():
        # A bridge's gated MLP keeps its processed weights as plain tensors, which Module.to() does not see.
        for name, value in vars(module).items():
            if name.startswith("_processed_") and isinstance(value, torch.Tensor):
                setattr(module, name, value.to(to))
    return model


def _load_by_name(
    name: str, tokenizer: Any, device: torch.device, dtype: torch.dtype, use_bridge: bool, processing: bool
) -> HookedModel:
    official = _official_name(name)
    if official is None and ("/" in name and (name.startswith((".", "/", "~")) or name.count("/") > 1)):
        raise SteerlensError(f"no directory at {name!r}; give an existing directory, a Hugging Face name, or 'demo'")
    try:
        if official is not None and not use_bridge and official.startswith(("NeelNanda", "ArthurConmy", "Baidicoot")):
            # Models that exist only as TransformerLens checkpoints.
            from transformer_lens import HookedTransformer

            load = HookedTransformer.from_pretrained if processing else HookedTransformer.from_pretrained_no_processing
            return load(name, device=str(device), dtype=dtype, tokenizer=tokenizer)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        repo, local = official or name, _hub_is_out_of_reach()
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(repo, local_files_only=local)
        hf_model = AutoModelForCausalLM.from_pretrained(repo, dtype=torch.float32, local_files_only=local)
    except (OSError, ValueError) as error:
        raise SteerlensError(_unavailable(name, official, error)) from None
    return _from_hf(hf_model, tokenizer, name, device, dtype, use_bridge, processing)


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


def _unavailable(name: str, official: str | None, error: Exception) -> str:
    text = f"{type(error).__name__} {error} {error.__cause__ or ''}".lower()
    offline = any(
        sign in text for sign in ("couldn't connect", "offline", "connection", "resolve", "max retries", "proxy")
    )
    if official is not None and offline:
        return f"model {name!r} must be downloaded and the Hugging Face hub cannot be reached; connect, or use 'demo'"
    near = difflib.get_close_matches(name, ["demo", *_known_names()], n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else "; try 'demo', 'gpt2', or a local directory"
    if offline:
        return f"no model {name!r} on this machine, and the Hugging Face hub cannot be reached{hint}"
    return f"no model {name!r} could be loaded ({str(error).splitlines()[0][:160]}){hint}"


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


def _official_name(name: str) -> str | None:
    """The hub name for an alias that TransformerLens knows, or None."""
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


def _read_directory(path: Path, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (path / "config.json").is_file():
        raise SteerlensError(f"{path} holds no config.json; give a directory in Hugging Face layout")
    try:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    except Exception as error:  # the reasons are as many as file formats; each is the user's to read
        raise SteerlensError(f"cannot read a model from {path}: {str(error).splitlines()[0][:200]}") from None
    return model, tokenizer


def _demo_path() -> Path:
    if not (DEMO_MODEL_PATH / "model.safetensors").is_file():
        raise SteerlensError(
            f"the embedded model is missing at {DEMO_MODEL_PATH}; reinstall steerlens, "
            "or make it with scripts/train_demo_model.py"
        )
    return DEMO_MODEL_PATH


def _choose_bridge(bridge: bool | None) -> bool:
    try:
        from transformer_lens import HookedTransformer  # noqa: F401
    except ImportError:
        if bridge is False:
            from importlib.metadata import version

            raise SteerlensError(
                f"TransformerLens {version('transformer-lens')} has no HookedTransformer; "
                "install transformer-lens<4, or load a bridge"
            ) from None
        return True
    return bool(bridge)


def _device(device: Device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise SteerlensError(f"no device {device!r}; use 'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'") from None
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(chosen.type, False):
        raise SteerlensError(f"device {str(chosen)!r} is not available on this machine; use device='auto' or 'cpu'")
    return chosen


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in _DTYPES.values():
        raise SteerlensError(f"dtype {dtype!r} is not supported; use one of {', '.join(_DTYPES)}")
    return chosen  # type: ignore[return-value]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TransformerLens' greetings and deprecation notes, which tell a steerlens user nothing to act on."""
    from transformers.utils import logging as hf_logging

    logger = logging.getLogger()
    level, bars = logger.level, hf_logging.is_progress_bar_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        hf_logging.disable_progress_bar()
        try:
            yield
        finally:
            logger.setLevel(level)
            if bars:
                hf_logging.enable_progress_bar()
