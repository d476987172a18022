"""The smallest run of reinforcement: four prompts, two a step, three takes each."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_grpo_recipe(folder: Path, model: Path) -> dict[str, Any]:
    """A GRPO recipe for a model, whose prompts and run lie in ``folder``."""
    (folder / "prompts.txt").write_text("dog\nrain\nbell\ndoor\n")
    return {
        "model": str(model),
        "prompts": str(folder / "prompts.txt"),
        "prompts_per_step": 2,
        "takes": 3,
        "reward": "loud_judge:loudness",
        "sampler": {"num_steps": 4, "rows_per_batch": 4},
        "algorithm": {"kind": "grpo", "clip": 1e-3},
        "optim": {"learning_rate": 1e-3, "warmup_steps": 0, "schedule": "constant"},
        "takes_every": 2,
        "run": {
            "output": str(folder / "run"),
            "num_steps": 4,
            "device": "cpu",
            "log_every": 1,
            "save_every": 2,
            "plot_every": 2,
        },
    }
