"""`resonate data mix`: several manifests in, one out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.console import print_text, say
from resonate_audio.core.errors import InputError


def mix(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="JSONL files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The mixture.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Times that each occurs, in their order: 5,1,0.5.", show_default="once each"
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=1,
            max=1000,
            help="Instead of weights: draw a corpus of n clips as n^(1/temperature).",
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Of the choice of a weight's fraction.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the mixture.")] = False,
) -> None:
    """One manifest of several corpora; clips of the small ones may occur more than once.

    [bold]Examples[/bold]

      resonate data mix audiocaps.jsonl wavcaps.jsonl -o mix.jsonl --weights 5,1

      resonate data mix *.jsonl -o mix.jsonl --temperature 2
    """
    from resonate_audio.core.config import parse_config
    from resonate_audio.data.mix import MixConfig, mix_manifests

    values = {"weights": read_weights(weights), "temperature": temperature, "seed": seed}
    config = parse_config(MixConfig, values, "resonate data mix")
    for share in mix_manifests(manifests, output, config, overwrite):
        times = f"{share.times:.2f} times"
        say(f"{share.path}: {share.num_clips} clips, {share.num_lines} lines ({times})")
    print_text(output)


def read_weights(text: str | None) -> tuple[float, ...] | None:
    """Numbers between commas.

    Raises:
        InputError: one is no number, or none that a clip can occur as often.
    """
    if text is None:
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--weights {text}: expected numbers such as 5,1,0.5") from error
    if not all(0 < weight < float("inf") for weight in weights):
        raise InputError(f"--weights {text}: expected finite numbers above 0, such as 5,1,0.5")
    return weights
