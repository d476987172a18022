from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resonate_audio import Resonate
from resonate_audio.core.errors import CheckpointError
from resonate_audio.core.types import Waveform
from resonate_audio.model.folder import read_networks
from resonate_audio.model.vae import MelVAE
from resonate_audio.pipeline import path as pipeline_path


def test_loading_nano_does_not_import_what_only_compilers_need() -> None:
    """It takes a second; torch does it behind one's back for shapes without numbers."""
    code = (
        "import sys; from resonate_audio import Resonate; Resonate.from_pretrained('nano', 'cpu'); "
        "print(*{'sympy', 'torch._dynamo', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_of_a_large_vae_stays_on_the_disk_until_a_sound_is_encoded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    whole = Resonate.from_pretrained(tiny_model, "cpu", dtype)
    monkeypatch.setattr(pipeline_path, "SHELVE_FROM_WEIGHTS", 1)
    shelved = Resonate.from_pretrained(tiny_model, "cpu", dtype)
    assert isinstance(shelved.vae, MelVAE)
    assert all(part.is_meta for part in shelved.vae.encoder.parameters())
    assert shelved.fingerprint == whole.fingerprint
    [one], [other] = (model.generate("dog", seeds=1) for model in (shelved, whole))
    assert (one.samples == other.samples).all()
    assert all(part.is_meta for part in shelved.vae.encoder.parameters())
    wave = Waveform(torch.from_numpy(one.samples)[None], one.sample_rate_hz)
    assert torch.equal(shelved.encode(wave).values, whole.encode(wave).values)


def test_a_model_with_half_a_vae_is_saved_whole(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_path, "SHELVE_FROM_WEIGHTS", 1)
    Resonate.from_pretrained(tiny_model, "cpu").save_pretrained(tmp_path / "saved")
    saved, source = (
        read_networks(folder).vae.state_dict() for folder in (tmp_path / "saved", tiny_model)
    )
    assert all(torch.equal(saved[name], source[name]) for name in source)


def test_a_folder_that_is_gone_is_named_when_a_sound_is_encoded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_path, "SHELVE_FROM_WEIGHTS", 1)
    gone = tmp_path / "model"
    gone.symlink_to(tiny_model)
    model = Resonate.from_pretrained(gone, "cpu")
    [sound] = model.generate("dog", seeds=1)
    gone.unlink()
    with pytest.raises(CheckpointError, match="model"):
        model.encode(Waveform(torch.from_numpy(sound.samples)[None], sound.sample_rate_hz))
