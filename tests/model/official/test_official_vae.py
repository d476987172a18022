import json
from pathlib import Path

import pytest
import torch

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.official.vae import convert_vae_state, our_vae_name
from resonate_audio.model.presets import VAE_16K, VAE_44K
from resonate_audio.model.vae import MelVAE, VAEConfig, unit_filters

KEYS = Path(__file__).parents[4] / "shared" / "reference" / "keys"


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("encoder.down.1.block.0.nin_shortcut.weight", "encoder.levels.1.blocks.0.shortcut.weight"),
        ("encoder.down.0.downsample.conv2.weight", "encoder.levels.0.resample.conv2.weight"),
        ("decoder.up.2.block.1.conv1.weight", "decoder.levels.0.blocks.1.conv1.weight"),
        ("decoder.up.1.upsample.conv.weight", "decoder.levels.1.resample.conv.weight"),
        ("decoder.mid.attn_1.proj_out.weight", "decoder.middle.attention.out.weight"),
        ("encoder.mid.block_2.conv1.weight", "encoder.middle.block2.conv1.weight"),
        ("decoder.learnable_gain", "decoder.gain"),
        ("data_mean", "data_mean"),
    ],
)
def test_names_translate(official: str, ours: str) -> None:
    assert our_vae_name(official, VAE_44K) == ours


@pytest.mark.parametrize(("name", "config"), [("vae_44k", VAE_44K), ("vae_16k", VAE_16K)])
def test_the_published_names_and_shapes_load_strictly(name: str, config: VAEConfig) -> None:
    path = KEYS / f"{name}_keys.json"
    if not path.is_file():
        pytest.skip(f"no list of published names at {path}")
    published = json.loads(path.read_text())["state_dict"]
    with torch.device("meta"):
        official = {key: torch.empty(entry["shape"]) for key, entry in published.items()}
        vae = MelVAE(config)
    vae.load_state_dict(convert_vae_state(official, config), assign=True)


def test_filters_are_folded_once_and_gains_kept() -> None:
    weight, gain = torch.randn(4, 5, 3), torch.tensor(0.3)
    state = convert_vae_state(
        {"encoder.conv_in.weight": weight, "encoder.learnable_gain": gain}, VAE_44K
    )
    torch.testing.assert_close(state["encoder.conv_in.weight"], unit_filters(weight))
    assert state["encoder.gain"] == gain
    assert state["folded"]


def test_raw_weights_are_kept_for_training_if_asked() -> None:
    weight = torch.randn(4, 5, 3)
    state = convert_vae_state({"encoder.conv_in.weight": weight}, VAE_44K, fold=False)
    assert torch.equal(state["encoder.conv_in.weight"], weight)
    assert not state["folded"]


def test_an_entry_that_is_not_a_weight_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="step"):
        convert_vae_state({"step": torch.tensor(3)}, VAE_44K)
