from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import TINY, random_networks, write_text_encoder

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.folder import read_networks, write_networks
from resonate_audio.model.hub import find_model
from resonate_audio.nano.bundle import bundle_nano, bundle_taught
from resonate_audio.pipeline.path import Resonate


def trained_parts(folder: Path) -> dict[str, Path]:
    """Three parts as trainers export them."""
    for part, state in random_networks(TINY, seed=0).states().items():
        write_weights(folder / part / "model.safetensors", state, {})
    return {
        "transformer": folder / "transformer",
        "vae": folder / "vae",
        "vocoder": folder / "vocoder" / "model.safetensors",
    }


def test_a_bundle_is_a_model_and_leaves_the_cards_alone(tmp_path: Path) -> None:
    target = tmp_path / "weights"
    write_text_encoder(target / "text_encoder")
    (target / "README.md").write_text("the card")
    bundle_nano(trained_parts(tmp_path), target, TINY)
    model = Resonate.from_pretrained(target, device="cpu")
    assert len(model.generate("dog", num_inference_steps=1, seeds=1)) == 1
    assert (target / "README.md").read_text() == "the card"


def test_a_bundle_holds_half_precision_matrices_and_whole_statistics(tmp_path: Path) -> None:
    from resonate_audio.model.checkpoint import read_weights

    sizes = bundle_nano(trained_parts(tmp_path), tmp_path / "weights", TINY)
    state = read_weights(tmp_path / "weights" / "transformer" / "model.safetensors")
    assert state["empty_tokens"].dtype == torch.float16
    assert state["latent_std"].dtype == torch.float32
    assert set(sizes) == {"transformer", "vae", "vocoder"}


def test_a_part_of_other_sizes_is_refused(tmp_path: Path) -> None:
    sources = trained_parts(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        bundle_nano({**sources, "vae": sources["vocoder"]}, tmp_path / "weights", TINY)


def test_a_taught_model_is_bundled_as_what_differs_from_its_base(tmp_path: Path) -> None:
    networks = read_networks(find_model("nano"))
    with torch.no_grad():
        networks.transformer.text_in.linear.weight.add_(0.01)
    write_networks(tmp_path / "export", networks, find_model("nano") / "text_encoder")
    bundle_taught(tmp_path / "export", tmp_path / "taught")
    names = {path.name for path in (tmp_path / "taught").iterdir()}
    assert names == {"transformer", "model_index.json"}
    before, after = (
        Resonate.from_pretrained(place, device="cpu").generate(
            "a dog barks", num_inference_steps=1, duration_s=1.0, seeds=1
        )[0]
        for place in ("nano", tmp_path / "taught")
    )
    assert not (before.samples == after.samples).all()


def test_the_weights_of_a_fine_tuned_transformer_are_bundled_too(tmp_path: Path) -> None:
    transformer = read_networks(find_model("nano")).transformer
    with torch.no_grad():
        transformer.text_in.linear.weight.add_(0.01)
    write_weights(tmp_path / "export" / "model.safetensors", transformer.state_dict(), {})
    bundle_taught(tmp_path / "export", tmp_path / "taught", storage="float32")
    found = read_networks(tmp_path / "taught").transformer
    for name, value in transformer.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_taught_model_of_other_sizes_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="other sizes than that of nano"):
        bundle_taught(tiny_model, tmp_path / "taught")
