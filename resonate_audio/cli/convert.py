"""`resonate convert`: published checkpoints become one of our model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from resonate_audio.cli.console import print_table, say
from resonate_audio.core.errors import InputError, OutputError


def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Published weights, one file a network."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    base: Annotated[
        Path | None,
        typer.Option(
            help="Model folder that gives the networks not among the sources.", show_default="none"
        ),
    ] = None,
    text_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the text encoder's config.json, tokenizer.json, model.safetensors.",
            show_default="fetched when it is first needed",
        ),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="Number format on disk: float32, float16 or bfloat16.")
    ] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that exists.")
    ] = False,
) -> None:
    """Turn published checkpoints into a model folder, and report what was preserved.

    [bold]Example[/bold]

      resonate convert Resonate_GRPO.pth v1-44.pth bigvgan_generator.pt -o resonate-grpo
      resonate convert *.pth bigvgan_generator.pt --text-encoder flan-t5-large -o resonate-grpo
    """
    from resonate_audio.model.folder import Storage, is_model_folder
    from resonate_audio.model.official.folder import convert_files

    if storage not in get_args(Storage):
        raise InputError(f"--storage {storage}: expected one of {', '.join(get_args(Storage))}")
    if output.exists() and not (overwrite and is_model_folder(output)):
        raise OutputError(f"{output}: exists already; pass --overwrite to replace a model folder")
    chosen: Any = storage
    reports = convert_files(sources, output, base, chosen, overwrite, text_encoder)
    rows = [
        (
            report.part,
            report.source,
            str(report.num_tensors),
            f"{report.num_elements:,}",
            f"{report.weight_error:.3g}",
            f"{report.output_error:.3g}",
        )
        for report in reports
    ]
    print_table(("part", "source", "tensors", "elements", "weights differ", "output differs"), rows)
    say(f"wrote {output}; use it with --model {output}")
