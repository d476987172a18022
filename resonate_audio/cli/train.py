"""``resonate train``: run a recipe, or go on with the run it began."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from resonate_audio.cli import train_plan
from resonate_audio.core.paths import recipe_path

RecipeT = TypeVar("RecipeT")

app = typer.Typer(
    help="Train a part of a model from a recipe; started again, a run goes on where it stopped.",
    no_args_is_help=True,
)

RECIPE = typer.Option("--recipe", help="YAML file with every setting, or a name: nano/grpo.")
RecipeFile = Annotated[Path, RECIPE]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Replace one setting; may be repeated."),
]


@app.command()
def vae(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the VAE that packs mel spectrograms into latents.

    [bold]Example[/bold]

      resonate train vae --recipe nano/vae --set run.num_steps=2000
    """
    from resonate_audio.training.recipes.codec import VAERecipe, train_vae

    train_vae(_load(VAERecipe, recipe, overrides), _say)


@app.command()
def vocoder(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the vocoder that turns mel spectrograms into waveforms.

    [bold]Example[/bold]

      resonate train vocoder --recipe nano/vocoder --set run.num_steps=2000
    """
    from resonate_audio.training.recipes.codec import VocoderRecipe, train_vocoder

    train_vocoder(_load(VocoderRecipe, recipe, overrides), _say)


@app.command()
def pretrain(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the flow transformer from noise to latents, given captions.

    [bold]Example[/bold]

      resonate train pretrain --recipe nano/flow --set run.num_steps=2000
    """
    from resonate_audio.training.recipes.pretrain import PretrainRecipe, train_flow

    train_flow(_load(PretrainRecipe, recipe, overrides), _say)


@app.command()
def distil(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Make a trained flow transformer need few steps and no guidance.

    [bold]Examples[/bold]

      resonate train distil --recipe nano/distil

      resonate train distil --recipe nano/distil --set objective=meanflow
    """
    from resonate_audio.training.recipes.distil import DistilRecipe, train_distil

    train_distil(_load(DistilRecipe, recipe, overrides), _say)


@app.command()
def grpo(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Reinforce a model with Flow-GRPO, or with its Guard and DPPO forms.

    [bold]Example[/bold]

      resonate train grpo --recipe nano/grpo --set run.num_steps=50
    """
    _reinforce(recipe, overrides, ("grpo", "guard", "dppo"))


@app.command()
def nft(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Reinforce a model with DiffusionNFT, which needs no likelihoods.

    [bold]Example[/bold]

      resonate train nft --recipe nano/nft --set run.num_steps=50
    """
    _reinforce(recipe, overrides, ("nft",))


@app.command()
def awm(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Reinforce a model with advantage-weighted matching.

    [bold]Example[/bold]

      resonate train awm --recipe nano/awm --set run.num_steps=50
    """
    _reinforce(recipe, overrides, ("awm",))


@app.command()
def dpo(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Prefer the best of a prompt's takes to the worst, or what people prefer: DPO.

    [bold]Examples[/bold]

      resonate train dpo --recipe nano/dpo --set algorithm.online=true

      resonate train dpo --recipe nano/dpo-pairs --set pairs=preferences/pairs.jsonl
    """
    from resonate_audio.core.config import apply_overrides
    from resonate_audio.core.documents.yaml_text import read_yaml

    if "pairs" not in apply_overrides(read_yaml(recipe_path(recipe)), overrides or []):
        _reinforce(recipe, overrides, ("dpo",))
        return
    from resonate_audio.training.recipes.pairs import PairRecipe, train_on_pairs

    train_on_pairs(_load(PairRecipe, recipe, overrides), _say)


@app.command()
def bon(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Fine-tune a model on its own best takes: reward-weighted regression or best of N.

    [bold]Example[/bold]

      resonate train bon --recipe nano/bon --set run.num_steps=50
    """
    _reinforce(recipe, overrides, ("rwr", "raft"))


@app.command()
def sft(
    recipe: Annotated[Path | None, RECIPE] = None,
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Sounds to learn, captioned beside them or by their names; no recipe."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="With --folder: learn a small adapter, not a model.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="With --folder: what to teach.")
    ] = "nano",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="With --folder: of the run.", show_default="FOLDER-MODEL"
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="With --folder: updates.")
    ] = 500,
) -> None:
    """Fine-tune a trained flow transformer on captioned recordings.

    [bold]Examples[/bold]

      resonate train sft --folder my_sounds/ --lora

      resonate train sft --recipe nano/sft --set run.num_steps=500
    """
    from resonate_audio.core.errors import ConfigError
    from resonate_audio.training.recipes.pretrain import PretrainRecipe, train_flow

    if (recipe is None) == (folder is None):
        raise ConfigError("expected --folder with sounds, or else --recipe with every setting")
    if folder is not None:
        _learn_folder(folder, model, output, lora, steps, overrides)
        return
    assert recipe is not None
    config = _load(PretrainRecipe, recipe, overrides)
    if config.weights.transformer is None:
        raise ConfigError(f"{recipe}: weights.transformer is not set: fine-tuning starts from it")
    train_flow(config, _say)


def _learn_folder(
    folder: Path,
    model: str,
    output: Path | None,
    lora: bool,
    steps: int,
    overrides: list[str] | None,
) -> None:
    """Fine-tune on a folder of sounds, and say how to hear what was learnt."""
    import shlex

    from resonate_audio.core.config import apply_overrides, parse_config
    from resonate_audio.model.adapter import ADAPTER_NAME
    from resonate_audio.training.loop.track import check_tracker
    from resonate_audio.training.recipes.own_sounds import recipe_for
    from resonate_audio.training.recipes.pretrain import MODEL_NAME, PretrainRecipe, train_flow

    output = output or Path(f"{folder.resolve().name}-{Path(model).name}")
    config = recipe_for(folder, model, output, lora, steps, _say)
    values = apply_overrides(config.model_dump(mode="json"), overrides or [])
    config = parse_config(PretrainRecipe, values, f"a recipe for {folder}")
    check_tracker(config.run.track)
    result = train_flow(config, _say)
    if not result.finished:
        _say("the same command goes on")
        return
    prompt = shlex.quote(config.listen.prompts[0] if config.listen.prompts else "a sound")
    export = config.run.output / "export"
    with_it = f"--model {shlex.quote(str(export / MODEL_NAME))}"
    if lora:
        adapter = shlex.quote(str(export / ADAPTER_NAME))
        with_it = f"--model {shlex.quote(model)} --adapter {adapter}"
    _say(f"hear it:  resonate generate {prompt} {with_it}")


def _reinforce(recipe: Path, overrides: list[str] | None, kinds: tuple[str, ...]) -> None:
    from resonate_audio.core.errors import ConfigError
    from resonate_audio.training.recipes.reinforce import ReinforceRecipe, train_reinforce

    config = _load(ReinforceRecipe, recipe, overrides)
    if config.algorithm.kind not in kinds:
        raise ConfigError(
            f"{recipe}: algorithm.kind is {config.algorithm.kind}; expected {' or '.join(kinds)}"
        )
    train_reinforce(config, _say)


def _load(cls: type[RecipeT], recipe: Path, overrides: list[str] | None) -> RecipeT:
    """A recipe, which may be one of ours by its name; its tracker can be spoken to."""
    from resonate_audio.core.config import load_config
    from resonate_audio.training.loop.track import check_tracker

    kind: Any = cls  # a TrainerConfig, which takes long to import
    loaded = load_config(kind, recipe_path(recipe), overrides)
    check_tracker(loaded.run.track)
    config: RecipeT = loaded
    return config


def _say(text: str) -> None:
    typer.echo(text, err=True)


app.command()(train_plan.plan)
