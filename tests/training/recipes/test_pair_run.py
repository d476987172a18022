"""`resonate train dpo` on pairs of a listening test."""

import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from loud_judge import loudness
from pair_lists import PROMPTS, noise, tone, write_pairs
from processes import CALM, assert_same_training, train_here
from processes import finish as join
from processes import start as launch

from resonate_audio import Resonate
from resonate_audio.core.config import load_config, parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Prompts, Rewards
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.rewards.function import FunctionReward
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.results import export_pairs
from resonate_audio.serving.listening.test import Design, GivenClip, create_test
from resonate_audio.training.algorithms.dpo import dpo_step
from resonate_audio.training.algorithms.pairs import read_pairs
from resonate_audio.training.loop.checkpoint import list_checkpoints, load_checkpoint
from resonate_audio.training.recipes.pairs import (
    PairRecipe,
    PairTask,
    build_pair_task,
    train_on_pairs,
)
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.experience import Experience, TakeMaker
from resonate_audio.training.reinforce.rollout import SamplerConfig
from resonate_audio.training.reinforce.trainer import Update

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """Three pairs, two of them a step, for the tiny model."""
    return {
        "model": str(tiny_model),
        "pairs": str(write_pairs(tmp_path / "preferences")),
        "pairs_per_step": 2,
        "pairs_per_batch": 2,
        "algorithm": {"beta": 50.0, "times_per_take": 2},
        "optim": {"learning_rate": 1e-3, "warmup_steps": 0, "schedule": "constant"},
        "run": {
            "output": str(tmp_path / "run"),
            "num_steps": 2,
            "device": "cpu",
            "log_every": 1,
            "save_every": 2,
        },
    }


def train(recipe: dict[str, Any], **changes: Any) -> Path:
    """Run in this process; gives the run's folder."""
    values = recipe | {"run": recipe["run"] | changes}
    train_on_pairs(parse_config(PairRecipe, values, "test"), lambda text: None)
    return Path(values["run"]["output"])


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def build(recipe: dict[str, Any]) -> PairTask:
    config = parse_config(PairRecipe, recipe, "test")
    listed = read_pairs(config.pairs)
    return build_pair_task(config, listed, lambda text: None, torch.device("cpu"))


def take_gradients(task: PairTask) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in task.policy.model.named_parameters():
        if value.grad is not None:
            found[name], value.grad = value.grad.clone(), None
    return found


def judged(task: PairTask, latents: torch.Tensor, texts: tuple[str, ...]) -> Experience:
    """An experience whose takes are given latents, in turn a winner and a loser."""
    config = parse_config(PairRecipe, task.recipe.model_dump(), "test")
    resonate = Resonate.from_pretrained(config.model, device="cpu")
    sampler = SamplerConfig(num_steps=2, window=1, rows_per_batch=4)
    maker = TakeMaker(task.policy, resonate, sampler, latents.shape[1], 0, JudgeDesk())
    judge = FunctionReward(loudness, "loudness")
    prompts = Prompts(texts, 2)
    made = maker.collect(prompts, judge, AdvantageConfig(), 0, task.policy.bind)
    reward = torch.tensor([1.0, 0.0] * len(texts), dtype=torch.float64)
    rollout = replace(made.rollout, latents=latents)
    return replace(made, rollout=rollout, rewards=Rewards(reward, {}, "test"))


def test_pairs_give_the_gradient_that_takes_of_the_same_latents_give(
    recipe: dict[str, Any],
) -> None:
    task = build(recipe)
    update = Update(torch.tensor([0, 2]), True, torch.Generator().manual_seed(3))
    logged = task.learn(update)
    of_pairs = take_gradients(task)

    generator = torch.Generator().manual_seed(3)
    drawn = task.pairs.draw(update.rows, task.policy.model.normalize, generator)
    latents = torch.stack([drawn.winners, drawn.losers], dim=1).flatten(0, 1)
    experience = judged(task, latents, (PROMPTS[0], PROMPTS[2]))
    again = Update(torch.arange(4), True, generator)
    expected = dpo_step(task.policy, experience, again, task.recipe.algorithm, rows_per_batch=2)
    of_takes = take_gradients(task)

    assert of_pairs.keys() == of_takes.keys()
    assert [name for name in of_pairs if not torch.equal(of_pairs[name], of_takes[name])] == []
    assert any(value.abs().max() > 0 for value in of_pairs.values())
    assert logged["loss"] == expected["loss"]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What the listening code exports after a rater preferred tones to noise."""
    clips = [
        GivenClip(system, f"p{n}", prompt, sound)
        for n, prompt in enumerate(PROMPTS)
        for system, sound in (("tones", tone(300 + 100 * n, 0.05)), ("noise", noise(n, 0.05)))
    ]
    folder = tmp_path / "trees"
    test = create_test(folder, Design(preset="ab"), clips)
    answers = Answers(folder, test)
    token = answers.join()
    for number, trial in enumerate(answers.rater(token).trials):
        heard = [answers.hear(token, number, side) for side in range(len(trial.clips))]
        answers.submit(token, number, {}, "A" if heard[0].system == "tones" else "B", ms=2000.0)
    export_pairs(folder, test, answers.all(), tmp_path / "out", test.axes[-1].name)
    return tmp_path / "out" / "pairs.jsonl"


def test_twenty_steps_on_an_exported_test_bring_the_model_nearer_to_what_was_preferred(
    recipe: dict[str, Any], exported: Path
) -> None:
    changed = recipe | {"pairs": str(exported), "pairs_per_step": 3, "pairs_per_batch": 3}
    changed |= {"duration_s": 0.1, "algorithm": {"beta": 1.0, "times_per_take": 4}}
    folder = train(changed, num_steps=20)
    logged = metrics(folder)
    assert logged[0]["margin"] == 0  # the policy is the reference
    late = logged[10:]
    assert statistics.fmean(line["margin"] for line in late) > 0.5
    assert statistics.fmean(line["accuracy"] for line in late) > 0.7
    assert statistics.fmean(line["loss"] for line in late) < 0.9 * logged[0]["loss"]
    taught = Resonate.from_pretrained(folder / "export", device="cpu")
    assert len(taught.generate("dog", duration_s=0.2, num_inference_steps=2, seeds=1)) == 1
    assert "margin" in (folder / "index.html").read_text()


@pytest.mark.parametrize(
    "lora",
    [None, pytest.param({"rank": 2}, marks=pytest.mark.slow)],
    ids=["full", "lora"],
)
def test_a_run_that_lost_its_last_steps_and_goes_on_ends_with_the_same_bits(
    recipe: dict[str, Any], tmp_path: Path, lora: dict[str, int] | None
) -> None:
    changed = recipe | {"lora": lora}
    whole = train(changed, output=str(tmp_path / "whole"), num_steps=5)
    broken = train(changed, output=str(tmp_path / "broken"), num_steps=3)
    list_checkpoints(broken / "checkpoints")[-1].unlink()
    train(changed, output=str(tmp_path / "broken"), num_steps=5)
    first, second = (
        load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).tensors
        for folder in (whole, broken)
    )
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert [line["loss"] for line in metrics(whole)] == [line["loss"] for line in metrics(broken)]


def test_other_pairs_under_the_same_name_are_no_way_to_go_on(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe)
    clips = Path(recipe["pairs"]).parent / "clips"
    shutil.copyfile(clips / "l0.wav", clips / "l1.wav")
    longer = recipe | {"run": recipe["run"] | {"num_steps": 4}}
    assert train_here("dpo", longer) == 2
    assert "the content of pairs changed" in capsys.readouterr().err


def test_an_evaluation_may_listen_in(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    (tmp_path / "held-out.txt").write_text("wind\n")
    evaluation = {"prompts": str(tmp_path / "held-out.txt"), "num_inference_steps": 2}
    listening = {"reward": "loud_judge:loudness", "evaluation": evaluation}
    folder = train(recipe | listening, sample_every=3, num_steps=3)
    scored = (folder / "evaluation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in scored] == [0, 3]


def test_the_lengths_of_sounds_are_told_before_the_first_step(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    clips = Path(recipe["pairs"]).parent / "clips"
    for name, seconds in {"w0": 3.0, "l0": 0.1}.items():
        soundfile.write(clips / f"{name}.wav", tone(300, seconds).samples, 8000)
    short = recipe | {"run": recipe["run"] | {"num_steps": 1}}
    assert train_here("dpo", short) == 0
    said = capsys.readouterr().err
    assert "3 pairs of 6 sounds, 2 of them a step, 0.5 s each" in said
    assert "1 are longer and lose their end, 1 shorter and followed by silence" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": "prompts.txt"}, "prompts: pairs bring their own texts and sounds"),
        ({"takes": 8, "sampler": {}}, "leave out takes, sampler"),
        ({"algorithm": {"kind": "grpo"}}, "algorithm.kind: Input should be 'dpo'"),
        ({"algorithm": {"online": True}}, "algorithm.online: pairs are given"),
        ({"reward": "nano-clap"}, "reward and evaluation.prompts: expected both"),
        ({"pairs": "nowhere/pairs.jsonl"}, "nowhere/pairs.jsonl: cannot read it"),
        ({"pairs": 7}, "pairs: Input is not a valid path"),
        ({"pairs_per_step": 0}, "pairs_per_step: Input should be greater than or equal to 1"),
        ({"duration_s": 60.0}, "duration of 60.0 s: tiny makes"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_in_one_line(
    recipe: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    assert train_here("dpo", recipe | change) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert not any("Traceback" in line for line in said)


def spoil_list(pairs: Path) -> str:
    pairs.write_text(pairs.read_text() + "{broken\n")
    return "pairs.jsonl:4: not JSON"


def empty_list(pairs: Path) -> str:
    pairs.write_text("")
    return "pairs.jsonl: no pair in it"


def lose_sound(pairs: Path) -> str:
    (pairs.parent / "clips" / "l1.wav").unlink()
    return "pairs.jsonl:2: rejected: there is no file"


def silence_sound(pairs: Path) -> str:
    soundfile.write(pairs.parent / "clips" / "w1.wav", np.zeros(4000), 8000)
    return "w1.wav: is silent from end to end"


def break_sound(pairs: Path) -> str:
    broken = np.full(4000, np.nan, np.float32)
    soundfile.write(pairs.parent / "clips" / "w1.wav", broken, 8000, subtype="FLOAT")
    return "w1.wav: holds NaN or infinite samples"


def drop_text(pairs: Path) -> str:
    pairs.write_text(pairs.read_text().replace('"bell"', '""'))
    return "pairs.jsonl:3: prompt is empty"


@pytest.mark.parametrize(
    "spoil", [spoil_list, empty_list, lose_sound, silence_sound, break_sound, drop_text]
)
def test_a_list_that_cannot_be_learnt_from_is_refused_in_one_line(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    message = spoil(Path(recipe["pairs"]))
    assert train_here("dpo", recipe) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert not any("Traceback" in line for line in said)


def test_only_dpo_learns_from_pairs(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here("grpo", recipe) == 2
    assert "pairs: only `resonate train dpo` learns from pairs" in capsys.readouterr().err


def test_the_recipe_that_comes_with_the_project_is_valid() -> None:
    recipe = load_config(PairRecipe, RECIPES / "nano" / "dpo-pairs.yaml")
    assert recipe.model == "nano"


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_pairs_in_two_processes_are_learnt_as_in_one(recipe: dict[str, Any], parallel: str) -> None:
    changed = recipe | {"optim": CALM | {"schedule": "constant", "warmup_steps": 0}}
    join(launch(1, "dpo", changed, "one"))
    join(launch(2, "dpo", changed, "many", parallel=parallel))
    assert_same_training(changed, "one", "many")


def test_micro_batches_of_a_run_on_pairs_are_refused(recipe: dict[str, Any]) -> None:
    recipe["run"] |= {"micro_batches": 2}
    with pytest.raises(ConfigError, match=r"run\.micro_batches 2: expected 1"):
        parse_config(PairRecipe, recipe, "test")
