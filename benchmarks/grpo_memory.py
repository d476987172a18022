"""What one reinforcement step of the full model keeps in memory, counted without computing it.

    python benchmarks/grpo_memory.py [--model resonate] [--takes 24] [--seconds 10]

The forward pass runs on the meta device, where tensors have shapes and no numbers, and every tensor
that autograd keeps for the backward pass is counted once. Weights, gradients, Adam's moments, the
averaged weights and the reference are counted by their sizes. What is left out: the judge, the text
encoder, VAE and vocoder (which work when none of this is alive), and the allocator's slack.
"""

from __future__ import annotations

import argparse
from itertools import product

import torch

from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.presets import PRESETS, ModelConfig
from resonate_audio.training.reinforce.lora import LoraSettings, add_lora

GIB = 2**30
RUNTIME_GIB = 1.5
"""CUDA context and kernels' workspace, a round number, not measured here."""


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=PRESETS, default="resonate")
    parser.add_argument("--takes", type=int, default=24, help="takes computed together")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rank", type=int, default=32, help="of the adapters")
    options = parser.parse_args()
    config = PRESETS[options.model]
    frames = config.num_frames(options.seconds)
    print(f"{options.model}, {options.takes} takes of {options.seconds:g} s ({frames} frames)\n")
    print("| trained | precision | guidance | blocks recomputed | weights and their state, GiB |"
          " kept for backward, GiB | together, GiB |")  # fmt: skip
    print("| --- | --- | --- | --- | ---: | ---: | ---: |")
    for lora, bf16, guidance, recompute in product(
        (True, False), (True, False), (1.0, 4.5), (False, True)
    ):
        state, kept = measure(config, frames, options, lora, bf16, guidance, recompute)
        total = state + kept + RUNTIME_GIB
        named = ("adapters" if lora else "all", "bf16" if bf16 else "float32", f"{guidance:g}")
        numbers = (f"{number:.1f}" for number in (state, kept, total))
        print("| " + " | ".join((*named, "yes" if recompute else "no", *numbers)) + " |")
    print(f"\ntogether: with {RUNTIME_GIB:g} GiB for the CUDA runtime")


def measure(
    config: ModelConfig,
    frames: int,
    options: argparse.Namespace,
    lora: bool,
    bf16: bool,
    guidance: float,
    recompute: bool,
) -> tuple[float, float]:
    """GiB of weights with their state, and of what the backward pass needs."""
    with torch.device("meta"):
        model = FlowTransformer(config.transformer)
        if lora:
            add_lora(model, LoraSettings(rank=options.rank, alpha=2.0 * options.rank))
    model.recompute_blocks = recompute
    weights = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    reference = 0 if lora else weights
    state = 4 * (weights + reference + 4 * trained)  # gradient, two moments, average
    if bf16:
        state += 2 * weights  # autocast keeps a copy of each matrix for the backward pass
        model.to(torch.bfloat16)
    return state / GIB, count_kept(model, guidance, options.takes, frames) / GIB


def count_kept(model: FlowTransformer, guidance: float, rows: int, frames: int) -> int:
    """Bytes of every tensor that the backward pass of one batch keeps, weights apart."""
    config = model.config
    features = TextFeatures(
        torch.empty(rows, config.num_text_tokens, config.text_dim, device="meta"),
        torch.empty(rows, config.pooled_dim, device="meta"),
    )
    prompt, empty = model.condition(features), model.condition(model.empty_features(rows))
    z = torch.empty(rows, frames, config.latent_channels, device="meta")
    sizes: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # or its address would be given to the next one
        sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scale = guidance if guidance > 1 else 0.0
        guided(model, prompt, empty, scale)(z, torch.empty(rows, device="meta"))
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(size for key, size in sizes.items() if key not in weights)


if __name__ == "__main__":
    main()
