"""The second half of `resonate demo`: a short reinforcement, and what it changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from resonate_audio.cli.demo.before_after import JudgedSound, MeanScore, RewardCurve, SoundPair

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio
    from resonate_audio.training.recipes.reinforce import ReinforceRecipe

TRAINING_JUDGE, HELD_OUT_JUDGE = "nano-lalm", "nano-eval"
GUIDANCE = 1.0
"""None, in practice and in what is compared: the short way there."""
NUM_NEW = 60
"""Prompts that are not practised, of one or two sounds; both judges score them before and after."""
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Taught:
    """What came of a short reinforcement."""

    model: Path
    """Folder of the taught model."""
    curve: RewardCurve
    scores: list[MeanScore]
    """Over the prompts that were not practised."""


def teach(model: str, folder: Path, num_steps: int, say: Callable[[str], None]) -> Taught:
    """Reinforce a model for a few steps with nano's own audio-language model as judge.

    Raises:
        ResonateError: as the reinforcement's.
    """
    from resonate_audio.training.recipes.reinforce import train_reinforce

    recipe = short_recipe(model, folder, num_steps)
    train_reinforce(recipe, say)
    return read_result(recipe.run.output)


def short_recipe(model: str, folder: Path, num_steps: int) -> ReinforceRecipe:
    """The recipe that made nano-grpo, with few prompts to judge; they go to ``folder``."""
    from resonate_audio.core.config import load_config
    from resonate_audio.core.files import atomic_path
    from resonate_audio.data.prompts import read_prompts
    from resonate_audio.nano.bundle import PROMPTS_FOLDER, find_grpo_recipe
    from resonate_audio.training.recipes.reinforce import ReinforceRecipe

    new = read_prompts(PROMPTS_FOLDER / "held-out.jsonl")[:NUM_NEW]
    with atomic_path(folder / "new.txt") as temporary:
        temporary.write_text("".join(f"{text}\n" for text in new), encoding="utf-8")
    changes = {
        "model": model,
        "prompts": str(PROMPTS_FOLDER / "practice.jsonl"),
        "evaluation.prompts": str(folder / "new.txt"),
        "evaluation.guidance_scale": GUIDANCE,
        "takes_every": 4,
        "run.output": str(folder / "run"),
        "run.num_steps": num_steps,
        "run.save_every": num_steps,
        "run.plot_every": num_steps,
        "run.sample_every": num_steps,
        "run.num_threads": None,
        "run.seed": 0,
    }
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()]
    return load_config(ReinforceRecipe, find_grpo_recipe(), overrides)


def read_result(run: Path) -> Taught:
    """Curve and scores of a finished run, from its files."""
    from resonate_audio.training.loop.progress import read_metrics

    metrics, judged = read_metrics(run / "metrics.jsonl"), read_metrics(run / "evaluation.jsonl")
    trained_on = next(name for name in judged[0]["scores"] if name.startswith("evaluation/"))
    curve = RewardCurve(
        judge=trained_on.partition("/")[2],
        held_out_judge=HELD_OUT_JUDGE,
        rewards=points(metrics, "reward/mean"),
        spread=points(metrics, "reward/std"),
        held_out=points(metrics, f"held_out/{HELD_OUT_JUDGE}"),
    )
    scores = [
        compare(judged, trained_on, trained_on=True),
        compare(judged, f"held_out/{HELD_OUT_JUDGE}", trained_on=False),
    ]
    return Taught(run / "export", curve, scores)


def points(metrics: Sequence[dict[str, Any]], name: str) -> tuple[tuple[int, float], ...]:
    """(step, value) of one number."""
    return tuple((int(line["step"]), float(line[name])) for line in metrics if name in line)


def compare(judged: Sequence[dict[str, Any]], name: str, trained_on: bool) -> MeanScore:
    """One judge's means before the first and after the last step, with a paired interval."""
    steps = sorted({line["step"] for line in judged})
    before, after = (
        np.array([line["scores"][name] for line in judged if line["step"] == step])
        for step in (steps[0], steps[-1])
    )
    low, high = paired_interval(after - before)
    judge = name.partition("/")[2]
    return MeanScore(judge, float(before.mean()), float(after.mean()), low, high, trained_on)


def paired_interval(changes: Float[np.ndarray, " pair"]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean change, over pairs, with a fixed seed."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(changes), size=(NUM_RESAMPLES, len(changes)))
    low, high = np.percentile(changes[rows].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def judge_sounds(sounds: Sequence[Audio], prompts: Sequence[str], judge: str) -> list[float]:
    """One score a sound."""
    from resonate_audio.rewards.catalogue import open_reward
    from resonate_audio.rewards.desk import score_sounds

    return [float(value) for value in score_sounds(open_reward(judge), sounds, prompts).total]


def make_pairs(
    prompts: Sequence[str], seeds: Sequence[int], before: Sequence[Audio], after: Sequence[Audio]
) -> list[SoundPair]:
    """The same noise before and after, with what both judges say."""
    judged = [
        [
            JudgedSound(sound, training, held_out)
            for sound, training, held_out in zip(
                sounds,
                judge_sounds(sounds, prompts, TRAINING_JUDGE),
                judge_sounds(sounds, prompts, HELD_OUT_JUDGE),
                strict=True,
            )
        ]
        for sounds in (before, after)
    ]
    return [SoundPair(*parts) for parts in zip(prompts, seeds, *judged, strict=True)]
