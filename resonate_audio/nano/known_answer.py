"""The self-test of `resonate doctor`: nano must still say what it said when it was finished.

A wrong attention kernel or a half-precision unit that rounds badly gives noise and no error.
A short sound, kept beside the weights as a few hundred samples, tells the difference.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from resonate_audio.core.config import FrozenConfig, load_config
from resonate_audio.core.files import atomic_path
from resonate_audio.core.sampling import NO_GUIDANCE
from resonate_audio.core.types import Audio

if TYPE_CHECKING:
    from resonate_audio.pipeline.path import Resonate

FILE_NAME = "known_answer.json"
NUM_SAMPLES = 400


class KnownAnswer(FrozenConfig):
    """A recipe in small, and samples of the sound that it makes."""

    prompt: str = "a dog barks"
    seed: int = 7
    duration_s: float = 1.0
    num_inference_steps: int = 4
    guidance_scale: float = 4.5
    tolerance: float = Field(default=0.05, gt=0)
    """Largest root-mean-square error over the root-mean-square of the answer. Measured: another
    number of threads moves it by 1e-5, weights off by one part in a thousand by 6e-3, bfloat16 by
    0.2, and an unrelated sound by 1.4."""
    num_samples: int
    """Length of the whole sound, samples."""
    samples: tuple[float, ...]
    """Every k-th sample of the sound, k chosen so that there are about `NUM_SAMPLES`."""


def ask(pipeline: Resonate, question: KnownAnswer) -> Audio:
    """Make the sound of the question."""
    (audio,) = pipeline.generate(
        [question.prompt],
        duration_s=question.duration_s,
        num_inference_steps=question.num_inference_steps,
        guidance_scale=question.guidance_scale,
        seeds=[question.seed],
    )
    return audio


def thin_out(audio: Audio) -> tuple[float, ...]:
    """About `NUM_SAMPLES` samples, evenly spaced over the whole sound."""
    stride = max(1, len(audio.samples) // NUM_SAMPLES)
    return tuple(round(float(value), 6) for value in audio.samples[::stride])


def relative_error(answer: KnownAnswer, audio: Audio) -> float:
    """Root-mean-square difference over the root-mean-square of the answer.

    Returns:
        0 for the same sound, about 1.4 for an unrelated one; infinite for another length or NaN.
    """
    got, wanted = np.array(thin_out(audio)), np.array(answer.samples)
    if len(audio.samples) != answer.num_samples or got.shape != wanted.shape:
        return math.inf
    error = float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))
    return error if math.isfinite(error) else math.inf


def write_known_answer(pipeline: Resonate, folder: Path) -> KnownAnswer:
    """Make the answer with a finished model and keep it beside the weights.

    Raises:
        OutputError: the file cannot be written.
    """
    question = KnownAnswer(num_samples=0, samples=())
    if pipeline.config.guidance_inside:
        question = question.model_copy(update={"guidance_scale": NO_GUIDANCE})
    audio = ask(pipeline, question)
    answer = question.model_copy(
        update={"num_samples": len(audio.samples), "samples": thin_out(audio)}
    )
    with atomic_path(folder / FILE_NAME) as temporary:
        temporary.write_text(answer.model_dump_json() + "\n", encoding="utf-8")
    return answer


def read_known_answer(folder: Path) -> KnownAnswer:
    """Read the answer back (JSON is YAML).

    Raises:
        ConfigError: the file is missing or damaged.
    """
    return load_config(KnownAnswer, folder / FILE_NAME)
