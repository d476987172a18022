"""The second half of the demo: what is compared with what, and how surely."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.cli.demo.teach import (
    GUIDANCE,
    HELD_OUT_JUDGE,
    NUM_NEW,
    TRAINING_JUDGE,
    compare,
    paired_interval,
    points,
    read_result,
    short_recipe,
)
from resonate_audio.core.config import load_config
from resonate_audio.core.paths import PACKAGE, bundled_recipes
from resonate_audio.data.prompts import read_prompts
from resonate_audio.nano.bundle import find_grpo_recipe
from resonate_audio.training.recipes.reinforce import ReinforceRecipe

ROOT = Path(__file__).parents[3]


def write_run(folder: Path) -> None:
    """A run of two steps, judged before and after on three prompts."""
    folder.mkdir()
    metrics = [
        {"step": 0, "evaluation/nano-lalm": 0.2, "held_out/nano-eval": 0.3},
        {"step": 1, "reward/mean": 0.25, "reward/std": 0.1},
        {"step": 2, "reward/mean": 0.35, "reward/std": 0.1},
        {"step": 2, "evaluation/nano-lalm": 0.4, "held_out/nano-eval": 0.35},
    ]
    judged = [
        {"step": step, "prompt": str(row), "seed": row, "scores": {
            "evaluation/nano-lalm": 0.2 + 0.1 * step + 0.01 * row, "held_out/nano-eval": 0.3,
        }}
        for step in (0, 2) for row in range(3)
    ]  # fmt: skip
    for name, lines in (("metrics.jsonl", metrics), ("evaluation.jsonl", judged)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_both_judges_are_compared_before_the_first_and_after_the_last_step(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    taught = read_result(tmp_path / "run")
    training, held_out = taught.scores
    assert (training.judge, training.trained_on) == ("nano-lalm", True)
    assert training.change == pytest.approx(0.2)
    assert (held_out.judge, held_out.trained_on) == ("nano-eval", False)
    assert held_out.change == 0.0
    assert taught.curve.rewards == ((1, 0.25), (2, 0.35))
    assert taught.curve.held_out == ((0, 0.3), (2, 0.35))


def test_scores_are_paired_by_prompt() -> None:
    judged = [
        {"step": step, "scores": {"a/x": value}}
        for step, values in ((0, (0.0, 1.0, 5.0)), (9, (0.1, 1.1, 5.1)))
        for value in values
    ]
    score = compare(judged, "a/x", trained_on=False)
    assert (score.low, score.high) == pytest.approx((0.1, 0.1))


def test_the_interval_is_that_of_the_mean_of_normal_changes() -> None:
    changes = np.random.default_rng(1).normal(0.5, 2.0, size=400)
    low, high = paired_interval(changes)
    error = changes.std() / 20
    assert low == pytest.approx(changes.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(changes.mean() + 1.96 * error, abs=0.15 * error)


def test_lines_without_the_number_are_left_out() -> None:
    assert points([{"step": 1, "a": 2}, {"step": 2}], "a") == ((1, 2.0),)


def test_no_prompt_is_both_practised_and_judged(tmp_path: Path) -> None:
    recipe = short_recipe("nano", tmp_path, 3)
    assert recipe.evaluation.prompts is not None
    practised, judged = (read_prompts(path) for path in (recipe.prompts, recipe.evaluation.prompts))
    assert len(judged) == NUM_NEW
    assert not set(practised) & set(judged)
    assert recipe.run.num_steps == 3
    assert recipe.evaluation.held_out not in recipe.reward


def test_the_judges_of_the_page_are_those_of_the_recipe(tmp_path: Path) -> None:
    recipe = short_recipe("nano", tmp_path, 3)
    assert recipe.reward.split(",")[0] == TRAINING_JUDGE
    assert recipe.evaluation.held_out == HELD_OUT_JUDGE
    assert recipe.evaluation.guidance_scale == GUIDANCE


def test_the_demo_learns_as_nano_grpo_did(tmp_path: Path) -> None:
    recipe = short_recipe("nano", tmp_path, 3)
    made = load_config(ReinforceRecipe, ROOT / "recipes" / "nano" / "grpo.yaml")
    for part in ("algorithm", "sampler", "optim", "ema", "lora", "takes", "prompts_per_step"):
        assert getattr(recipe, part) == getattr(made, part), part


def test_a_wheel_carries_every_recipe_where_names_are_looked_up() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    carried = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = [file.relative_to(ROOT).as_posix() for file in bundled_recipes().values()]
    assert carried == {file: f"{PACKAGE.name}/{file}" for file in files}
    assert find_grpo_recipe() == ROOT / "recipes" / "nano" / "grpo.yaml"
