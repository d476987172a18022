import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resonate_audio.core.errors import CheckpointError, ConfigError
from resonate_audio.model.antialiased_snake import kaiser_sinc_filter
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.official.bigvgan import (
    bigvgan_config,
    convert_bigvgan_state,
    fold_weight,
    our_bigvgan_name,
)
from resonate_audio.model.presets import BIGVGAN_V1_16K, BIGVGAN_V2_44K

KEYS = Path(__file__).parents[4] / "shared" / "reference" / "keys"
GAIN, DIRECTION = torch.rand(4, 1, 1) + 1, torch.randn(4, 3, 5)
SETTINGS = {
    "num_mels": 128,
    "upsample_rates": [8, 4, 2, 2, 2, 2],
    "upsample_kernel_sizes": [16, 8, 4, 4, 4, 4],
    "upsample_initial_channel": 1536,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "sampling_rate": 44100,
}


def test_a_folded_filter_has_its_gain_for_norm() -> None:
    norms = fold_weight(GAIN, DIRECTION).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, GAIN.flatten())


@pytest.mark.parametrize(
    "entries",
    [
        {
            "conv_pre.parametrizations.weight.original0": GAIN,
            "conv_pre.parametrizations.weight.original1": DIRECTION,
        },
        {"conv_pre.weight_v": DIRECTION, "conv_pre.weight_g": GAIN},
        {"conv_pre.weight": fold_weight(GAIN, DIRECTION)},
        {"generator": {"conv_pre.weight_g": GAIN, "conv_pre.weight_v": DIRECTION}},
    ],
    ids=["parametrizations", "old hook", "plain", "wrapped"],
)
def test_every_spelling_of_weight_norm_gives_the_same_weight(entries: dict[str, Tensor]) -> None:
    state = convert_bigvgan_state(entries, BIGVGAN_V2_44K)
    assert list(state) == ["conv_pre.weight"]
    torch.testing.assert_close(state["conv_pre.weight"], fold_weight(GAIN, DIRECTION))


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("ups.5.0.weight", "stages.5.up.weight"),
        ("resblocks.17.convs2.1.bias", "stages.5.blocks.2.steps.1.conv2.bias"),
        ("resblocks.4.activations.5.act.beta", "stages.1.blocks.1.steps.2.act2.log_beta"),
        ("resblocks.3.activations.2.act.alpha", "stages.1.blocks.0.steps.1.act1.log_alpha"),
        ("activation_post.act.alpha", "act_post.log_alpha"),
        ("conv_post.bias", "conv_post.bias"),
    ],
)
def test_names_translate(official: str, ours: str) -> None:
    assert our_bigvgan_name(official, BIGVGAN_V2_44K) == ours


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bigvgan_v1_16k_plain", BIGVGAN_V1_16K),
        ("bigvgan_v1_16k_weightnorm", BIGVGAN_V1_16K),
        ("bigvgan_v2_44k_oldstyle", BIGVGAN_V2_44K),
        ("bigvgan_v2_44k_plain", BIGVGAN_V2_44K),
        ("bigvgan_v2_44k_weightnorm", BIGVGAN_V2_44K),
    ],
)
def test_the_published_names_and_shapes_load_strictly(name: str, config: BigVGANConfig) -> None:
    path = KEYS / f"{name}_keys.json"
    if not path.is_file():
        pytest.skip(f"no list of published names at {path}")
    filters = kaiser_sinc_filter().view(1, 1, -1)
    official = {
        key: filters if "filter" in key else torch.empty(entry["shape"], device="meta")
        for key, entry in json.loads(path.read_text())["state_dict"].items()
    }
    with torch.device("meta"):
        vocoder = BigVGAN(config)
    vocoder.load_state_dict(convert_bigvgan_state(official, config), assign=True)


@pytest.mark.parametrize("half", ["conv_pre.weight_g", "conv_pre.weight_v"])
def test_half_a_weight_norm_is_refused_by_name(half: str) -> None:
    entries = {half: GAIN if half.endswith("g") else DIRECTION}
    with pytest.raises(CheckpointError, match=half):
        convert_bigvgan_state(entries, BIGVGAN_V2_44K)


def test_a_filter_of_another_design_is_refused_by_name() -> None:
    name = "activation_post.upsample.filter"
    with pytest.raises(CheckpointError, match=name):
        convert_bigvgan_state({name: torch.ones(1, 1, 12) / 12}, BIGVGAN_V2_44K)


def test_the_published_settings_are_the_preset() -> None:
    assert bigvgan_config(SETTINGS, version=2, sample_rate_hz=16_000) == BIGVGAN_V2_44K


def test_settings_of_another_network_are_refused() -> None:
    other = {**SETTINGS, "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]]}
    with pytest.raises(ConfigError, match="dilations"):
        bigvgan_config(other, version=2, sample_rate_hz=44_100)
