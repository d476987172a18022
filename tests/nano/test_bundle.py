from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import TINY, random_networks, write_text_encoder, write_tiny_adapter

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.adapter import ADAPTER_NAME, add_adapters, read_adapter, write_adapter
from resonate_audio.model.checkpoint import fingerprint_weights, read_weights, write_weights
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import read_networks
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
    sizes = bundle_nano(trained_parts(tmp_path), tmp_path / "weights", TINY)
    state = read_weights(tmp_path / "weights" / "transformer" / "model.safetensors")
    assert state["empty_tokens"].dtype == torch.float16
    assert state["latent_std"].dtype == torch.float32
    assert set(sizes) == {"transformer", "vae", "vocoder"}


def test_a_part_of_other_sizes_is_refused(tmp_path: Path) -> None:
    sources = trained_parts(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        bundle_nano({**sources, "vae": sources["vocoder"]}, tmp_path / "weights", TINY)


def test_several_students_give_their_mean_and_one_gives_itself(tmp_path: Path) -> None:
    sources: dict[str, Path | list[Path]] = {**trained_parts(tmp_path)}
    states = []
    for seed, name in enumerate(("one", "two")):
        states.append(random_networks(TINY, seed=seed).states()["transformer"])
        write_weights(tmp_path / name / "model.safetensors", states[-1], {})
    for count in (1, 2):
        sources["transformer"] = [tmp_path / "one", tmp_path / "two"][:count]
        bundle_nano(sources, tmp_path / "weights", TINY, storage="float32")
        found = read_weights(tmp_path / "weights" / "transformer" / "model.safetensors")
        for name, value in found.items():
            expected = sum(state[name] for state in states[:count]) / count
            torch.testing.assert_close(value, expected)


def test_a_student_of_other_sizes_is_named(tmp_path: Path) -> None:
    sources: dict[str, Path | list[Path]] = {**trained_parts(tmp_path)}
    sources["transformer"] = [tmp_path / "transformer", tmp_path / "vae"]
    with pytest.raises(CheckpointError, match=r"vae/model\.safetensors: "):
        bundle_nano(sources, tmp_path / "weights", TINY)


def adapter_of(transformer: FlowTransformer, folder: Path) -> Path:
    """What a run with ``lora`` exports."""
    linear = transformer.text_in.linear.weight
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(2, linear.shape[1], generator=generator)
    b = 0.01 * torch.randn(linear.shape[0], 2, generator=generator)
    fingerprint = fingerprint_weights([transformer.state_dict()])
    folder.mkdir()
    write_adapter(folder / ADAPTER_NAME, {"text_in.linear": (a, b)}, "nano", fingerprint)
    return folder


def test_a_taught_model_is_bundled_as_an_adapter_of_its_base(tmp_path: Path) -> None:
    transformer = read_networks(find_model("nano")).transformer
    source = adapter_of(transformer, tmp_path / "export")
    bundle_taught([source / ADAPTER_NAME], tmp_path / "taught", storage="float32")
    names = {path.name for path in (tmp_path / "taught").iterdir()}
    assert names == {ADAPTER_NAME, "model_index.json"}
    found = read_networks(tmp_path / "taught").transformer
    add_adapters(transformer, [read_adapter(source / ADAPTER_NAME)], "nano")
    for name, value in transformer.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_what_several_runs_changed_is_added_up(tmp_path: Path) -> None:
    transformer = read_networks(find_model("nano")).transformer
    files = [adapter_of(transformer, tmp_path / name) / ADAPTER_NAME for name in ("one", "two")]
    bundle_taught([files[0], f"{files[1]}:0.5"], tmp_path / "taught", storage="float32")
    [(a, b)] = read_adapter(files[0]).maps.values()
    [(joined_a, joined_b)] = read_adapter(tmp_path / "taught" / ADAPTER_NAME).maps.values()
    assert joined_a.shape[0] == 2 * a.shape[0]
    torch.testing.assert_close(joined_b @ joined_a, 1.5 * (b @ a))


def test_an_adapter_of_other_weights_is_refused(tmp_path: Path) -> None:
    transformer = read_networks(find_model("nano")).transformer
    with torch.no_grad():
        transformer.text_in.linear.weight.add_(0.01)
    source = adapter_of(transformer, tmp_path / "export")
    with pytest.raises(CheckpointError, match=r"an adapter of nano .*but the model is nano"):
        bundle_taught([source / ADAPTER_NAME], tmp_path / "taught")


def test_what_was_taught_beside_earlier_weights_is_carried_over_when_asked(tmp_path: Path) -> None:
    transformer = read_networks(find_model("nano")).transformer
    own = fingerprint_weights([transformer.state_dict()])
    with torch.no_grad():
        transformer.text_in.linear.weight.add_(0.01)
    source = adapter_of(transformer, tmp_path / "export") / ADAPTER_NAME
    bundle_taught([source], tmp_path / "taught", storage="float32", carried=True)
    carried = read_adapter(tmp_path / "taught" / ADAPTER_NAME)
    assert carried.base_fingerprint == own
    [(a, b)] = read_adapter(source).maps.values()
    [(carried_a, carried_b)] = carried.maps.values()
    assert torch.equal(carried_b @ carried_a, b @ a)


def test_an_adapter_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = write_tiny_adapter(tmp_path / ADAPTER_NAME)
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors: .* nano"):
        bundle_taught([path], tmp_path / "taught")
