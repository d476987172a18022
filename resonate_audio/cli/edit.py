"""`resonate vary`, `reword`, `replace`, `extend`, `loop`, `sequence`: sounds made of sounds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonate_audio.cli.console import StepReport, say
from resonate_audio.cli.generate import (
    Batch,
    check_outputs,
    check_texts,
    first_seed,
    load_as,
    make_all,
    say_what_is_cut,
    say_what_is_idle,
    tell,
)
from resonate_audio.cli.naming import Wanted, plan_sounds, slug
from resonate_audio.cli.options import REMAKING, SETTINGS, Making, with_options
from resonate_audio.cli.pipes import read_sound
from resonate_audio.cli.sound_list import refuse_ends
from resonate_audio.core.documents.text import STDIN
from resonate_audio.core.edit import Part, check_parts
from resonate_audio.core.errors import AudioError, InputError
from resonate_audio.core.sampling import Sampling

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio
    from resonate_audio.model.presets import ModelConfig
    from resonate_audio.pipeline.edit import Editing

SourceFile = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="A sound of any format, rate and channels; - is piped in."
    ),
]
Said = Annotated[
    str | None,
    typer.Option(
        "--prompt", "-p", help="What to hear.", show_default="what made the source",
        rich_help_panel=SETTINGS,
    ),
]  # fmt: skip
Edited = Callable[..., list["Audio"]]
"""One way of `Resonate`, its source and its own settings bound; takes `EditOptions`."""

READ_ALONE = (".aif", ".aiff", ".au", ".caf")
"""Suffixes of sounds that are read and not written."""
_SECONDS = r"\s*(-?[\d.]+)\s*s?\s*"
_SPAN = re.compile(rf"{_SECONDS}(?:-|to){_SECONDS}")
_PART = re.compile(rf"{_SPAN.pattern}:(.*)", re.DOTALL)


@with_options
def vary(
    source: SourceFile,
    strength: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="0: the same sound; 1: a free take.", rich_help_panel=SETTINGS
        ),
    ] = 0.7,
    prompt: Said = None,
    making: Making = REMAKING,
) -> None:
    """Make sounds like a sound.

    [bold]Examples[/bold]

      resonate vary door.wav -n 4 -o doors/

      resonate vary door.wav --strength 0.4 --prompt "a heavy door slams" --trim -50
    """
    audio = source_of(source)
    run_edit(
        making, "vary", source.stem, [prompt], lambda r: bound(r.vary, audio, strength, prompt)
    )


@with_options
def reword(
    source: SourceFile,
    prompt: Annotated[str, typer.Argument(help="What it shall be.")],
    was: Annotated[
        str | None,
        typer.Option(
            "--was",
            help="What it is.",
            show_default="what made the source",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(min=0, max=1, help="More changes more.", rich_help_panel=SETTINGS),
    ] = 0.8,
    making: Making = REMAKING,
) -> None:
    """Carry a sound from what one sentence says to what another says, in its own time.

    [bold]Example[/bold]

      resonate reword dog.wav "a cat meows" --was "a dog barks"
    """  # fmt: skip
    audio = source_of(source)
    run_edit(
        making,
        "reword",
        source.stem,
        [prompt, was],
        lambda r: bound(r.reword, audio, prompt, was, strength),
    )


@with_options
def replace(
    source: SourceFile,
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to hear there.", show_default="what made the source"),
    ] = None,
    span: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM-TO", help="Seconds, such as 1.5-2.25; repeat for more."),
    ] = None,
    making: Making = REMAKING,
) -> None:
    """Make stretches of a sound anew; outside them not a bit changes.

    [bold]Example[/bold]

      resonate replace take.wav "a dog barks" --span 1.5-2.25
    """
    spans = [parse_span(text) for text in span or []]
    audio = source_of(source)
    run_edit(
        making, "replace", source.stem, [prompt], lambda r: bound(r.replace, audio, spans, prompt)
    )


@with_options
def extend(
    source: SourceFile,
    prompt: Annotated[
        str | None,
        typer.Argument(help="What to hear there.", show_default="what made the source"),
    ] = None,
    before: Annotated[
        float, typer.Option(min=0, max=600, metavar="S", help="Seconds before it.")
    ] = 0.0,
    after: Annotated[
        float, typer.Option(min=0, max=600, metavar="S", help="Seconds after it.")
    ] = 0.0,
    making: Making = REMAKING,
) -> None:
    """Let a sound begin earlier or go on longer; the sound itself stays bit for bit.

    [bold]Example[/bold]

      resonate extend wind.wav --before 1 --after 4
    """
    audio = source_of(source)
    run_edit(
        making,
        "extend",
        source.stem,
        [prompt],
        lambda r: bound(r.extend, audio, before, after, prompt),
    )


@with_options
def loop(
    what: Annotated[
        str, typer.Argument(metavar="PROMPT|SOURCE", help="A sentence, or a file to close.")
    ],
    duration: Annotated[
        float | None,
        typer.Option(
            max=600,
            metavar="S",
            help="Of a loop from a sentence.",
            show_default="the model's own",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    prompt: Said = None,
    seam: Annotated[
        float | None,
        typer.Option(
            max=600,
            metavar="S",
            help="Of a file: the stretch around its ends that is made anew.",
            show_default="0.5",
            rich_help_panel=SETTINGS,
        ),
    ] = None,
    making: Making = REMAKING,
) -> None:
    """Make a sound whose end goes on into its beginning, or close a sound to one.

    [bold]Examples[/bold]

      resonate loop "rain falls on leaves" --duration 4 -o rain.ogg

      resonate loop wind.wav
    """
    check_texts([what])
    refuse_ends(making.finish)
    if not is_file_name(what):
        _refuse(what, "is a sentence, so there is no", {"--prompt": prompt, "--seam": seam})
        run_edit(making, "loop", what, [what], lambda r: bound(r.loop, what, duration))
        return
    _refuse(what, "has its own length, so there is no", {"--duration": duration})
    audio = source_of(Path(what))
    own = {} if seam is None else {"seam_s": seam}
    run_edit(
        making,
        "loop",
        Path(what).stem,
        [prompt],
        lambda r: bound(r.loop, audio, prompt=prompt, **own),
    )


@with_options
def sequence(
    parts: Annotated[
        list[str],
        typer.Argument(metavar="FROM-TO:PROMPT...", help="What is heard when, in seconds."),
    ],
    making: Making = REMAKING,
) -> None:
    """Make one sound that follows one sentence after the other.

    [bold]Example[/bold]

      resonate sequence "0-3: rain falls" "3-6: thunder rumbles" -o storm.wav
    """
    check_texts(parts)
    given = [Part(*parse_part(text)) for text in parts]
    check_parts(given)
    texts = [part.prompt for part in given]
    run_edit(making, "sequence", "; ".join(texts), texts, lambda r: bound(r.sequence, given))


def run_edit(
    making: Making,
    command: str,
    name: str,
    prompts: Sequence[str | None],
    way: Callable[[Editing], Edited],
) -> None:
    """Plan the files of an edit, load the model, make the takes and say what was written.

    Args:
        making: what the command line asks for.
        command: what is done.
        name: what it is done to; the files are called after both.
        prompts: texts that the model will read; None where the source says it.
        way: the method with what is its own; given the model.
    """
    texts = [text for text in [*prompts, making.negative] if text]
    check_texts(texts)
    Sampling(**{"duration_s": 1.0, **making.asked})  # refuses nonsense before anything is loaded
    wanted = Wanted(
        name, making.negative, making.takes, asked=making.asked, finish=making.finish,
        name=f"{slug(name)}-{command}",
    )  # fmt: skip
    sounds = plan_sounds([wanted], first_seed(making.seed), making.target.output)
    check_outputs(sounds, making.target)

    def rehearse(config: ModelConfig) -> None:
        from resonate_audio.pipeline.edit import Rehearsal

        stand_in = Rehearsal(config)  # type: ignore[abstract]  # on purpose: it has no networks
        way(stand_in)(negative_prompt=making.negative, **making.asked)

    pipeline = load_as(making.loading, rehearse)
    say_what_is_cut(pipeline, texts)
    say_what_is_idle(pipeline, [wanted])
    edited = way(pipeline)

    def compute(batch: Batch, report: StepReport) -> list[Audio]:
        seeds = [sound.seed for sound in batch]
        own = {"takes": len(seeds), "seeds": seeds, "on_step": report}
        return edited(negative_prompt=making.negative, **own, **making.asked)

    tell(list(make_all(sounds, compute, making).values()), making.target)


def bound(method: Edited, *given: Any, **named: Any) -> Edited:
    """A way of `Resonate` with what is its own, still to be told how."""
    return lambda **options: method(*given, **named, **options)


def source_of(path: Path) -> Audio:
    """The sound that is edited; one that no file can hold as it is is told.

    Raises:
        AudioError: as `read_sound`.
    """
    import numpy as np

    audio = read_sound(path)
    peak = float(np.abs(audio.samples).max(initial=0.0))
    if peak > 1:
        say(f"note: {path} passes full scale (peak {peak:.2f}); what is written is quieter by that")
    return audio


def is_file_name(text: str) -> bool:
    """Whether a text names a file rather than describes a sound.

    Raises:
        AudioError: it is named as a sound, and there is none of that name.
    """
    from resonate_audio.audio.io import FORMATS

    path = Path(text)
    if path == STDIN or os.path.isfile(path):  # not Path's, which fails for a long text
        return True
    if path.suffix.lower() in {*FORMATS, *READ_ALONE}:
        raise AudioError(f"{text}: no such file")
    if os.path.isdir(path):
        raise AudioError(f"{text}: a folder; expected a prompt, or the file of a sound")
    return False


def parse_span(text: str) -> tuple[float, float]:
    """From and to, in seconds.

    Raises:
        InputError: it is none.
    """
    found = _SPAN.fullmatch(text)
    try:
        return float(found[1]), float(found[2])  # type: ignore[index]
    except (TypeError, ValueError):
        raise InputError(f"--span {text}: expected FROM-TO in seconds, such as 1.5-2.25") from None


def parse_part(text: str) -> tuple[float, float, str]:
    """From, to and what is heard.

    Raises:
        InputError: it is none.
    """
    found = _PART.fullmatch(text)
    try:
        return float(found[1]), float(found[2]), found[3].strip()  # type: ignore[index]
    except (TypeError, ValueError):
        raise InputError(
            f"{text}: expected FROM-TO:PROMPT, such as “0-3: rain falls”, in seconds"
        ) from None


def _refuse(what: str, why: str, given: dict[str, object]) -> None:
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option} {value}: {what[:50]} {why} {option}")
