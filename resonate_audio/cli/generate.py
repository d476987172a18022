"""`resonate generate`: sentences in, sound files out."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, say, step_progress
from resonate_audio.cli.naming import PlannedSound, plan_sounds
from resonate_audio.cli.options import (
    SAMPLING,
    SETTINGS,
    Asked,
    BatchSize,
    Device,
    Model,
    NumberFormat,
    PromptsFile,
    Takes,
    with_sampling,
)
from resonate_audio.core.errors import InputError, OutputError
from resonate_audio.core.sampling import Sampling

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio
    from resonate_audio.pipeline.path import Resonate

FILES = "Where it goes"
LARGEST_SEED = 2**62
LARGEST_RANDOM_SEED = 2**31
"""Short enough to be typed again."""


@with_sampling
def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to hear; several make several sounds."),
    ] = None,
    prompts_file: PromptsFile = None,
    takes: Takes = 1,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=LARGEST_SEED,
            help="Seed of the first take; the next takes count up.",
            show_default="random",
        ),
    ] = None,
    asked: Asked = SAMPLING,
    negative: Annotated[str, typer.Option(help="What not to hear.", rich_help_panel=SETTINGS)] = "",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File (.wav .flac .mp3 .ogg .opus) or folder. Several sounds are numbered.",
            show_default="named after the prompt and the seed, here",
            rich_help_panel=FILES,
        ),
    ] = None,
    spectrogram: Annotated[
        bool,
        typer.Option(
            "--spectrogram", help="Draw a picture (.png) beside each sound.", rich_help_panel=FILES
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=FILES),
    ] = False,
    model: Model = "nano",
    device: Device = None,
    dtype: NumberFormat = None,
    batch_size: BatchSize = 8,
) -> None:
    """Make sounds from sentences.

    [bold]Examples[/bold]

      resonate generate "a dog barks twice, then rain starts"

      resonate generate "thunder" "a church bell" -n 4 --seed 7 -o sounds/ --spectrogram

      resonate generate --prompts lines.txt -o take.flac --steps 50 --guidance 6
    """
    from resonate_audio.data.prompts import read_prompts

    texts = [*(prompts or []), *(read_prompts(prompts_file) if prompts_file else [])]
    check_texts([*texts, negative])
    if not texts:
        raise InputError('no prompt; try: resonate generate "a dog barks twice, then rain starts"')
    first_seed = secrets.randbelow(LARGEST_RANDOM_SEED) if seed is None else seed
    sounds = plan_sounds(texts, takes, first_seed, output)
    check_outputs(sounds, spectrogram, overwrite)
    Sampling(**{"duration_s": 1.0, **asked})  # refuses nonsense before anything is loaded
    pipeline = load(model, device, dtype.value if dtype else None)
    say_what_is_cut(pipeline, [*texts, negative])
    rows = []
    for start in range(0, len(sounds), batch_size):
        batch = sounds[start : start + batch_size]
        label = batch[0].prompt if len(sounds) == 1 else _label(start, len(batch), len(sounds))
        for sound, audio in zip(batch, make(pipeline, batch, asked, label, negative), strict=True):
            write(sound, audio, spectrogram, overwrite)
            rows.append(describe(sound, audio))
    print_table(("file", "prompt", "length", "seed", "gain"), rows)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what the shell passed on in another encoding.

    Raises:
        InputError: a text is not valid Unicode.
    """
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"prompt {text!a}: not valid UTF-8") from error


def check_outputs(sounds: Sequence[PlannedSound], spectrogram: bool, overwrite: bool) -> None:
    """Find out before the work, not after it, that a file cannot be written.

    Raises:
        AudioError: a suffix stands for no format.
        OutputError: a file exists and may not be replaced, or its folder cannot be written.
    """
    from resonate_audio.audio.io import check_output

    for sound in sounds:
        check_output(sound.path, overwrite)
        picture = sound.path.with_suffix(".png")
        if spectrogram and picture.exists() and not overwrite:
            raise OutputError(f"{picture}: exists already; pass --overwrite to replace it")


def load(model: str, device: str | None, dtype: str | None) -> Resonate:
    """Load a model, saying so: the big ones take a while."""
    from resonate_audio.pipeline.path import Resonate

    say(f"loading {model}")
    return Resonate.from_pretrained(model, device=device, dtype=dtype)


def say_what_is_cut(pipeline: Resonate, texts: Sequence[str]) -> None:
    """Tell which prompts are longer than the model reads; they are made from their beginning."""
    num_tokens = pipeline.config.text_encoder.num_tokens
    for text in pipeline.cut_prompts(list(dict.fromkeys(texts))):
        say(f"note: prompt cut at {num_tokens} tokens, the rest is not heard: {text[:50]}…")


def make(
    pipeline: Resonate,
    batch: Sequence[PlannedSound],
    asked: Asked,
    label: str,
    negative_prompt: str = "",
) -> list[Audio]:
    """Compute one batch, showing its steps."""
    from resonate_audio.pipeline.request import PromptCutWarning

    with step_progress(label) as report, warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptCutWarning)  # said once, before the first batch
        return pipeline.generate(
            [sound.prompt for sound in batch],
            negative_prompt=negative_prompt,
            seeds=[sound.seed for sound in batch],
            on_step=report,
            batch_size=len(batch),
            **asked,
        )


def write(sound: PlannedSound, audio: Audio, spectrogram: bool, overwrite: bool) -> None:
    """Write one sound, and its picture when asked for."""
    from resonate_audio.audio.io import write_audio
    from resonate_audio.audio.spectrogram import write_spectrogram

    write_audio(sound.path, audio, overwrite)
    if spectrogram:
        write_spectrogram(sound.path.with_suffix(".png"), audio, sound.prompt, overwrite)


def _label(start: int, num_rows: int, num_sounds: int) -> str:
    return f"sounds {start + 1}-{start + num_rows} of {num_sounds}"


def describe(sound: PlannedSound, audio: Audio) -> tuple[str, ...]:
    """One row of the table of what was written."""
    gain = audio.recipe.gain if audio.recipe else 1.0
    return (
        str(sound.path),
        sound.prompt,
        f"{audio.duration_s:.2f} s",
        str(sound.seed),
        "1" if gain == 1.0 else f"{gain:.3f}",
    )
