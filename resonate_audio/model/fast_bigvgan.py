"""BigVGAN, rearranged for a CPU: in bfloat16 where its products are fast, else in float32.

Same weights, the same wave up to rounding; what differs is the order of work:

- signals lie (row, sample, channel), the layout in which matrix units convolve twice as fast,
  and in which the filters of the activations read long runs of neighbours whatever the shift;
- in float32, wide convolutions by seven or eleven taps take half of the products
  (`long_winograd`);
- an activation is two compiled functions, up and down, with the doubled signal between them in
  float32 and in cache; their shapes are the same for all stretches of a width, since a compiler
  makes half as fast code for shapes that it does not know;
- sin² is (1 − cos)/2, its cosine a polynomial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.model.antialiased_snake import SNAKE_EPS, AntialiasedSnake, kaiser_sinc_filter
from resonate_audio.model.bigvgan import BigVGAN, ResidualBlock, ResidualStep, Stage
from resonate_audio.model.long_winograd import TILE, long_conv, transform_filter

functional = nn.functional
STRETCH_ELEMENTS = 3 << 16
"""Elements that are activated at a time; twice as many in float32 lie between up and down."""
BEFORE, AFTER = 6, 6
"""Samples on either side of a stretch that its activated samples depend on."""
OUTSIDE = 3
"""Doubled samples of each phase on either side."""
WIDE = 192
"""Channels from which half of the products save more than transforming costs (AVX2)."""
COSINE = (0.999999212, -19.7389804, 64.9286585, -85.2716283, 58.7905066, -21.0711085)
"""cos(2πt) for |t| ≤ 1/2 by powers of t², to 1e-6."""

Phases = tuple[Float[Tensor, "sample channel"], Float[Tensor, "sample channel"]]


class SnakeWeights(NamedTuple):
    """x + sin²(αx)/β as x + height·(1 − cos(2π·turns·x))."""

    turns: Float[Tensor, " channel"]
    height: Float[Tensor, " channel"]


def _filtered(x: Tensor, taps: list[float], num_samples: int) -> Tensor:
    total = x[:num_samples] * taps[0]
    for shift, tap in enumerate(taps[1:], 1):
        total = total + x[shift : shift + num_samples] * tap
    return total


def snake(x: Float[Tensor, "sample channel"], weights: SnakeWeights) -> Tensor:
    """Add the squared sine."""
    turned = x * weights.turns
    turned = turned - torch.round(turned)
    square = turned * turned
    cosine = torch.full_like(square, COSINE[-1])
    for factor in COSINE[-2::-1]:
        cosine = cosine * square + factor
    return x + weights.height - weights.height * cosine


TAPS: list[float] = kaiser_sinc_filter().tolist()
DOUBLED = [2 * tap for tap in TAPS]


def _up(x: Tensor, weights: SnakeWeights) -> Phases:
    """Activated even and odd samples at twice the rate, from 3 samples on to 3 before the end."""
    num_samples = x.shape[0] - 6
    wide = x.float()
    even = _filtered(wide, DOUBLED[11::-2], num_samples)
    return snake(even, weights), snake(_filtered(wide[1:], DOUBLED[10::-2], num_samples), weights)


def _down(even: Tensor, odd: Tensor, dtype: torch.dtype) -> Tensor:
    num_samples = even.shape[0] - 2 * OUTSIDE
    out = _filtered(even[1:], TAPS[1::2], num_samples) + _filtered(odd, TAPS[0::2], num_samples)
    return out.to(dtype)


class Activation:
    """The two functions of the anti-aliased activation, compiled or as they are."""

    def __init__(self, compile: bool) -> None:
        self._up: Callable[[Tensor, SnakeWeights], Phases] = _up
        self._down: Callable[[Tensor, Tensor, torch.dtype], Tensor] = _down
        if compile:
            self._up = torch.compile(_up, dynamic=False)
            self._down = torch.compile(_down, dynamic=False)

    def __call__(
        self, x: Float[Tensor, "row sample channel"], weights: SnakeWeights
    ) -> Float[Tensor, "row sample channel"]:
        """Activate a signal, leaving it alone."""
        length = max(1, STRETCH_ELEMENTS // x.shape[2])
        buffer = x.new_zeros(length + BEFORE + AFTER, x.shape[2])
        out = torch.empty_like(x)
        for row, activated in zip(x, out, strict=True):
            for start in range(0, len(row), length):
                self._stretch(row, start, buffer, activated[start : start + length], weights)
        return out

    def _stretch(
        self, row: Tensor, start: int, buffer: Tensor, out: Tensor, weights: SnakeWeights
    ) -> None:
        end, stop = len(row), start + len(out) + AFTER
        missing = max(0, BEFORE - start)
        inside = row[max(0, start - BEFORE) : min(stop, end)]
        buffer[:missing] = row[0]
        buffer[missing : missing + len(inside)] = inside
        buffer[missing + len(inside) : len(out) + BEFORE + AFTER] = row[-1]
        even, odd = self._up(buffer, weights)
        if start < OUTSIDE:  # outside, the doubled signal repeats its own ends
            before = OUTSIDE - start
            first = even[before].clone()
            even[:before], odd[:before] = first, first
        after = end - start + OUTSIDE
        if after < len(odd):
            last = odd[after - 1].clone()
            even[after:], odd[after:] = last, last
        out.copy_(self._down(even, odd, out.dtype)[: len(out)])


class Conv(NamedTuple):
    """A convolution along samples."""

    weight: Float[Tensor, "a b 1 tap"]
    bias: Float[Tensor, " num_out"] | None
    stride: int
    padding: int
    dilation: int
    is_transposed: bool

    def __call__(
        self, x: Float[Tensor, "row sample num_in"]
    ) -> Float[Tensor, "row new_sample num_out"]:
        """Convolve; images of one line are what has a fast path in this layout."""
        image, stride, padding = x.mT.unsqueeze(2), (1, self.stride), (0, self.padding)
        if self.is_transposed:
            out = functional.conv_transpose2d(image, self.weight, self.bias, stride, padding)
        else:
            dilation = (1, self.dilation)
            out = functional.conv2d(image, self.weight, self.bias, stride, padding, dilation)
        return out.squeeze(2).mT.contiguous()


class LongConv(NamedTuple):
    """A wide convolution by many taps that keeps the length, in half of the products."""

    weight: Float[Tensor, "four 7 num_in num_out"]
    bias: Float[Tensor, " num_out"]
    num_taps: int
    dilation: int

    def __call__(
        self, x: Float[Tensor, "row sample num_in"]
    ) -> Float[Tensor, "row sample num_out"]:
        """Convolve each row."""
        rows = [long_conv(row, self.weight, self.num_taps, self.dilation) for row in x]
        return torch.stack(rows).add_(self.bias)


def rearranged(module: nn.Conv1d | nn.ConvTranspose1d, dtype: torch.dtype) -> Conv | LongConv:
    """Lay the weights of a convolution out for a dtype."""
    weight = module.weight.detach().to(dtype)
    bias = None if module.bias is None else module.bias.detach().to(dtype)
    stride, padding, dilation = module.stride[0], int(module.padding[0]), module.dilation[0]
    is_transposed = isinstance(module, nn.ConvTranspose1d)
    keeps_length = not is_transposed and 2 * padding == dilation * (weight.shape[2] - 1)
    is_long = keeps_length and min(weight.shape[:2]) >= WIDE and weight.shape[2] > TILE
    if is_long and dtype == torch.float32 and bias is not None:
        return LongConv(transform_filter(weight), bias, weight.shape[2], dilation)
    last = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return Conv(last, bias, stride, padding, dilation, is_transposed)


class FastBigVGAN(BigVGAN):
    """A trained BigVGAN's samples in about a third of the time."""

    def __init__(self, trained: BigVGAN, dtype: torch.dtype, compile: bool = True) -> None:
        with torch.device("meta"):
            super().__init__(trained.config)
        self.load_state_dict(trained.state_dict(), assign=True)
        self.requires_grad_(False).eval()
        self._activate = Activation(compile)
        self._dtype = dtype
        self._convs: dict[nn.Module, Conv | LongConv] = {}
        self._snakes: dict[nn.Module, SnakeWeights] = {}
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                self._convs[module] = rearranged(module, dtype)
                module.to("meta")
            elif isinstance(module, AntialiasedSnake):
                alpha = module.log_alpha.detach().float().exp()
                beta = module.log_beta.detach().float().exp() + SNAKE_EPS
                self._snakes[module] = SnakeWeights(alpha / torch.pi, 0.5 / beta)

    def _vocode(self, mel: Tensor) -> Tensor:
        x = self._convs[self.conv_pre](mel.mT.to(self._dtype).contiguous())
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = self._stage(stage, x)
        wave = self._convs[self.conv_post](self._activate(x, self._snakes[self.act_post]))
        samples = wave[..., 0].float()
        return samples.tanh() if self.config.version == 1 else samples.clamp(-1, 1)

    def _stage(self, stage: Stage, x: Tensor) -> Tensor:
        x = self._convs[stage.up](x)
        total: Tensor | None = None
        for block in stage.blocks:
            y = x
            assert isinstance(block, ResidualBlock)
            for step in block.steps:
                assert isinstance(step, ResidualStep)
                y = self._step(step, y)
            total = y if total is None else total.add_(y)
        assert total is not None
        return total.div_(len(stage.blocks))

    def _step(self, step: ResidualStep, x: Tensor) -> Tensor:
        new = self._convs[step.conv1](self._activate(x, self._snakes[step.act1]))
        return self._convs[step.conv2](self._activate(new, self._snakes[step.act2])).add_(x)
