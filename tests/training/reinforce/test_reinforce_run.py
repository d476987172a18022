"""Reinforcement from the command line: recipes, resume, mistakes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loud_judge
import pytest
import torch
from processes import train_here
from safetensors.torch import load_file
from tiny_corpus import write_recipe
from tiny_grpo import write_grpo_recipe

from resonate_audio import Resonate
from resonate_audio.cli.main import run
from resonate_audio.core.config import load_config, parse_config
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.data.prompts import read_prompts
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.training.algorithms.grpo import GRPOConfig, exact_kl_weight
from resonate_audio.training.loop.checkpoint import list_checkpoints
from resonate_audio.training.recipes.reinforce import (
    ReinforceRecipe,
    build_task,
    check_held_out,
)
from resonate_audio.training.reinforce.evaluate import Evaluator
from resonate_audio.training.reinforce.experience import Experience, TakeMaker
from resonate_audio.training.reinforce.trainer import ReinforceTrainer

RECIPES = Path(__file__).parents[3] / "recipes"
COMMAND = "import sys; from resonate_audio.cli.main import run; sys.exit(run(sys.argv[1:]))"
VERBS = {"grpo": "grpo", "guard": "grpo", "dppo": "grpo", "nft": "nft", "awm": "awm",
         "dpo": "dpo", "raft": "bon", "rwr": "bon"}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A GRPO recipe for the tiny model."""
    return write_grpo_recipe(tmp_path, tiny_model)


def start(verb: str, recipe: dict[str, Any]) -> "subprocess.Popen[bytes]":
    file = write_recipe(Path(recipe["run"]["output"] + ".yaml"), recipe)
    place = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", verb, "--recipe", str(file)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": place},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


Runs = Callable[..., str]


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Runs:
    """Run a recipe in this process, which has loaded everything already; gives what it said."""

    def run_it(verb: str, recipe: dict[str, Any], code: int = 0) -> str:
        capfd.readouterr()
        found = train_here(verb, recipe)
        said = capfd.readouterr().err
        assert found == code, said
        return said

    return run_it


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "lora", [None, pytest.param({"rank": 2}, marks=pytest.mark.slow)], ids=["full", "lora"]
)
def test_killed_anywhere_and_resumed_a_run_ends_with_the_same_bits(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, lora: dict[str, int] | None
) -> None:
    runs = {}
    for name in ("whole", "killed"):
        run = recipe["run"] | {"output": str(tmp_path / name), "num_steps": 8, "num_threads": 1}
        runs[name] = recipe | {"run": run, "lora": lora, "updates_per_step": 2}
    run_here("grpo", runs["whole"])
    process = start("grpo", runs["killed"])
    while not list_checkpoints(tmp_path / "killed" / "checkpoints"):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "resumed" in run_here("grpo", runs["killed"])

    first, second = (
        load_file(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in runs
    )
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    rewards = [
        [line["reward/mean"] for line in lines(tmp_path / name / "metrics.jsonl")] for name in runs
    ]
    assert rewards[0] == rewards[1]


@pytest.mark.parametrize("kind", VERBS)
def test_every_algorithm_runs_and_leaves_a_model_that_generates(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, kind: str
) -> None:
    run_here(VERBS[kind], recipe | {"algorithm": {"kind": kind}, "lora": {"rank": 2}})
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]
    assert {"reward/mean", "seconds/rollout", "loss", "grad_norm"} <= metrics[0].keys()
    assert {"detect/clipped_share", "detect/diversity_db"} <= metrics[0].keys()
    taught = Resonate.from_pretrained(tmp_path / "run" / "export", device="cpu")
    assert len(taught.generate("dog", duration_s=0.2, num_inference_steps=2, seeds=1)) == 1


def test_the_last_lines_say_where_to_look_and_how_to_hear_it(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs
) -> None:
    recipe["run"] |= {"num_steps": 1}
    look, hear = run_here("grpo", recipe).splitlines()[-2:]
    assert look == f"look:  {tmp_path / 'run' / 'index.html'}"
    words = shlex.split(hear.removeprefix("hear it:  "))
    assert words[:3] == ["resonate", "generate", "dog"]
    sound = tmp_path / "heard.wav"
    assert run([*words[1:], "--steps", "2", "--duration", "0.2", "-o", str(sound)]) == 0
    assert sound.is_file()


def test_best_and_worst_takes_are_kept_to_be_heard(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs
) -> None:
    run_here("grpo", recipe)
    takes = lines(tmp_path / "run" / "takes.jsonl")
    assert {take["kind"] for take in takes} == {"best", "worst"}
    assert {take["step"] for take in takes} == {1, 3}
    assert all((tmp_path / "run" / take["file"]).is_file() for take in takes)
    best = max(take["reward"] for take in takes if take["step"] == 1)
    worst = min(take["reward"] for take in takes if take["step"] == 1)
    assert best > worst
    page = (tmp_path / "run" / "index.html").read_text()
    assert all(take["file"] in page for take in takes)


def test_evaluation_compares_before_and_after_on_prompts_of_its_own(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs
) -> None:
    (tmp_path / "held-out.txt").write_text("wind\nbell rain\n")
    evaluation = {
        "prompts": str(tmp_path / "held-out.txt"),
        "held_out": "loud_judge:softness",
        "num_inference_steps": 2,
    }
    run = recipe["run"] | {"sample_every": 2}
    run_here("grpo", recipe | {"evaluation": evaluation, "run": run})
    scored = lines(tmp_path / "run" / "evaluation.jsonl")
    assert [line["step"] for line in scored] == [0, 0, 2, 2, 4, 4]
    assert [line["prompt"] for line in scored[:2]] == ["wind", "bell rain"]
    assert scored[0]["scores"] != scored[4]["scores"]

    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    run_here("grpo", recipe | {"evaluation": evaluation, "run": run})  # which is finished
    assert lines(tmp_path / "run" / "metrics.jsonl") == metrics


def test_an_evaluation_is_broken_off_by_a_signal_and_made_when_the_run_goes_on(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held-out.txt").write_text("wind\nbell\nrain\n")
    evaluation = {"prompts": str(tmp_path / "held-out.txt"), "num_inference_steps": 2}
    recipe |= {"evaluation": evaluation | {"rows_per_batch": 1}}
    runs = {
        name: recipe | {"run": recipe["run"] | {"sample_every": 2, "output": str(tmp_path / name)}}
        for name in ("whole", "stopped")
    }
    run_here("grpo", runs["whole"])
    batches: list[int] = []  # of each evaluation
    generate, to_waveform = Evaluator.generate, Resonate.to_waveform

    def count_evaluation(self: Evaluator) -> Any:
        batches.append(0)
        return generate(self)

    def stop_in_the_second(self: Resonate, latents: Any) -> Any:
        batches[-1] += 1
        if len(batches) == 2 and batches[-1] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return to_waveform(self, latents)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "generate", count_evaluation)
        patched.setattr(Resonate, "to_waveform", stop_in_the_second)
        said = run_here("grpo", runs["stopped"])
    assert (len(batches), batches[-1]) == (2, 1)
    assert "stopping after the sounds that are being made" in said
    assert "stopped at step 2" in said
    log = "evaluation.jsonl"
    assert {line["step"] for line in lines(tmp_path / "stopped" / log)} == {0}
    assert "resumed" in run_here("grpo", runs["stopped"])
    assert lines(tmp_path / "stopped" / log) == lines(tmp_path / "whole" / log)
    first, second = (
        load_file(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in runs
    )
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_judge_that_fails_leaves_a_checkpoint_of_the_last_whole_step(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs
) -> None:
    said = run_here("grpo", recipe | {"reward": "loud_judge:deaf_after_a_while"}, code=2)
    assert "nan" in said
    assert "Traceback" not in said
    assert list_checkpoints(tmp_path / "run" / "checkpoints")


def test_what_was_learnt_before_a_judge_failed_is_logged(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loud_judge, "calls", 0)
    recipe["run"] |= {"log_every": 4, "save_every": 4}
    run_here("grpo", recipe | {"reward": "loud_judge:deaf_after_a_while"}, code=2)
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert line["step"] == 1
    assert line["reward/mean"] > 0


def test_after_a_judge_failed_the_averaged_old_policy_goes_on_with_the_same_bits(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe |= {
        "reward": "loud_judge:deaf_after_a_while",
        "algorithm": {"kind": "nft", "old_decay": 0.5},
    }
    runs = {
        name: recipe | {"run": recipe["run"] | {"output": str(tmp_path / name), "save_every": 4}}
        for name in ("whole", "failed")
    }
    monkeypatch.setattr(loud_judge, "calls", -1000)
    run_here("nft", runs["whole"])
    monkeypatch.setattr(loud_judge, "calls", -3)  # two calls a step: fails in the third
    run_here("nft", runs["failed"], code=2)
    monkeypatch.setattr(loud_judge, "calls", -1000)
    assert "at step 2" in run_here("nft", runs["failed"])
    first, second = (
        load_file(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in runs
    )
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_takes_that_cannot_be_made_leave_the_last_checkpoint_as_it_was(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = TakeMaker.collect

    def diverge(self: TakeMaker, *given: Any) -> Experience:
        if given[3] == 3:
            raise InputError("the weights have diverged")
        return collect(self, *given)

    monkeypatch.setattr(TakeMaker, "collect", diverge)
    run_here("grpo", recipe, code=2)
    names = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert [int("".join(filter(str.isdigit, Path(name).stem))) for name in names] == [2]


def test_the_evaluation_hears_the_guidance_that_the_export_has(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "held-out.txt").write_text("wind\n")
    recipe |= {"evaluation": {"prompts": str(tmp_path / "held-out.txt")}}
    recipe["sampler"] |= {"guidance_scale": 2.0}
    made = parse_config(ReinforceRecipe, recipe, "test")
    task = build_task(made, read_prompts(made.prompts), JudgeDesk(), torch.device("cpu"))
    assert isinstance(task.evaluate, Evaluator)
    assert task.evaluate.resonate.config.default_guidance == 2.0
    task.export(tmp_path / "export")
    exported = Resonate.from_pretrained(tmp_path / "export", device="cpu")
    assert exported.config.default_guidance == 2.0


def test_of_several_updates_a_step_logs_the_largest_of_maxima_and_the_mean_of_means(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_once, seen = ReinforceTrainer.learn_once, list[dict[str, float]]()

    def remember(self: ReinforceTrainer, rows: Any, number: int, learn: Any) -> Any:
        metrics = learn_once(self, rows, number, learn)
        seen.append({name: value.item() for name, value in metrics.items()})
        return metrics

    monkeypatch.setattr(ReinforceTrainer, "learn_once", remember)
    recipe["run"] |= {"num_steps": 1}
    run_here("grpo", recipe | {"updates_per_step": 2})
    (line,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(seen) == 2
    deviations = [metrics["ratio/max_abs_dev"] for metrics in seen]
    assert line["ratio/max_abs_dev"] == max(deviations) > min(deviations)
    assert line["loss"] == pytest.approx(sum(metrics["loss"] for metrics in seen) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"takes": 1}, "takes: Input should be greater than or equal to 2"),
        ({"sampler": {"eta": 0.0}}, "eta 0.0"),
        ({"sampler": {"num_steps": 4, "window": 4}}, "window 4: expected at most 3"),
        ({"algorithm": {"kind": "grpo", "kl": -1.0}}, "kl: Input should be greater"),
        ({"sampler": {"kind": "ode", "num_steps": 4}}, "sampler.kind ode has no density"),
        ({"algorithm": {"kind": "nft"}}, "algorithm.kind is nft; expected grpo or guard or dppo"),
        ({"reward": "nobody"}, "nobody"),
        ({"reward": "loud_judge:nothing"}, "nothing"),
        ({"prompts_per_step": 9}, "prompts_per_step 9"),
        ({"model": "no-such-model"}, "no-such-model"),
        (
            {"evaluation": {"held_out": "loud_judge:loudness", "prompts": None}},
            "evaluation.held_out loud_judge:loudness: expected a judge that does not train",
        ),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_in_one_line(
    recipe: dict[str, Any], run_here: Runs, change: dict[str, Any], message: str
) -> None:
    said = run_here("grpo", recipe | change, code=2)
    assert message in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()[-1]) < 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": {"kind": "raft", "keep": 4}}, "algorithm.keep 4: expected at most takes, 3"),
        (
            {"algorithm": {"kind": "rwr"}, "advantage": {"combine": "gdpo"}},
            "advantage.combine gdpo: expected total, by which rwr ranks takes",
        ),
        (
            {"algorithm": {"kind": "dpo"}, "advantage": {"combine": "gdpo"}},
            "advantage.combine gdpo: expected total, by which dpo ranks takes",
        ),
    ],
)
def test_settings_without_an_effect_are_refused_by_field(
    recipe: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ReinforceRecipe, recipe | change, "test")


def test_micro_batches_of_a_reinforcement_run_are_refused(recipe: dict[str, Any]) -> None:
    recipe["run"] |= {"micro_batches": 2}
    with pytest.raises(ConfigError, match=r"run\.micro_batches 2: expected 1"):
        parse_config(ReinforceRecipe, recipe, "test")


def test_a_judge_with_a_weight_of_0_in_the_reward_may_be_held_out(recipe: dict[str, Any]) -> None:
    reward, held_out = "loud_judge:loudness,0*nano-eval", {"held_out": "nano-eval", "prompts": None}
    check_held_out(
        parse_config(ReinforceRecipe, recipe | {"reward": reward, "evaluation": held_out}, "test")
    )


def test_a_held_out_judge_without_prompts_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"held_out nano-eval: judges nothing without .*prompts"):
        parse_config(ReinforceRecipe, recipe | {"evaluation": {"held_out": "nano-eval"}}, "test")


def test_an_empty_prompt_file_is_refused(
    recipe: dict[str, Any], tmp_path: Path, run_here: Runs
) -> None:
    (tmp_path / "prompts.txt").write_text("\n")
    assert "no prompt in it" in run_here("grpo", recipe, code=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("grpo-paper", "grpo"), ("grpo-fast", "grpo"), ("guest", "grpo"), ("nano/grpo", "grpo"),
        ("nano/nft", "nft"), ("nano/awm", "awm"), ("nano/dpo", "dpo"), ("nano/bon", "raft"),
    ],
)  # fmt: skip
def test_the_recipes_that_come_with_the_project_are_valid(name: str, kind: str) -> None:
    recipe = load_config(ReinforceRecipe, RECIPES / f"{name}.yaml")
    assert recipe.algorithm.kind == kind
    assert recipe.evaluation.held_out is None or recipe.evaluation.held_out not in recipe.reward


def test_the_paper_recipe_is_that_of_the_paper() -> None:
    recipe = load_config(ReinforceRecipe, RECIPES / "grpo-paper.yaml")
    sampler, algorithm = recipe.sampler, recipe.algorithm
    assert isinstance(algorithm, GRPOConfig)
    assert (recipe.takes, sampler.num_steps, sampler.eta) == (24, 10, 0.7)
    assert (sampler.kind, sampler.window, sampler.guidance_scale) == ("flow_sde", None, 4.5)
    assert algorithm.kl == pytest.approx(exact_kl_weight(0.04, 1 / sampler.num_steps))
    assert (algorithm.clip, recipe.optim.learning_rate, recipe.lora) == (1e-4, 1e-4, None)
    assert recipe.run.num_steps == 1000
