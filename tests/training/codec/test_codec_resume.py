"""The two halves of the codec's training: stopped and started again, they end the same."""

from pathlib import Path
from typing import Any

import torch
from tiny_corpus import TINY_MODEL

from resonate_audio.core.config import parse_config
from resonate_audio.model.checkpoint import read_weights
from resonate_audio.training.recipes.codec import VocoderRecipe, train_vocoder

SMALL = TINY_MODEL["vocoder"] | {"kind": "parts", "dilations": [1, 2]}
VARIED = {
    "crop_s": 0.3,
    "rows_per_batch": 2,
    "gain_db": [-6, 3],
    "mixed_share": 0.5,
    "late_share": 0.5,
}
AGAINST_JUDGES = {
    "sizes_per_step": 2,
    "band_weight": 1.0,
    "complex_weight": 0.0,
    "sine_weight": 1.0,
    "share_weight": 1.0,
    "variety": 0.75,
    "adversary": {"width": 2, "sizes": [256, 512], "judges_per_step": 1},
}


def recipe(settings: dict[str, Any], output: Path, num_steps: int) -> VocoderRecipe:
    run = settings["run"] | {"output": str(output), "num_steps": num_steps, "precision": "bf16"}
    model = settings["model"] | {"vocoder": SMALL}
    parts = {"model": model, "crops": VARIED, "objective": AGAINST_JUDGES, "run": run}
    return parse_config(VocoderRecipe, settings | parts, "test")


def test_a_run_against_judges_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_vocoder(recipe(settings, whole, 6), lambda _: None)
    train_vocoder(recipe(settings, halves, 3), lambda _: None)
    train_vocoder(recipe(settings, halves, 6), lambda _: None)
    once, twice = (read_weights(f / "export" / "model.safetensors") for f in (whole, halves))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
