from pathlib import Path
from typing import Any

import pytest
from tiny_corpus import TINY_MODEL, write_corpus


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """What the recipes of all three trainers have in common."""
    return {
        "preset": "nano-flow",
        "model": TINY_MODEL,
        "data": {"manifest": str(write_corpus(tmp_path)), "cache": str(tmp_path / "cache")},
        "optim": {"learning_rate": 1e-3, "warmup_steps": 2},
        "run": {
            "output": str(tmp_path / "run"),
            "num_steps": 6,
            "device": "cpu",
            "save_every": 3,
            "log_every": 1,
            "plot_every": 100,
        },
    }
