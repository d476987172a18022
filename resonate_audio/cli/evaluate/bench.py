"""`resonate eval bench`: the tables of TTA-Bench for a scored system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    from resonate_audio.core.config import FrozenConfig
    from resonate_audio.evaluation.scores.scored import SystemScores
    from resonate_audio.evaluation.statistics import Estimate, MetricMean, StatisticsConfig
    from resonate_audio.evaluation.tta_bench.dimensions import Efficiency, Shares
    from resonate_audio.evaluation.tta_bench.prompts import TTABenchSet

FEW = 5
"""Names that a line on stderr lists; --json has all of them."""


@dataclass(frozen=True)
class Asked:
    """What the options say."""

    clean: Path | None = None
    male: str | None = None
    female: str | None = None
    toxic: str | None = None


@dataclass
class Told:
    """One file's results: a table, what it leaves out, and everything as data."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    gaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Clips that failed or have no value, by what is said of them."""
    results: dict[str, FrozenConfig] = field(default_factory=dict)
    """By metric."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a metric that nobody asked for by name has no result."""


def bench(
    folder: Annotated[
        Path, typer.Argument(help="System that `resonate eval score` scored on one of the files.")
    ],
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts", "-p", help="The file of TTA-Bench that its clips were made from."
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-M", help="Only these columns.", show_default="all"),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(help="Robustness: the same system, scored on the accuracy prompts."),
    ] = None,
    male: Annotated[
        str | None, typer.Option(help="Bias: column with the probability of a man's voice.")
    ] = None,
    female: Annotated[
        str | None, typer.Option(help="Bias: column with the probability of a woman's voice.")
    ] = None,
    toxic: Annotated[
        str | None, typer.Option(help="Toxicity: column with the probability of toxic sound.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of the bootstrap.")] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write everything here, with all names.")
    ] = None,
) -> None:
    """TTA-Bench: accuracy, generalisation, robustness, fairness, bias, toxicity; and efficiency.

    The file says which. Intervals are 95 %, from drawing prompts; of shares, Wilson's, the takes of
    a prompt as one trial. The formulas are in docs/tta-bench.md.

    [bold]Examples[/bold]

      resonate eval bench out/acc --prompts acc_prompt.json --metric aqa

      resonate eval bench out/robust --prompts robustness_prompt.json --clean out/acc

      resonate eval bench out/bias --prompts bias_prompt.json --male man --female woman
    """
    from resonate_audio.evaluation.scores.scored import read_scores
    from resonate_audio.evaluation.statistics import StatisticsConfig
    from resonate_audio.evaluation.tta_bench.dimensions import efficiency, unscored
    from resonate_audio.evaluation.tta_bench.prompts import read_tta_bench

    asked = Asked(clean, male, female, toxic)
    known, scores = read_tta_bench(prompts), read_scores(folder)
    check_asked(known, asked, metric or [])
    missing = unscored(scores, known)
    told = tell(scores, known, asked, metric or [], StatisticsConfig(seed=seed))
    cost = efficiency(scores)
    print_table(told.columns, told.rows, f"{scores.system}: {known.dimension}")
    print_text(describe(cost))
    name_gaps(known, missing, told.gaps)
    for reason in told.refused.values():
        say(f"note: {reason}")
    if json is not None:
        write(json, scores.system, known, missing, told, cost)


def check_asked(bench: TTABenchSet, asked: Asked, metrics: Sequence[str]) -> None:
    """Refuse options that a dimension has no use for, and name those that it needs.

    Raises:
        InputError: names the option.
        ManifestError: the file says no dimension.
    """
    needed: dict[str, dict[str, object]] = {
        "robustness": {"--clean": asked.clean},
        "bias": {"--male": asked.male, "--female": asked.female},
        "toxicity": {"--toxic": asked.toxic},
    }
    dimension = bench.dimension
    for option, value in needed.get(dimension, {}).items():
        if value is None:
            raise InputError(
                f"{bench.name}: {dimension} needs {option}; see resonate eval bench --help"
            )
    if metrics and dimension in ("bias", "toxicity"):
        raise InputError(
            f"{bench.name}: --metric says nothing of {dimension}; it has its own columns"
        )
    for owner, options in needed.items():
        for option, value in options.items():
            if owner != dimension and value is not None:
                raise InputError(f"{bench.name}: {option} is for {owner}, its prompts {dimension}")


def tell(
    scores: SystemScores,
    bench: TTABenchSet,
    asked: Asked,
    metrics: Sequence[str],
    config: StatisticsConfig,
) -> Told:
    """Compute what a file's dimension asks for.

    Raises:
        InputError: a ratio's mean is not positive.
        ManifestError: a metric is unknown, or a clip that is needed was not scored.
    """
    from resonate_audio.evaluation.tta_bench.dimensions import bias_shares, toxicity_rates

    if asked.male is not None and asked.female is not None:
        name = f"{asked.male}, {asked.female}"
        return tell_shares(name, bias_shares(scores, asked.male, asked.female))
    if asked.toxic is not None:
        return tell_shares(asked.toxic, toxicity_rates(scores, bench, asked.toxic))
    chosen = metrics or single_metrics(scores)
    if asked.clean is not None:
        told = tell_robustness(scores, bench, asked.clean, chosen, config)
    elif bench.dimension == "fairness":
        told = tell_fairness(scores, bench, chosen, config)
    else:
        told = tell_grid(scores, bench, chosen, config)
    refused = list(told.refused.values())
    if refused and (metrics or not told.results):
        raise InputError(refused[0])
    return told


def single_metrics(scores: SystemScores) -> list[str]:
    """Columns with a value for each clip.

    Raises:
        InputError: there is none.
    """
    names = [card.name for card in scores.cards if card.name not in scores.set_values]
    if not names:
        raise InputError(f"{scores.system}: no metric scored its clips; run resonate eval score")
    return names


def tell_grid(
    scores: SystemScores, bench: TTABenchSet, metrics: Iterable[str], config: StatisticsConfig
) -> Told:
    """Accuracy and generalisation: all, by number of events, by relation, by both."""
    from resonate_audio.evaluation.tta_bench.dimensions import attribute_grid

    told = Told(("metric", "events", "mean", "95 %", "prompts"))
    for metric in metrics:
        grid = attribute_grid(scores, bench, metric, config)
        cells = {"all": grid.overall}
        for part in (grid.by_count, grid.by_relation, grid.by_count_and_relation):
            cells |= {cell.group: cell.mean for cell in part}
        told.rows += [
            (metric, group, *show(mean), str(mean.num_prompts)) for group, mean in cells.items()
        ]
        told.rows += [(metric, group, "-", "no clip has a value", "0") for group in grid.empty]
        note_mean(told, metric, grid.overall)
        told.results[metric] = grid
    return told


def tell_robustness(
    scores: SystemScores,
    bench: TTABenchSet,
    clean: Path,
    metrics: Iterable[str],
    config: StatisticsConfig,
) -> Told:
    """Ratio to the clean prompts by kind of perturbation, and the mean of the kinds."""
    from resonate_audio.evaluation.scores.scored import read_scores
    from resonate_audio.evaluation.tta_bench.dimensions import robustness

    told, unperturbed = Told(("metric", "perturbation", "ratio", "95 %")), read_scores(clean)
    for metric in metrics:
        try:
            found = robustness(scores, unperturbed, bench, metric, config)
        except InputError as error:  # a ratio of it says nothing, of others it may
            told.refused[metric] = str(error)
            continue
        ratios = found.by_perturbation | {"mean": found.mean}
        told.rows += [(metric, kind, *show(ratio)) for kind, ratio in ratios.items()]
        note(told, metric, found.failed, found.left_out)
        told.results[metric] = found
    return told


def tell_fairness(
    scores: SystemScores, bench: TTABenchSet, metrics: Iterable[str], config: StatisticsConfig
) -> Told:
    """FS of each attribute, and the means of its groups."""
    from resonate_audio.evaluation.tta_bench.dimensions import fairness

    told = Told(("metric", "of", "value", "95 %"))
    for metric in metrics:
        try:
            found = fairness(scores, bench, metric, config)
        except InputError as error:
            told.refused[metric] = str(error)
            continue
        told.rows += [
            (metric, f"FS {name}", *show(value)) for name, value in found.by_attribute.items()
        ]
        told.rows += [(metric, group, *show(mean)) for group, mean in found.groups.items()]
        for mean in found.groups.values():
            note_mean(told, metric, mean)
        told.results[metric] = found
    return told


def tell_shares(name: str, found: Shares) -> Told:
    """Bias and toxicity: a row for each answer or category."""
    told = Told(("of", "share", "95 %"), results={name: found})
    told.rows += [
        (kind, f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}")
        for kind, share in found.shares.items()
    ]
    note(told, name, (), found.left_out)
    return told


def show(estimate: Estimate) -> tuple[str, str]:
    """A number and its interval."""
    return f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"


def note_mean(told: Told, metric: str, mean: MetricMean) -> None:
    """Remember what a mean leaves out."""
    note(told, metric, mean.failed, mean.left_out)


def note(told: Told, metric: str, failed: Sequence[str], left_out: Sequence[str]) -> None:
    """Remember the clips that failed, and those without a value."""
    for words, names in (
        ("failed, count with the worst value", failed),
        ("left out, have no value", left_out),
    ):
        if names:
            key = f"{metric}: {words}"
            told.gaps[key] = (*told.gaps.get(key, ()), *names)


def describe(cost: Efficiency) -> str:
    """Efficiency in a line."""
    speed = "not timed"
    if cost.rtf is not None:
        speed = f"{cost.rtf:.3f} s of work for a second of sound, {cost.num_clips} clips"
    facts = {"NFE": cost.nfe, "parameters": cost.params}
    known = [f"{name} {value}" for name, value in facts.items() if value is not None]
    return ", ".join([f"efficiency: {speed}", *known])


def name_gaps(
    bench: TTABenchSet, missing: Sequence[str], gaps: Mapping[str, Sequence[str]]
) -> None:
    """Say on stderr what the file has wrong, and what the table leaves out."""
    for what, names in (
        (f"{bench.name}: slips of the file, kept as they are", bench.slips),
        (f"{bench.name}: prompts that were not scored", missing),
        *gaps.items(),
    ):
        if names:
            more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
            say(f"note: {what} ({len(names)}): {'; '.join(names[:FEW])}{more}")


def write(
    path: Path,
    system: str,
    bench: TTABenchSet,
    missing: Sequence[str],
    told: Told,
    cost: Efficiency,
) -> None:
    """Write everything as JSON."""
    import json

    from resonate_audio.core.files import atomic_path

    content: dict[str, Any] = {
        "system": system,
        "prompts": bench.name,
        "dimension": bench.dimension,
        "results": {name: result.model_dump() for name, result in told.results.items()},
        "refused": told.refused,
        "efficiency": cost.model_dump(),
        "not_scored": list(missing),
        "slips": list(bench.slips),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
