"""`resonate models`: what is installed, what lies in the cache, what else there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resonate_audio.cli.console import print_table, say
from resonate_audio.core.errors import ResonateError


@dataclass(frozen=True)
class Listing:
    """One model in the list."""

    name: str
    where: str
    size: str
    sound: str
    licence: str
    how: str


KNOWN = (
    Listing(
        "AndreasXi/Resonate",
        "known",
        "3.8 GB",
        "44.1 kHz, 10 s",
        "MIT",
        "official weights (Resonate_GRPO.pth, Resonate_PT.pth): download, then `resonate convert`",
    ),
)
"""Published models of this family. Size: transformer, VAE, vocoder and text encoder."""


def models() -> None:
    """List models: installed with the package, cached by the hub, and known.

    [bold]Example[/bold]

      resonate models
    """
    listings = [*installed(), *cached(), *KNOWN]
    print_table(
        ("model", "where", "size", "sound", "licence", "how to use"),
        [
            (item.name, item.where, item.size, item.sound, item.licence, item.how)
            for item in listings
        ],
    )
    say("any folder written by `resonate convert` or save_pretrained works too: --model FOLDER")


def installed() -> Iterator[Listing]:
    """Models that came with the package."""
    from resonate_audio.model.hub import bundled_models

    for name, folder in bundled_models().items():
        yield _listing(folder, name, "installed", f"--model {name}")


def cached() -> Iterator[Listing]:
    """Models of ours that the hub's cache holds, whichever program fetched them."""
    from resonate_audio.model.folder import is_model_folder
    from resonate_audio.model.hub import hub_constants

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

    size = f"{_folder_bytes(folder) / 1e6:,.0f} MB"
    try:
        config = read_config(folder)
    except ResonateError as error:
        return Listing(name, where, size, "-", "-", f"damaged: {error}")
    sound = f"{config.mel.sample_rate_hz / 1000:g} kHz, {config.max_duration_s:g} s"
    return Listing(name, where, size, sound, config.licence, how)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
