"""The layers of the flow transformer as plain matrix products, for training in bfloat16 on a CPU.

Under bfloat16 autocast a CPU with matrix units multiplies six times as fast as in float32, but
PyTorch's own layers hardly profit: convolutions transpose their activations before and after,
attention has a slow backward, and sums of two number formats are not vectorised. Here

- activations stay (row, frame, channel) in bfloat16 from one end to the other;
- a convolution of k taps is k products of the same activations, shifted by one frame each, that
  are summed in place; frames are padded with zeros by whoever writes them, and a product leaves
  its last k − 1 frames unused, so that rows can lie one behind the other in a single matrix;
- queries, keys and values come out of their product apart from each other, with the two halves
  of a rotation side by side;
- norms, softmax and rotations are computed in float32 within one call, and every function has its
  derivative written out, so that nothing is kept twice and nothing converted that need not be.

The weights are those of the modules, cast and laid out on the fly; gradients come back in float32.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

RMS_EPS = 2.0**-23
"""PyTorch's default for float32, written out: the default differs by dtype and version."""

HALF = torch.bfloat16
aten = torch.ops.aten


def in_products(x: Tensor) -> bool:
    """Whether layers take this form: under bfloat16 autocast on a CPU, unless being compiled."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == HALF
        and not torch.compiler.is_compiling()
    )


def _call(function: type[torch.autograd.Function], *values: Tensor | int | None) -> Tensor:
    return cast(Tensor, function.apply(*values))  # type: ignore[no-untyped-call]


# --- products -------------------------------------------------------------------------------------


class _FrameProducts(torch.autograd.Function):
    """Σ_i x[frame + i]·w_iᵀ + b over rows that lie one behind the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        taps, num_out, num_in = weight.shape
        flat = x.view(-1, num_in)
        out = flat.new_empty(len(flat), num_out)
        valid = len(flat) - taps + 1
        total = out[:valid]
        if bias is None:
            torch.mm(flat[:valid], weight[0].t(), out=total)
        else:
            torch.addmm(bias, flat[:valid], weight[0].t(), out=total)
        for tap in range(1, taps):
            total.addmm_(flat[tap : tap + valid], weight[tap].t())
        return out.view(*x.shape[:-1], num_out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient is zero in the frames that are not used."""
        x, weight = ctx.saved_tensors
        taps, num_out, num_in = weight.shape
        flat, gradient = x.view(-1, num_in), gradients[0].reshape(-1, num_out)
        valid = len(flat) - taps + 1
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            total = torch.mm(gradient, weight[0])
            for tap in range(1, taps):
                total[tap:].addmm_(gradient[:-tap], weight[tap])
            for_x = total.view_as(x)
        if ctx.needs_input_grad[1]:
            for_weight = torch.empty_like(weight)
            used = gradient[:valid].t()
            for tap in range(taps):
                torch.mm(used, flat[tap : tap + valid], out=for_weight[tap])
        if ctx.has_bias and ctx.needs_input_grad[2]:
            for_bias = gradient.sum(0)
        return for_x, for_weight, for_bias


def as_taps(weight: Float[Tensor, "num_out num_in *taps"]) -> Float[Tensor, "taps num_out num_in"]:
    """Weights of a linear map or of a convolution, in bfloat16 and one matrix a tap."""
    half = weight.to(HALF)
    return half[None] if half.dim() == 2 else half.permute(2, 0, 1).contiguous()


def position_products(
    x: Float[Tensor, "row padded num_in"], *maps: nn.Module
) -> Float[Tensor, "row padded outs"]:
    """Apply linear maps or convolutions to the same padded frames, outputs side by side.

    The last k − 1 frames of the result mean nothing. Maps that are more than a weight and a bias,
    such as those with an adapter, compute themselves.
    """
    if not all(_is_plain(part) for part in maps):
        return torch.cat([part(x).to(HALF) for part in maps], dim=-1)
    plain = [cast(nn.Linear, part) for part in maps]
    weights = [as_taps(part.weight) for part in plain]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights, dim=1)
    biases = [part.bias.to(HALF) for part in plain if part.bias is not None]
    bias = torch.cat(biases) if biases else None
    return _call(_FrameProducts, x, weight, bias)


def _is_plain(part: nn.Module) -> bool:
    return type(part) is nn.Linear or isinstance(part, nn.Conv1d)


# --- between the products -------------------------------------------------------------------------


def _padded(x: Tensor, pad: int, num_channels: int) -> tuple[Tensor, Tensor]:
    """A buffer for frames of ``x``'s rows with zeros around them, and the view inside."""
    rows, frames = x.shape[:2]
    buffer = x.new_empty(rows, frames + 2 * pad, num_channels, dtype=HALF)
    if pad:
        buffer[:, :pad] = 0
        buffer[:, pad + frames :] = 0
    return buffer, buffer[:, pad : pad + frames]


def _with_unused(x: Tensor, unused: int) -> tuple[Tensor, Tensor]:
    """A buffer for the gradient of a product: zero in its unused frames; and the view inside."""
    rows, frames, channels = x.shape
    buffer = x.new_empty(rows, frames + unused, channels, dtype=HALF)
    if unused:
        buffer[:, frames:] = 0
    return buffer, buffer[:, :frames]


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: int) -> Tensor:
        ctx.pad = pad
        buffer, inside = _padded(x, pad, x.shape[-1])
        inside.copy_(x)
        return buffer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pad, frames = ctx.pad, gradients[0].shape[1]
        return gradients[0][:, pad : frames - pad], None


def padded(x: Float[Tensor, "row frame channel"], pad: int) -> Float[Tensor, "row padded channel"]:
    """Copy frames into bfloat16 with ``pad`` frames of zeros on either side."""
    return _call(_Pad, x, pad)


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, pad: int) -> Tensor:
        normed, mean, rstd = aten.native_layer_norm(x, x.shape[-1:], None, None, 1e-5)
        factor = (1 + scale)[:, None]
        buffer, inside = _padded(x, pad, x.shape[-1])
        torch.addcmul(shift[:, None], normed, factor, out=inside)
        ctx.save_for_backward(x, mean, rstd, normed, factor)
        ctx.pad = pad
        return buffer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, normed, factor = ctx.saved_tensors
        gradient = gradients[0][:, ctx.pad : ctx.pad + x.shape[1]]
        for_scale = (gradient * normed).sum(1)
        for_x = aten.native_layer_norm_backward(
            gradient * factor, x, x.shape[-1:], mean, rstd, None, None, [True, False, False]
        )[0]
        return for_x, gradient.sum(1), for_scale, None


def modulated(
    x: Float[Tensor, "row position hidden"],
    shift: Float[Tensor, "row hidden"],
    scale: Float[Tensor, "row hidden"],
    pad: int,
) -> Float[Tensor, "row padded hidden"]:
    """LN(x)·(1 + scale) + shift with ``pad`` frames of zeros on either side.

    [adaLN, arXiv:2212.09748, sec. 3.2]
    """
    return _call(_Modulate, x, shift, scale, pad)


class _GatedUnit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, unused: int, pad: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.sizes = unused, pad
        gate, up = x[:, : x.shape[1] - unused].chunk(2, dim=-1)
        buffer, inside = _padded(gate, pad, gate.shape[-1])
        torch.mul(nn.functional.silu(gate), up, out=inside)
        return buffer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (unused, pad) = ctx.saved_tensors, ctx.sizes
        used = x[:, : x.shape[1] - unused]
        gate, up = used.chunk(2, dim=-1)
        gradient = gradients[0][:, pad : pad + gate.shape[1]]
        buffer, inside = _with_unused(used, unused)
        for_gate, for_up = inside.chunk(2, dim=-1)
        torch.mul(gradient, nn.functional.silu(gate), out=for_up)
        aten.silu_backward.grad_input(gradient * up, gate, grad_input=for_gate)
        return buffer, None, None


def gated_unit(
    x: Float[Tensor, "row padded width2"], unused: int, pad: int
) -> Float[Tensor, "row padded_again width"]:
    """silu(gate) ⊙ up of a product that holds both [arXiv:2002.05202, eq. 6].

    Args:
        x: gate, then up; the last ``unused`` frames mean nothing.
        unused: taps of the product less one.
        pad: frames of zeros to put on either side.
    """
    return _call(_GatedUnit, x, unused, pad)


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(update, gate)
        return torch.addcmul(x, update[:, : x.shape[1]], gate[:, None])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (update, gate), gradient = ctx.saved_tensors, gradients[0]
        frames = gradient.shape[1]
        buffer, inside = _with_unused(gradient, update.shape[1] - frames)
        torch.mul(gradient, gate[:, None], out=inside)
        return gradient, buffer, (gradient * update[:, :frames]).sum(1)


def residual(
    x: Float[Tensor, "row position hidden"],
    update: Float[Tensor, "row padded hidden"],
    gate: Float[Tensor, "row hidden"],
) -> Float[Tensor, "row position hidden"]:
    """Add gate ⊙ update to x, without the update's unused frames."""
    return _call(_Residual, x, update, gate)


# --- attention ------------------------------------------------------------------------------------


class _NormAndTurn(torch.autograd.Function):
    """RMSNorm and rotation of queries and keys at once, in float32.

    With n = x / rms(x) in halves (a, b): y = n ⊙ direct + swap(n) ⊙ crossed, where the tables hold
    cosines and sines times the norm's weights.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:  # x (row, position, 2, head, dim), weights (2, dim), cos and sin (position, pair)
        wide = x.float()
        rms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = rms.square_().div_(x.shape[-1]).add_(RMS_EPS).rsqrt_()
        normed = wide.mul_(inverse)
        tables = _tables(weights, cos, sin)
        turned = _turn(normed, *tables)
        ctx.save_for_backward(normed.to(HALF), inverse, weights, cos, sin)
        rows, frames, two, heads, dim = x.shape
        out = x.new_empty(two, rows, heads, frames, dim)
        out.permute(1, 3, 0, 2, 4).copy_(turned)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        half, inverse, weights, cos, sin = ctx.saved_tensors
        gradient = torch.empty(half.shape).copy_(gradients[0].permute(1, 3, 0, 2, 4))
        normed = half.float()
        # the other way round, before the weights: what n ⊙ weights gets
        ones = torch.ones_like(weights)
        before_turn = _turn(gradient, *_tables(ones, cos, -sin))
        for_weights = None
        if ctx.needs_input_grad[1]:
            products = (before_turn * normed).flatten(2).flatten(0, 1).sum(0)
            for_weights = products.view(2, -1, half.shape[-1]).sum(1)
        before_turn.mul_(weights[:, None])
        along = torch.linalg.vecdot(before_turn, normed)[..., None].div_(half.shape[-1])
        for_x = before_turn.addcmul_(normed, along, value=-1).mul_(inverse)
        return for_x.to(HALF), for_weights, None, None


def _tables(weights: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """Factors (position, 2, 1, pair) of (a to a, b to a, a to b, b to b)."""
    first, second = weights.chunk(2, dim=-1)
    cos, sin = cos[:, None, None], sin[:, None, None]
    first, second = first[:, None], second[:, None]
    return first * cos, second * -sin, first * sin, second * cos


def _turn(x: Tensor, a_a: Tensor, b_a: Tensor, a_b: Tensor, b_b: Tensor) -> Tensor:
    out = torch.empty_like(x)
    first, second = x.chunk(2, dim=-1)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, a_a, out=left).addcmul_(second, b_a)
    torch.mul(first, a_b, out=right).addcmul_(second, b_b)
    return out


def halves(weight: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
    """Bring neighbouring pairs (a, b, a, b …) into the order (a, a … b, b …)."""
    return weight.view(-1, 2).t().flatten()


def head_vectors(
    x: Float[Tensor, "row position hidden"],
    qkv: nn.Module,
    norms: tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]],
    num_heads: int,
    angles: Float[Tensor, "position pair"],
) -> tuple[Float[Tensor, "row head position dim"], ...]:
    """Queries (times 1/√d), keys and values, normalised and turned, in bfloat16.

    Scores do not see that the channels of queries and keys come in another order.
    """
    dim = norms[0].shape[0]
    joined = _project(x, qkv, num_heads, dim)
    weights = torch.stack([halves(norms[0]) * dim**-0.5, halves(norms[1])])
    turned = _call(_NormAndTurn, joined[:, :, :2], weights, angles.cos(), angles.sin())
    query, key = turned.unbind(0)
    return query, key, joined[:, :, 2].transpose(1, 2)


def _project(
    x: Tensor, qkv: nn.Module, num_heads: int, dim: int
) -> Float[Tensor, "row position 3 head dim"]:
    """Queries and keys in `halves`, then values; stored is (head, dim, 3)."""
    if type(qkv) is not nn.Linear:
        joined = qkv(x).to(HALF).view(*x.shape[:2], num_heads, dim // 2, 2, 3)
        turned = joined[..., :2].permute(0, 1, 5, 2, 4, 3).flatten(4)
        return torch.cat([turned, joined[..., 2].flatten(3)[:, :, None]], dim=2)
    weight, bias = (_apart(value, num_heads, dim) for value in (qkv.weight, qkv.bias))
    out = _call(_FrameProducts, x, weight[None], bias)
    return out.view(*x.shape[:2], 3, num_heads, dim)


def _apart(stored: Tensor, num_heads: int, dim: int) -> Tensor:
    """Weights or biases (head · dim · 3, …) as (3 · head · dim, …), queries and keys in halves."""
    half = stored.to(HALF).view(num_heads, dim // 2, 2, 3, *stored.shape[1:])
    axes = range(4, half.dim())
    turned = half[:, :, :, :2].permute(3, 0, 2, 1, *axes).flatten(0, 3)
    return torch.cat([turned, half[:, :, :, 2].flatten(0, 2)])


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        chances = torch.softmax(scores.float(), dim=-1).to(HALF)
        ctx.save_for_backward(chances)
        return chances

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (chances,) = ctx.saved_tensors
        return cast(Tensor, aten._softmax_backward_data(gradients[0], chances, -1, HALF))


def attend_in_products(
    query: Float[Tensor, "row head position dim"],
    key: Float[Tensor, "row head position dim"],
    value: Float[Tensor, "row head position dim"],
) -> Float[Tensor, "row position hidden"]:
    """softmax(q·kᵀ)·v as two batched products; the 1/√d is in the queries.

    PyTorch's fused attention keeps less, but its backward takes three times as long on a CPU.
    """
    rows, heads, positions, dim = query.shape
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))
    chances = _call(_Softmax, torch.bmm(query, key.mT))
    attended = torch.bmm(chances, value).view(rows, heads, positions, dim)
    return attended.transpose(1, 2).flatten(2)
