"""``resonate train``: run a recipe, or go on with the run it began."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from resonate_audio.cli import train_plan
from resonate_audio.core.paths import recipe_path

if TYPE_CHECKING:
    from resonate_audio.training.loop.run_config import TrainerConfig
    from resonate_audio.training.loop.trainer import RunResult

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

    config = _load(VAERecipe, recipe, overrides)
    _tell_made(config, train_vae(config, _say))


@app.command()
def vocoder(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the vocoder that turns mel spectrograms into waveforms.

    [bold]Example[/bold]

      resonate train vocoder --recipe nano/vocoder --set run.num_steps=2000
    """
    from resonate_audio.training.recipes.codec import VocoderRecipe, train_vocoder

    config = _load(VocoderRecipe, recipe, overrides)
    _tell_made(config, train_vocoder(config, _say))


@app.command()
def pretrain(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Train the flow transformer from noise to latents, given captions.

    [bold]Example[/bold]

      resonate train pretrain --recipe nano/flow --set run.num_steps=2000
    """
    from resonate_audio.training.recipes.pretrain import PretrainRecipe, train_flow

    config = _load(PretrainRecipe, recipe, overrides)
    _tell_made(config, train_flow(config, _say))


@app.command()
def distil(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Make a trained flow transformer need few steps and no guidance.

    [bold]Examples[/bold]

      resonate train distil --recipe nano/distil

      resonate train distil --recipe nano/distil --set objective=meanflow
    """
    from resonate_audio.training.recipes.distil import DistilRecipe, train_distil

    config = _load(DistilRecipe, recipe, overrides)
    _tell_made(config, train_distil(config, _say))


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

    config = _load(PairRecipe, recipe, overrides)
    _tell_made(config, train_on_pairs(config, _say))


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
    _tell_made(config, train_flow(config, _say))


def _learn_folder(
    folder: Path,
    model: str,
    output: Path | None,
    lora: bool,
    steps: int,
    overrides: list[str] | None,
) -> None:
    """Fine-tune on a folder of sounds, and say how to hear what was learnt."""
    from shlex import quote

    from resonate_audio.core.config import apply_overrides, parse_config
    from resonate_audio.model.adapter import ADAPTER_NAME
    from resonate_audio.training.loop.track import check_tracker
    from resonate_audio.training.recipes.own_sounds import recipe_for
    from resonate_audio.training.recipes.pretrain import PretrainRecipe, train_flow

    output = output or Path(f"{folder.resolve().name}-{Path(model).name}")
    config = recipe_for(folder, model, output, lora, steps, _say)
    values = apply_overrides(config.model_dump(mode="json"), overrides or [])
    config = parse_config(PretrainRecipe, values, f"a recipe for {folder}")
    check_tracker(config.run.track)
    result = train_flow(config, _say)
    adapter = config.run.output / "export" / ADAPTER_NAME
    _tell_made(config, result, f"--model {quote(model)} --adapter {quote(str(adapter))}" * lora)


def _reinforce(recipe: Path, overrides: list[str] | None, kinds: tuple[str, ...]) -> None:
    from resonate_audio.core.errors import ConfigError
    from resonate_audio.training.recipes.reinforce import ReinforceRecipe, train_reinforce

    config = _load(ReinforceRecipe, recipe, overrides)
    if config.algorithm.kind not in kinds:
        raise ConfigError(
            f"{recipe}: algorithm.kind is {config.algorithm.kind}; expected {' or '.join(kinds)}"
        )
    _tell_made(config, train_reinforce(config, _say))


def _tell_made(config: TrainerConfig, result: RunResult, with_it: str = "") -> None:
    """Say where to look at a run, and how to hear what it made; of several processes, one does.

    Args:
        config: its recipe.
        result: how it ended.
        with_it: options of ``resonate generate`` for it; the exported model if empty.
    """
    from shlex import quote

    from resonate_audio.model.folder import is_model_folder
    from resonate_audio.training.loop.distributed import number_of

    if number_of("WORLD_SIZE", 1) > 1 and number_of("RANK", 0):
        return
    run, export = config.run.output, config.run.output / "export"
    pictures = (run / name for name in ("index.html", "loss.png"))
    for picture in [path for path in pictures if path.is_file()][:1]:
        _say(f"look:  {picture}")
    if not result.finished:
        _say("the same command goes on")
    elif is_model_folder(export) or is_model_folder(export / "model"):
        with_it = with_it or f"--model {quote(str(export))}"
        _say(f"hear it:  resonate generate {quote(_prompt_of(config))} {with_it}")
    else:
        _say(f"made:  {export}")


def _prompt_of(config: Any) -> str:
    """A text that a recipe listens to, or else one that it practises on."""
    from resonate_audio.data.prompts import read_prompts

    texts = getattr(getattr(config, "listen", None), "prompts", ())
    evaluation = getattr(getattr(config, "evaluation", None), "prompts", None)
    file = evaluation or getattr(config, "prompts", None)
    return (texts or (read_prompts(file) if file else ()) or ("a sound",))[0]


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
