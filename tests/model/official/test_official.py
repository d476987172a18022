from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.official.bigvgan import convert_bigvgan_state
from resonate_audio.model.official.convert import (
    SIGNATURES,
    Part,
    bigvgan_config,
    flow_config,
    load_official,
    read_official,
    vae_config,
    without_prefix,
)
from resonate_audio.model.official.flow import from_official
from resonate_audio.model.official.vae import convert_vae_state
from resonate_audio.model.presets import BIGVGAN_V1_16K, BIGVGAN_V2_44K, RESONATE, VAE_16K, VAE_44K
from resonate_audio.model.vae import MelVAE

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"needs the facts of the published code at {REFERENCE}"
)


def published_shapes(name: str) -> dict[str, Tensor]:
    """Every name and shape of a published file, without storage."""
    entries = json.loads((REFERENCE / "keys" / f"{name}.json").read_text())["state_dict"]
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in entries.items()}


def golden_weights(name: str) -> dict[str, Tensor]:
    with safe_open(REFERENCE / "golden" / f"{name}.safetensors", "pt") as stored:
        return {
            key.removeprefix("weights."): stored.get_tensor(key).float()
            for key in stored.keys()  # noqa: SIM118
            if key.startswith("weights.")
        }


@needs_reference
def test_the_published_sizes_are_told_by_the_shapes() -> None:
    assert flow_config(published_shapes("flux_keys"), "x") == RESONATE.transformer
    assert vae_config(published_shapes("vae_44k_keys"), "x") == VAE_44K
    assert vae_config(published_shapes("vae_16k_keys"), "x") == VAE_16K


@needs_reference
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bigvgan_v2_44k_plain_keys", BIGVGAN_V2_44K),
        ("bigvgan_v2_44k_weightnorm_keys", BIGVGAN_V2_44K),
        ("bigvgan_v2_44k_oldstyle_keys", BIGVGAN_V2_44K),
        ("bigvgan_v1_16k_plain_keys", BIGVGAN_V1_16K),
        ("bigvgan_v1_16k_weightnorm_keys", BIGVGAN_V1_16K),
    ],
)
def test_every_spelling_of_bigvgan_tells_its_sizes(name: str, config: object) -> None:
    assert bigvgan_config(published_shapes(name), "x") == config


@needs_reference
@pytest.mark.parametrize("name", ["vae_44k_keys", "vae_16k_keys"])
def test_every_published_vae_tensor_has_its_place(name: str) -> None:
    state = published_shapes(name)
    config = vae_config(state, "x")
    with torch.device("meta"):
        network = MelVAE(config)
    assert shapes(convert_vae_state(state, config)) == shapes(network.state_dict())


@needs_reference
def test_every_published_flow_tensor_has_its_place() -> None:
    with torch.device("meta"):
        network = FlowTransformer(RESONATE.transformer)
    assert shapes(from_official(published_shapes("flux_keys"))) == shapes(network.state_dict())


@needs_reference
@pytest.mark.parametrize(
    "name",
    [
        "bigvgan_v2_44k_plain_keys",
        "bigvgan_v2_44k_weightnorm_keys",
        "bigvgan_v2_44k_oldstyle_keys",
        "bigvgan_v1_16k_plain_keys",
        "bigvgan_v1_16k_weightnorm_keys",
    ],
)
def test_every_published_vocoder_tensor_has_its_place(name: str) -> None:
    state = {k: v for k, v in published_shapes(name).items() if not k.endswith(".filter")}
    config = bigvgan_config(state, "x")
    with torch.device("meta"):
        network = BigVGAN(config)
    assert shapes(convert_bigvgan_state(state, config)) == shapes(network.state_dict())


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


@needs_reference
@pytest.mark.parametrize(
    ("name", "part", "kind"),
    [
        ("flux_tiny", "transformer", FlowTransformer),
        ("vae_tiny_128", "vae", MelVAE),
        ("vae_tiny_80", "vae", MelVAE),
        ("bigvgan_v1_tiny", "vocoder", BigVGAN),
        ("bigvgan_v2_tiny", "vocoder", BigVGAN),
    ],
)
def test_a_file_is_recognised_and_loaded_whole(
    tmp_path: Path, name: str, part: str, kind: type[nn.Module]
) -> None:
    torch.save({"generator": golden_weights(name)}, tmp_path / "official.pth")
    found, state = read_official(tmp_path / "official.pth")
    assert found == part
    network = load_official(found, state, "official.pth")
    assert isinstance(network, kind)
    assert not network.training


@needs_reference
@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("flux_tiny", "transformer", "final_layer.conv.bias"),
        ("vae_tiny_80", "vae", "decoder.mid.attn_1.qkv.weight"),
        ("bigvgan_v1_tiny", "vocoder", "ups.1.0.bias"),
        ("bigvgan_v2_tiny", "vocoder", "resblocks.4.convs2.1.bias"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(name: str, part: Any, key: str) -> None:
    state = golden_weights(name)
    del state[key]
    with pytest.raises(CheckpointError, match=r"cut\.pth: .* (is missing|is not a weight)"):
        load_official(part, state, "cut.pth")


def test_names_lose_what_wrappers_put_before_them() -> None:
    wrapped = {"module._orig_mod.a": torch.ones(1), "module._orig_mod.b.c": torch.ones(1)}
    assert set(without_prefix(wrapped)) == {"a", "b.c"}
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert without_prefix(mixed) == mixed


@pytest.mark.parametrize("part", sorted(set(SIGNATURES.values())))
def test_a_file_of_which_only_the_first_name_fits_names_what_is_missing(part: Part) -> None:
    start = next(key for key, value in SIGNATURES.items() if value == part)
    with pytest.raises(CheckpointError, match="is missing"):
        load_official(part, {f"{start}0.weight": torch.ones(1)}, "x.pth")


def test_the_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.ones(2)}, tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=r"first tensor is visual\.conv1\.weight"):
        read_official(tmp_path / "clip.pth")
