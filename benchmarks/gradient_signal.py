"""Which weights does a reward's gradient say anything about?

    python benchmarks/gradient_signal.py --recipe recipes/nano/grpo.yaml [--batches 30]
        [--set reward=nano-clap ...]

Gradients of many steps from the *same* policy are compared with each other. The mean cosine c of
any two steps is what share of a step's gradient, in square, is common to all of them; the mean of K
steps has with the true gradient the squared cosine K·c / (1 + (K − 1)·c). Where there is no signal
c is 0 within its error. A c far above 0 is not yet good news: what is common may come from the loss
rather than from the rewards, so a run has to show that it raises them.

Cosines are given for plain gradients and for gradients divided by their root mean square over the
steps, which is the direction that Adam takes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import defaultdict
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


def measure(task: ReinforceTask, num_batches: int, seed: int) -> dict[str, Tensor]:
    """Gradients of so many steps by the weight's name, (step, value); no weight moves."""
    weights = {n: p for n, p in task.policy.model.named_parameters() if p.requires_grad}
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    began = time.perf_counter()
    for step in range(num_batches):
        task.policy.model.eval()
        experience = task.collect(step)
        task.policy.model.train()
        generator = generator_for(seed, step, task.policy.device, "update 0")
        task.plan.learn(task.policy, experience, Update(experience.kept_rows(), True, generator))
        for name, weight in weights.items():
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            found[name].append(gradient.flatten())
            weight.grad = None
    print(f"{num_batches} steps, {(time.perf_counter() - began) / num_batches:.1f} s each\n")
    return {name: torch.stack(steps) for name, steps in found.items() if any(map(torch.any, steps))}


def report(found: dict[str, Tensor]) -> None:
    """Print a table by kind of weight, blocks of one kind together."""
    kinds: dict[str, list[Tensor]] = defaultdict(list)
    for name, steps in found.items():
        kinds[re.sub(r"\.\d+\.", ".*.", name)].append(steps)
    print("| weights | number | c of two steps | as Adam goes |")
    print("| --- | --- | --- | --- |")
    for kind, parts in [("all", list(found.values())), *kinds.items()]:
        plain = torch.cat(parts, dim=1)
        scaled = plain / plain.square().mean(dim=0).sqrt().clamp(min=TINY)
        print(f"| {kind} | {plain.shape[1]:,} | {agreement(plain)} | {agreement(scaled)} |")


def agreement(steps: Tensor) -> str:
    """Mean cosine of two different steps, (step, value), and its standard error."""
    units = steps / steps.norm(dim=1, keepdim=True).clamp(min=TINY)
    others = (units @ units.T)[~torch.eye(len(units), dtype=torch.bool)]
    return f"{float(others.mean()):.3f} ± {float(others.std() * (2 / len(others)) ** 0.5):.3f}"


if __name__ == "__main__":
    sys.exit(main())
