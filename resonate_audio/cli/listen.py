"""`resonate listen`: people listen, numbers come out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.cli.options import Port
from resonate_audio.cli.server import check_packages, run_server
from resonate_audio.core.errors import InputError
from resonate_audio.core.paths import given_path

if TYPE_CHECKING:
    from resonate_audio.serving.listening.results import AxisResult, Results
    from resonate_audio.serving.listening.test import GivenClip

app = typer.Typer(
    help="Listening tests: make one, serve it, read what people said.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
PORT = 8124
TestFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the test.")]


@app.command()
def create(
    folder: TestFolder,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system", "-s", help="NAME=FOLDER with its clips; files of one name belong together."
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or JSONL of file,system,prompt[,name] instead.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="CSV or JSONL of name,prompt.", show_default="what the files say they are"
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", "-p", help="ovl, ovl-rel, tta-bench or ab.")
    ] = "ovl-rel",
    probe: Annotated[
        list[str] | None,
        typer.Option(help="FILE=LOW,HIGH: a sound whose believable scores are known."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=0, max=1000, help="Clips that everybody hears twice.")
    ] = 2,
    title: Annotated[str, typer.Option(help="What raters read.")] = "Listening test",
    instructions: Annotated[
        str | None, typer.Option(help="What raters read before they begin.")
    ] = None,
    raters: Annotated[
        int,
        typer.Option(min=0, max=10_000, help="Print so many personal links; 0: anybody may join."),
    ] = 0,
    address: Annotated[
        str, typer.Option(help="Where raters will find the server.")
    ] = f"http://127.0.0.1:{PORT}",
) -> None:
    """Make a listening test.

    [bold]Examples[/bold]

      resonate listen create trees -s ours=out/ours -s theirs=out/theirs

      resonate listen create pairs -s a=out/a -s b=out/b --preset ab --raters 10
    """
    from resonate_audio.serving.listening.answers import Answers
    from resonate_audio.serving.listening.test import Design, create_test, parse_design, read_probe

    values: dict[str, object] = {
        "preset": preset,
        "num_repeats": repeats,
        "title": title,
        "is_open": raters == 0,
        "max_raters": max(raters, Design().max_raters),
    }
    values |= {"instructions": instructions} if instructions is not None else {}
    design = parse_design(values, "options")
    given = [*read_given(system or [], manifest, prompts), *map(read_probe, probe or [])]
    test = create_test(folder, design, given)
    answers = Answers(folder, test)
    say(f"{folder}: {len(test.clips)} clips of {', '.join(test.systems)}")
    links = [f"{folder.name}.{token}" for token in answers.invite(raters)] or [folder.name]
    for link in links:
        print_text(f"{address.rstrip('/')}/listen.html#{link}")


def read_given(
    systems: Sequence[str], manifest: Path | None, prompts: Path | None
) -> list[GivenClip]:
    """Clips of folders or of a list.

    Raises:
        InputError: both or neither are given, or a system has another form.
    """
    from resonate_audio.serving.listening.test import read_clip_list, read_prompts, read_systems

    if bool(systems) == (manifest is not None):
        raise InputError("expected --system NAME=FOLDER, or else --manifest FILE")
    if manifest is not None:
        return read_clip_list(manifest)
    folders: dict[str, Path] = {}
    for text in systems:
        name, _, place = text.partition("=")
        if not name or not place or name in folders:
            raise InputError(f"--system {text}: expected NAME=FOLDER, each name once")
        folders[name] = given_path(place)
    return read_systems(folders, read_prompts(prompts) if prompts else None)


@app.command()
def serve(
    folder: TestFolder,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Port = PORT,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            help="Name that raters call this server by, such as test.example.org; addresses and "
            "this machine's own name are known.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, such as body_timeout_s=60."),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
) -> None:
    """Serve a test to its raters, and nothing else, until interrupted.

    [bold]Example[/bold]

      resonate listen serve trees --host 0.0.0.0
    """
    check_packages()
    from resonate_audio.core.config import apply_overrides, parse_config
    from resonate_audio.serving.config import EdgeConfig
    from resonate_audio.serving.listening.server import MAX_BODY_MB, create_listening_app

    values = {"hosts": own_names(host, name or []), "max_body_mb": MAX_BODY_MB}
    config = parse_config(EdgeConfig, apply_overrides(values, limit or []), "resonate listen serve")
    app = create_listening_app(folder, config)
    run_server(app, host, port, config, open_page, f"listen.html#{folder.resolve().name}")


def own_names(host: str, named: Sequence[str]) -> tuple[str, ...]:
    """What a request may call a server by: names that were given, this machine's, its addresses.

    Another site's page can make its own name point here, but it cannot make it one of these.
    """
    import socket

    from resonate_audio.serving.guard import ANY_ADDRESS

    own = ["127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host, *named]
    if host in ("0.0.0.0", "::"):
        own += [socket.gethostname(), f"{socket.gethostname()}.local", ANY_ADDRESS]
    return tuple(dict.fromkeys(name.lower() for name in own))


@app.command()
def results(
    folder: TestFolder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for ratings.csv, clips.jsonl, results.*"),
    ] = None,
) -> None:
    """Mean opinion scores with 95 % intervals, agreement, doubtful raters.

    ratings.csv is what `resonate eval mos` and the report read, clips.jsonl what
    `resonate eval correlate` reads, results.tex a table for a paper.

    [bold]Example[/bold]

      resonate listen results trees -o trees-results
    """
    from resonate_audio.serving.listening.answers import Answers
    from resonate_audio.serving.listening.results import analyse, write_results
    from resonate_audio.serving.listening.test import open_test

    test = open_test(folder)
    answers = Answers(folder, test)
    found = analyse(test, answers.all(), answers.progress())
    print_results(found)
    if output is not None:
        write_results(output, test, answers.all(), found)
        say(f"{output}: ratings.csv, clips.jsonl, results.json, results.tex")


def print_results(found: Results) -> None:
    """Scores as a table, the rest in words."""
    print_table(
        ("axis", "system", "mean", "95 %", "±", "raters", "ratings"),
        [
            (
                axis.axis,
                score.system,
                f"{score.value:.2f}",
                f"{score.low:.2f} to {score.high:.2f}",
                f"{score.deviation:.2f}",
                str(score.num_raters),
                str(score.num_ratings),
            )
            for axis in found.axes
            for score in axis.scores
        ],
    )
    say(f"{found.num_finished} of {found.num_raters} raters have finished")
    for axis in found.axes:
        _say_axis(axis)
    for rater, distance in found.repeat_difference.items():
        say(f"{rater}: answers to clips heard twice differ by {distance:.2f} on average")


def _say_axis(axis: AxisResult) -> None:
    if axis.alpha is not None:
        say(f"{axis.axis}: Krippendorff's alpha {axis.alpha:.3f}")
    for pair in axis.differences:
        say(
            f"{axis.axis}: {pair.second} - {pair.first} = {pair.value:+.2f} "
            f"[{pair.low:+.2f}, {pair.high:+.2f}], p {pair.p_holm:.4f} (Holm)"
        )
    for check in axis.raters:
        for doubt in check.doubts:
            say(f"{axis.axis}: rater {check.rater} {doubt}")


@app.command()
def export(
    folder: TestFolder,
    output: Annotated[Path, typer.Argument(help="Folder for pairs.jsonl and its sounds.")],
    axis: Annotated[
        str | None, typer.Option("--axis", "-a", help="OVL, …", show_default="the last")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Least difference, as a share of the scale.")
    ] = 0.1,
) -> None:
    """Write pairs of clips of which people want the first, to learn from them.

    [bold]Example[/bold]

      resonate listen export pairs preferences --margin 0.2
    """
    from resonate_audio.serving.listening.answers import Answers
    from resonate_audio.serving.listening.results import export_pairs
    from resonate_audio.serving.listening.test import open_test

    test = open_test(folder)
    answers = Answers(folder, test).all()
    pairs = export_pairs(folder, test, answers, output, axis or test.axes[-1].name, margin)
    say(f"{output / 'pairs.jsonl'}: {len(pairs)} pairs")
