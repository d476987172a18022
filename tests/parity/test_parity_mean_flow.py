"""MeanAudio's published numbers; skipped where they are not kept."""

from pathlib import Path

import pytest

from resonate_audio.parity.check import check_file

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "meanaudio"
TOLERANCE = {"meanaudio_tiny": 1e-5, "meanflow_loss": 1e-5}


@pytest.mark.parametrize("name", TOLERANCE)
def test_every_published_output_is_reproduced(name: str) -> None:
    path = GOLDEN / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path}")
    result = check_file(path)
    assert result.verdict == "PASS", result
    assert result.max_rel < TOLERANCE[name]
