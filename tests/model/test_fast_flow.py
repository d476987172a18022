import copy
import os
import subprocess
import sys

import pytest
import torch
from drawn import draw

from resonate_audio.core.errors import InputError
from resonate_audio.core.types import TextFeatures
from resonate_audio.model import fast_flow
from resonate_audio.model.fast_flow import FastFlowTransformer, can_compile
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig

CONFIG = FlowTransformerConfig(
    latent_channels=3,
    hidden=32,
    num_heads=2,
    num_joint_blocks=2,
    num_single_blocks=2,
    text_dim=5,
    pooled_dim=5,
    num_text_tokens=6,
    max_frames=40,
)


@pytest.fixture
def model() -> FlowTransformer:
    """A model in which nothing is zero, so every path carries signal."""
    return moved(CONFIG)


def moved(config: FlowTransformerConfig) -> FlowTransformer:
    """A model whose weights are all at random."""
    model = FlowTransformer(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.latent_std.fill_(2.0)
    return model


def velocity(model: FlowTransformer | FastFlowTransformer, num_frames: int = 21) -> torch.Tensor:
    features = TextFeatures(draw(3, 6, 5, seed=1), draw(3, 5, seed=2))
    t = torch.tensor([0.0, 0.4, 1.0])
    result: torch.Tensor = model(draw(3, num_frames, 3), t, model.condition(features))
    return result


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("num_frames", [1, 20, 21, 22, 23])
def test_the_velocity_is_that_of_the_plain_model(model: FlowTransformer, num_frames: int) -> None:
    fast = FastFlowTransformer.from_model(model, compile=False)
    assert relative_error(velocity(fast, num_frames), velocity(model, num_frames)) < 1e-5


def test_what_is_added_to_the_input_is_the_same_in_both_forms() -> None:
    model = moved(CONFIG.model_copy(update={"data_std": 0.3}))
    fast = FastFlowTransformer.from_model(model, compile=False)
    assert relative_error(velocity(fast), velocity(model)) < 1e-5


def test_in_bfloat16_it_is_about_as_close_as_the_plain_model(model: FlowTransformer) -> None:
    exact = velocity(model)
    fast = FastFlowTransformer.from_model(model, torch.bfloat16, compile=False)
    plain = copy.deepcopy(model).to(torch.bfloat16)
    assert relative_error(velocity(fast), exact) < 2 * relative_error(velocity(plain), exact)


@pytest.mark.parametrize("num_frames", [1, 20, 21, 33])
def test_shifted_products_give_the_velocity_of_the_plain_model(
    model: FlowTransformer, num_frames: int
) -> None:
    fast = FastFlowTransformer.from_model(model, torch.float32, compile=False, shifts=True)
    assert relative_error(velocity(fast, num_frames), velocity(model, num_frames)) < 1e-5


def test_shifted_products_in_bfloat16_err_no_more_than_the_plain_model(
    model: FlowTransformer,
) -> None:
    exact, plain = velocity(model), copy.deepcopy(model).to(torch.bfloat16)
    fast = FastFlowTransformer.from_model(model, torch.bfloat16, compile=False, shifts=True)
    error = (velocity(fast) - exact).norm() / exact.norm()
    assert error < 1.5 * (velocity(plain) - exact).norm() / exact.norm()
    assert error < 0.03


@pytest.mark.parametrize(
    ("fast_in", "dtype", "expected"),
    [
        (torch.bfloat16, torch.bfloat16, True),
        (torch.float32, torch.bfloat16, False),
        (torch.bfloat16, torch.float32, False),
    ],
)
def test_the_form_is_that_of_the_measured_rates(
    model: FlowTransformer,
    monkeypatch: pytest.MonkeyPatch,
    fast_in: torch.dtype,
    dtype: torch.dtype,
    expected: bool,
) -> None:
    monkeypatch.setattr(fast_flow, "preferred_dtype", lambda _: fast_in)
    fast = FastFlowTransformer.from_model(model, dtype, compile=False)
    assert (fast.entry is not None) is expected


def test_statistics_and_the_empty_prompt_come_along(model: FlowTransformer) -> None:
    fast = FastFlowTransformer.from_model(model, compile=False)
    z = draw(1, 4, 3)
    torch.testing.assert_close(fast.unnormalize(z), 2 * z)
    assert torch.equal(fast.empty_features(1).tokens[0], model.empty_tokens)


def test_weights_that_stay_as_they_are_are_shared(model: FlowTransformer) -> None:
    fast = FastFlowTransformer.from_model(model, compile=False)
    assert fast.text_in.linear.weight.data_ptr() == model.text_in.linear.weight.data_ptr()


def test_releasing_takes_the_blocks_away_from_the_model(model: FlowTransformer) -> None:
    expected = velocity(model)
    fast = FastFlowTransformer.from_model(model, compile=False, release=True)
    assert {p.device.type for p in model.single_blocks.parameters()} == {"meta"}
    assert relative_error(velocity(fast), expected) < 1e-5


def test_the_model_is_left_as_it_was_unless_released(model: FlowTransformer) -> None:
    before = copy.deepcopy(model.state_dict())
    FastFlowTransformer.from_model(model, compile=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_too_long_a_clip_is_refused(model: FlowTransformer) -> None:
    with pytest.raises(InputError, match="41 latent frames"):
        velocity(FastFlowTransformer.from_model(model, compile=False), num_frames=41)


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not can_compile()


def test_without_a_compiler_the_functions_run_as_they_are(
    model: FlowTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    fast = FastFlowTransformer.from_model(model, compile=True)
    assert relative_error(velocity(fast), velocity(model)) < 1e-5


COMPILED = """
import torch
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.fast_flow import FastFlowTransformer
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
torch.manual_seed(0)
model = FlowTransformer(FlowTransformerConfig(latent_channels=3, hidden=32, num_heads=2,
    num_joint_blocks=2, num_single_blocks=2, text_dim=5, pooled_dim=5, num_text_tokens=6))
model.requires_grad_(False)
for parameter in model.parameters():
    parameter.add_(0.1 * torch.randn_like(parameter))
forms = [FastFlowTransformer.from_model(model, compile=True, shifts=s) for s in (False, True)]
for num_rows, num_frames, fast in [(r, f, m) for m in forms for r, f in ((1, 21), (2, 30))]:
    z, features = torch.randn(num_rows, num_frames, 3), TextFeatures(
        torch.randn(num_rows, 6, 5), torch.randn(num_rows, 5))
    plain, ours = (m(z, torch.ones(num_rows), m.condition(features)) for m in (model, fast))
    error = (ours - plain).abs().max() / plain.abs().max()
    assert error < 1e-5, error
"""


def run_unchecked(script: str) -> None:
    """In a process of its own: the compiler cannot trace through the shape checks of the tests."""
    environment = os.environ | {"JAXTYPING_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="no C++ compiler or Python headers here")
def test_compiled_it_is_the_same_at_any_length() -> None:
    run_unchecked(COMPILED)
