"""Which weights does a reward's gradient say anything about?

    python benchmarks/gradient_signal.py --recipe recipes/nano/grpo.yaml [--batches 30]
        [--set reward=nano-clap ...]

The gradients of many steps from the *same* policy are averaged in two halves, of even and of odd
steps. Where there is signal, the halves agree: their cosine is K·s / (1 + K·s) for K steps a half
and s the squared signal-to-noise ratio of one step. Where there is none it is 0, give or take one
by the square root of the number of weights that differ independently. A cosine far below 0 is
noise of few dimensions that changes its sign, as with the time embedding, whose gradient follows
the window that was drawn.

Cosines are given for plain gradients and for gradients divided by their root mean square, which is
the direction that Adam takes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from resonate_audio.core.config import load_config
from resonate_audio.core.errors import ResonateError
from resonate_audio.data.prompts import read_prompts
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.training.loop.task import generator_for
from resonate_audio.training.recipes.reinforce import ReinforceRecipe, build_task
from resonate_audio.training.reinforce.trainer import ReinforceTask, Update

TINY = 1e-12


@dataclass(frozen=True)
class Halves:
    """Averaged gradients of one weight."""

    even: Tensor
    odd: Tensor
    square: Tensor
    """Mean square of single gradients."""


def main() -> int:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    changes = ["evaluation.prompts=null", *options.set]
    try:
        recipe = load_config(ReinforceRecipe, options.recipe, changes)
        torch.set_num_threads(recipe.run.num_threads or 1)
        with JudgeDesk() as desk:
            texts = read_prompts(recipe.prompts)
            task = build_task(recipe, texts, desk, torch.device("cpu"))
            report(measure(task, options.batches, recipe.run.seed))
    except ResonateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(task: ReinforceTask, num_batches: int, seed: int) -> dict[str, Halves]:
    """Average the gradients of so many steps; no weight moves."""
    weights = {n: p for n, p in task.policy.model.named_parameters() if p.requires_grad}
    found = {name: Halves(*(torch.zeros_like(p) for _ in range(3))) for name, p in weights.items()}
    began = time.perf_counter()
    for step in range(num_batches):
        task.policy.model.eval()
        experience = task.collect(step)
        task.policy.model.train()
        generator = generator_for(seed, step, task.policy.device, "update 0")
        task.plan.learn(task.policy, experience, Update(experience.kept_rows(), True, generator))
        for name, weight in weights.items():
            if weight.grad is not None:
                half = found[name].odd if step % 2 else found[name].even
                half.add_(weight.grad, alpha=2 / num_batches)
                found[name].square.addcmul_(weight.grad, weight.grad, value=1 / num_batches)
                weight.grad = None
    print(f"{num_batches} steps, {(time.perf_counter() - began) / num_batches:.1f} s each\n")
    return found


def report(found: dict[str, Halves]) -> None:
    """Print a table by kind of weight, blocks of one kind together."""
    kinds: dict[str, list[Halves]] = defaultdict(list)
    for name, halves in found.items():
        kinds[re.sub(r"\.\d+\.", ".*.", name)].append(halves)
    print("| weights | number | cosine of halves | as Adam goes |")
    print("| --- | --- | --- | --- |")
    for kind, parts in [("all", list(found.values())), *kinds.items()]:
        number = sum(part.even.numel() for part in parts)
        print(f"| {kind} | {number:,} | {cosine(parts, False):.3f} | {cosine(parts, True):.3f} |")


def cosine(parts: list[Halves], as_adam: bool) -> float:
    """Cosine of the two halves over some weights."""
    products = [0.0, 0.0, 0.0]
    for part in parts:
        scale = 1 / (part.square.sqrt() + TINY) if as_adam else torch.ones(())
        even, odd = part.even * scale, part.odd * scale
        for index, (one, two) in enumerate(((even, odd), (even, even), (odd, odd))):
            products[index] += float((one * two).sum())
    across, first, second = products
    return across / max((first * second) ** 0.5, TINY)


if __name__ == "__main__":
    sys.exit(main())
