"""Seconds of a 10 s sound by MeanAudio at full size, in 1, 4 and 25 steps, and peak memory.

    python benchmarks/few_steps.py [--threads 2] [--dtype bfloat16] [--model meanaudio-l]

Random weights, without the text encoders; VAE and vocoder are those of 16 kHz, run whole. A step of
mean velocities is one evaluation, one of the plain flow (fluxaudio-s) two, for its guidance. The
peak is that of the process, so run one model at a time to compare peaks.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor

from resonate_audio.core.sampling import SolverSettings
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.model.flow_transformer import Conditions
from resonate_audio.model.folder import build_networks
from resonate_audio.model.presets import MEANAUDIO, PRESETS
from resonate_audio.pipeline.device import for_inference

STEPS = (1, 4, 25)


@torch.no_grad()
def main() -> None:
    """Measure one model and print its row."""
    names = [config.name for config in MEANAUDIO]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=names, default="meanaudio-s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = PRESETS[options.model]
    networks = build_networks(config)
    dtype = getattr(torch, options.dtype)
    flow = for_inference(networks.transformer, torch.device("cpu"), dtype, release=True).eval()
    networks.vae.fold_weight_norm()
    sizes, frames = config.transformer, config.num_frames(config.default_duration_s)
    z = torch.randn(1, frames, sizes.latent_channels)
    tokens = torch.randn(1, sizes.num_text_tokens, sizes.hidden).to(dtype)
    row = Conditions(tokens, torch.randn(1, sizes.hidden).to(dtype))

    def sample(num_steps: int) -> Tensor:
        settings = SolverSettings(
            num_inference_steps=num_steps, guidance_scale=config.default_guidance
        )
        return solve(sampling_velocity(flow, row, row, settings, sizes.mean_velocity), z, settings)

    sample(1)  # compiles, where it does
    sound_s = seconds(lambda: networks.vocoder(networks.vae.decode(z)))
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {options.threads} threads, torch {torch.__version__}, {options.dtype}")
    print(f"{config.name}: VAE and vocoder {sound_s:.2f} s")
    for num_steps in STEPS:
        print(f"{num_steps:>3} steps {seconds(lambda n=num_steps: sample(n)) + sound_s:8.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")


def seconds(function: Callable[[], Tensor]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
