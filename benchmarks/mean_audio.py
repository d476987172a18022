"""How long does a ten-second clip of MeanAudio take on this CPU, in how much memory?

    python benchmarks/mean_audio.py [--models meanaudio-s meanaudio-l] [--steps 1 4 25]

Full size, random weights, one row, nothing compiled; each model in a process of its own. Text
features are random: encoding a prompt is not in the times, nor are the text encoders in the memory.
Seconds are processor time over all threads, which says what an idle machine would take with one
thread; the clock stands beside it. Peak is the largest resident set of the process (``ru_maxrss``),
Python and torch included.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.model.flow_transformer import FlowEnds
from resonate_audio.model.folder import Networks, build_networks
from resonate_audio.model.presets import PRESETS, ModelConfig
from resonate_audio.pipeline.device import for_inference

DURATION_S = 9.975
"""As MeanAudio counts ten seconds: whole latent frames."""


def main() -> None:
    """Measure each model in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=["meanaudio-s", "meanaudio-l"])
    parser.add_argument("--steps", nargs="*", type=int, default=[1, 4, 25])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(PRESETS[options.models[0]], options.steps, getattr(torch, options.dtype))
        return
    print(
        "| model | what | processor s | clock s | peak, GB |\n|---|---|---:|---:|---:|", flush=True
    )
    for model in options.models:
        steps = [str(step) for step in options.steps]
        command = [sys.executable, __file__, "--here", "--models", model, "--dtype", options.dtype]
        environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"}
        subprocess.run([*command, "--steps", *steps], env=environment, check=True)


@torch.no_grad()
def measure(config: ModelConfig, steps: list[int], dtype: torch.dtype) -> None:
    """Print a line for each number of steps, and one for decoder and vocoder."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    networks = random_networks(config)
    network = for_inference(networks.transformer, torch.device("cpu"), dtype, release=True).eval()
    flow = config.transformer
    features = TextFeatures(
        torch.randn(1, flow.num_text_tokens, flow.text_dim), torch.randn(1, flow.pooled_dim)
    )
    z = torch.randn(1, config.num_frames(DURATION_S), flow.latent_channels)
    sample(network, features, z, config, 1)  # the first call lays things out
    for count in steps:
        name = f"{count} step{'s' if count > 1 else ''}"
        show(config, name, lambda count=count: sample(network, features, z, config, count))
    networks.vae.fold_weight_norm()
    show(config, "decoder and vocoder", lambda: networks.vocoder(networks.vae.decode(z)))


def random_networks(config: ModelConfig) -> Networks:
    """Networks in which nothing is zero; fresh ones would give zero velocity."""
    torch.manual_seed(0)
    networks = build_networks(config)
    for parameter in networks.transformer.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return networks


def sample(
    network: FlowEnds, features: TextFeatures, z: Tensor, config: ModelConfig, num_steps: int
) -> Tensor:
    """Carry one row from noise to data."""
    sampling = config.sampling(DURATION_S, num_steps)
    prompt = network.condition(features)
    velocity = sampling_velocity(network, prompt, None, sampling, True)
    return solve(velocity, z, sampling)


def show(config: ModelConfig, what: str, run: Callable[[], Tensor]) -> None:
    """Time a call and print its line of the table."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"| {config.name} | {what} | {processor:.1f} | {clock:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
