"""`resonate data import`: a corpus as it is published in, a manifest out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.console import print_text, say


def import_(
    kind: Annotated[
        str,
        typer.Argument(
            help="audiocaps, audioset, clotho, vggsound, wavcaps, audiostock, esc50, classes "
            "(a folder a class) or folder (a text beside each sound)."
        ),
    ],
    root: Annotated[Path, typer.Argument(help="The corpus's folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The manifest; its paths start at its folder.")
    ] = Path("manifest.jsonl"),
    licence: Annotated[
        str | None, typer.Option(help="Of clips whose list does not say.", show_default="none")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the manifest.")] = False,
) -> None:
    """List the captioned clips of a folder; sounds stay where they are and are not opened.

    What is listed without a file, or there without being listed, is counted and named.

    [bold]Examples[/bold]

      resonate data import folder ~/sounds -o sounds.jsonl --licence CC0-1.0

      resonate data import audiocaps /data/audiocaps -o audiocaps.jsonl
    """
    from resonate_audio.data.importers import import_corpus

    for line in import_corpus(kind, root, output, licence, overwrite).lines():
        say(line)
    print_text(output)
