import pytest
import torch

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.training.loop.optim import OptimConfig, learning_rate_factor, make_optimizer

STEP = OptimConfig(warmup_steps=10)
COSINE = OptimConfig(warmup_steps=10, schedule="cosine", final_ratio=0.2)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0)])
def test_the_warm_up_is_linear(step: int, factor: float) -> None:
    assert learning_rate_factor(step, 1000, STEP) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(799, 1), (800, 0.1), (899, 0.1), (900, 0.01)])
def test_the_rate_drops_at_80_and_90_percent_of_the_whole_run(step: int, factor: float) -> None:
    assert learning_rate_factor(step, 1000, STEP) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(10, 1.0), (505, 0.6), (1000, 0.2)])
def test_the_cosine_falls_from_the_peak_through_the_middle_to_the_end(
    step: int, factor: float
) -> None:
    assert learning_rate_factor(step, 1000, COSINE) == pytest.approx(factor)


def test_a_constant_schedule_without_warm_up_is_one() -> None:
    config = OptimConfig(schedule="constant", warmup_steps=0)
    assert {learning_rate_factor(step, 10, config) for step in range(10)} == {1.0}


def test_weights_without_gradient_are_left_to_themselves() -> None:
    frozen, trained = torch.nn.Parameter(torch.ones(1), False), torch.nn.Parameter(torch.ones(1))
    groups = make_optimizer([frozen, trained], STEP).param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(trained)]


def test_the_first_adamw_update_is_one_learning_rate_long() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    config = OptimConfig(learning_rate=0.01, eps=1e-12, weight_decay=0)
    optimizer = make_optimizer([weight], config)
    weight.grad = torch.tensor([123.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([1.99]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"betas": [1.0, 0.95]}, r"betas\.0: Input should be less than 1"),
        ({"betas": [0.9, -0.1]}, r"betas\.1: Input should be greater than or equal to 0"),
        ({"milestones": [0.9, 0.8]}, r"milestones: .*\[0\.9, 0\.8\]: expected fractions"),
        ({"milestones": [0.8, 0.8]}, "milestones: .*each larger than the one before"),
        ({"milestones": [0.0, 0.8]}, "milestones: .*above 0"),
    ],
)
def test_an_optimiser_that_cannot_work_is_refused_by_field(
    values: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(OptimConfig, values, "test")
