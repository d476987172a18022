"""``resonate train``: run a recipe, or go on with the run it began."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Train a part of a model from a recipe; started again, a run goes on where it stopped.",
    no_args_is_help=True,
)

RecipeFile = Annotated[Path, typer.Option("--recipe", help="YAML file that holds every setting.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Replace one setting; may be repeated."),
]


@app.command()
def vae(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the VAE that packs mel spectrograms into latents.

    [bold]Example[/bold]

      resonate train vae --recipe recipes/nano/vae.yaml --set run.num_steps=2000
    """
    from resonate_audio.core.config import load_config
    from resonate_audio.training.recipes import VAERecipe, train_vae

    train_vae(load_config(VAERecipe, recipe, overrides), _say)


@app.command()
def vocoder(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the vocoder that turns mel spectrograms into waveforms.

    [bold]Example[/bold]

      resonate train vocoder --recipe recipes/nano/vocoder.yaml --set run.num_steps=2000
    """
    from resonate_audio.core.config import load_config
    from resonate_audio.training.recipes import VocoderRecipe, train_vocoder

    train_vocoder(load_config(VocoderRecipe, recipe, overrides), _say)


@app.command()
def pretrain(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the flow transformer from noise to latents, given captions.

    [bold]Example[/bold]

      resonate train pretrain --recipe recipes/nano/flow.yaml --set run.num_steps=2000
    """
    from resonate_audio.core.config import load_config
    from resonate_audio.training.recipes import PretrainRecipe, train_flow

    train_flow(load_config(PretrainRecipe, recipe, overrides), _say)


def _say(text: str) -> None:
    typer.echo(text, err=True)
