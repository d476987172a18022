"""Both ways to few steps without guidance: from a teacher, and from recordings."""

from dataclasses import replace

import pytest
import torch
from learning import draw, learn
from test_pretrain import CONFIG, make_set
from torch import Tensor

from resonate_audio.core.errors import TrainingError
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.mean_flow import follow, sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.flow.path import Velocity, noised
from resonate_audio.model.flow_transformer import FlowTransformer, with_second_time
from resonate_audio.training.pretrain.distil import GuidedConfig, GuidedTask, Stretch
from resonate_audio.training.pretrain.mean_flow import MeanFlowConfig, MeanFlowTask
from resonate_audio.training.pretrain.task import (
    FlowBatch,
    FlowConfig,
    PretrainTask,
    build_transformer,
)

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
        source(teacher),
        0.0,
        GuidedConfig(guidance_scale=2.0, teacher_steps=4, long_share=0.3),
        teacher,
        4,
    )

    def distance(num_steps: int) -> float:
        return (made(task.model, num_steps) - expected).square().mean().item()

    before = distance(1)
    learn(task, 50, 3e-3)
    assert distance(1) < before / 4
    assert distance(4) < before / 4


def taught(teacher: FlowTransformer, **fields: float) -> tuple[GuidedTask, FlowBatch, Stretch]:
    """A task, a batch, and what its rows learn, in the batch's order."""
    config = GuidedConfig(guidance_scale=2.0, teacher_steps=2, **fields)
    task = GuidedTask(source(teacher), 0.0, config, teacher, own_steps=4)
    torch.nn.init.normal_(task.model.end_timestep.outer.weight, std=0.05)
    batch = task.source.own_batch(draw(0))
    order, stretch = task.teach(batch, batch.features, draw(0))
    assert order.sort().values.tolist() == list(range(len(batch.data)))
    return task, batch, Stretch(*(part[order.argsort()] for part in stretch))


def guided_by_two(teacher: FlowTransformer, batch: FlowBatch) -> Velocity:
    empty = teacher.condition(teacher.empty_features(len(batch.data)))
    return guided(teacher, teacher.condition(batch.features), empty, 2.0)


def test_a_point_learns_the_guided_velocity_there(teacher: FlowTransformer) -> None:
    _, batch, found = taught(teacher, point_share=1.0)
    assert torch.equal(found.t, batch.times)
    assert torch.equal(found.r, found.t)
    assert torch.equal(found.z, noised(batch.data, batch.noise, found.t))
    with torch.no_grad():
        torch.testing.assert_close(found.mean, guided_by_two(teacher, batch)(found.z, found.t))


def test_below_a_level_the_teacher_is_not_guided(teacher: FlowTransformer) -> None:
    _, batch, found = taught(teacher, point_share=1.0, guidance_low=0.5)
    above = (found.t >= 0.5)[:, None, None]
    assert above.any()
    assert not above.all()
    with torch.no_grad():
        led = guided_by_two(teacher, batch)(found.z, found.t)
        plain = teacher(found.z, found.t, teacher.condition(batch.features))
    torch.testing.assert_close(found.mean, torch.where(above, led, plain))


@pytest.mark.parametrize("reached", [0.0, 1.0])
def test_a_step_learns_where_the_teacher_comes_to_in_some(
    teacher: FlowTransformer, reached: float
) -> None:
    task, batch, found = taught(teacher, point_share=0.0, long_share=0.0, reached_share=reached)
    assert set(found.t.tolist()) <= {1.0, 0.75, 0.5, 0.25}
    torch.testing.assert_close(found.t - found.r, torch.full_like(found.t, 0.25))
    end = follow(guided_by_two(teacher, batch), found.z, found.t, found.r, 2)
    torch.testing.assert_close(found.z - 0.25 * found.mean, end)
    if not reached:
        torch.testing.assert_close(found.z, noised(batch.data, batch.noise, found.t))
        return
    conditions = task.model.condition(batch.features)
    for row, begin in enumerate(((1 - found.t) * 4).tolist()):
        z = batch.noise
        for step in range(round(begin)):
            t, r = torch.full_like(found.t, 1 - step / 4), torch.full_like(found.t, 0.75 - step / 4)
            with torch.no_grad():
                z = z - 0.25 * task.model(z, t, conditions, r)
        torch.testing.assert_close(found.z[row], z[row])


def test_several_steps_are_learnt_from_the_students_own_two_halves(
    teacher: FlowTransformer,
) -> None:
    task, batch, found = taught(teacher, point_share=0.0, long_share=1.0)
    spans = {(round(4 * t), round(4 * r)) for t, r in torch.stack([found.t, found.r], 1).tolist()}
    assert spans <= {(4, 2), (4, 1), (4, 0), (3, 1), (3, 0), (2, 0)}
    assert len(spans) > 2
    conditions = task.model.condition(batch.features)
    begin, end = 4 - 4 * found.t, 4 - 4 * found.r
    middle = 1 - torch.floor((begin + end) / 2) / 4
    with torch.no_grad():
        first = task.model(found.z, found.t, conditions, middle)
        halfway = found.z - (found.t - middle)[:, None, None] * first
        second = task.model(halfway, middle, conditions, found.r)
    share = ((found.t - middle) / (found.t - found.r))[:, None, None]
    torch.testing.assert_close(found.mean, share * first + (1 - share) * second)


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
