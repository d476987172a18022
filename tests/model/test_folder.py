"""A model's folder is whole, or names the bundled model that has the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from resonate_audio.core.errors import CheckpointError, ConfigError, OutputError
from resonate_audio.model.adapter import ADAPTER_NAME, add_adapters, read_adapter
from resonate_audio.model.checkpoint import read_weights, write_weights
from resonate_audio.model.folder import (
    INDEX_NAME,
    index_text,
    own_adapter,
    part_folder,
    read_config,
    read_networks,
    read_part,
    writing_model,
)
from resonate_audio.model.hub import find_model, find_text_encoder


def test_a_model_with_a_base_holds_only_what_differs(tmp_path: Path) -> None:
    nano = find_model("nano")
    shutil.copytree(nano / "transformer", tmp_path / "taught" / "transformer")
    (tmp_path / "taught" / INDEX_NAME).write_text(index_text(read_config(nano), base="nano"))
    taught, states = read_networks(tmp_path / "taught"), read_networks(nano).states()
    for name, state in taught.states().items():
        assert all(torch.equal(value, states[name][key]) for key, value in state.items())
    encoder = find_text_encoder(taught.config.text_encoder, tmp_path / "taught", True)
    assert encoder == nano / "text_encoder"


def test_a_base_that_is_not_bundled_is_refused(tmp_path: Path) -> None:
    index = index_text(read_config(find_model("nano")), base="../elsewhere")
    (tmp_path / INDEX_NAME).write_text(index)
    with pytest.raises(CheckpointError, match=r"base is '\.\./elsewhere'; expected one of nano"):
        read_networks(tmp_path)


def adapted(folder: Path, base: str = "nano") -> Path:
    """A model that is nano-grpo's adapter beside a base."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(find_model("nano-grpo") / ADAPTER_NAME, folder / ADAPTER_NAME)
    (folder / INDEX_NAME).write_text(index_text(read_config(find_model("nano")), base=base))
    return folder


def test_an_adapter_is_added_to_the_transformer_of_its_base(tmp_path: Path) -> None:
    nano = find_model("nano")
    base = read_part(nano, read_config(nano), "transformer")
    folder = adapted(tmp_path)
    found = read_part(folder, read_config(folder), "transformer").state_dict()
    assert any(not torch.equal(found[name], value) for name, value in base.state_dict().items())
    add_adapters(base, [read_adapter(folder / ADAPTER_NAME)], "nano")
    assert all(torch.equal(found[name], value) for name, value in base.state_dict().items())


def test_the_adapter_beside_a_whole_transformer_is_not_added_twice(tmp_path: Path) -> None:
    folder = adapted(tmp_path)
    shutil.copytree(find_model("nano") / "transformer", folder / "transformer")
    assert own_adapter(folder) is None


def test_a_model_without_transformer_and_adapter_is_refused(tmp_path: Path) -> None:
    folder = adapted(tmp_path)
    (folder / ADAPTER_NAME).unlink()
    with pytest.raises(CheckpointError, match="neither transformer/ nor adapter"):
        read_networks(folder)


def test_a_base_may_have_a_base(tmp_path: Path) -> None:
    taught = find_model("nano-grpo")
    once = read_part(taught, read_config(taught), "transformer")
    folder = adapted(tmp_path, "nano-grpo")
    state = read_weights(folder / "adapter.safetensors")  # without the name of the base it is of
    write_weights(folder / "adapter.safetensors", state, {"format": "pt"})
    twice = read_part(folder, read_config(taught), "transformer")
    same = [torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True)]
    assert not all(same)
    assert part_folder(tmp_path, "vae") == find_model("nano") / "vae"


def test_a_vocoder_of_another_version_is_named(tmp_path: Path) -> None:
    values = json.loads(index_text(read_config(find_model("nano"))))
    values["config"]["vocoder"]["kind"] = "istft"
    (tmp_path / INDEX_NAME).write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"vocoder: .*'istft'"):
        read_networks(tmp_path)


def test_the_folder_that_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a shell would stand in a folder that is gone."""
    monkeypatch.chdir(tmp_path)
    for place in (Path(), tmp_path):
        with pytest.raises(OutputError, match="the folder that you are in"), writing_model(place):
            pass
    assert not list(tmp_path.iterdir())
