"""The published network's own numbers; skipped where they are not kept."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from resonate_audio.parity.flow import CHECKS

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden"
TOLERANCE = 1e-5
"""Of the largest expected magnitude: float32 rounding, measured at most 2e-6."""


@pytest.mark.parametrize("name", ["flux_tiny", "fm_train_step", "flow_loss", "rope_timestep_attn"])
def test_every_published_output_is_reproduced(name: str) -> None:
    path = GOLDEN / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path}")
    with safe_open(path, "pt") as stored:
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        config = json.loads(stored.metadata()["config"])
    check = CHECKS[next(start for start in CHECKS if name.startswith(start))]
    seen = set()
    for label, got, expected, _ in check(tensors, config, path.parent):
        scale = expected.double().abs().max().item()
        torch.testing.assert_close(
            got.double(), expected.double(), rtol=0, atol=TOLERANCE * scale, msg=label
        )
        assert got.dtype == expected.dtype or label == "masked.grad_norm"
        seen.add(f"out.{label}")
    assert seen == {key for key in tensors if key.startswith("out.")}
