from __future__ import annotations

import subprocess
import sys

import pytest

import resonate_audio

RIM = ("transformers", "tokenizers", "soundfile", "soxr", "matplotlib", "huggingface_hub", "rich")
PUBLIC = {
    "Audio",
    "FAST",
    "Finish",
    "ModelConfig",
    "PRESETS",
    "Prompts",
    "Recipe",
    "Resonate",
    "ResonateError",
    "read_audio",
    "read_recipe",
    "write_audio",
}


def test_the_public_names_are_these() -> None:
    assert set(resonate_audio.__all__) == PUBLIC == set(dir(resonate_audio))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(resonate_audio, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Resonant'"):
        _ = resonate_audio.Resonant  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "statement",
    ["import resonate_audio", "from resonate_audio import Resonate, read_audio, PRESETS"],
)
def test_importing_loads_nothing_from_the_rim(statement: str) -> None:
    code = f"import sys; {statement}; print(*(n for n in {RIM!r} if n in sys.modules))"
    assert run_python(code) == ""


def test_importing_takes_under_a_second_of_cpu_beyond_torch() -> None:
    code = (
        "import time, torch; start = time.process_time();"
        "from resonate_audio import Resonate; print(time.process_time() - start)"
    )
    assert min(float(run_python(code)) for _ in range(2)) < 1.0


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
