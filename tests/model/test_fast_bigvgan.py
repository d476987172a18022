import pytest
import torch
from drawn import draw
from test_bigvgan import SMALL
from test_fast_flow import run_unchecked

from resonate_audio.model import fast_bigvgan
from resonate_audio.model.antialiased_snake import AntialiasedSnake
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.fast_bigvgan import Activation, FastBigVGAN, SnakeWeights, snake
from resonate_audio.model.fast_flow import can_compile


def small(version: int) -> BigVGAN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BigVGAN(SMALL.model_copy(update={"version": version})).requires_grad_(False)


def test_the_polynomial_is_the_squared_sine() -> None:
    alpha, beta = torch.tensor([0.3, 2.0, 40.0]), torch.tensor([0.5, 1.0, 2.0])
    x = 3 * draw(500, 3)
    expected = x + torch.sin(alpha * x).square() / beta
    torch.testing.assert_close(
        snake(x, SnakeWeights(alpha / torch.pi, 0.5 / beta)), expected, atol=3e-5, rtol=0
    )


@pytest.mark.parametrize("num_samples", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("stretch_samples", [1, 2, 5, 13, 100])
def test_stretches_are_activated_like_the_whole(
    monkeypatch: pytest.MonkeyPatch, num_samples: int, stretch_samples: int
) -> None:
    trained = AntialiasedSnake(7).requires_grad_(False)
    trained.log_alpha.copy_(torch.linspace(-1, 1, 7))
    trained.log_beta.copy_(torch.linspace(1, -1, 7))
    weights = SnakeWeights(trained.log_alpha.exp() / torch.pi, 0.5 / trained.log_beta.exp())
    monkeypatch.setattr(fast_bigvgan, "STRETCH_ELEMENTS", 7 * stretch_samples)
    x = draw(2, 7, num_samples).bfloat16()
    expected = trained(x).float()
    got = Activation(compile=False)(x.mT.contiguous(), weights).mT.float()
    assert (got - expected).abs().max() < 0.01 * expected.abs().max()


@pytest.mark.parametrize("version", [1, 2])
def test_the_wave_errs_no_more_than_with_half_precision_convolutions(version: int) -> None:
    mel = draw(2, 6, 40)
    trained = small(version)
    exact, fast = trained(mel), FastBigVGAN(trained, torch.bfloat16, compile=False)(mel)
    rough = trained.cast_convs(torch.bfloat16)(mel)
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() < 1.2 * (rough - exact).norm()
    assert (fast - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("wide", [1, 1000])
def test_in_float32_the_wave_is_the_same_but_for_rounding(
    monkeypatch: pytest.MonkeyPatch, version: int, wide: int
) -> None:
    monkeypatch.setattr(fast_bigvgan, "WIDE", wide)
    mel, trained = draw(2, 6, 40), small(version)
    fast = FastBigVGAN(trained, torch.float32, compile=False)
    kinds = {type(conv).__name__ for conv in fast._convs.values()}
    assert kinds == ({"Conv", "LongConv"} if wide == 1 else {"Conv"})
    exact, got = trained(mel), fast(mel)
    assert (got - exact).norm() < 3e-5 * exact.norm()


def test_the_trained_network_stays_whole() -> None:
    trained = small(2)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    FastBigVGAN(trained, torch.float32, compile=False)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


COMPILED = """
import torch
from resonate_audio.model.fast_bigvgan import Activation, SnakeWeights
weights, x = SnakeWeights(torch.rand(24), torch.rand(24)), torch.randn(1, 9000, 24).bfloat16()
for signal, most in ((x, 0.01), (x.float(), 1e-5)):
    plain, ours = (Activation(compile)(signal, weights).float() for compile in (False, True))
    assert (ours - plain).abs().max() < most * plain.abs().max()
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler or Python headers here")
def test_compiled_activations_are_the_same() -> None:
    run_unchecked(COMPILED)
