"""The layers as matrix products are the layers: same function, same gradients, in bfloat16."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from resonate_audio.core.types import TextFeatures
from resonate_audio.model import attention, blocks
from resonate_audio.model.attention import HeadProjection, attend
from resonate_audio.model.blocks import FrameConv, GatedMLP, mlp_products, modulate
from resonate_audio.model.embeddings import rotary_angles
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.products import (
    attend_in_products,
    gated_unit,
    halves,
    head_vectors,
    in_products,
    modulated,
    padded,
    position_products,
    residual,
)

SMALL = FlowTransformerConfig(
    latent_channels=8,
    hidden=64,
    num_heads=2,
    num_joint_blocks=2,
    num_single_blocks=2,
    mlp_ratio=2.0,
    text_dim=24,
    pooled_dim=16,
    num_text_tokens=7,
)
HALF_ERROR = 2.0**-7
"""Relative, of a whole tensor: some roundings of 2⁻⁹ each."""


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def half(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16()


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


def agree(found: Callable[..., Tensor], expected: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare two functions and their gradients, the second in float32."""
    exact = [value.float().requires_grad_() for value in inputs]
    given = [value.clone().requires_grad_() for value in inputs]
    right, out = expected(*exact), found(*given)
    direction = half(*right.shape, seed=9)
    right.backward(direction.float())
    out.backward(direction)
    assert relative(out, right) < HALF_ERROR
    for value, true in zip(given, exact, strict=True):
        assert value.grad is not None
        assert true.grad is not None
        assert relative(value.grad, true.grad) < HALF_ERROR


@pytest.mark.parametrize("taps", [1, 3, 7])
def test_shifted_products_are_a_convolution(taps: int) -> None:
    conv = FrameConv(5, 6, taps)
    pad = taps // 2

    def found(x: Tensor) -> Tensor:
        return position_products(padded(x, pad), conv)[:, : x.shape[1]]

    agree(found, conv, half(3, 11, 5))


@pytest.mark.parametrize("taps", [1, 3, 7])
def test_shifted_products_give_weights_the_gradient_of_a_convolution(taps: int) -> None:
    conv, x, direction = FrameConv(5, 6, taps), half(3, 11, 5), half(3, 11, 6, seed=1)
    conv(x.float()).backward(direction.float())
    expected = [value.grad for value in conv.parameters()]
    conv.zero_grad()
    found = position_products(padded(x, taps // 2), conv)[:, :11]
    found.backward(direction)
    for value, true in zip(conv.parameters(), expected, strict=True):
        assert value.grad is not None
        assert true is not None
        assert value.grad.dtype == torch.float32
        assert relative(value.grad, true) < HALF_ERROR


def test_whole_numbers_are_convolved_exactly() -> None:
    conv = FrameConv(2, 2, 3, bias=False)
    nn.init.constant_(conv.weight, 1.0)
    x = torch.arange(8.0).view(1, 4, 2)
    found = position_products(padded(x, 1), conv)[:, :4]
    assert torch.equal(found.float(), torch.tensor([6.0, 15, 27, 22]).view(1, 4, 1).expand(1, 4, 2))


def test_one_row_does_not_move_another() -> None:
    conv, x = FrameConv(4, 4, 7), half(2, 9, 4)
    other = x.clone()
    other[1] = 100.0
    first, second = (position_products(padded(value, 3), conv)[0, :9] for value in (x, other))
    assert torch.equal(first, second)


def test_two_maps_stand_side_by_side() -> None:
    first, second, x = nn.Linear(5, 3), nn.Linear(5, 4), half(2, 6, 5)
    both = position_products(x, first, second)
    alone = [position_products(x, part) for part in (first, second)]
    torch.testing.assert_close(both, torch.cat(alone, dim=-1))


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_modulation_is_that_of_the_plain_layer(pad: int) -> None:
    def found(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulated(x, shift, scale, pad)[:, pad : pad + x.shape[1]]

    agree(found, modulate, 2 * half(3, 5, 64) + 1, half(3, 64, seed=1), half(3, 64, seed=2))


def test_what_is_padded_stands_between_zeros() -> None:
    for out in (
        padded(half(2, 5, 8), 3),
        modulated(half(2, 5, 8), half(2, 8), half(2, 8), 3),
        gated_unit(half(2, 7, 16), 2, 3),
    ):
        assert not out[:, :3].any()
        assert not out[:, 8:].any()
        assert out[:, 3:8].any()


@pytest.mark.parametrize("unused", [0, 2])
def test_the_gated_unit_is_silu_times_up(unused: int) -> None:
    def found(x: Tensor) -> Tensor:
        return gated_unit(x, unused, 1)[:, 1:-1]

    def expected(x: Tensor) -> Tensor:
        gate, up = x[:, : x.shape[1] - unused].chunk(2, dim=-1)
        return nn.functional.silu(gate) * up

    agree(found, expected, half(2, 9, 64))


@pytest.mark.parametrize("unused", [0, 2])
def test_the_residual_leaves_unused_frames_out(unused: int) -> None:
    def expected(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        return x + gate[:, None] * update[:, : x.shape[1]]

    agree(residual, expected, half(2, 9, 8), half(2, 9 + unused, 8, seed=1), half(2, 8, seed=2))


@pytest.mark.parametrize("taps", [1, 3])
def test_the_mlp_is_that_of_the_plain_layer(taps: int) -> None:
    mlp, pad = GatedMLP(16, 2.0, taps), taps // 2

    def found(x: Tensor) -> Tensor:
        return mlp_products(mlp, padded(x, pad), pad)[:, : x.shape[1]]

    agree(found, mlp, half(2, 9, 16))


def test_attention_is_that_of_the_plain_layers() -> None:
    heads, angles = HeadProjection(64, 2), rotary_angles(9, 32, torch.device("cpu"))
    nn.init.uniform_(heads.query_norm.weight, 0.5, 1.5)
    nn.init.uniform_(heads.key_norm.weight, 0.5, 1.5)
    norms = heads.query_norm.weight, heads.key_norm.weight

    def found(x: Tensor) -> Tensor:
        return attend_in_products(*head_vectors(x, heads.qkv, norms, 2, angles))

    agree(found, lambda x: attend(heads(x, angles)), half(2, 9, 64))


def test_halves_bring_pairs_apart() -> None:
    assert torch.equal(halves(torch.arange(6.0)), torch.tensor([[0.0, 2, 4], [1, 3, 5]]))


def test_the_form_is_taken_under_bfloat16_autocast_alone() -> None:
    x = torch.zeros(1)
    assert not in_products(x)
    with autocast():
        assert in_products(x)
        assert not in_products(x.to("meta"))
    with torch.autocast("cpu", torch.float16):
        assert not in_products(x)


# --- the whole network ----------------------------------------------------------------------------


@pytest.fixture
def model() -> FlowTransformer:
    torch.manual_seed(0)
    model = FlowTransformer(SMALL)
    for value in model.parameters():
        if not value.any():
            nn.init.normal_(value, std=0.05)
    return model


def step(model: FlowTransformer, frames: int = 10) -> tuple[Tensor, dict[str, Tensor]]:
    """Velocity and the gradients of some loss."""
    features = TextFeatures(half(3, 7, 24).float(), half(3, 16).float())
    z, t = half(3, frames, 8).float(), torch.tensor([0.1, 0.5, 0.9])
    model.zero_grad()
    velocity = model(z, t, model.condition(features))
    (velocity.float() - half(3, frames, 8, seed=1)).square().mean().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return velocity.detach(), gradients


@contextmanager
def plain_layers(patch: pytest.MonkeyPatch) -> Iterator[None]:
    with patch.context() as patched:
        for module in (attention, blocks):
            patched.setattr(module, "in_products", lambda x: False)
        yield


def test_the_network_is_as_near_to_float32_as_with_plain_layers(
    model: FlowTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_velocity, exact = step(model)
    with autocast():
        velocity, found = step(model)
    with autocast(), plain_layers(monkeypatch):
        plain_velocity, plain = step(model)
    assert found.keys() == exact.keys()
    assert velocity.dtype == torch.float32
    assert relative(velocity, exact_velocity) < 1.5 * relative(plain_velocity, exact_velocity)
    names = [name for name in exact if exact[name].any()]  # queries that are dropped get none
    errors, usual = ([relative(other[n], exact[n]) for n in names] for other in (found, plain))
    assert max(errors) < 1.5 * max(usual)
    assert sum(errors) < 1.2 * sum(usual)


def test_recomputed_blocks_give_the_same_gradients(model: FlowTransformer) -> None:
    with autocast():
        _, kept = step(model)
        model.recompute_blocks = True
        _, recomputed = step(model)
    for name, value in kept.items():
        assert torch.equal(value, recomputed[name]), name


def test_a_step_is_the_same_bits_again_and_in_evaluation(model: FlowTransformer) -> None:
    with autocast():
        first, gradients = step(model)
        second, again = step(model)
        with torch.no_grad():
            features = TextFeatures(half(3, 7, 24).float(), half(3, 16).float())
            z, t = half(3, 10, 8).float(), torch.tensor([0.1, 0.5, 0.9])
            third = model(z, t, model.condition(features))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert all(torch.equal(value, again[name]) for name, value in gradients.items())


@pytest.mark.parametrize("frames", [1, 2, 31])
def test_clips_of_any_length_are_taken(model: FlowTransformer, frames: int) -> None:
    with autocast():
        velocity, gradients = step(model, frames)
    assert velocity.shape == (3, frames, 8)
    assert all(value.isfinite().all() for value in gradients.values())


def test_adapters_take_part(model: FlowTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    from resonate_audio.training.reinforce.lora import LoraSettings, add_lora

    add_lora(model, LoraSettings(rank=2, targets=r".*(qkv|linear|attention_out|gate)"))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.05)
    exact_velocity, exact = step(model)
    with autocast():
        velocity, found = step(model)
    assert relative(velocity, exact_velocity) < 0.03
    assert found.keys() == exact.keys()
    assert max(relative(found[name], exact[name]) for name in exact if exact[name].any()) < 0.1
