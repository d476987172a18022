"""`resonate eval compare`: two scored systems, paired, under one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, say
from resonate_audio.cli.options import ChanceSeed

if TYPE_CHECKING:
    from resonate_audio.evaluation.report.compare import Comparison, MetricChange


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of the baseline's scores.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of the other system's.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-M", help="Only these columns.", show_default="all in common"),
    ] = None,
    seed: ChanceSeed = 0,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the whole comparison here, too.")
    ] = None,
) -> None:
    """Compare two systems on the same prompts and takes: B minus A, with a 95 % interval.

    p is from sign flips over prompts, corrected for the number of metrics (Holm). Systems that
    were not measured alike are refused; the message says which field differs.

    [bold]Example[/bold]

      resonate eval compare out/nano-pt out/nano-grpo --metric nano-eval
    """
    from resonate_audio.core.files import atomic_path
    from resonate_audio.evaluation.report.compare import compare as compare_systems
    from resonate_audio.evaluation.scores.scored import read_scores
    from resonate_audio.evaluation.statistics import StatisticsConfig

    config = StatisticsConfig(seed=seed)
    found = compare_systems(read_scores(first), read_scores(second), metric or None, config)
    print_table(
        ("metric", found.first, found.second, "difference", "95 %", "p (Holm)", "verdict"),
        [row_of(change) for change in found.changes],
    )
    name_gaps(found)
    if json is not None:
        with atomic_path(json) as temporary:
            temporary.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")


def row_of(change: MetricChange) -> tuple[str, ...]:
    """One line of the table."""
    difference = change.difference
    verdict = {True: "better", False: "worse", None: "no difference shown"}[change.is_better]
    return (
        change.metric + (" (trained on)" if change.was_reward else ""),
        f"{change.first.value:.4f}",
        f"{change.second.value:.4f}",
        f"{difference.value:+.4f}",
        f"{difference.low:+.4f} to {difference.high:+.4f}",
        f"{change.p_holm:.4f}",
        verdict,
    )


def name_gaps(found: Comparison) -> None:
    """Say on stderr how many clips failed, and which have no value."""
    for change in found.changes:
        difference = change.difference
        if difference.failed:
            say(f"{change.metric}: {len(difference.failed)} pairs count with the worst value")
        for name in difference.left_out[:5]:
            say(f"{change.metric}: left out, has no value: {name}")
