"""The promise of every run: killed at any moment and started again, it ends the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import write_recipe

from resonate_audio.cli.main import run as resonate
from resonate_audio.model.vae import MelVAE
from resonate_audio.training.loop.checkpoint import list_checkpoints, load_checkpoint
from resonate_audio.training.recipes.pretrain import PretrainRecipe

NUM_STEPS = 12
COMMAND = "from resonate_audio.cli.train import app; app()"


def start(recipe: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "pretrain", "--recipe", str(recipe)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the run has saved a checkpoint at or after ``step``."""
    while not any(int(path.stem[5:]) >= step for path in list_checkpoints(folder / "checkpoints")):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.005)


def finish(recipe: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a recipe in this process, which has loaded everything already; gives what it said."""
    capfd.readouterr()
    code = resonate(["train", "pretrain", "--recipe", str(recipe)])
    said = capfd.readouterr().err
    assert code == 0, said
    return said


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_run_killed_by_sigkill_and_resumed_ends_bit_identical(
    tmp_path: Path,
    settings: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    values = settings | {
        "weights": {"vae": str(save_vae(tmp_path, settings))},
        "window_s": [0.5, 1.0],
        "flow": {"frames_per_batch": 16},
    }
    recipes = {}
    for name in ("killed", "whole"):
        run = values["run"] | {"output": str(tmp_path / name), "num_steps": NUM_STEPS}
        run |= {"precision": precision, "num_threads": 1}
        recipes[name] = write_recipe(tmp_path / f"{name}.yaml", values | {"run": run})

    finish(recipes["whole"], capfd)
    process = start(recipes["killed"])
    wait_for_step(tmp_path / "killed", 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert last_step(tmp_path / "killed") < NUM_STEPS
    assert "resumed" in finish(recipes["killed"], capfd)

    first, second = (last_tensors(tmp_path / name) for name in recipes)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    exported = [(tmp_path / name / "export" / "model.safetensors") for name in recipes]
    assert exported[0].read_bytes() == exported[1].read_bytes()


def save_vae(folder: Path, settings: dict[str, Any]) -> Path:
    """Write untrained VAE weights: what the latents sound like does not matter here."""
    from resonate_audio.model.checkpoint import write_weights

    config = PretrainRecipe.model_validate(settings).model.vae
    vae = MelVAE(config, torch.Generator().manual_seed(0))
    write_weights(folder / "vae.safetensors", vae.state_dict(), {})
    return folder / "vae.safetensors"


def last_step(folder: Path) -> int:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).step


def last_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).tensors
