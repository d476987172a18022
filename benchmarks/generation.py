"""One 10 s sound of the full-size model on this CPU: seconds of each stage, and peak memory.

    python benchmarks/generation.py [--threads 2] [--steps-timed 2] [--only ours|straight]
        [--dtype bfloat16] [--duration 10] [--no-flow]

Random weights, without the text encoder. The straightforward form (two separate unguided float32
evaluations a step; a vocoder with library convolutions for the anti-aliased activations, without
tiles) stands beside ours, in one run. A generation is 25 equal steps: the flow is timed over
--steps-timed of them and multiplied, everything else is run whole. The peak is that of the
process, so it tells of one form only with --only; `--only ours` frees the plain weights, as the
pipeline does. `--dtype` is the format of our flow, which our vocoder follows as in the pipeline.
Seconds are of processor time over the number of threads: on a shared machine the clock tells of
the others. The vocoder has run once on a second of sound before, so compiling is left out.
"""

from __future__ import annotations

import argparse
import copy
import platform
import resource
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resonate_audio.flow.guidance import guided
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.times import uniform_grid
from resonate_audio.model.antialiased_snake import (
    SNAKE_EPS,
    AntialiasedSnake,
    kaiser_sinc_filter,
)
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.fast_flow import FastFlowTransformer
from resonate_audio.model.flow_transformer import Conditions, FlowTransformer
from resonate_audio.model.folder import Networks, build_networks
from resonate_audio.model.presets import RESONATE
from resonate_audio.pipeline.device import vocoder_for_inference

NUM_STEPS = 25
GUIDANCE = 4.5
WARM_UP_HOPS = 86


class PlainSnake(nn.Module):
    """The anti-aliased activation with library convolutions, as its paper draws it."""

    def __init__(self, trained: AntialiasedSnake) -> None:
        super().__init__()
        self.log_alpha, self.log_beta = trained.log_alpha, trained.log_beta
        self.register_buffer("taps", kaiser_sinc_filter())

    def forward(self, x: Tensor, in_place: bool = False) -> Tensor:
        """Up ×2, activate, down ×2."""
        channels = x.shape[1]
        taps = self.taps.expand(channels, 1, -1)
        padded = F.pad(x, (5, 5), mode="replicate")
        up = 2 * F.conv_transpose1d(padded, taps, stride=2, groups=channels)[..., 15:-15]
        alpha, beta = (log.exp()[None, :, None] for log in (self.log_alpha, self.log_beta))
        up = up + torch.sin(up * alpha) ** 2 / (beta + SNAKE_EPS)
        return F.conv1d(F.pad(up, (5, 6), mode="replicate"), taps, stride=2, groups=channels)


def main() -> None:
    """Measure both forms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps-timed", type=int, default=2)
    parser.add_argument("--only", choices=("ours", "straight"), help="measure one form")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of sound")
    parser.add_argument("--no-flow", action="store_true", help="VAE and vocoder alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    networks = build_networks(RESONATE)
    forms = [name for name in ("straight", "ours") if options.only in (None, name)]
    release = forms == ["ours"]  # the plain weights are needed only to measure the other form
    waves: dict[str, Tensor] = {}
    columns: dict[str, dict[str, float]] = {}
    for name in forms:
        dtype = getattr(torch, options.dtype if name == "ours" else "float32")
        z = latents(options.duration)
        columns[name] = {}
        if not options.no_flow:
            step_s = flow_step(name, networks.transformer, z, options.steps_timed, release, dtype)
            columns[name] = {"one guided step": step_s, f"{NUM_STEPS} steps": NUM_STEPS * step_s}
        columns[name] |= sound_stages(name, networks, z, dtype, release, waves)
        whole = sum(value for row, value in columns[name].items() if row != "one guided step")
        columns[name] |= {} if options.no_flow else {"whole sound": whole}
    if len(forms) == 2:
        error = (waves["ours"] - waves["straight"]).norm() / waves["straight"].norm()
        print(f"relative L2 error of our wave: {error:.1e}")
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {options.threads} threads, torch {torch.__version__}; seconds")
    print(f"{'':32}" + "".join(f"{name:>10}" for name in forms))
    for row in columns[forms[0]]:
        print(f"{row:32}" + "".join(f"{columns[name][row]:10.2f}" for name in forms))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")


def latents(duration_s: float) -> Tensor:
    """The same random latents each time."""
    shape = (1, RESONATE.num_frames(duration_s), RESONATE.transformer.latent_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def sound_stages(
    form: str,
    networks: Networks,
    z: Tensor,
    dtype: torch.dtype,
    release: bool,
    waves: dict[str, Tensor],
) -> dict[str, float]:
    """Seconds of VAE and vocoder; the wave goes into ``waves``."""
    vae, vocoder = networks.vae, networks.vocoder
    if not vae.folded:
        vae.fold_weight_norm()
    mel, decode_s = timed(lambda: vae.decode(z))
    assert isinstance(vocoder, BigVGAN)
    if form == "ours":
        ours = vocoder_for_inference(vocoder, torch.device("cpu"), dtype)
        if release and ours is not vocoder:
            vocoder.to("meta")
        run = ours.forward
    else:
        run = plain_form(vocoder)._vocode
    run(mel[..., :WARM_UP_HOPS])
    waves[form], vocode_s = timed(lambda: run(mel))
    return {"VAE decode": decode_s, "vocoder": vocode_s}


@torch.no_grad()
def flow_step(
    form: str,
    model: FlowTransformer,
    z: Tensor,
    steps_timed: int,
    release: bool,
    dtype: torch.dtype,
) -> float:
    """Seconds of one guided Euler step, after one that warms up."""
    config = model.config
    tokens = torch.randn(1, config.num_text_tokens, config.hidden)
    row = Conditions(tokens, torch.randn(1, config.hidden))
    if form == "ours":
        fast = FastFlowTransformer.from_model(model, dtype, release=release)
        row = Conditions(row.tokens.to(dtype), row.pooled.to(dtype))
        velocity = guided(fast, row, row, GUIDANCE)
    else:

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            return GUIDANCE * model(z, t, row) + (1 - GUIDANCE) * model(z, t, row)

    integrate(velocity, z, uniform_grid(1))
    _, seconds = timed(lambda: integrate(velocity, z, uniform_grid(steps_timed)))
    return seconds / steps_timed


def plain_form(vocoder: BigVGAN) -> BigVGAN:
    """A copy with library convolutions in its activations."""
    plain = copy.deepcopy(vocoder)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AntialiasedSnake):
                setattr(module, name, PlainSnake(child))
    return plain


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """A result and the processor seconds it took, over the number of threads."""
    start = time.process_time()
    result = function()
    return result, (time.process_time() - start) / torch.get_num_threads()


if __name__ == "__main__":
    main()
