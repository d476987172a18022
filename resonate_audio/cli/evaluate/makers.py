"""Who makes the clips of `resonate eval generate`: a model, a program, a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from resonate_audio.cli.console import say
from resonate_audio.cli.generate import load
from resonate_audio.cli.options import Asked, DType
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.core.sampling import Sampling, shown_as

if TYPE_CHECKING:
    from resonate_audio.evaluation.clips.baselines import Baseline
    from resonate_audio.evaluation.clips.generate import ClipMaker

Opener = Callable[..., "ClipMaker"]
"""Takes ``device``."""
ELSEWHERE = ("duration_s", "num_inference_steps", "guidance_scale")
"""Settings that other people's pipelines have, too."""


def command_maker(
    template: str, timeout_s: float, baseline: Baseline | None, device: str | None = None
) -> ClipMaker:
    """A program that makes one clip a run, on whatever it finds."""
    from resonate_audio.evaluation.clips.generate import CommandMaker

    return CommandMaker(template, timeout_s, nfe=None if baseline is None else baseline.nfe)


def model_maker(
    model: str,
    asked: Asked,
    batch_size: int,
    device: str | None,
    dtype: DType | None,
    adapters: Sequence[str] = (),
) -> ClipMaker:
    """A model of this package, with its adapters."""
    from resonate_audio.evaluation.clips.generate import ModelMaker

    pipeline = load(model, device, None if dtype is None else dtype.value, adapters=adapters)
    sampling = pipeline.config.sampling(**asked)
    pipeline.config.check_duration(sampling.duration_s)
    return ModelMaker(pipeline, sampling, batch_size)


def diffusers_maker(
    origin: str, asked: Asked, batch_size: int, device: str | None, dtype: DType | None
) -> ClipMaker:
    """A diffusers pipeline.

    Raises:
        InputError: a setting is asked for that such pipelines do not have.
    """
    import torch

    from resonate_audio.evaluation.clips.diffusers import DiffusersMaker
    from resonate_audio.pipeline.device import choose_device

    for name in asked:
        if name not in ELSEWHERE:
            option = shown_as(Sampling.model_fields[name]).option
            raise InputError(f"{option}: a setting of this package's models, not of --diffusers")
    say(f"loading {origin}")
    number_format: torch.dtype = getattr(torch, "float32" if dtype is None else dtype.value)
    if number_format is torch.float16 and choose_device(device).type == "cpu":
        raise ConfigError("dtype float16 on cpu: expected float32 or bfloat16")
    return DiffusersMaker.from_pretrained(
        origin, choose_device(device), number_format, batch_size=batch_size, **asked
    )
