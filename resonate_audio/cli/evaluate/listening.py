"""`resonate eval mos`: what people said in a listening test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.cli.options import ChanceSeed
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    from resonate_audio.evaluation.people.ratings import Rating


def mos(
    ratings: Annotated[
        Path,
        typer.Argument(help="CSV of rater,clip,system,prompt,axis,score,ms,order; or TTA-Bench's."),
    ],
    axis: Annotated[
        list[str] | None,
        typer.Option("--axis", "-a", help="OVL, REL, …", show_default="all that are there"),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="Lowest and highest score; others are refused.")
    ] = "1,5",
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave out a rater; repeat for more.")
    ] = None,
    seed: ChanceSeed = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")] = None,
) -> None:
    """Mean opinion scores with intervals, agreement, doubtful raters, and which systems differ.

    Intervals are 95 %, from drawing raters and prompts together. ± is the deviation of single
    ratings. Doubtful raters are named and not left out: do that with --without.

    [bold]Example[/bold]

      resonate eval mos ratings.csv --axis OVL --axis REL
    """
    said = load(ratings, scale, without or [])
    if not said:
        raise InputError(f"{ratings}: no rating is left without {', '.join(without or [])}")
    known = sorted({rating.axis for rating in said})
    unknown = [name for name in axis or [] if name not in known]
    if unknown:
        raise InputError(f"{ratings}: no rating of {unknown[0]}; it has {', '.join(known)}")
    results = [analyse(said, name, seed) for name in axis or known]
    scores = [score for result in results for score in result["scores"]]
    print_table(
        ("axis", "system", "MOS", "95 %", "±", "raters", "clips", "ratings"),
        [
            (
                score.axis,
                score.system,
                f"{score.value:.2f}",
                f"{score.low:.2f} to {score.high:.2f}",
                f"{score.deviation:.2f}",
                str(score.num_raters),
                str(score.num_clips),
                str(score.num_ratings),
            )
            for score in scores
        ],
    )
    for result in results:
        tell(result)
    if json is not None:
        write(json, results)


def load(path: Path, scale: str, without: Sequence[str]) -> list[Rating]:
    """Ratings of either form, some raters left out.

    Raises:
        InputError: the scale is no pair of rising numbers, or a rater to leave out is unknown.
        ManifestError: the file is broken.
    """
    from resonate_audio.core.documents.csv_text import header_of
    from resonate_audio.evaluation.people.ratings import Scale, read_ratings, read_tta_ratings

    try:
        low, high = (float(end) for end in scale.split(","))
    except ValueError as error:
        raise InputError(f"--scale {scale}: expected two numbers, such as 1,5") from error
    if not -math.inf < low < high < math.inf:
        raise InputError(f"--scale {scale}: expected the lowest score, then the highest: 1,5")
    bounds = Scale(low=low, high=high)
    read = read_tta_ratings if "person_id" in header_of(path) else read_ratings
    said = read(path, bounds)
    for rater in without:
        if rater not in {rating.rater for rating in said}:
            raise InputError(f"--without {rater}: nobody in {path} is called so")
    return [rating for rating in said if rating.rater not in without]


def analyse(ratings: Sequence[Rating], axis: str, seed: int) -> dict[str, Any]:
    """Everything there is to say of an axis."""
    from resonate_audio.evaluation.people import agreement, opinion
    from resonate_audio.evaluation.statistics import StatisticsConfig

    config = StatisticsConfig(seed=seed)
    table = agreement.rating_matrix(ratings, axis)
    agreed: dict[str, Any] = {}
    for name, find in (
        ("alpha_ordinal", lambda: agreement.krippendorff_alpha(table, "ordinal")),
        ("alpha_interval", lambda: agreement.krippendorff_alpha(table, "interval")),
        ("icc", lambda: agreement.intraclass_correlation(table).model_dump()),
    ):
        try:
            agreed[name] = find()
        except InputError as error:
            agreed[name] = None
            say(f"{axis}, {name}: {error}")
    return {
        "axis": axis,
        "scores": opinion.opinion_scores(ratings, axis, config),
        "differences": opinion.opinion_differences(ratings, axis, config),
        "agreement": agreed,
        "raters": agreement.screen_raters(ratings, axis),
    }


def tell(result: dict[str, Any]) -> None:
    """Agreement, differences and doubts in words."""
    agreement, axis = result["agreement"], result["axis"]
    if agreement["alpha_ordinal"] is not None:
        print_text(f"{axis}: Krippendorff's alpha {agreement['alpha_ordinal']:.3f} (ranks)", end="")
        icc = agreement["icc"]
        print_text(f", ICC(2,1) {icc['single']:.3f}, ICC(2,k) {icc['average']:.3f}" if icc else "")
    for found in result["differences"]:
        print_text(
            f"{axis}: {found.second} - {found.first} = {found.value:+.2f} "
            f"[{found.low:+.2f}, {found.high:+.2f}], p {found.p_holm:.4f} (Holm, "
            f"{found.num_prompts} prompts)"
        )
    compared = {(found.first, found.second) for found in result["differences"]}
    for pair in combinations(sorted(score.system for score in result["scores"]), 2):
        if pair not in compared:
            say(f"{axis}: {pair[0]} and {pair[1]} have no prompt in common: not compared")
    for check in result["raters"]:
        for doubt in check.doubts:
            say(f"{axis}: rater {check.rater} {doubt}")


def write(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write all results as JSON."""
    import json

    from resonate_audio.core.files import atomic_path

    plain = [
        {
            name: [item.model_dump() for item in value] if isinstance(value, tuple) else value
            for name, value in result.items()
        }
        for result in results
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
