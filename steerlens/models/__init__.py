"""Models: loading, what the rest may rely on, and the only code that knows which TransformerLens it is."""

from steerlens.models.bare import (
    bare_blocks,
    bare_difference,
    change_bare,
    moves_values,
    require_bare_site,
    watch_passes,
)
from steerlens.models.bridging import check_tokenizer
from steerlens.models.cache_folder import cache_folder
from steerlens.models.checkpoints import DEMO_MODEL_PATH
from steerlens.models.decoding import Decoder, Decoders, WholeDecoder
from steerlens.models.ends import end_ids
from steerlens.models.fingerprint import fingerprint
from steerlens.models.held_weights import weights_held
from steerlens.models.loading import load_model
from steerlens.models.model_stamp import ModelStamp, stamp
from steerlens.models.naming import model_name
from steerlens.models.one_at_a_time import for_one_thread, one_at_a_time
from steerlens.models.prefix_decoding import PrefixDecoder, walkable
from steerlens.models.proof import Proof, proof_of
from steerlens.models.protocol import HookedModel, is_bridge, require_model
from steerlens.models.run_settings import run_settings
from steerlens.models.running import (
    Cache,
    ForwardState,
    decode_logits,
    expand_cache,
    final_logits,
    forward_states,
    keep_cache_rows,
    kept_values,
    prefill,
    resid_pre_hook,
    without_live_hooks,
)
from steerlens.models.sites import (
    SITES,
    Site,
    changing_at,
    check_site,
    heads_at,
    put_on,
    require_site,
    site_hook,
    site_width,
)
from steerlens.models.sources import load_code, source_of

__all__ = [
    "DEMO_MODEL_PATH",
    "Cache",
    "Decoder",
    "Decoders",
    "ForwardState",
    "HookedModel",
    "ModelStamp",
    "PrefixDecoder",
    "Proof",
    "SITES",
    "Site",
    "WholeDecoder",
    "bare_blocks",
    "bare_difference",
    "cache_folder",
    "change_bare",
    "changing_at",
    "check_site",
    "check_tokenizer",
    "decode_logits",
    "end_ids",
    "expand_cache",
    "final_logits",
    "fingerprint",
    "for_one_thread",
    "forward_states",
    "heads_at",
    "is_bridge",
    "keep_cache_rows",
    "kept_values",
    "load_code",
    "load_model",
    "model_name",
    "moves_values",
    "one_at_a_time",
    "prefill",
    "proof_of",
    "put_on",
    "require_bare_site",
    "require_model",
    "require_site",
    "resid_pre_hook",
    "run_settings",
    "site_hook",
    "site_width",
    "source_of",
    "stamp",
    "walkable",
    "watch_passes",
    "weights_held",
    "without_live_hooks",
]
