"""The published networks' own numbers; skipped where they are not kept."""

from pathlib import Path

import pytest

from resonate_audio.parity.check import check_file

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden"


@pytest.mark.parametrize(
    "name",
    [
        "mel",
        "vae_tiny_80",
        "vae_tiny_128",
        "bigvgan_v1_tiny",
        "bigvgan_v2_tiny",
        "antialiased_snakebeta",
    ],
)
def test_every_published_output_is_reproduced(name: str) -> None:
    path = GOLDEN / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path}")
    result = check_file(path)
    assert result.verdict == "PASS", [item for item in result.differences if not item.passed]
