"""Runs in this process and in several started by torchrun, and whether they learnt the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import write_recipe

from resonate_audio.cli.main import run as resonate
from resonate_audio.training.loop.checkpoint import Checkpoint, list_checkpoints, load_checkpoint

HERE = Path(__file__).parent
CALM = {"learning_rate": 1e-3, "warmup_steps": 2, "eps": 1e-3}
"""Adam with a large ε: with a small one it would blow rounding up to whole steps."""


def write(recipe: dict[str, Any], name: str, **run: Any) -> Path:
    """The recipe of a run of its own folder ``name``."""
    output = Path(recipe["run"]["output"]).with_name(name)
    changed = recipe["run"] | {"output": str(output), "num_threads": 1} | run
    return write_recipe(output.with_suffix(".yaml"), recipe | {"run": changed})


def train_here(verb: str, recipe: dict[str, Any], *more: str) -> int:
    """Run in this process, which has loaded everything already; gives the exit code."""
    file = write_recipe(Path(recipe["run"]["output"] + ".yaml"), recipe)
    return resonate(["train", verb, "--recipe", str(file), *more])


def run_here(verb: str, recipe: dict[str, Any], name: str) -> None:
    """Run alone, in this process, which has loaded everything already."""
    assert resonate(["train", verb, "--recipe", str(write(recipe, name))]) == 0


def start(
    world: int, verb: str, recipe: dict[str, Any], name: str, restarts: int = 0, **run: Any
) -> "subprocess.Popen[str]":
    """Start a run of its own folder ``name`` in ``world`` processes."""
    file = write(recipe, name, **run)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    launcher += [f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = ["-m", "resonate_audio", "train", verb, "--recipe", str(file)]
    return subprocess.Popen(
        [sys.executable, *(launcher if world > 1 else []), *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", fails: bool = False) -> str:
    try:
        said = process.communicate(timeout=1200)[0]
    finally:
        process.kill()
    assert (process.returncode != 0) == fails, said
    return said


def last(recipe: dict[str, Any], name: str) -> Checkpoint:
    folder = Path(recipe["run"]["output"]).with_name(name) / "checkpoints"
    return load_checkpoint(list_checkpoints(folder)[-1])


def assert_same_training(recipe: dict[str, Any], one: str, other: str) -> None:
    """The same weights, moments and averages to float32 rounding, and the same numbers logged."""
    first, second = last(recipe, one), last(recipe, other)
    assert first.step == second.step
    assert first.tensors.keys() == second.tensors.keys()
    for name, value in first.tensors.items():
        torch.testing.assert_close(
            second.tensors[name], value, rtol=1e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    for line, expected in zip(metrics(recipe, other), metrics(recipe, one), strict=True):
        for key in {"loss", "grad_norm", "reward/mean", "reward/std", "kl"} & expected.keys():
            assert line[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-7), key


def metrics(recipe: dict[str, Any], name: str) -> list[dict[str, Any]]:
    file = Path(recipe["run"]["output"]).with_name(name) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]
