"""`resonate eval report`: scored folders in, one page out, with the numbers beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resonate_audio.cli.console import print_text, say
from resonate_audio.cli.options import ChanceSeed
from resonate_audio.core.errors import InputError


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Systems that `resonate eval score` scored."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The page; .json, .csv and .tex of its name are written, too."
        ),
    ] = Path("report.html"),
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Name of the system that others are compared with.", show_default="the first"
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Headline.")] = "Evaluation",
    players: Annotated[
        int, typer.Option(min=0, max=1000, help="Best and worst clips of each system to hear.")
    ] = 3,
    rank_by: Annotated[
        str | None,
        typer.Option(
            help="Metric that ranks them.", show_default="the first that no training used"
        ),
    ] = None,
    link_audio: Annotated[
        bool,
        typer.Option("--link-audio", help="Link the sounds' files instead of embedding them."),
    ] = False,
    seed: ChanceSeed = 0,
) -> None:
    """One page of systems by metrics: intervals, paired changes, failures, sounds to hear.

    The page needs no network and can be passed on. Systems that were not measured alike are
    refused; the message says which field differs.

    [bold]Examples[/bold]

      resonate eval report out/nano-pt out/nano-grpo -o report.html --baseline nano-pt

      resonate eval report out/* --rank-by aqa --players 5 --link-audio
    """
    from resonate_audio.evaluation.report.make import read_folder
    from resonate_audio.evaluation.report.page import PageConfig, write_report
    from resonate_audio.evaluation.statistics import StatisticsConfig

    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output}: expected a name that ends in .html")
    found = write_report(
        output,
        [read_folder(folder) for folder in folders],
        baseline,
        title,
        PageConfig(num_players=players, rank_by=rank_by, link_audio=link_audio),
        StatisticsConfig(seed=seed),
    )
    for warning in found.warnings:
        say(f"note: {warning}")
    print_text(output)
