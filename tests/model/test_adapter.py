"""Adapters: low-rank changes in a file of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import TINY, random_networks

from resonate_audio.core.errors import CheckpointError, InputError
from resonate_audio.model.adapter import (
    LowRank,
    add_adapters,
    read_adapter,
    split_weight,
    write_adapter,
)
from resonate_audio.model.checkpoint import fingerprint_weights, write_weights
from resonate_audio.model.flow_transformer import FlowTransformer

PLACE = "joint_blocks.0.latents.heads.qkv"


def transformer(seed: int = 0) -> FlowTransformer:
    return random_networks(TINY, seed).transformer


def fingerprint(seed: int = 0) -> str:
    return fingerprint_weights([transformer(seed).state_dict()])


def pair(rank: int = 2, seed: int = 1) -> LowRank:
    linear = transformer().get_submodule(PLACE)
    out, into = linear.weight.shape  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, into, generator=generator),
        torch.randn(out, rank, generator=generator),
    )


def weight_of(model: FlowTransformer) -> torch.Tensor:
    return model.get_parameter(f"{PLACE}.weight").detach()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rain.safetensors"
    write_adapter(path, {PLACE: pair()}, "tiny", fingerprint())
    return path


def test_an_adapter_adds_its_product_times_its_weight_and_nothing_else(file: Path) -> None:
    model, before = transformer(), transformer()
    add_adapters(model, [read_adapter(f"{file}:0.5")], "tiny")
    a, b = pair()
    torch.testing.assert_close(weight_of(model), weight_of(before) + 0.5 * b @ a)
    rest = {name: value for name, value in model.state_dict().items() if PLACE not in name}
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in rest.items())


def test_adapters_of_one_model_add_up(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "wind.safetensors"
    write_adapter(other, {PLACE: pair(seed=5)}, "tiny", fingerprint())
    model = transformer()
    add_adapters(model, [read_adapter(file), read_adapter(f"{other}:-1")], "tiny")
    (a, b), (c, d) = pair(), pair(seed=5)
    torch.testing.assert_close(weight_of(model), weight_of(transformer()) + b @ a - d @ c)


def test_an_adapter_says_where_it_is_and_how_strong(file: Path, tmp_path: Path) -> None:
    assert str(read_adapter(file)) == str(file.resolve())
    assert str(read_adapter(f"{file}:0.25")) == f"{file.resolve()}:0.25"
    assert split_weight("C:\\rain.safetensors") == (Path("C:\\rain.safetensors"), 1.0)
    assert split_weight("a:b:2") == (Path("a:b"), 2.0)
    assert read_adapter(str(read_adapter(f"{file}:0.3333333333"))).weight == 0.3333333333


@pytest.mark.parametrize("number", ["nan", "inf", "11", "-11"])
def test_a_weight_out_of_range_is_refused(number: str, file: Path) -> None:
    with pytest.raises(InputError, match="expected a weight from -10 to 10"):
        read_adapter(f"{file}:{number}")


def test_an_adapter_of_another_model_is_refused_and_both_are_named(file: Path) -> None:
    with pytest.raises(CheckpointError) as failure:
        add_adapters(transformer(seed=9), [read_adapter(file)], "other")
    for part in ("rain.safetensors", "tiny", fingerprint(), "other", fingerprint(9)):
        assert part in str(failure.value)


@pytest.mark.parametrize(
    ("place", "maps", "complaint"),
    [
        ("nowhere", pair(), "nowhere is no linear map of tiny"),
        (PLACE, (torch.zeros(2, 3), torch.zeros(5, 2)), f"{PLACE} is 5 x 3, but in tiny it is"),
        (PLACE, (torch.zeros(3, 4), torch.zeros(5, 2)), "has two ranks for tiny"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    place: str, maps: LowRank, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, {f"{place}.lora_A.weight": maps[0], f"{place}.lora_B.weight": maps[1]}, {})
    with pytest.raises(CheckpointError, match=complaint):
        add_adapters(transformer(), [read_adapter(path)], "tiny")


def test_other_weights_are_no_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no adapter; expected pairs"):
        read_adapter(tiny_model / "vae" / "model.safetensors")
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_adapter(tmp_path / "none.safetensors")


def test_a_sound_is_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC\0\0\0\x22" + bytes(100))
    with pytest.raises(
        CheckpointError, match=r"a\.flac: truncated or not a weights file; expected \.safeten"
    ):
        read_adapter(path)
