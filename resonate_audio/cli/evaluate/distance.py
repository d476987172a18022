"""`resonate eval distance`: how far a system's clips lie from real sounds, as sets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import StepReport, print_table, say, step_progress
from resonate_audio.core.errors import InputError

if TYPE_CHECKING:
    from resonate_audio.evaluation.distances.embeddings import Listener
    from resonate_audio.evaluation.distances.set_values import Reference
    from resonate_audio.evaluation.scores.scored import SystemScores

LEAST_R2 = 0.8
"""Under it, FAD does not go with 1/N and its extrapolation says little."""


def distance(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Systems that `resonate eval score` scored."),
    ],
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="Folder of real sounds.")
    ] = None,
    embedder: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder", "-E", help="nano-clap, laion-clap, ms-clap, module:name: FAD and KAD."
        ),
    ] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            "--classifier", "-C", help="ast, ast:MODEL, module:name: IS, and KL where it can be."
        ),
    ] = None,
    paired: Annotated[
        bool,
        typer.Option("--paired", help="The reference has a file for each prompt's id: KL, too."),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Of the draws of FAD∞ and the parts of IS.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = "cpu",
) -> None:
    """FAD, FAD∞, KAD and IS of whole sets, KL of each clip; added to the systems' scores.

    FAD grows with fewer clips: compare sets of one size, or FAD∞. Failed clips are left out of
    these values, and named.

    [bold]Examples[/bold]

      resonate eval distance out/nano out/tango --reference audiocaps/ --embedder laion-clap

      resonate eval distance out/nano -r recordings/ --paired --classifier ast
    """
    from resonate_audio.evaluation.distances.embeddings import open_classifier, open_embedder
    from resonate_audio.evaluation.scores.scored import read_scores, write_scores

    check_request(reference, embedder or [], classifier or [], paired)
    listeners = [open_embedder(text, device) for text in embedder or []]
    listeners += [open_classifier(text, device) for text in classifier or []]
    systems = {folder: read_scores(folder) for folder in folders}
    for listener in listeners:
        real = hear_real(reference, listener, list(systems.values()), paired)
        for folder, scores in systems.items():
            systems[folder] = measure(folder, scores, listener, real, seed)
    for folder, scores in systems.items():
        write_scores(folder, scores)
    print_values(list(systems.values()))


def check_request(
    reference: Path | None, embedders: Sequence[str], classifiers: Sequence[str], paired: bool
) -> None:
    """Refuse what cannot be measured, before anything is loaded.

    Raises:
        InputError: names the option that is missing.
    """
    if not embedders and not classifiers:
        raise InputError("give an --embedder for FAD and KAD, or a --classifier for IS and KL")
    if reference is None and (embedders or paired):
        what = "KL needs" if paired else "FAD and KAD need"
        raise InputError(f"{what} real sounds: give their folder as --reference")
    if paired and not classifiers:
        raise InputError("--paired is for KL, which needs a --classifier")


def hear_real(
    reference: Path | None, listener: Listener, systems: Sequence[SystemScores], paired: bool
) -> Reference | None:
    """Hear the reference, if this listener needs it."""
    from resonate_audio.evaluation.distances.set_values import hear_reference, prompts_of

    needs_pairs = listener.kind == "classes"
    if reference is None or (needs_pairs and not paired):
        return None
    found = hear_reference(reference, listener, prompts_of(systems[0]) if needs_pairs else None)
    for name in found.heard.left_out:
        say(f"{reference}: left out: {name}")
    return found


def measure(
    folder: Path, scores: SystemScores, listener: Listener, real: Reference | None, seed: int
) -> SystemScores:
    """Add the values that a listener gives of one system."""
    from resonate_audio.evaluation.distances import set_values

    with step_progress(f"{folder}, {listener.name}") as report:
        total = sum(clip.failure is None for clip in scores.clips)
        heard = set_values.hear_system(folder, scores, listener, count_to(total, report))
    for name in heard.left_out:
        say(f"{folder}: left out of {listener.name}: {name}")
    if listener.kind == "classes":
        found = set_values.add_inception(scores, heard, listener, seed).scores
        if real is not None:
            found = set_values.add_paired_kl(found, heard, real, listener).scores
        return found
    assert real is not None, "check_request asks for a reference"
    distances = set_values.add_distances(scores, heard, real, listener, seed)
    line = distances.fad_inf
    if line is not None and line.r2 < LEAST_R2:
        say(f"{folder}: FAD does not go with 1/N (R² {line.r2:.2f}); do not trust FAD∞")
    return distances.scores


def count_to(total: int, report: StepReport) -> Callable[[int], None]:
    """Adds up pieces of work for a bar that wants sums."""
    done = 0

    def add(number: int) -> None:
        nonlocal done
        done += number
        report(done, total)

    return add


def print_values(systems: Sequence[SystemScores]) -> None:
    """A row for each system: its values of sets, and means of its KL."""
    rows = [known_values(scores) for scores in systems]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    print_table(
        ("system", *columns),
        [
            (scores.system, *(f"{row[name]:.4f}" if name in row else "-" for name in columns))
            for scores, row in zip(systems, rows, strict=True)
        ],
    )


def known_values(scores: SystemScores) -> dict[str, float]:
    """Values of the set, and means of KL over clips."""
    values = dict(scores.set_values)
    for card in scores.cards:
        known = [v for v in scores.values(card.name) if v is not None]
        if card.name.startswith("kl-") and known:
            values[card.name] = statistics.fmean(known)
    return values
