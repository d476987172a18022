import pytest
import torch
import yaml
from torch import nn

from resonate_audio.training.loop.ema import (
    EmaConfig,
    averaged_state,
    ema_decay,
    power_exponent,
    start_average,
    update_average,
)

POWER = EmaConfig(kind="power", sigma_rel=0.1)


def run(values: list[float], config: EmaConfig) -> float:
    """Average of a weight that takes ``values`` one after the other."""
    model = nn.Linear(1, 1, bias=False)
    average = start_average(model)
    for count, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, value)
        update_average(average, model, ema_decay(count, config))
    return average["weight"].item()


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_the_exponent_gives_the_width_asked_for(sigma_rel: float) -> None:
    gamma = power_exponent(sigma_rel)
    width = (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)
    assert width == pytest.approx(sigma_rel)


def test_the_published_exponents_are_met() -> None:
    # Karras et al., arXiv:2312.02696, sec. 3.1: widths 0.05 and 0.10 are γ = 16.97 and 6.94
    assert power_exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_exponent(0.10) == pytest.approx(6.94, abs=0.01)


def test_the_power_average_forgets_where_it_started() -> None:
    assert ema_decay(1, POWER) == 0.0


def test_the_power_average_of_a_ramp_is_the_mean_of_its_profile() -> None:
    # ∫ τ τ^γ dτ / ∫ τ^γ dτ = (γ + 1) / (γ + 2) of the end
    gamma, count = power_exponent(0.1), 2000
    got = run([step / count for step in range(1, count + 1)], POWER)
    assert got == pytest.approx((gamma + 1) / (gamma + 2), abs=1e-3)


def test_a_constant_decay_is_a_geometric_series() -> None:
    config = EmaConfig(kind="constant", decay=0.05)  # below 2/11, so never held back at the start
    expected = 0.05**2 * 0.95 * 1 + 0.05 * 0.95 * 2 + 0.95 * 3
    start = start_average(nn.Linear(1, 1, bias=False))["weight"]
    assert start.dtype == torch.float32
    assert run([1.0, 2.0, 3.0], config) == pytest.approx(expected, abs=0.05**3 + 1e-6)


def test_a_constant_decay_is_held_back_at_the_start() -> None:
    config = EmaConfig(kind="constant", decay=0.999)
    assert ema_decay(1, config) == pytest.approx(2 / 11)
    assert ema_decay(10**6, config) == 0.999


@pytest.mark.parametrize("kind", ["constant", "power"])
def test_weights_that_stand_still_are_their_own_average(kind: str) -> None:
    config = EmaConfig.model_validate({"kind": kind, "decay": 0.5})
    assert run([7.0] * 40, config) == pytest.approx(7.0, abs=1e-5)


def test_the_averaged_state_keeps_buffers() -> None:
    model = nn.BatchNorm1d(2)
    model.running_mean = torch.tensor([3.0, 4.0])
    state = averaged_state(model, {"weight": torch.tensor([5.0, 6.0])})
    assert state["running_mean"].tolist() == [3.0, 4.0]
    assert state["weight"].tolist() == [5.0, 6.0]
    assert model.weight.tolist() == [1.0, 1.0]


def test_off_means_off_though_yaml_reads_it_as_false() -> None:
    assert EmaConfig.model_validate(yaml.safe_load("kind: off")).kind == "off"
