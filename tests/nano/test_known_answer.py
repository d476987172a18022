"""The self-test tells right arithmetic from wrong."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Audio
from resonate_audio.nano.known_answer import (
    KnownAnswer,
    ask,
    read_known_answer,
    relative_error,
    thin_out,
    write_known_answer,
)
from resonate_audio.pipeline.path import Resonate


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Resonate:
    return Resonate.from_pretrained(tiny_model, device="cpu")


def noise(seed: int) -> Audio:
    return Audio(np.random.default_rng(seed).normal(0, 0.1, 8000).astype(np.float32), 8000)


def answer_of(audio: Audio) -> KnownAnswer:
    return KnownAnswer(num_samples=len(audio.samples), samples=thin_out(audio))


def test_the_same_model_gives_its_known_answer(tiny: Resonate, tmp_path: Path) -> None:
    write_known_answer(tiny, tmp_path)
    answer = read_known_answer(tmp_path)
    assert relative_error(answer, ask(tiny, answer)) < 1e-3 < answer.tolerance


def test_an_unrelated_sound_is_wrong_by_the_square_root_of_two() -> None:
    error = relative_error(answer_of(noise(1)), noise(2))
    assert error == pytest.approx(math.sqrt(2), rel=0.15)


def test_a_sound_louder_by_a_tenth_is_wrong_by_a_tenth() -> None:
    louder = dataclasses.replace(noise(1), samples=noise(1).samples * np.float32(1.1))
    assert relative_error(answer_of(noise(1)), louder) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("samples", [noise(1).samples[:-1], np.full(8000, np.nan, np.float32)])
def test_another_length_or_nan_is_infinitely_wrong(samples: np.ndarray) -> None:
    assert relative_error(answer_of(noise(1)), Audio(samples, 8000)) == math.inf


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known_answer\.json"):
        read_known_answer(tmp_path)
