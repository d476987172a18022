"""Pipelines of diffusers take part: each row has its own noise, mono, at the pipeline's rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip(
    "diffusers", reason="needs the extra: pip install resonate-audio[eval-diffusers]"
)

from resonate_audio.core.errors import ConfigError, ModelNotFoundError
from resonate_audio.evaluation.clips.diffusers import DiffusersMaker
from resonate_audio.evaluation.clips.folder import read_manifest
from resonate_audio.evaluation.clips.generate import generate_clips
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet

pytestmark = pytest.mark.filterwarnings("ignore")  # what diffusers says of its own parts
SETTINGS: dict[str, Any] = {"num_inference_steps": 2, "duration_s": 0.1, "batch_size": 2}


def make(name: str) -> Any:
    import tiny_diffusers  # here, where warnings of its imports are let through

    return tiny_diffusers.make(name)


@pytest.mark.parametrize(
    ("name", "rate_hz"), [("audioldm", 16_000), ("audioldm2", 16_000), ("stable_audio", 8_000)]
)
def test_a_sound_depends_on_its_prompt_and_seed_alone(name: str, rate_hz: int) -> None:
    maker = DiffusersMaker(make(name), name, **SETTINGS)
    both = maker.sounds(["rain", "a dog"], [3, 4])
    assert (maker.sample_rate_hz, both.shape) == (rate_hz, (2, rate_hz // 10))
    (alone,) = maker.sounds(["a dog"], [4])
    (other,) = maker.sounds(["a dog"], [5])
    assert np.abs(both[1] - alone).max() < 1e-5 * np.abs(alone).max() + 1e-6
    assert np.abs(alone - other).max() > 0.01 * np.abs(alone).max()


def test_a_saved_pipeline_makes_a_system_s_clips(tmp_path: Path) -> None:
    make("stable_audio").save_pretrained(tmp_path / "model")
    origin = str(tmp_path / "model")
    maker = DiffusersMaker.from_pretrained(origin, torch.device("cpu"), **SETTINGS)
    items = tuple(PromptItem(id=id, prompt="rain") for id in ("a", "b"))
    generate_clips(tmp_path / "out", PromptSet("p", items), maker)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.system.source == f"diffusers StableAudioPipeline {origin}"
    assert (manifest.system.facts["nfe"], manifest.system.facts["guidance"]) == ("2", "default")
    samples, rate_hz = soundfile.read(tmp_path / "out" / "a.flac", always_2d=True)
    assert (rate_hz, samples.shape) == (8_000, (800, 1))


def test_another_kind_of_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x: a dict; expected one of AudioLDMPipeline"):
        DiffusersMaker({}, "x")
    with pytest.raises(ModelNotFoundError, match="no such pipeline"):
        DiffusersMaker.from_pretrained(str(tmp_path), torch.device("cpu"))
