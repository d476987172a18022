"""`resonate eval correlate`: does a metric say what people say?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    from resonate_audio.evaluation.people.correlation import Coefficients, Correlations
    from resonate_audio.evaluation.people.rated_clips import RatedClip
    from resonate_audio.evaluation.statistics import Estimate, StatisticsConfig


def correlate(
    ratings: Annotated[
        Path,
        typer.Argument(
            help="What people said: PAM's scores.csv, or JSONL with lists of ratings per axis."
        ),
    ],
    values: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCORES...",
            help="What metrics say: scored folders, or CSV or JSONL of file, metric, ….",
        ),
    ],
    axis: Annotated[
        list[str] | None,
        typer.Option("--axis", "-a", help="OVL, REL, …", show_default="all that are there"),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-M", help="Columns.", show_default="all that are there"),
    ] = None,
    without_real: Annotated[
        bool, typer.Option("--without-real", help="Leave out recordings, the system called real.")
    ] = False,
    task: Annotated[str, typer.Option(help="Half of PAM: audio or music.")] = "audio",
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of bootstrap and splits.")] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write everything here, per system too.")
    ] = None,
) -> None:
    """Correlate metrics with people: LCC, SRCC and KTAU over all clips and within prompts.

    Intervals are 95 %, from drawing prompts. Where single ratings are known, the noise ceiling says
    how well any metric could do.

    [bold]Example[/bold]

      resonate eval correlate scores.csv out/audiogen_m out/real --axis REL --metric aqa
    """
    from resonate_audio.evaluation.people.correlation import correlate as correlate_clips
    from resonate_audio.evaluation.people.rated_clips import (
        REAL,
        join,
        read_all_values,
        read_rated_clips,
    )
    from resonate_audio.evaluation.statistics import StatisticsConfig

    config = StatisticsConfig(seed=seed)
    rated = [
        clip
        for clip in read_rated_clips(ratings, task)
        if not (without_real and clip.system == REAL)
    ]
    if not rated:
        raise InputError(f"{ratings}: no rated clip is left without {REAL}")
    table = read_all_values(values)
    metrics = metric or sorted({name for parts in table.values() for name in parts})
    found: dict[tuple[str, str], Correlations] = {}
    for one_axis in axis or list(rated[0].means):
        for name in metrics:
            clips, joined = join(rated, table, one_axis, name)
            found[one_axis, name] = correlate_clips(clips, config)
            for key in joined.left_out:
                say(f"note: {name}: left out, it has no value (failed without a worst): {key}")
    if table.keys() - {clip.key for clip in rated}:
        others = len(table.keys() - {clip.key for clip in rated})
        say(f"note: {others} scored clips are not among the rated ones")
    print_table(
        ("axis", "metric", "clips", "LCC", "SRCC", "KTAU", "SRCC within prompt", "pairs right"),
        [row_of(one_axis, name, result) for (one_axis, name), result in found.items()],
    )
    ceilings = say_ceilings(rated, sorted({one_axis for one_axis, _ in found}), config)
    if json is not None:
        write(json, found, ceilings)


def row_of(axis: str, metric: str, found: Correlations) -> tuple[str, ...]:
    """One line of the table."""
    pooled: Coefficients = found.pooled
    within = found.within_prompt
    return (
        axis,
        metric,
        str(pooled.num_clips),
        show(pooled.lcc),
        show(pooled.srcc),
        show(pooled.ktau),
        show(within.srcc),
        show(within.pairs),
    )


def show(estimate: Estimate | None) -> str:
    """A number with its interval."""
    if estimate is None:
        return "undefined"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def say_ceilings(
    rated: list[RatedClip], axes: list[str], config: StatisticsConfig
) -> dict[str, object]:
    """Noise ceilings of axes whose single ratings are known, said on stdout."""
    from resonate_audio.evaluation.people.correlation import noise_ceiling
    from resonate_audio.evaluation.people.rated_clips import rating_table

    ceilings: dict[str, object] = {}
    for axis in axes:
        table = rating_table(rated, axis)
        if table is not None and table.shape[1] > 1:
            try:
                ceiling = noise_ceiling(table, config)
            except InputError as error:
                say(f"note: {axis}: {error}")
                continue
            ceilings[axis] = ceiling.model_dump()
            print_text(
                f"{axis}: {ceiling.num_ratings:.1f} ratings a clip; no metric can be expected "
                f"above LCC {ceiling.lcc.ceiling:.3f}, SRCC {ceiling.srcc.ceiling:.3f}"
            )
    return ceilings


def write(
    path: Path, found: dict[tuple[str, str], Correlations], ceilings: dict[str, object]
) -> None:
    """Write every coefficient as JSON."""
    import json

    from resonate_audio.core.files import atomic_path

    listed = [
        {"axis": axis, "metric": name} | result.model_dump()
        for (axis, name), result in found.items()
    ]
    text = json.dumps({"correlations": listed, "noise_ceilings": ceilings}, indent=2)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
