"""`resonate eval`: what a generator is measured with, one command a file."""

from __future__ import annotations

import typer

from resonate_audio.cli.evaluate import (
    bench,
    compare,
    correlate,
    distance,
    generate,
    listening,
    report,
    score,
)

app = typer.Typer(
    help="Measure generators: clips, scores, comparisons, reports, and what people said.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command()(generate.generate)
app.command()(score.score)
app.command()(distance.distance)
app.command()(compare.compare)
app.command()(report.report)
app.command()(bench.bench)
app.command()(correlate.correlate)
app.command()(listening.mos)
