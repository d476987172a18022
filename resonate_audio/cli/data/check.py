"""`resonate data check`: a manifest in; a table, a page and its JSON out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, print_text, say, step_progress
from resonate_audio.core.errors import InputError, ManifestError

if TYPE_CHECKING:
    from resonate_audio.data.check import CheckReport


def check(
    manifest: Annotated[Path, typer.Argument(help="JSONL manifest.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The page; the JSON of its name is written, too.")
    ] = Path("check.html"),
    rate: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="The model's sample rate in Hz.")
    ] = 44_100,
    least: Annotated[
        float,
        typer.Option(
            "--min", min=0, max=86_400, help="Least seconds; the paper's trainer takes 2."
        ),
    ] = 0.5,
    silence: Annotated[
        float,
        typer.Option(min=-1000, max=0, help="Silent if the loudest 50 ms are below this, in dB."),
    ] = -60.0,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="The text encoder's tokenizer.json.", show_default="of the bundled encoder"
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Tokens that the text encoder sees.")
    ] = 77,
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Processes.", show_default="one a core")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if there is any problem.")
    ] = False,
) -> None:
    """Decode every clip: what is missing, broken, silent, clipped, the same twice, or leaks.

    The exit code is 0 even if there are problems, unless --strict is given.

    [bold]Examples[/bold]

      resonate data check manifest.jsonl

      resonate data check mix.jsonl -o mix-check.html --min 2 --strict
    """
    from resonate_audio.data.check import check_manifest
    from resonate_audio.data.check_page import check_place, write_check
    from resonate_audio.data.inspection import CheckConfig

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output}: expected a name that ends in .html")
    check_place(output)
    config = CheckConfig(
        sample_rate_hz=rate,
        min_s=least,
        silence_db=silence,
        max_tokens=tokens,
        tokenizer=tokenizer or bundled_tokenizer(),
    )
    with step_progress("checking clips") as report:
        found = check_manifest(manifest, config, workers or os.cpu_count() or 1, report)
    write_check(output, found)
    print_report(found)
    print_text(output)
    if strict and found.findings:
        raise ManifestError(f"{manifest}: {found.headline()}; see {output}")


def bundled_tokenizer() -> Path:
    """The tokenizer of the small text encoder that comes with this package."""
    from importlib.resources import files

    return Path(str(files("resonate_audio.nano") / "weights/text_encoder/tokenizer.json"))


def print_report(found: CheckReport) -> None:
    """A row for each kind of problem, with the first clip that has it."""
    counts = found.counts()
    if counts:
        rows = []
        for kind, count in counts.items():
            first = found.of_kind(kind)[0]
            whose = f"{first.audio_id}: " if first.audio_id else ""
            rows.append((kind, str(count), f"{whose}{first.detail}"))
        print_table(("problem", "clips", "the first"), rows)
    say(found.headline())
