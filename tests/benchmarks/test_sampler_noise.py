from __future__ import annotations

from pathlib import Path

import pytest
import sampler_noise
import torch

from resonate_audio.flow.sde import SamplerKind, make_schedule, sde_step


@pytest.mark.parametrize(("kind", "eta"), sampler_noise.SAMPLERS)
def test_the_arithmetic_agrees_with_sampling(kind: SamplerKind, eta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 100_000, 1, generator=generator)
    schedule = make_schedule(kind, eta, 10)
    for step in range(10):
        level = schedule.levels[step]
        width = (1 - level) ** 2 * 0.09 + level**2
        data = 0.5 + (1 - level) * 0.09 / width * (z - (1 - level) * 0.5)
        noise = torch.randn(z.shape, generator=generator)
        z = sde_step(z, (z - data) / level, torch.tensor([step]), schedule, noise).next_state
    expected = sampler_noise.propagate(kind, eta, sampler_noise.noise_levels(10, 1.0)).spread
    assert z.std().item() == pytest.approx(expected, rel=0.01)


def test_only_euler_maruyama_leaves_noise() -> None:
    levels = sampler_noise.noise_levels(10, 1.0)
    left = {
        kind: sampler_noise.propagate(kind, eta, levels).excess[-1]
        for kind, eta in sampler_noise.SAMPLERS
    }
    assert {kind for kind, noise in left.items() if noise > 1e-12} == {"flow_sde", "dance_sde"}
    assert left["flow_sde"] == pytest.approx(0.0786, abs=1e-4)


def test_a_shift_lengthens_the_last_step() -> None:
    assert sampler_noise.noise_levels(10, 3.0)[-2] == pytest.approx(0.25)


def test_the_command_prints_a_table_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler_noise.main(["--picture", str(tmp_path / "new" / "picture.png")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(sampler_noise.SAMPLERS)
    assert {line.count("|") for line in lines} == {11}
    assert (tmp_path / "new" / "picture.png").stat().st_size > 10_000
