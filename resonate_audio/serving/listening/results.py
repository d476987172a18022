"""What a listening test says: opinion scores, agreement, doubts, and pairs to learn from."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.documents.json_text import json_line
from resonate_audio.core.errors import InputError
from resonate_audio.core.files import atomic_path
from resonate_audio.evaluation.people.agreement import (
    IntraclassCorrelation,
    RaterCheck,
    ScreeningRules,
    intraclass_correlation,
    krippendorff_alpha,
    rating_matrix,
    screen_raters,
)
from resonate_audio.evaluation.people.opinion import (
    OpinionDifference,
    OpinionScore,
    opinion_differences,
    opinion_scores,
)
from resonate_audio.evaluation.people.ratings import TTA_PROBE, Rating, write_ratings
from resonate_audio.serving.listening.answers import Answer
from resonate_audio.serving.listening.test import ListeningTest, clip_path
from resonate_audio.training.algorithms.pairs import PreferencePair

LATEX_SPECIAL = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


class AxisResult(FrozenConfig):
    """Everything there is to say of one axis."""

    axis: str
    scores: tuple[OpinionScore, ...]
    """Best first; of pairs, the share of comparisons that a system won."""
    differences: tuple[OpinionDifference, ...]
    alpha: float | None
    """Krippendorff's, for ranks; None where it is not defined."""
    icc: IntraclassCorrelation | None
    raters: tuple[RaterCheck, ...]


class Results(FrozenConfig):
    """What a test says so far."""

    title: str
    preset: str
    num_raters: int
    num_finished: int
    num_ratings: int
    axes: tuple[AxisResult, ...]
    repeat_difference: dict[str, float]
    """By rater: mean distance between the answers to a clip that was heard twice."""


def to_ratings(test: ListeningTest, answers: Sequence[Answer]) -> tuple[Rating, ...]:
    """Answers in the form that the statistics take; repeats are left out.

    A clip is called ``system/name``, its prompt ``name``. A clip that a rater compared with several
    others has the share of them that it won.
    """
    grouped: dict[tuple[str, str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        if not answer.is_repeat:
            grouped[answer.rater, answer.clip, answer.axis].append(answer)
    ratings = []
    for (rater, id, axis), found in grouped.items():
        clip = test.clip(id)
        ratings.append(
            Rating(
                rater=rater,
                clip=f"{clip.system}/{clip.name}",
                system=clip.system,
                prompt=clip.name,
                axis=axis,
                score=fmean(answer.score for answer in found),
                ms=found[0].ms,
                order=found[0].trial,
            )
        )
    return tuple(ratings)


def analyse(
    test: ListeningTest, answers: Sequence[Answer], progress: dict[str, tuple[int, int]]
) -> Results:
    """Every number of a test, also while it goes on.

    Raises:
        InputError: nobody has answered yet.
    """
    ratings = to_ratings(test, answers)
    if not any(rating.system != TTA_PROBE for rating in ratings):
        raise InputError("nobody has answered yet; send the link to people who listen")
    rated = {rating.axis for rating in ratings if rating.system != TTA_PROBE}
    return Results(
        title=test.title,
        preset=test.preset,
        num_raters=len(progress),
        num_finished=sum(done == total for done, total in progress.values()),
        num_ratings=len(ratings),
        axes=tuple(_analyse(test, ratings, axis.name) for axis in test.axes if axis.name in rated),
        repeat_difference=repeat_difference(answers),
    )


def _analyse(test: ListeningTest, ratings: Sequence[Rating], axis: str) -> AxisResult:
    probes = {f"{TTA_PROBE}/{clip.name}": clip.probe for clip in test.clips if clip.probe}
    table = rating_matrix(ratings, axis)
    alpha = icc = None
    try:
        alpha = krippendorff_alpha(table)
        icc = intraclass_correlation(table)
    except InputError:  # too few ratings: there is no such number yet
        pass
    return AxisResult(
        axis=axis,
        scores=opinion_scores(ratings, axis),
        differences=opinion_differences(ratings, axis),
        alpha=alpha,
        icc=icc,
        raters=screen_raters(ratings, axis, ScreeningRules(probes=probes)),
    )


def repeat_difference(answers: Sequence[Answer]) -> dict[str, float]:
    """Mean distance between first and second answer, by rater; those without repeats are absent."""
    first = {
        (answer.rater, answer.clip, answer.axis): answer.score
        for answer in answers
        if not answer.is_repeat
    }
    distances: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        key = (answer.rater, answer.clip, answer.axis)
        if answer.is_repeat and key in first:
            distances[answer.rater].append(abs(answer.score - first[key]))
    return {rater: fmean(found) for rater, found in distances.items()}


def render_latex(results: Results) -> str:
    """A table of systems by axes: mean and half-width of its 95 % interval (booktabs)."""
    systems = sorted({score.system for axis in results.axes for score in axis.scores})
    cells = {(score.system, axis.axis): score for axis in results.axes for score in axis.scores}
    lines = [
        r"\begin{tabular}{l" + "c" * len(results.axes) + "}",
        r"\toprule",
        " & ".join(["System", *(_latex(axis.axis) for axis in results.axes)]) + r" \\",
        r"\midrule",
    ]
    for system in systems:
        found = [cells.get((system, axis.axis)) for axis in results.axes]
        values = [f"${s.value:.2f} \\pm {(s.high - s.low) / 2:.2f}$" if s else "--" for s in found]
        lines.append(" & ".join([_latex(system), *values]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(char, char) for char in text)


def rated_clip_lines(ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    """A line for each clip with all its ratings by axis, as `resonate eval correlate` reads it."""
    lines: dict[str, dict[str, Any]] = {}
    for rating in ratings:
        if rating.system != TTA_PROBE:
            line = lines.setdefault(rating.clip, {"data_path": f"{rating.clip}.wav"})
            line.setdefault(rating.axis, []).append(rating.score)
    return list(lines.values())


def write_results(
    folder: Path, test: ListeningTest, answers: Sequence[Answer], results: Results
) -> None:
    """Write ``ratings.csv``, ``clips.jsonl``, ``results.json`` and ``results.tex``.

    Raises:
        OutputError: a file cannot be written.
    """
    ratings = to_ratings(test, answers)
    write_ratings(folder / "ratings.csv", ratings)
    texts = {
        "clips.jsonl": format_lines(rated_clip_lines(ratings)),
        "results.json": results.model_dump_json(indent=2) + "\n",
        "results.tex": render_latex(results),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def format_lines(values: Sequence[Any]) -> str:
    """JSON, one object a line."""
    return "".join(map(json_line, values))


def preference_pairs(
    test: ListeningTest, answers: Sequence[Answer], axis: str, least_margin: float
) -> list[tuple[str, str, float, int]]:
    """Ids of chosen and rejected clips of one prompt, margin and number of raters of both.

    A margin is the difference of mean scores over the same raters, as a share of the scale.

    Raises:
        InputError: the test has no such axis.
    """
    scale = next((one for one in test.axes if one.name == axis), None)
    if scale is None:
        known = ", ".join(one.name for one in test.axes)
        raise InputError(f"no axis {axis}; this test has {known}")
    scores = _scores_by_clip(answers, axis)
    pairs = []
    rated = [clip for clip in test.clips if clip.probe is None]
    for one, other in combinations(rated, 2):
        both = scores[one.id].keys() & scores[other.id].keys()
        if one.name != other.name or not both:
            continue
        gap = fmean(scores[one.id][rater] - scores[other.id][rater] for rater in both)
        margin = abs(gap) / (scale.high - scale.low)
        if gap and margin >= least_margin:
            better, worse = (one, other) if gap > 0 else (other, one)
            pairs.append((better.id, worse.id, margin, len(both)))
    return pairs


def _scores_by_clip(answers: Sequence[Answer], axis: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        if answer.axis == axis and not answer.is_repeat:
            found[answer.clip][answer.rater].append(answer.score)
    means = {
        clip: {rater: fmean(scores) for rater, scores in by_rater.items()}
        for clip, by_rater in found.items()
    }
    return defaultdict(dict, means)


def export_pairs(
    folder: Path,
    test: ListeningTest,
    answers: Sequence[Answer],
    output: Path,
    axis: str,
    least_margin: float = 0.1,
) -> list[PreferencePair]:
    """Write ``pairs.jsonl`` and the sounds it names into a folder.

    Raises:
        InputError: no such axis, or no pair is far enough apart.
        OutputError: a file cannot be written.
    """
    found = preference_pairs(test, answers, axis, least_margin)
    if not found:
        raise InputError(f"no two clips of a prompt are {least_margin:g} of the scale apart yet")
    for id in {id for chosen, rejected, *_ in found for id in (chosen, rejected)}:
        with atomic_path(output / "clips" / f"{id}.wav") as temporary:
            shutil.copyfile(clip_path(folder, test.clip(id)), temporary)
    pairs = [
        PreferencePair(
            prompt=test.clip(chosen).prompt,
            chosen=f"clips/{chosen}.wav",
            rejected=f"clips/{rejected}.wav",
            margin=margin,
            num_raters=num_raters,
        )
        for chosen, rejected, margin, num_raters in found
    ]
    with atomic_path(output / "pairs.jsonl") as temporary:
        temporary.write_text(format_lines([pair.model_dump() for pair in pairs]), encoding="utf-8")
    return pairs
