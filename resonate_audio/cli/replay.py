"""`resonate replay`: make a sound again from the recipe in its file, and compare bit for bit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, say, step_progress
from resonate_audio.core.errors import AudioError, InputError, ModelNotFoundError

if TYPE_CHECKING:
    from resonate_audio.audio.io import AudioFormat
    from resonate_audio.core.types import Audio, Recipe


@dataclass(frozen=True)
class Comparison:
    """How a regenerated sound differs from the file it came from."""

    bit_equal: bool
    max_difference: float
    """Of full scale; infinite when lengths or sample rates differ."""


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sound made by Resonate Audio.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the regenerated sound here.", show_default=False
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="What an edited sound was made from.", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Where the model is now.", show_default="as recorded"),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="FILE[:WEIGHT]",
            help="Where an adapter is now; as many as there were.",
            show_default="as recorded",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps.", show_default="as recorded")
    ] = None,
) -> None:
    """Make a sound again from the recipe in its file; exit 1 if a single bit differs.

    [bold]Examples[/bold]

      resonate replay take.flac

      resonate replay take.mp3 -o again.wav

      resonate replay mended.wav --source take.wav
    """
    from resonate_audio.audio.io import (
        check_output,
        read_audio,
        read_recipe,
        write_audio,
        written_format,
    )

    original, recipe = read_audio(file), read_recipe(file)
    if recipe is None:
        raise AudioError(f"{file}: holds no recipe; only files made by Resonate Audio can replay")
    remade = recipe.edit if recipe.edit and recipe.edit.source_sha256 else None
    if remade and source is None:
        raise InputError(
            f"{file}: was made from another sound ({remade.kind}); give it with --source"
        )
    if source is not None and not remade:
        raise InputError(f"--source {source}: {file} was made from no other sound")
    format = written_format(file)
    if output is not None:
        check_output(output, overwrite)
    again = regenerate(recipe, model, device, source, adapter)
    comparison = compare(format, original, again)
    if output is not None:
        write_audio(output, again, overwrite)
    _report(recipe, comparison, output)
    if not comparison.bit_equal:
        raise typer.Exit(1)


def regenerate(
    recipe: Recipe,
    model: str | None,
    device: str | None,
    source: Path | None = None,
    adapters: Sequence[str] | None = None,
) -> Audio:
    """Run the recipe on the model, device and number format it records."""
    from resonate_audio.pipeline.path import Resonate

    recipe.sampling()  # out of range is refused before anything is loaded
    name = model or recipe.model
    say(f"loading {name}")
    try:
        # Whoever made the file chose the name: nothing is fetched because a file says so.
        pipeline = Resonate.from_pretrained(
            name,
            device or recipe.device,
            recipe.dtype,
            local_files_only=model is None,
            adapters=recipe.adapters if adapters is None else adapters,
        )
    except ModelNotFoundError as error:
        if model is not None:
            raise
        raise ModelNotFoundError(
            f"the sound was made by {name}, which is not on this machine ({error}); if you trust "
            f"it, name it: --model {shlex.quote(name)}"
        ) from error
    with step_progress(recipe.prompt) as report:
        return pipeline.replay(recipe, on_step=report, source=source)


def compare(format: AudioFormat, original: Audio, again: Audio) -> Comparison:
    """Send the new sound through the file's own codec, then compare the decoded samples.

    So a lossy file can be bit-equal too; only the codec's serial numbers and times may differ.
    """
    import numpy as np

    from resonate_audio.audio.io import at_rate, decode_audio, encode_audio

    in_blocks = original.recipe is None or original.recipe.in_blocks

    def sent(audio: Audio) -> Audio:
        data = encode_audio(audio, format, in_blocks)
        return decode_audio(data, "the regenerated sound")

    decoded = sent(again)
    if decoded.sample_rate_hz != original.sample_rate_hz:  # a server was asked for another
        decoded = sent(at_rate(again, original.sample_rate_hz))
    same_shape = (
        decoded.sample_rate_hz == original.sample_rate_hz
        and decoded.samples.shape == original.samples.shape
    )
    if not same_shape:
        return Comparison(False, float("inf"))
    difference = float(np.abs(decoded.samples - original.samples).max())
    return Comparison(np.array_equal(decoded.samples, original.samples), difference)


def _report(recipe: Recipe, comparison: Comparison, output: Path | None) -> None:
    rows = [
        ("prompt", recipe.prompt),
        ("model", f"{recipe.model} ({recipe.model_fingerprint[:12]})"),
        ("seed", str(recipe.seed)),
        ("bit-equal", "yes" if comparison.bit_equal else "no"),
        ("largest difference", f"{comparison.max_difference:.3g} of full scale"),
    ]
    if output is not None:
        rows.append(("written", str(output)))
    print_table(("replay", ""), rows)
