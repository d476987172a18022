from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_scenes import LABELS, LALM, MATCHER, TOWERS, tone_scenes

from resonate_audio.nano.judges.lalm import COMPARING_LAYER, tokens_within
from resonate_audio.nano.judges.questions import WRONG_KINDS, ask
from resonate_audio.nano.judges.scenes import activity, draw_exam
from resonate_audio.nano.judges.training.captions import CaptionReader, open_reader
from resonate_audio.nano.judges.training.clap import ClapRecipe, ClapTask
from resonate_audio.nano.judges.training.eval import (
    EvalModules,
    EvalRecipe,
    EvalTask,
    word_pointing,
)
from resonate_audio.nano.judges.training.exam import exam_scores, pair_accuracy
from resonate_audio.nano.judges.training.lalm import (
    LEAST_MASS,
    LalmRecipe,
    lend_head,
    looking_loss,
    make_lalm_task,
    pointing,
    scenes_told,
    unit_power,
)
from resonate_audio.nano.judges.training.lessons import altered, naming_loss, soft_cross_entropy
from resonate_audio.nano.judges.training.task import start_from
from resonate_audio.rewards.small.judge import load_minilm
from resonate_audio.rewards.small.two_tower import TwoTower
from resonate_audio.training.loop.checkpoint import load_latest, unpack
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Draw, Task
from resonate_audio.training.loop.trainer import RunResult


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


def make_task(values: dict[str, Any], judge: str, lesson: str, each: int = 1) -> tuple[Any, Task]:
    scenes, exam = tone_scenes(), draw_exam(tone_scenes(), each, seed=0)
    if judge == "clap":
        clap = ClapRecipe(judge="clap", network=TOWERS, **values)
        return clap, ClapTask(clap, TwoTower(TOWERS), reader(), scenes, exam)
    values = values | {"lesson": lesson, "questions_per_scene": 4}
    if judge == "eval":
        matcher = EvalRecipe(judge="eval", network=MATCHER, **values)
        return matcher, EvalTask(matcher, EvalModules(MATCHER, 4), reader(), scenes, exam)
    lalm = LalmRecipe(judge="lalm", network=LALM, **values)
    return lalm, make_lalm_task(lalm, scenes, exam)


def run_judge(judge: str, lesson: str, output: Path, num_steps: int) -> RunResult:
    values = settings(output, num_steps)
    recipe, _ = make_task(values, judge, lesson)
    return train(lambda device: make_task(values, judge, lesson)[1], recipe)


@pytest.mark.parametrize(
    ("judge", "lesson"),
    [
        ("clap", ""),
        ("eval", "hearing"),
        ("eval", "answers"),
        ("lalm", "hearing"),
        ("lalm", "answers"),
    ],
)
def test_a_stopped_run_goes_on_exactly(judge: str, lesson: str, tmp_path: Path) -> None:
    whole = run_judge(judge, lesson, tmp_path / "whole", 3)
    run_judge(judge, lesson, tmp_path / "parts", 2)
    resumed = run_judge(judge, lesson, tmp_path / "parts", 3)
    assert resumed.last_losses == whole.last_losses


@pytest.mark.parametrize("judge", ["eval", "lalm"])
def test_what_it_hears_with_is_fixed_while_it_learns_to_answer(judge: str, tmp_path: Path) -> None:
    _, task = make_task(settings(tmp_path, 1), judge, "answers")
    model = task.phases["model"]
    loss, _ = task.loss("model", Draw(0, 0, torch.Generator().manual_seed(0)))
    loss.backward()
    learnt = {name for name, value in model.named_parameters() if value.grad is not None}
    hearing = ("model.model.audio_tower.", "matcher.picture.", "matcher.mixers.")
    assert learnt
    assert not [name for name in learnt if name.startswith(hearing)]


@pytest.mark.parametrize("judge", ["eval", "lalm"])
def test_a_second_run_begins_with_what_the_first_has_learnt(judge: str, tmp_path: Path) -> None:
    run_judge(judge, "hearing", tmp_path, 1)
    values = settings(tmp_path / "second", 1) | {"start": tmp_path}
    _, task = make_task(values, judge, "answers")
    modules = task.phases["model"]
    if judge == "eval":
        start_from(modules, tmp_path)  # train_judge does
    kept = load_latest(tmp_path / "checkpoints")
    assert kept is not None
    average = unpack("average", kept.tensors)
    name = next(name for name in average if name.endswith(("conv2d1.weight", "flatten.weight")))
    torch.testing.assert_close(modules.state_dict()[name], average[name])


@pytest.mark.parametrize("judge", ["eval", "lalm"])
def test_while_it_learns_to_hear_it_is_examined_on_names(judge: str, tmp_path: Path) -> None:
    _, task = make_task(settings(tmp_path, 1), judge, "hearing", each=8)
    task.phases["model"].eval()
    with torch.no_grad():
        assert set(task.sample(tmp_path, 1) or {}) == {"named/pairs", "named/first"}


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


def test_a_lent_head_compares_as_the_naming_lesson_does() -> None:
    values = settings(Path("nowhere"), 1)
    _, task = make_task(values, "lalm", "hearing")
    modules = task.phases["model"]
    lend_head(modules, LALM)
    layer = task.meeting, modules.model.model.language_model.layers[COMPARING_LAYER].self_attn
    frames, states = torch.randn(2, 5, 7, LALM.text_dim).unbind(0)
    first = slice(0, LALM.head_dim)
    query = layer[1].q_norm(layer[1].q_proj(layer[0](frames))[..., first])
    key = layer[1].k_norm(layer[1].k_proj(layer[0](states))[..., first])
    lesson = task.sound_names(frames) @ unit_power(modules.words(layer[0](states))).mT
    torch.testing.assert_close(
        query @ key.mT * layer[1].scaling,
        lesson / len(LALM.slow_rows) ** 0.5,
        atol=1e-3,
        rtol=1e-3,
    )


def test_frames_that_look_at_the_phrase_that_names_them_cost_nothing() -> None:
    phrases = torch.tensor([[[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    targets = torch.tensor([[[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]]).bool()
    looks = torch.tensor([[[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1.0]]])
    torch.testing.assert_close(looking_loss(looks, phrases, targets), torch.tensor(0.0))
    elsewhere = looking_loss(looks.roll(1, dims=2), phrases, targets)
    torch.testing.assert_close(
        elsewhere, -(2 * torch.tensor(LEAST_MASS).log() + torch.tensor(0.5).log()) / 3
    )


def test_every_event_is_told_once_in_the_words_of_its_captions() -> None:
    scenes, _ = tone_scenes().crowds(np.random.default_rng(0), 6)
    told = scenes_told(scenes, np.random.default_rng(1))
    events = [event for scene in scenes for event in scene.events]
    named = {p.event: text.text[p.begin : p.end] for text in told for p in text.phrases}
    assert sorted(named) == list(range(len(events)))
    assert all(named[index] in event.captions for index, event in enumerate(events))
    assert sum(len(text.phrases) for text in told) == len(events)


def test_words_that_point_where_they_sound_cost_nothing() -> None:
    scenes = tone_scenes()
    batch = scenes.batch(np.random.default_rng(3), 2, 4)
    spans = reader().spans(batch.texts(), 32)
    likeness, row = torch.zeros(8, 32, 20), 0
    for scene, asked in zip(batch.scenes, batch.questions, strict=True):
        active = torch.from_numpy(activity(scene, 20)).float()
        for question in asked:
            for phrase in question.phrases:
                for token in tokens_within(spans[row], phrase):
                    sounding = torch.zeros(20) if phrase.event is None else active[phrase.event]
                    likeness[row, token] = 200 * sounding - 100
            row += 1
    assert word_pointing(likeness, spans, batch) < 1e-6
    assert word_pointing(-likeness, spans, batch) > 99


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
