"""Names of the published flow checkpoints, translated to ours and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

LEGACY_KEYS = frozenset(
    {"t_embed.freqs", "r_embed.freqs", "latent_rot", "text_rot", "_extra_state"}
)
"""Tables that old files carry; they are computed now."""

# (official, ours) for how a name begins …
_TOP = (
    ("empty_string_feat_c", "empty_pooled"),
    ("empty_string_feat", "empty_tokens"),
    ("t_embed.mlp.0", "timestep.inner"),
    ("t_embed.mlp.2", "timestep.outer"),
    ("r_embed.mlp.0", "end_timestep.inner"),
    ("r_embed.mlp.2", "end_timestep.outer"),
    ("audio_input_proj.0", "latent_in.linear"),
    ("audio_input_proj.2", "latent_in.mlp"),
    ("text_input_proj.0", "text_in.linear"),
    ("text_input_proj.1", "text_in.mlp"),
    ("text_cond_proj.0", "pooled_in.linear"),
    ("text_cond_proj.1", "pooled_in.mlp"),
    ("final_layer", "head"),
    ("fused_blocks", "single_blocks"),
)
# … and for whole dotted parts of the rest, each at most once per name.
_INNER = (
    ("latent_block", "latents"),
    ("text_block", "text"),
    ("adaLN_modulation.1", "modulation.linear"),
    ("attn.qkv", "heads.qkv"),
    ("attn.q_norm", "heads.query_norm"),
    ("attn.k_norm", "heads.key_norm"),
    ("linear1", "attention_out"),
    ("ffn", "mlp"),
    ("w1", "gate"),
    ("w3", "up"),
    ("w2", "down"),
)


def official_to_ours(name: str) -> str:
    """Translate one name of a published checkpoint; a name that needs no change stays."""
    return _translate(name, _TOP, _INNER)


def ours_to_official(name: str) -> str:
    """Translate one of our names to what the published checkpoints call it."""
    return _translate(name, _swap(_TOP), _swap(_INNER))


def from_official(
    weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
) -> dict[str, Tensor]:
    """Rename a published state dict (or its entries), leaving out the tables of old files.

    Names nobody knows pass through, so that a strict load names them.
    """
    entries = weights.items() if isinstance(weights, Mapping) else weights
    ours = {official_to_ours(k): v for k, v in entries if k not in LEGACY_KEYS}
    if "empty_tokens" in ours and "empty_pooled" not in ours:
        ours["empty_pooled"] = ours["empty_tokens"].float().mean(dim=0)  # files before it was kept
    return ours


def to_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our state dict (or gradients by name) to the published names."""
    return {ours_to_official(k): v for k, v in weights.items()}


_Pairs = tuple[tuple[str, str], ...]


def _translate(name: str, top: _Pairs, inner: _Pairs) -> str:
    start, rest = "", name
    for old, new in top:
        if name == old or name.startswith(old + "."):
            start, rest = new, name.removeprefix(old)
            break
    for old, new in inner:
        rest = re.sub(rf"(^|\.){re.escape(old)}(?=\.|$)", rf"\g<1>{new}", rest, count=1)
    return start + rest


def _swap(pairs: _Pairs) -> _Pairs:
    return tuple((new, old) for old, new in pairs)
