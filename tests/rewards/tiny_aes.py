"""An Audiobox Aesthetics network of a few thousand random weights, from the published class."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from resonate_audio.rewards.aesthetics import AXES

SIZES = {
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 16,
    "encoder_attention_heads": 2,
    "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
    "conv_pos": 8,
    "conv_pos_groups": 2,
}
OLD_CODE = (
    "ignore:Support for mismatched key_padding_mask",
    "ignore:`torch.nn.utils.weight_norm` is deprecated",
)
"""What torch says of the published network when it is used directly."""


def build_aes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The network, made small; skips the test where its package is not installed."""
    aes = pytest.importorskip("audiobox_aesthetics.model.aes")
    for name, value in SIZES.items():
        monkeypatch.setattr(aes.DEFAULT_AUDIO_CFG, name, value)
    torch.manual_seed(0)
    scales = {axis: {"mean": 5.0 + number, "std": 1.5} for number, axis in enumerate(AXES)}
    return aes.AesMultiOutput(proj_ln=True, nth_layer=3, target_transform=scales).eval()
