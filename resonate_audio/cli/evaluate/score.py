"""`resonate eval score`: folders of clips in, a table of means out, every value kept."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, say, step_progress
from resonate_audio.cli.evaluate.processes import bulk_of, name_some, use_threads
from resonate_audio.cli.options import Device, Ray, Threads, Workers
from resonate_audio.cli.reward import notes_of_warnings
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import MAX_ROWS

if TYPE_CHECKING:
    from resonate_audio.evaluation.scores.metrics import Metric
    from resonate_audio.evaluation.scores.scored import SystemScores

DEFAULT_STORE = Path("resonate-scores.db")


class ScoreMode(StrEnum):
    """What metrics hear."""

    deterministic = "deterministic"
    paper = "paper"


def score(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Systems, as `resonate eval generate` made them."),
    ],
    metric: Annotated[
        list[str],
        typer.Option(
            "--metric",
            "-M",
            help="aes, ms-clap, laion-clap, aqa:MODEL, pam, nano-clap, nano-lalm, nano-eval, or "
            "my_module:function; repeat for more. NAME=METRIC names its column.",
        ),
    ],
    mode: Annotated[
        ScoreMode,
        typer.Option(help="deterministic: the first 10 s. paper: as the published scripts hear."),
    ] = ScoreMode.deterministic,
    per_event: Annotated[
        bool,
        typer.Option(
            "--per-event", help="Ask about each event of a prompt, too, where that is possible."
        ),
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Refuse folders that were not made from this set."),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(help="A metric that was a reward of these systems' training; is marked."),
    ] = None,
    store: Annotated[
        Path, typer.Option(help="File that keeps every value; may serve many folders.")
    ] = DEFAULT_STORE,
    batch_size: Annotated[
        int, typer.Option(min=1, max=MAX_ROWS, help="Clips given to a judge at once.")
    ] = 16,
    device: Device = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
) -> None:
    """Score systems. A clip that is missing or silent counts as failed, and is named.

    It stands in a mean with the metric's worst value where it has one; else it is left out.

    Killed at any time and started again, it goes on where it was; a clip that is known is not
    heard again. Writes scores.jsonl and scores.json into each folder. With Ray, any number of
    processes judge, and the values are the same.

    [bold]Examples[/bold]

      resonate eval score out/nano out/tango --metric nano-clap --metric aes

      resonate eval score out/nano --metric aqa:Qwen/Qwen2.5-Omni-7B --per-event --mode paper

      resonate eval score /share/nano --metric nano-eval --ray 10.0.0.5:6379 --workers 64
    """
    from resonate_audio.core.files import alone_in
    from resonate_audio.evaluation.clips.prompt_sets import read_prompt_set
    from resonate_audio.evaluation.scores.store import Store
    from resonate_audio.pipeline.device import choose_device

    asked = None if prompts is None else read_prompt_set(prompts)
    check_folders(folders)
    opener = partial(open_metrics, metric, mode, batch_size, per_event)
    where = bulk_of(opener, ray, workers, threads, device)
    num_threads = threads if where is None else where.num_threads
    with notes_of_warnings(), Store(store) as kept, use_threads(num_threads):
        metrics = opener(device=str(choose_device(device)))
        scored = []
        for folder in folders:
            from resonate_audio.evaluation.scores.score import join_earlier, score_system
            from resonate_audio.evaluation.scores.scored import write_scores

            with step_progress(str(folder)) as report:
                fresh = score_system(folder, metrics, kept, asked, trained_on or [], report, where)
            with alone_in(folder, ".scores.lock", wait=True):  # others may score it, too
                joined, dropped = join_earlier(folder, fresh)
                write_scores(folder, joined)
            name_some(f"{folder}: dropped, as it was of other clips", dropped)
            say_failures(folder, fresh)
            scored.append(fresh)
    print_means(scored)
    check_scored(folders, scored)


def open_metrics(
    texts: Sequence[str], mode: ScoreMode, batch_size: int, per_event: bool, device: str
) -> Sequence[Metric]:
    """Open all metrics, before any sound is read.

    Raises:
        ConfigError: one is not known, or ``per_event`` and none can be asked so.
        ResonateError: as of their loading.
    """
    from resonate_audio.core.errors import ConfigError
    from resonate_audio.evaluation.scores.metrics import PER_EVENT, ask_per_event, open_metric

    metrics: list[Metric] = []
    for text in texts:
        plain = open_metric(text, mode.value, device, batch_size)
        metrics.append(plain)
        if per_event and plain.kind in PER_EVENT:
            metrics.append(ask_per_event(plain))
    if per_event and not any(one.is_per_event for one in metrics):
        raise ConfigError(f"--per-event: give one of {', '.join(PER_EVENT)} as a --metric")
    return metrics


def check_folders(folders: Sequence[Path]) -> None:
    """Refuse one folder twice, and one that is not there: before the store is made.

    Raises:
        InputError: names it.
    """
    twice = [path for path, number in Counter(f.resolve() for f in folders).items() if number > 1]
    if twice:
        raise InputError(f"{twice[0]}: given twice")
    for folder in folders:
        if not os.path.isdir(folder):  # says no to names that cannot be, too
            raise InputError(f"{folder}: no such folder; expected one that `eval generate` made")


def say_failures(folder: Path, scores: SystemScores) -> None:
    """Name clips that could not be scored."""
    name_some(
        f"{folder}: failed",
        [f"{c.id}, take {c.seed}: {c.failure}" for c in scores.clips if c.failure],
    )


def print_means(scored: Sequence[SystemScores]) -> None:
    """A row for each system: its clips, its failures by kind, the mean of every column.

    A failed clip counts with the metric's worst value; where there is none (marked with ``*``) the
    mean is over the others.
    """
    cards = scored[0].cards
    rows = []
    for scores in scored:
        kinds = Counter(clip.failure for clip in scores.clips if clip.failure)
        failed = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "0"
        means = [mean_text(scores, card.name) for card in cards]
        rows.append((scores.system, str(len(scores.clips)), failed, *means))
    print_table(("system", "clips", "failed", *(card.title or card.name for card in cards)), rows)


def mean_text(scores: SystemScores, metric: str) -> str:
    """Mean of a column, as `print_means` says it."""
    values = scores.values(metric)
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.4f}{'*' if len(known) < len(values) else ''}"


def check_scored(folders: Sequence[Path], scored: Sequence[SystemScores]) -> None:
    """A system of which no clip could be scored has no result.

    Raises:
        InputError: names it.
    """
    for folder, scores in zip(folders, scored, strict=True):
        if all(clip.failure for clip in scores.clips):
            raise InputError(f"{folder}: none of its {len(scores.clips)} clips could be scored")
    if len({tuple(sorted(scores.protocol.items())) for scores in scored}) > 1:
        say("note: these systems have different protocols; their means cannot be compared")
