from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from drawn import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.sde import SamplerKind, SDESchedule, make_schedule, sde_step, step_gains

ETAS: dict[SamplerKind, float] = {"flow_sde": 0.7, "dance_sde": 0.3, "cps": 0.8, "ou": 0.7}
NOISY = pytest.mark.parametrize("kind", ETAS)
MEAN, SPREAD = 0.5, 0.3
"""Of one-dimensional Gaussian data."""

levels_in_order = st.tuples(st.floats(0.001, 0.998), st.floats(0.0, 0.999)).map(
    lambda pair: (pair[0] + (1 - pair[0]) * 0.5, pair[0] * pair[1])
)


def final_spread(kind: SamplerKind, eta: float, num_steps: int) -> float:
    """Spread of the samples if the velocity of N(0.5, 0.3²) is exact: linear, so no sampling.

    E[x̂0|x] = m + w(x − (1−σ)m) with w = (1−σ)d²/((1−σ)²d² + σ²); the step is linear in x.
    """
    variance = 1.0
    levels = [1 - step / num_steps for step in range(num_steps)] + [0.0]
    for level, after in pairwise(levels):
        gains = step_gains(kind, eta, level, after, levels[1])
        weight = (1 - level) * SPREAD**2 / ((1 - level) ** 2 * SPREAD**2 + level**2)
        slope = (1 - after) * weight + gains.noise * (1 - (1 - level) * weight) / level
        variance = slope**2 * variance + gains.std**2
    return math.sqrt(variance)


@settings(deadline=None)
@given(levels_in_order, st.floats(0.01, 1.0))
def test_cps_leaves_exactly_the_noise_level_it_names(
    levels: tuple[float, float], eta: float
) -> None:
    gains = step_gains("cps", eta, *levels, 0.5)
    assert gains.noise**2 + gains.std**2 == pytest.approx(levels[1] ** 2, rel=1e-12)


@settings(deadline=None)
@given(levels_in_order, st.floats(0.01, 5.0))
def test_ou_leaves_exactly_the_noise_level_it_names(
    levels: tuple[float, float], eta: float
) -> None:
    gains = step_gains("ou", eta, *levels, 0.5)
    assert gains.noise**2 + gains.std**2 == pytest.approx(levels[1] ** 2, rel=1e-12)


@settings(deadline=None)
@given(levels_in_order, st.floats(0.05, 2.0), st.sampled_from(["flow_sde", "dance_sde"]))
def test_euler_maruyama_leaves_more_noise_than_it_names(
    levels: tuple[float, float], eta: float, kind: SamplerKind
) -> None:
    gains = step_gains(kind, eta, *levels, 0.5)
    assert gains.noise**2 + gains.std**2 > levels[1] ** 2


def test_the_published_sampler_ends_with_hiss() -> None:
    gains = step_gains("flow_sde", 0.7, 0.1, 0.0, 0.9)
    left = math.hypot(gains.noise, gains.std)
    assert left == pytest.approx(0.0786, abs=1e-4)


def test_ou_forgets_the_old_noise_at_pure_noise_and_adds_none_at_data() -> None:
    first, last = step_gains("ou", 0.7, 1.0, 0.9, 0.9), step_gains("ou", 0.7, 0.1, 0.0, 0.9)
    assert (first.noise, first.std) == (0.0, pytest.approx(0.9))
    assert (last.noise, last.std) == (0.0, 0.0)


def test_ou_steps_compose() -> None:
    kept = [
        step_gains("ou", 1.3, before, after, 0.9).noise / after
        for before, after in ((0.8, 0.5), (0.5, 0.2), (0.8, 0.2))
    ]
    assert kept[0] * kept[1] == pytest.approx(kept[2])


def test_ou_and_flow_sde_agree_in_the_limit_of_small_steps() -> None:
    exact, euler = (step_gains(kind, 0.7, 0.5, 0.4999, 0.9) for kind in ("ou", "flow_sde"))
    assert exact.std == pytest.approx(euler.std, rel=1e-3)
    assert 0.4999 - exact.noise == pytest.approx(0.4999 - euler.noise, rel=1e-3)


@pytest.mark.parametrize("kind", ["ode", "flow_sde", "dance_sde", "ou"])
def test_gaussian_data_is_reached_as_steps_grow(kind: SamplerKind) -> None:
    error_of_ten, error_of_many = (
        abs(final_spread(kind, ETAS.get(kind, 0.0), num_steps) - SPREAD) for num_steps in (10, 1600)
    )
    assert error_of_many < min(6e-4, error_of_ten / 20)


def test_cps_does_not_become_exact_as_steps_grow() -> None:
    assert SPREAD - final_spread("cps", 0.8, 3000) > 0.05


@pytest.mark.parametrize(
    ("kind", "eta", "expected"),
    [
        ("ode", 0.0, 0.247), ("flow_sde", 0.7, 0.282), ("dance_sde", 0.3, 0.262),
        ("ou", 0.7, 0.239), ("ou", 1.5, 0.216), ("cps", 0.8, 0.203),
    ],
)  # fmt: skip
def test_ten_steps_give_the_spread_that_simulation_gave(
    kind: SamplerKind, eta: float, expected: float
) -> None:
    assert final_spread(kind, eta, 10) == pytest.approx(expected, abs=0.002)


def test_the_ode_kind_is_the_euler_solver() -> None:
    schedule, start = make_schedule("ode", 0.0, 7), draw(2, 3, 4)
    z = start
    for step in range(7):
        z = sde_step(z, z.sin(), torch.full((2,), step), schedule, noise=draw(2, 3, 4)).next_state
    expected = integrate(lambda z, t: z.sin(), start, schedule.levels)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-6)


@NOISY
def test_the_mean_is_data_and_noise_as_the_velocity_tells_them_apart(kind: SamplerKind) -> None:
    schedule = make_schedule(kind, ETAS[kind], [0.9, 0.6, 0.2])
    z, v, index = draw(1, 5, 2), draw(1, 5, 2, seed=1), torch.tensor([1])
    data, noise = z - 0.6 * v, z + 0.4 * v
    expected = 0.8 * data + schedule.noise_gain[1] * noise
    torch.testing.assert_close(sde_step(z, v, index, schedule).mean, expected)


@NOISY
def test_the_jacobian_is_the_slope_of_the_mean(kind: SamplerKind) -> None:
    schedule = make_schedule(kind, ETAS[kind], 10)
    z, v, index = draw(9, 4, 2), draw(9, 4, 2, seed=1), torch.arange(9)
    moved = sde_step(z, v + 1, index, schedule).mean - sde_step(z, v, index, schedule).mean
    torch.testing.assert_close(moved.abs().mean(dim=(1, 2)), schedule.jacobian[:9])
    assert (schedule.velocity_gain < 0).all()


@NOISY
def test_the_log_density_is_the_mean_of_the_normal_one(kind: SamplerKind) -> None:
    schedule = make_schedule(kind, ETAS[kind], 10)
    index = torch.tensor([0, 3, 8])
    state = draw(3, 5, 4, seed=2)
    step = sde_step(draw(3, 5, 4), draw(3, 5, 4, seed=1), index, schedule, next_state=state)
    normal = torch.distributions.Normal(step.mean, step.std[:, None, None])
    torch.testing.assert_close(step.log_prob, normal.log_prob(state).mean(dim=(1, 2)))
    assert step.next_state is state or torch.equal(step.next_state, state)


@NOISY
def test_replaying_a_sampled_step_gives_a_ratio_of_exactly_one(kind: SamplerKind) -> None:
    schedule = make_schedule(kind, ETAS[kind], 10)
    z, v, index = draw(9, 7, 5), draw(9, 7, 5, seed=1), torch.arange(9)
    sampled = sde_step(z, v, index, schedule, noise=draw(9, 7, 5, seed=2))
    replayed = sde_step(z, v, index, schedule, next_state=sampled.next_state)
    assert torch.equal((replayed.log_prob - sampled.log_prob).exp(), torch.ones(9))


@NOISY
def test_each_row_takes_the_step_of_its_own_index(kind: SamplerKind) -> None:
    schedule = make_schedule(kind, ETAS[kind], 10)
    z, v, noise = draw(3, 4, 2), draw(3, 4, 2, seed=1), draw(3, 4, 2, seed=2)
    index = torch.tensor([5, 0, 2])
    together = sde_step(z, v, index, schedule, noise=noise)
    for row in range(3):
        one = slice(row, row + 1)
        alone = sde_step(z[one], v[one], index[one], schedule, noise=noise[one])
        assert torch.equal(together.next_state[one], alone.next_state)
        assert torch.equal(together.log_prob[one], alone.log_prob)


def test_a_step_without_noise_has_no_density() -> None:
    schedule = make_schedule("ou", 0.7, 10)
    velocity = draw(1, 3, 2).requires_grad_()
    step = sde_step(draw(1, 3, 2), velocity, torch.tensor([9]), schedule, next_state=draw(1, 3, 2))
    step.log_prob.sum().backward()
    assert step.log_prob.item() == 0
    assert velocity.grad is not None
    assert velocity.grad.abs().max() == 0
    assert schedule.has_density.tolist() == [True] * 9 + [False]


def test_half_precision_inputs_are_computed_in_float32() -> None:
    schedule, index = make_schedule("ou", 0.7, 10), torch.tensor([1])
    z, v = draw(1, 3, 2).bfloat16(), draw(1, 3, 2, seed=1).bfloat16()
    half = sde_step(z, v, index, schedule, noise=draw(1, 3, 2, seed=2))
    full = sde_step(z.float(), v.float(), index, schedule, noise=draw(1, 3, 2, seed=2))
    assert torch.equal(half.next_state, full.next_state)
    assert half.mean.dtype == half.log_prob.dtype == torch.float32


def test_neither_noise_nor_state_gives_the_mean() -> None:
    step = sde_step(draw(1, 3, 2), draw(1, 3, 2), torch.tensor([1]), make_schedule("ou", 0.7, 10))
    assert torch.equal(step.next_state, step.mean)


def test_noise_and_state_together_are_refused() -> None:
    z = draw(1, 3, 2)
    with pytest.raises(InputError, match="noise and a next state"):
        sde_step(z, z, torch.tensor([1]), make_schedule("ou", 0.7, 10), noise=z, next_state=z)


def test_a_window_is_noisy_inside_and_the_ode_outside() -> None:
    whole, plain = make_schedule("flow_sde", 0.7, 6), make_schedule("ode", 0.0, 6)
    window = whole.noisy_only_at([1, 2])
    assert window.has_density.tolist() == [False, True, True, False, False, False]
    for step in range(6):
        same_as = whole if step in (1, 2) else plain
        assert window.velocity_gain[step] == same_as.velocity_gain[step]
        assert window.state_gain[step] == same_as.state_gain[step]


def test_a_window_outside_the_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="step 6 is not one of 0…5"):
        make_schedule("ou", 0.7, 6).noisy_only_at([6])


def test_the_same_tables_on_another_device() -> None:
    moved = make_schedule("ou", 0.7, 4).to("meta")
    assert {getattr(moved, name).device.type for name in ("levels", "std", "jacobian")} == {"meta"}


def test_levels_may_be_given() -> None:
    schedule = make_schedule("ou", 0.7, [0.8, 0.5, 0.1])
    assert isinstance(schedule, SDESchedule)
    assert schedule.num_steps == 2
    torch.testing.assert_close(schedule.levels, torch.tensor([0.8, 0.5, 0.1]))


@pytest.mark.parametrize(
    ("kind", "eta", "steps", "message"),
    [
        ("ou", 0.0, 10, "eta 0.0 for sampler 'ou': expected a number above 0"),
        ("flow_sde", -1.0, 10, "eta -1.0"),
        ("dance_sde", math.nan, 10, "eta nan"),
        ("cps", 1.1, 10, "above 0 and at most 1"),
        ("ou", 0.7, 0, "0 sampling steps: expected 1 or more"),
        ("ou", 0.7, [1.0], "1 noise levels make no step"),
        ("ou", 0.7, [1.0, 0.5, 0.5], "expected them to fall"),
        ("ou", 0.7, [1.5, 0.5], "expected them to fall"),
        ("ou", 0.7, [0.5, -0.1], "expected them to fall"),
        ("ou", 0.7, [0.5, math.nan], "expected them to fall"),
    ],
)
def test_what_makes_no_schedule_is_said_in_one_line(
    kind: SamplerKind, eta: float, steps: int | list[float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        make_schedule(kind, eta, steps)
    assert "\n" not in str(raised.value)
