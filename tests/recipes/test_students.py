"""nano is the mean of the students that it is made of."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from resonate_audio.model.checkpoint import write_weights

FINISH = Path(__file__).parents[2] / "recipes" / "nano" / "finish"


def test_several_students_give_their_mean_and_one_gives_itself(tmp_path: Path) -> None:
    mean_weights = runpy.run_path(str(FINISH))["mean_weights"]
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, value in zip(folders, (1.0, 2.0), strict=True):
        weights = {"matrix": torch.full((3, 2), value, dtype=torch.float16)}
        write_weights(folder / "model.safetensors", weights, {})
    assert torch.equal(mean_weights(folders)["matrix"], torch.full((3, 2), 1.5))
    assert torch.equal(mean_weights(folders[:1])["matrix"], torch.ones(3, 2))
