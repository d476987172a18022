"""`resonate eval generate`: a prompt set in, a system's clips and their manifest out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, step_progress
from resonate_audio.cli.evaluate.makers import Opener, command_maker, diffusers_maker, model_maker
from resonate_audio.cli.evaluate.processes import bulk_of, name_some, use_threads
from resonate_audio.cli.options import (
    BATCH_SIZE,
    SAMPLING,
    SETTINGS,
    Adapters,
    Asked,
    Device,
    NumberFormat,
    OpenBatchSize,
    Ray,
    Takes,
    Threads,
    Workers,
    with_options,
)
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import Sampling, shown_as

if TYPE_CHECKING:
    from resonate_audio.evaluation.clips.baselines import Baseline
    from resonate_audio.evaluation.clips.prompt_sets import PromptSet

WHO = "Who makes the sounds (one of them)"
TIMEOUT_S = 600.0
UNUSED = {
    "--clips": (
        "--timeout", "--keep-going", "--batch-size", "--device", "--dtype", "--workers",
        "--threads",
    ),
    "--command": ("--batch-size", "--device", "--dtype"),
    "--diffusers": ("--timeout",),
    "--model": ("--timeout",),
}  # fmt: skip
"""Options that each way has no use for, besides how it sounds; which only the last two take."""


@with_options
def generate(
    prompts: Annotated[
        Path,
        typer.Argument(help="Prompts: TTA-Bench's .json, .jsonl, .csv, .txt (one a line), or -."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of this system; gone on with if begun.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name, folder or hub id of this package's models.",
            show_default="nano",
            rich_help_panel=WHO,
        ),
    ] = None,
    adapter: Adapters = None,
    clips: Annotated[
        Path | None,
        typer.Option(
            help="A folder of finished clips: 0001.wav, prompt_0001.wav, 0001_2.wav (a take).",
            rich_help_panel=WHO,
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help='A program, once a clip: "prog --text {prompt} --seed {seed} --out {file}".',
            rich_help_panel=WHO,
        ),
    ] = None,
    diffusers: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id of an AudioLDM, AudioLDM 2 or Stable Audio pipeline.",
            rich_help_panel=WHO,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A row of the paper's Table 1, such as tangoflux or audioldm2-large.",
            rich_help_panel=WHO,
        ),
    ] = None,
    takes: Takes = 1,
    sample: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="So many prompts only, evenly spaced.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the system in tables.", show_default="the folder's")
    ] = "",
    fact: Annotated[
        list[str] | None,
        typer.Option(help="More to say of it in tables: trained_on=nano-lalm; repeat for more."),
    ] = None,
    asked: Asked = SAMPLING,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1_000_000,
            help="Seconds that --command has for a clip.",
            show_default=f"{TIMEOUT_S:g}",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="List clips that cannot be made, and exit 1.",
            rich_help_panel=SETTINGS,
        ),
    ] = False,
    batch_size: OpenBatchSize = None,
    device: Device = None,
    dtype: NumberFormat = None,
    ray: Ray = None,
    workers: Workers = None,
    threads: Threads = None,
) -> None:
    """Make the clips of a system, or list those that another generator made.

    The noise of a clip depends on its prompt's id and its take alone. Started again, it makes what
    is missing and nothing else. With Ray, any number of processes make the same clips.

    [bold]Examples[/bold]

      resonate eval generate acc_prompt.json -o out/nano --model nano

      resonate eval generate acc_prompt.json -o out/tango --preset tango-full --clips tango/

      resonate eval generate lines.txt -o out/mine --command "mine.py {prompt} {seed} {file}"

      resonate eval generate acc_prompt.json -o /share/nano --ray 10.0.0.5:6379 --workers 64
    """
    from resonate_audio.evaluation.clips.baselines import find_baseline
    from resonate_audio.evaluation.clips.generate import generate_clips
    from resonate_audio.evaluation.clips.prompt_sets import read_prompt_set

    baseline = None if preset is None else find_baseline(preset)
    model, clips, command, diffusers = choose_way(model, clips, command, diffusers, baseline)
    if adapter and (clips or command or diffusers):
        raise InputError("--adapter: changes a model of this package; give it with --model")
    given = {
        "--timeout": timeout is not None,
        "--keep-going": keep_going,
        "--batch-size": batch_size is not None,
        "--device": device is not None,
        "--dtype": dtype is not None,
        "--workers": workers is not None,
        "--threads": threads is not None,
    }
    ways = {"--clips": clips, "--command": command, "--diffusers": diffusers, "--model": "nano"}
    way = next(option for option, value in ways.items() if value is not None)
    refuse_unused(way, asked, [option for option, is_given in given.items() if is_given])
    timeout, batch_size = timeout or TIMEOUT_S, batch_size or BATCH_SIZE
    prompt_set = read_prompt_set(prompts)
    prompt_set = prompt_set if sample is None else prompt_set.sample(sample)
    facts = read_facts(fact or []) | ({} if baseline is None else baseline.facts)
    if clips is not None:
        if takes != 1:
            raise InputError("--takes says how many to make; with --clips they are counted")
        if ray is not None:
            raise InputError("--ray: clips that are there already are listed, which needs no Ray")
        bring_in(output, prompt_set, clips, name, facts)
        return
    if baseline is not None and baseline.nfe is not None:
        asked = {"num_inference_steps": baseline.nfe, **asked}
    Sampling(**{"duration_s": 1.0, **asked})  # refuses nonsense before anything is loaded
    open_maker: Opener
    if command is not None:
        open_maker, device = partial(command_maker, command, timeout, baseline), "cpu"
    elif diffusers is not None:
        open_maker = partial(diffusers_maker, diffusers, asked, batch_size, dtype=dtype)
    else:
        open_maker = partial(
            model_maker, model or "nano", asked, batch_size, dtype=dtype,
            adapters=tuple(adapter or ()),
        )  # fmt: skip
    where = bulk_of(open_maker, ray, workers, threads, device)
    with use_threads(threads if where is None else where.num_threads):
        maker = open_maker(device=device)
        with step_progress("clips") as report:
            made = generate_clips(
                output, prompt_set, maker, takes, name, facts, keep_going, report, where
            )
    print_table(
        ("folder", "prompts", "takes", "made", "there before", "failed"),
        [
            (
                str(output),
                str(len(prompt_set.items)),
                str(takes),
                str(made.num_made),
                str(made.num_there),
                str(len(made.failures)),
            )
        ],
    )
    name_some("could not be made", list(made.failures.values()))
    if made.failures:
        raise typer.Exit(1)


def choose_way(
    model: str | None,
    clips: Path | None,
    command: str | None,
    diffusers: str | None,
    baseline: Baseline | None,
) -> tuple[str | None, Path | None, str | None, str | None]:
    """Which of the ways it is, with what a preset fills in.

    Raises:
        InputError: more than one way, or a preset that needs one more option; says which.
    """
    ways = {"--model": model, "--clips": clips, "--command": command, "--diffusers": diffusers}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given; expected one of them")
    if baseline is None or given:
        return model, clips, command, diffusers
    if baseline.way == "command":
        return None, None, baseline.place, None
    if baseline.way == "diffusers":
        return None, None, None, baseline.place
    what = "--clips FOLDER" if baseline.way == "clips" else "--model FOLDER"
    where = f" ({baseline.place})" if baseline.way == "clips" else ""
    raise InputError(f"preset {baseline.title}: give {what}, too{where}: {baseline.note}")


def refuse_unused(way: str, asked: Asked, given: Iterable[str]) -> None:
    """Refuse options that a way has no use for.

    Args:
        way: option of whoever makes the sounds.
        asked: how it is to sound.
        given: the other options that were given.

    Raises:
        InputError: names the option.
    """
    unused = [option for option in given if option in UNUSED[way]]
    if way in ("--clips", "--command"):
        unused += [shown_as(Sampling.model_fields[name]).option for name in asked]
    if unused:
        raise InputError(f"{unused[0]}: {way} has no use for it; leave it out")


def read_facts(given: Sequence[str]) -> dict[str, str]:
    """Facts of a command line.

    Raises:
        InputError: one has no ``=``.
    """
    facts = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError(f"--fact {text}: expected name=value")
        facts[key] = value
    return facts


def bring_in(
    output: Path, prompts: PromptSet, clips: Path, name: str, facts: Mapping[str, str]
) -> None:
    """List a folder of clips, and say what is missing and what is left over."""
    from resonate_audio.evaluation.clips.generate import list_clips

    with step_progress("clips") as report:
        _, found = list_clips(output, prompts, clips, name, facts, report)
    print_table(
        ("folder", "prompts", "takes", "found", "missing", "left over"),
        [
            (
                str(output),
                str(len(prompts.items)),
                str(found.num_takes),
                str(len(found.files)),
                str(len(found.missing)),
                str(len(found.surplus)),
            )
        ],
    )
    name_some("missing, will count as failed", [f"{id}, take {take}" for id, take in found.missing])
    name_some("of no prompt, not used", [path.name for path in found.surplus])
