from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_scenes import LABELS, LALM, MATCHER, TOWERS, tone_scenes

from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judge_lalm import build_lalm
from resonate_audio.nano.judge_questions import WRONG_KINDS, ask
from resonate_audio.nano.judge_scenes import draw_exam
from resonate_audio.nano.judge_training import (
    LENT_SCALE,
    CaptionReader,
    ClapRecipe,
    ClapTask,
    EvalModules,
    EvalRecipe,
    EvalTask,
    LalmModules,
    LalmRecipe,
    altered,
    exam_scores,
    lend_heads,
    make_lalm_task,
    naming_loss,
    open_reader,
    pair_accuracy,
    pointing,
    soft_cross_entropy,
)
from resonate_audio.rewards.small_judge import load_minilm
from resonate_audio.rewards.two_tower import TwoTower
from resonate_audio.training.run import RunResult, Task, train


def settings(output: Path, num_steps: int) -> dict[str, Any]:
    return {
        "data": {"corpus": "nowhere"},
        "scenes_per_batch": 2,
        "exam_each": 1,
        "run": {"output": output, "num_steps": num_steps, "device": "cpu", "log_every": 1},
        "optim": {"schedule": "constant", "warmup_steps": 0, "learning_rate": 1e-3},
    }


@cache
def reader() -> CaptionReader:
    return open_reader()


def run_judge(judge: str, output: Path, num_steps: int) -> RunResult:
    scenes, values = tone_scenes(), settings(output, num_steps)
    if judge != "clap":
        values["listening"] = {"steps": 1}
    exam = draw_exam(scenes, 1, seed=0)

    def build(device: torch.device) -> Task:
        if judge == "clap":
            clap = ClapRecipe(judge="clap", network=TOWERS, **values)
            return ClapTask(clap, TwoTower(TOWERS), reader(), scenes, exam)
        if judge == "eval":
            matcher = EvalRecipe(judge="eval", network=MATCHER, **values)
            return EvalTask(matcher, EvalModules(MATCHER, 4), reader(), scenes, exam)
        lalm = LalmRecipe(judge="lalm", network=LALM, **values)
        return make_lalm_task(lalm, scenes, exam)

    recipes = {"clap": ClapRecipe, "eval": EvalRecipe, "lalm": LalmRecipe}
    return train(build, recipes[judge](judge=judge, **values))


@pytest.mark.parametrize("judge", ["clap", "eval", "lalm"])
def test_a_stopped_run_goes_on_exactly(judge: str, tmp_path: Path) -> None:
    whole = run_judge(judge, tmp_path / "whole", 3)
    run_judge(judge, tmp_path / "parts", 2)
    resumed = run_judge(judge, tmp_path / "parts", 3)
    assert resumed.last_losses == whole.last_losses


def test_wrong_and_right_texts_are_told_apart_by_a_judge_that_knows() -> None:
    exam = draw_exam(tone_scenes(), 2, seed=0)
    right = {(item.right, item.samples.tobytes()) for item in exam}

    def score(waves: torch.Tensor, texts: list[str]) -> torch.Tensor:
        pairs = zip(texts, waves.numpy(), strict=True)
        return torch.tensor([float((text, wave.tobytes()) in right) for text, wave in pairs])

    accuracy = pair_accuracy(exam, exam_scores(score, exam))
    assert accuracy == {f"pairs/{kind}": 1.0 for kind in WRONG_KINDS}


def test_a_judge_that_cannot_tell_is_right_half_of_the_time() -> None:
    exam = draw_exam(tone_scenes(), 2, seed=0)
    accuracy = pair_accuracy(exam, torch.zeros(len(exam), 2))
    assert set(accuracy.values()) == {0.5}


def test_short_padding_changes_no_feature() -> None:
    texts = ["rain", "a dog barks, followed by a cat, then a very long melody of many notes"]
    short, whole = reader().encode(texts), load_minilm().encode(texts)
    torch.testing.assert_close(short.pooled, whole.pooled, atol=1e-4, rtol=0)
    length = short.tokens.shape[1]
    torch.testing.assert_close(short.tokens, whole.tokens[:, :length], atol=1e-3, rtol=0)


def test_each_frame_points_at_the_phrase_that_names_it() -> None:
    named = [("a beep", 1), ("a hum", None)]
    question = ask("{0}, then {1}", named, "wrong event")
    active = torch.tensor([[True, False, False], [False, True, False]])
    expected = [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert pointing(active, question).int().tolist() == expected


def test_naming_is_free_when_frames_mean_their_own_caption() -> None:
    scenes = tone_scenes()
    crowd, _ = scenes.crowds(np.random.default_rng(0), 2)
    labels = [event.label for scene in crowd for event in scene.events]
    words = torch.stack([torch.eye(4)[LABELS.index(label)] for label in labels])
    targets = scenes.class_targets(crowd, 40)[..., :4]
    right = naming_loss(200 * targets, words, crowd, scenes.classes)
    same = torch.tensor([labels.count(label) for label in labels])
    assert right <= same.max().log() + 1e-4
    assert naming_loss(200 * targets.roll(1, dims=2), words, crowd, scenes.classes) > 10


def test_lent_heads_compare_as_the_naming_lesson_does() -> None:
    llm = build_lalm(LALM, ["a beep"], BUNDLED_FOLDER / "text_encoder")
    modules = LalmModules(llm.model, LALM, 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a lesson of so few directions that the heads can hold it whole
        for linear in (modules.sounds, modules.words):
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
            linear.weight[2:] = 0
    lend_heads(modules, num_heads=1)
    attention = llm.model.model.language_model.layers[1].self_attn
    dim = attention.head_dim
    made = attention.q_proj.weight[:dim].T @ attention.k_proj.weight[:dim] / dim**0.5
    wanted = LENT_SCALE * modules.sounds.weight.T @ modules.words.weight
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)


def test_soft_cross_entropy_of_shares_is_known() -> None:
    logits = torch.tensor([[[0.0, 0.0]]])
    targets = torch.tensor([[[0.5, 0.5]]])
    torch.testing.assert_close(soft_cross_entropy(logits, targets), torch.tensor(2.0).log())


def test_another_microphone_is_the_same_at_every_moment() -> None:
    pictures = torch.rand(3, 16, 20)
    changed = altered(pictures, np.random.default_rng(0), 0.1)
    kept = changed != pictures.amin(dim=(1, 2), keepdim=True)
    spread = torch.where(kept, changed - pictures, torch.nan)
    for row in spread.flatten(0, 1):
        values = row[~row.isnan()]
        torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-5, rtol=0)
