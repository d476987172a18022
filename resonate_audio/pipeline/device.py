"""Where a model runs and in which number format, and the form of it that is fast there."""

from __future__ import annotations

import copy

import torch
from torch import nn

from resonate_audio.core.errors import InputError
from resonate_audio.core.processor import preferred_dtype
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.fast_bigvgan import FastBigVGAN
from resonate_audio.model.fast_flow import FastFlowTransformer, can_compile
from resonate_audio.model.flow_transformer import FlowEnds, FlowTransformer
from resonate_audio.model.folder import Vocoder

COMPILE_FROM_WEIGHTS = 100_000_000
"""Compiling takes a minute, which small models never earn back; nor does bfloat16 pay there."""
DTYPES = {
    "cpu": ("float32", "bfloat16"),
    "cuda": ("bfloat16", "float32", "float16"),
    "mps": ("float32",),  # half precision gives silent garbage there
}
"""Number formats of the flow transformer by device, the default first."""


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the fastest one here.

    Raises:
        InputError: it is not a device, or this machine or this torch does not have it.
    """
    if device is None:
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device}: expected cpu, cuda, cuda:1 or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(found.type, False):
        here = ", ".join(name for name, is_here in available.items() if is_here)
        raise InputError(f"device {device}: not available here; there is {here}")
    return found


def choose_dtype(
    dtype: str | torch.dtype | None,
    device: torch.device,
    smallest: bool = False,
    num_weights: int = 0,
) -> torch.dtype:
    """The number format asked for, or the one that is fast and trusted on the device.

    Args:
        dtype: what was asked for, if anything.
        device: where it is to run.
        smallest: of the trusted ones take bfloat16 if it is among them.
        num_weights: of the flow transformer. A large one is in bfloat16 on a CPU whose products
            are measured to be twice as fast in it as in float32.

    Raises:
        InputError: it is not known, or known to go wrong on the device.
    """
    trusted = DTYPES[device.type]
    if dtype is None:
        old_gpu = device.type == "cuda" and not torch.cuda.is_bf16_supported()
        if device.type == "cpu" and not smallest and num_weights >= COMPILE_FROM_WEIGHTS:
            return preferred_dtype(device)
        wanted = "bfloat16" if smallest and "bfloat16" in trusted else trusted[0]
        name = "float32" if old_gpu else wanted
    else:
        name = str(dtype).removeprefix("torch.")
    if name not in trusted:
        raise InputError(f"dtype {name} on {device.type}: expected {' or '.join(trusted)}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def for_inference(
    transformer: FlowTransformer, device: torch.device, dtype: torch.dtype, release: bool = False
) -> FlowEnds:
    """Bring a flow transformer into the form that is fast on a device.

    Latent statistics and the empty prompt keep their float32 in any number format.

    Args:
        transformer: in float32 on the CPU.
        device: where it will run.
        dtype: number format of its weights.
        release: take the weights of ``transformer``, which cannot be used after that.
    """
    if device.type == "cpu":
        compile = count_weights(transformer) >= COMPILE_FROM_WEIGHTS
        fast: FlowEnds = FastFlowTransformer.from_model(transformer, dtype, compile, release)
    else:
        fast = transformer if release else copy.deepcopy(transformer)
    kept = {name: value.float().clone() for name, value in transformer.named_buffers()}
    fast = fast.to(device, dtype)
    for name, value in kept.items():
        setattr(fast, name, value.to(device))
    return fast


def vocoder_for_inference(vocoder: Vocoder, device: torch.device, dtype: torch.dtype) -> Vocoder:
    """Bring a vocoder to a device; on a CPU a large BigVGAN takes the form that is fast there.

    It follows the flow into bfloat16 where that is fast; where it was chosen for less memory, the
    vocoder stays as it is, since the fast form takes more.
    """
    if (
        isinstance(vocoder, BigVGAN)
        and device.type == "cpu"
        and count_weights(vocoder) >= COMPILE_FROM_WEIGHTS
        and (dtype == torch.float32 or dtype == preferred_dtype(device))
        and can_compile()
    ):
        return FastBigVGAN(vocoder, dtype)
    return vocoder.to(device)


def count_weights(network: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
