"""Both ways to few steps without guidance: from a teacher, and from recordings."""

from dataclasses import replace

import pytest
import torch
from learning import draw, learn
from test_pretrain import CONFIG, make_set
from torch import Tensor

from resonate_audio.core.errors import TrainingError
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.mean_flow import Trajectory, sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.model.flow_transformer import FlowTransformer, with_second_time
from resonate_audio.training.pretrain.distil import GuidedConfig, GuidedTask
from resonate_audio.training.pretrain.mean_flow import MeanFlowConfig, MeanFlowTask
from resonate_audio.training.pretrain.task import FlowConfig, PretrainTask, build_transformer

FLOW = FlowConfig(frames_per_batch=48, condition_dropout=0.0)


@pytest.fixture(scope="module")
def teacher() -> FlowTransformer:
    """Knows two lines by heart."""
    data = make_set(copies=16)
    torch.manual_seed(0)
    task = PretrainTask(build_transformer(CONFIG, data), data, FLOW, seed=0)
    learn(task, 60, 5e-3)
    return task.model.eval()


def source(teacher: FlowTransformer) -> PretrainTask:
    return PretrainTask(with_second_time(teacher), make_set(copies=16), FLOW, seed=1)


def made(model: FlowTransformer, num_steps: int, guidance: float = 1.0) -> Tensor:
    """Latents of both prompts."""
    features = make_set().captions.features(torch.tensor([1, 2]))
    noise = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(3))
    settings = SolverSettings(num_inference_steps=num_steps, guidance_scale=guidance)
    conditions = model.condition(features), model.condition(model.empty_features(2))
    is_mean = model.config.mean_velocity
    with torch.no_grad():
        return solve(sampling_velocity(model, *conditions, settings, is_mean), noise, settings)


def test_a_student_begins_as_its_teacher_whatever_the_second_time(teacher: FlowTransformer) -> None:
    student = with_second_time(teacher)
    z, t, r = torch.randn(2, 6, 2), torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.4])
    features = make_set().captions.features(torch.tensor([1, 2]))
    expected = teacher(z, t, teacher.condition(features))
    conditions = student.condition(features)
    assert torch.equal(student(z, t, conditions, r), expected)
    assert torch.equal(student(z, t, conditions), expected)


def test_a_student_does_in_one_step_what_its_guided_teacher_does_in_many(
    teacher: FlowTransformer,
) -> None:
    expected = made(teacher, 50, guidance=2.0)
    task = GuidedTask(
        source(teacher), 0.0, GuidedConfig(guidance_scale=2.0, teacher_steps=8), teacher, 4
    )

    def distance(num_steps: int) -> float:
        return (made(task.model, num_steps) - expected).square().mean().item()

    before = distance(1)
    learn(task, 50, 3e-3)
    assert distance(1) < before / 4
    assert distance(4) < before / 4


def test_a_share_of_a_whole_ways_stretches_are_the_students_own_steps(
    teacher: FlowTransformer,
) -> None:
    config = GuidedConfig(teacher_steps=8, stretches=500, own_share=1.0, noise_share=0.5)
    task = GuidedTask(source(teacher), 0.0, config, teacher, own_steps=4)
    times = torch.linspace(1, 0, 9)[:, None]
    way = Trajectory(
        torch.zeros(9, 2, 6, 2), torch.cat([times, 0.9 * times], 1), torch.zeros(8, 2, 6, 2)
    )
    first, last = task.stretches(way, draw(0))
    whole, part = zip(first.T.tolist(), last.T.tolist(), strict=True)
    assert set(zip(*whole, strict=True)) == {(0, 2), (2, 4), (4, 6), (6, 8)}
    every = {(begin, end) for begin in range(8) for end in range(begin, 9)}
    assert set(zip(*part, strict=True)) == every


def test_mean_flow_makes_one_step_better_than_the_flow_it_began_with(
    teacher: FlowTransformer,
) -> None:
    sounds = make_set().buckets[0].mean.float()
    config = MeanFlowConfig(equal_share=0.5, data_share=1.0, prompt_share=0.0)
    task = MeanFlowTask(source(teacher), 0.0, config)

    def distance() -> float:
        return (task.model.unnormalize(made(task.model, 1)) - sounds).square().mean().item()

    before = distance()
    learn(task, 50, 3e-3)
    assert distance() < 0.7 * before


def test_the_guidance_of_the_target_hears_prompts_that_are_dropped(
    teacher: FlowTransformer,
) -> None:
    task = MeanFlowTask(source(teacher), 1.0, MeanFlowConfig(equal_share=1.0))
    batch = task.source.own_batch(draw(0))
    dropped = task.drop_some(batch, draw(0))
    assert torch.equal(dropped.pooled, task.model.empty_features(len(batch.data)).pooled)
    z, t = batch.noise, torch.full((len(batch.data),), 0.7)
    heard, silent = (
        task.model(z, t, task.model.condition(features)) for features in (batch.features, dropped)
    )
    v = batch.noise - batch.data
    got = task.target(z, t, t, batch, dropped)
    torch.testing.assert_close(got, 0.3 * v + 0.9 * heard - 0.2 * silent)


@pytest.mark.parametrize("kind", ["guided", "meanflow"])
def test_both_learn_in_bfloat16_what_they_learn_in_float32(
    teacher: FlowTransformer, kind: str
) -> None:
    def task() -> GuidedTask | MeanFlowTask:
        if kind == "guided":
            return GuidedTask(source(teacher), 0.1, GuidedConfig(teacher_steps=4), teacher, 2)
        return MeanFlowTask(source(teacher), 0.1, MeanFlowConfig(equal_share=0.5))

    def gradients(half: bool) -> tuple[Tensor, Tensor]:
        one = task()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = one.loss("model", draw(0))
        loss.backward()
        parts = [p.grad.flatten() for p in one.model.parameters() if p.grad is not None]
        return loss.detach(), torch.cat(parts)

    (loss, exact), (half_loss, half) = gradients(False), gradients(True)
    torch.testing.assert_close(half_loss, loss, rtol=0.03, atol=0)
    assert torch.cosine_similarity(exact, half, dim=0) > 0.98


def test_a_batch_is_a_function_of_its_number(teacher: FlowTransformer) -> None:
    task = GuidedTask(source(teacher), 0.5, GuidedConfig(teacher_steps=2), teacher, 2)
    losses = [task.loss("model", draw(index))[0].item() for index in (3, 4, 3)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("kind", ["guided", "meanflow"])
def test_a_batch_that_weighs_nothing_teaches_nothing(teacher: FlowTransformer, kind: str) -> None:
    task: GuidedTask | MeanFlowTask = (
        GuidedTask(source(teacher), 0.0, GuidedConfig(teacher_steps=2), teacher, 2)
        if kind == "guided"
        else MeanFlowTask(source(teacher), 0.0, MeanFlowConfig())
    )

    def loss(share: float) -> float:
        batch = replace(task.source.draw_batch(draw(0)), share=share)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(task.source, "own_batch", lambda _: batch)
            return task.loss("model", draw(0))[0].item()

    assert loss(0.0) == 0.0
    assert loss(0.5) == pytest.approx(loss(1.0) / 2)


def test_another_teacher_is_refused(teacher: FlowTransformer) -> None:
    task = GuidedTask(source(teacher), 0.1, GuidedConfig(), teacher, 4)
    kept = task.extra_state()
    task.load_extra_state(kept)
    other = GuidedTask(source(teacher), 0.1, GuidedConfig(), FlowTransformer(CONFIG), 4)
    with pytest.raises(TrainingError, match="another teacher than this run began with"):
        other.load_extra_state(kept)
