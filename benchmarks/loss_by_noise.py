r"""At which noise levels does a flow's text matter?

    python benchmarks/loss_by_noise.py --recipe recipes/nano/flow.yaml \
        --set weights.transformer=recipes/nano/flow/weights

The flow-matching loss of the recipe's flow over clips of its own data, level by level, with their
captions and with the empty prompt. The difference is what the text tells: where it is small, drawn
times and solver steps go to detail that no sentence decides. `latent_scale` moves the levels.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from resonate_audio.core.config import load_config
from resonate_audio.core.errors import ConfigError, ResonateError
from resonate_audio.flow.objective import cfm_loss
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.task import Draw
from resonate_audio.training.pretrain.task import PretrainTask
from resonate_audio.training.recipes.model import load_part, load_text_encoder, load_vae, open_waves
from resonate_audio.training.recipes.pretrain import PretrainRecipe, encode_data

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def say(message: str) -> None:
    """Progress, off the table."""
    sys.stderr.write(f"{message}\n")


@torch.no_grad()
def losses(task: PretrainTask, number: int) -> Tensor:
    """Loss of one batch at each level: with captions, and with the empty prompt.

    Returns:
        (level, 2).
    """
    task.model.eval()
    batch = task.draw_batch(Draw(number, number, torch.Generator().manual_seed(number)))
    rows = len(batch.data)
    found = []
    for level in LEVELS:
        times = torch.full((rows,), level)
        for features in (batch.features, task.model.empty_features(rows)):
            velocity = partial(task.model, conditions=task.model.condition(features))
            found.append(cfm_loss(velocity, batch.data, batch.noise, times, batch.mask).mean)
    return torch.stack(found).view(len(LEVELS), 2)


def open_task(recipe: PretrainRecipe) -> PretrainTask:
    """The flow that the recipe starts from, over the recipe's data.

    Raises:
        ConfigError: it starts from none.
    """
    if recipe.weights.transformer is None:
        raise ConfigError("weights.transformer is not set: the flow to look at")
    device = torch.device("cpu")
    waves, vae = open_waves(recipe, say), load_vae(recipe, device)
    encoder = load_text_encoder(recipe, device)
    data = encode_data(recipe, waves, vae, encoder, say)
    model = FlowTransformer(recipe.model.transformer)
    load_part(model, recipe.weights.transformer)
    flow = recipe.flow.model_copy(update={"condition_dropout": 0.0})
    return PretrainTask(model, data, flow, recipe.run.seed)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--batches", type=int, default=2)
    options = parser.parse_args()
    try:
        task = open_task(load_config(PretrainRecipe, options.recipe, options.set))
    except ResonateError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
    table = torch.stack([losses(task, number) for number in range(options.batches)]).mean(0)
    print("| t (1 is noise) | loss with captions | without | what the text tells |")
    print("| --- | --- | --- | --- |")
    for level, (told, untold) in zip(LEVELS, table.tolist(), strict=True):
        print(f"| {level:g} | {told:.4f} | {untold:.4f} | {untold - told:.4f} |")


if __name__ == "__main__":
    main()
