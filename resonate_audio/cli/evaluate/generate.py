"""`resonate eval generate`: a prompt set in, a system's clips and their manifest out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from resonate_audio.cli.console import print_table, say, step_progress
from resonate_audio.cli.data.encode import MANY, Ray, Workers, ray_config
from resonate_audio.cli.generate import DType, load
from resonate_audio.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resonate_audio.evaluation.clips.baselines import Baseline
    from resonate_audio.evaluation.clips.bulk import Bulk
    from resonate_audio.evaluation.clips.generate import ClipMaker
    from resonate_audio.evaluation.clips.prompt_sets import PromptSet

ToolT = TypeVar("ToolT")
WHO, HOW, MACHINE = "Who makes the sounds (one of them)", "How", "What it runs on"
LISTED = 10
"""Clips that are named before the rest is only counted."""

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads of each process.",
        show_default="all, with --ray as many as this machine would",
        rich_help_panel=MANY,
    ),
]


def generate(
    prompts: Annotated[
        Path,
        typer.Argument(help="TTA-Bench's .json, .jsonl, or a text file with one prompt a line."),
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
    takes: Annotated[
        int, typer.Option("--takes", "-n", min=1, max=1000, help="Clips per prompt.")
    ] = 1,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many prompts only, evenly spaced.")
    ] = None,
    name: Annotated[
        str, typer.Option(help="Of the system in tables.", show_default="the folder's")
    ] = "",
    fact: Annotated[
        list[str] | None,
        typer.Option(help="More to say of it in tables: trained_on=nano-lalm; repeat for more."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Solver steps.", show_default="25, the preset's", rich_help_panel=HOW
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="How hard to follow the prompt.",
            show_default="4.5, the pipeline's own",
            rich_help_panel=HOW,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            help="Seconds per clip.",
            show_default="the model's own, 10 for diffusers",
            rich_help_panel=HOW,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that --command has for a clip.", rich_help_panel=HOW)
    ] = 600.0,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="List clips that cannot be made, and exit 1.", rich_help_panel=HOW
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Clips computed together.", rich_help_panel=MACHINE)
    ] = 8,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda, cuda:1 or mps.", show_default="the fastest", rich_help_panel=MACHINE
        ),
    ] = None,
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Number format of the network.", show_default="by device", rich_help_panel=MACHINE
        ),
    ] = None,
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
    asked = read_prompt_set(prompts)
    asked = asked if sample is None else asked.sample(sample)
    facts = read_facts(fact or []) | ({} if baseline is None else baseline.facts)
    if clips is not None:
        if takes != 1:
            raise InputError("--takes says how many to make; with --clips they are counted")
        if ray is not None:
            raise InputError("--ray: clips that are there already are listed, which needs no Ray")
        bring_in(output, asked, clips, name, facts)
        return
    num_steps = steps or (baseline.nfe if baseline else None)
    settings = (num_steps, guidance, duration, batch_size)
    open_maker: Opener
    if command is not None:
        open_maker, device = partial(command_maker, command, timeout, baseline), "cpu"
    elif diffusers is not None:
        open_maker = partial(diffusers_maker, diffusers, *settings, dtype=dtype)
    else:
        open_maker = partial(model_maker, model or "nano", *settings, dtype=dtype)
    where = bulk_of(open_maker, ray, workers, threads, device)
    with use_threads(threads if where is None else where.num_threads):
        maker = open_maker(device=device)
        with step_progress("clips") as report:
            made = generate_clips(
                output, asked, maker, takes, name, facts, keep_going, report, where
            )
    print_table(
        ("folder", "prompts", "takes", "made", "there before", "failed"),
        [
            (
                str(output),
                str(len(asked.items)),
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


def name_some(what: str, names: Sequence[str]) -> None:
    """Name the first few on stderr, and count the rest."""
    for text in names[:LISTED]:
        say(f"{what}: {text}")
    if len(names) > LISTED:
        say(f"{what}: {len(names) - LISTED} more")


Opener = Callable[..., "ClipMaker"]
"""Takes ``device``."""


def bulk_of(
    open_tool: Callable[..., ToolT],
    address: str | None,
    workers: int | None,
    threads: int | None,
    device: str | None,
) -> Bulk[ToolT] | None:
    """What the options say of many processes.

    Args:
        open_tool: takes ``device``; each process calls it.
        address: of Ray.
        workers: processes.
        threads: of each.
        device: as the option says it.

    Raises:
        InputError: workers are asked for without Ray.
    """
    if address is None:
        ray_config(address, workers)
        return None
    import torch

    from resonate_audio.evaluation.clips.bulk import Bulk
    from resonate_audio.pipeline.path import choose_device

    num_threads = threads or torch.get_num_threads()
    if threads is None and num_threads > 1:
        say(
            f"note: each process computes with {num_threads} threads, as this machine does without "
            "Ray, so that results are the same bits; --threads 1 suits many processes better"
        )
    kind = choose_device(device).type
    ray = ray_config(address, workers, gpus=1.0 if kind == "cuda" else 0.0)
    assert ray is not None
    return Bulk(ray, partial(open_tool, device=kind), num_threads)


def use_threads(num_threads: int | None) -> AbstractContextManager[None]:
    """So many CPU threads; None: as many as there are."""
    if num_threads is None:
        return nullcontext()
    from resonate_audio.core.threads import cpu_threads

    return cpu_threads(num_threads)


def command_maker(
    template: str, timeout_s: float, baseline: Baseline | None, device: str | None = None
) -> ClipMaker:
    """A program that makes one clip a run, on whatever it finds."""
    from resonate_audio.evaluation.clips.generate import CommandMaker

    return CommandMaker(template, timeout_s, nfe=None if baseline is None else baseline.nfe)


def model_maker(
    model: str,
    steps: int | None,
    guidance: float | None,
    duration_s: float | None,
    batch_size: int,
    device: str | None,
    dtype: DType | None,
) -> ClipMaker:
    """A model of this package."""
    from resonate_audio.evaluation.clips.generate import ModelMaker

    pipeline = load(model, device, None if dtype is None else dtype.value)
    maker = ModelMaker(pipeline, duration_s=duration_s, batch_size=batch_size)
    return ModelMaker(
        pipeline,
        maker.num_inference_steps if steps is None else steps,
        maker.guidance_scale if guidance is None else guidance,
        duration_s,
        batch_size,
    )


def diffusers_maker(
    origin: str,
    steps: int | None,
    guidance: float | None,
    duration_s: float | None,
    batch_size: int,
    device: str | None,
    dtype: DType | None,
) -> ClipMaker:
    """A diffusers pipeline."""
    import torch

    from resonate_audio.evaluation.clips.diffusers import DiffusersMaker
    from resonate_audio.pipeline.path import choose_device

    say(f"loading {origin}")
    settings = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "duration_s": duration_s,
        "batch_size": batch_size,
    }
    number_format: torch.dtype = getattr(torch, "float32" if dtype is None else dtype.value)
    if number_format is torch.float16 and choose_device(device).type == "cpu":
        raise ConfigError("dtype float16 on cpu: expected float32 or bfloat16")
    return DiffusersMaker.from_pretrained(
        origin,
        choose_device(device),
        number_format,
        **{field: value for field, value in settings.items() if value is not None},
    )
