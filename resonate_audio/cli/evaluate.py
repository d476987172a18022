"""`resonate eval`: what a generator is measured with, one command a file."""

from __future__ import annotations

import typer

from resonate_audio.cli import (
    eval_bench,
    eval_compare,
    eval_correlate,
    eval_distance,
    eval_generate,
    eval_listening,
    eval_report,
    eval_score,
)

app = typer.Typer(
    help="Measure generators: clips, scores, comparisons, reports, and what people said.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command()(eval_generate.generate)
app.command()(eval_score.score)
app.command()(eval_distance.distance)
app.command()(eval_compare.compare)
app.command()(eval_report.report)
app.command()(eval_bench.bench)
app.command()(eval_correlate.correlate)
app.command()(eval_listening.mos)
