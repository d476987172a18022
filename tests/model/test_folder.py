"""A model's folder is whole, or names the bundled model that has the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.folder import INDEX_NAME, index_text, read_config, read_networks
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
