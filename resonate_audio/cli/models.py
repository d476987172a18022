"""`resonate models`: what is installed, what lies in the cache, what else there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.core.errors import ModelNotFoundError, ResonateError

if TYPE_CHECKING:
    from resonate_audio.model.presets import ModelConfig
    from resonate_audio.model.published.names import PublishedModel


@dataclass(frozen=True)
class Listing:
    """One model in the list."""

    name: str
    where: str
    size: str
    sound: str
    licence: str
    how: str


class ListByDefault(TyperGroup):
    """`resonate models` alone lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the list in place of nothing."""
        return super().parse_args(ctx, args or ["list"])


app = typer.Typer(
    cls=ListByDefault,
    help="What models there are: installed, published, cached. Fetch one, remove one.",
    rich_markup_mode="rich",
)


@app.command("list")
def models() -> None:
    """List models: installed with the package, published, and cached by the hub.

    [bold]Example[/bold]

      resonate models
    """
    listings = [*installed(), *published(), *cached()]
    print_table(
        ("model", "where", "size", "sound", "licence", "how to use"),
        [
            (item.name, item.where, item.size, item.sound, item.licence, item.how)
            for item in listings
        ],
    )
    say("any folder written by `resonate convert` or save_pretrained works too: --model FOLDER")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A published model, such as resonate.")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write, for a machine without network: --model FOLDER there.",
            show_default="the cache",
        ),
    ] = None,
) -> None:
    """Fetch a published model and make it ready, before it is first used.

    [bold]Example[/bold]

      resonate models fetch resonate
      resonate models fetch resonate --to carried/resonate
    """
    from resonate_audio.model.published.ready import copy_to, provide

    model = _published(name)
    folder = provide(model) if to is None else copy_to(model, to)
    print_text(folder)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A published model, such as resonate.")],
    downloads: Annotated[
        bool, typer.Option("--downloads", help="Its files in the hub's cache as well.")
    ] = False,
) -> None:
    """Delete what the cache holds of a published model.

    Its downloads may be parts of another model too, which would fetch them again.

    [bold]Example[/bold]

      resonate models remove resonate --downloads
    """
    from resonate_audio.model.published import ready

    model = _published(name)
    say(f"{model.name}: {ready.size(ready.remove(model, downloads))} freed")
    if not downloads and ready.here(model):
        say("its downloads stay in the hub's cache; --downloads deletes them as well")


def _published(name: str) -> PublishedModel:
    from resonate_audio.model.published.names import PUBLISHED, published_model

    found = published_model(name)
    if found is None:
        known = ", ".join(model.name for model in PUBLISHED)
        raise ModelNotFoundError(f"{name}: no published model; expected one of {known}")
    return found


def published() -> Iterator[Listing]:
    """Published models, and how much of each is here."""
    from resonate_audio.model.folder import is_model_folder
    from resonate_audio.model.published.names import PUBLISHED
    from resonate_audio.model.published.ready import here, ready_folder, size

    for model in PUBLISHED:
        folder = ready_folder(model)
        if is_model_folder(folder):
            yield _listing(folder, model.name, "ready", f"--model {model.name}")
            continue
        there = here(model)
        missing = sum(file.num_bytes for file in model.files if file not in there)
        where = f"{len(there)} of {len(model.files)} files here" if there else "published"
        how = f"--model {model.name}: fetches {size(missing)}; {model.summary}"
        yield Listing(
            model.name,
            where,
            f"{model.num_bytes / 1e6:,.0f} MB",
            _sound(model.family),
            model.licence,
            how,
        )


def installed() -> Iterator[Listing]:
    """Models that came with the package."""
    from resonate_audio.model.hub import bundled_models

    for name, folder in bundled_models().items():
        yield _listing(folder, name, "installed", f"--model {name}")


def cached() -> Iterator[Listing]:
    """Models of ours that the hub's cache holds, whichever program fetched them."""
    from resonate_audio.model.folder import is_model_folder
    from resonate_audio.model.hub_client import hub_constants

    try:
        cache = hub_constants().HF_HUB_CACHE
    except ResonateError as error:
        say(f"{error}; its cache is not listed")
        return
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(cache).repos
    except (CacheNotFound, OSError, ValueError, RuntimeError):
        return  # none, a file in its place, not ours to read, or a user without a home
    for repository in sorted(repositories, key=lambda item: str(item.repo_id)):
        for revision in repository.revisions:
            folder = Path(revision.snapshot_path)
            if is_model_folder(folder):
                at = "" if "main" in revision.refs else f"@{revision.commit_hash}"
                name = f"{repository.repo_id}{at}"
                yield _listing(folder, name, "cached", f"--model {name}")


def _listing(folder: Path, name: str, where: str, how: str) -> Listing:
    """A damaged model is listed with its problem; it must not hide the others."""
    from resonate_audio.model.folder import read_config
    from resonate_audio.model.published.ready import folder_bytes

    size = f"{folder_bytes(folder) / 1e6:,.0f} MB"
    try:
        config = read_config(folder)
    except ResonateError as error:
        return Listing(name, where, size, "-", "-", f"damaged: {error}")
    return Listing(name, where, size, _sound(config), config.licence, how)


def _sound(config: ModelConfig) -> str:
    return f"{config.mel.sample_rate_hz / 1000:g} kHz, {config.max_duration_s:g} s"
