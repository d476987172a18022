"""`resonate generate`: sentences in, sound files out."""

from __future__ import annotations

import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import StepReport, print_table, say, step_progress
from resonate_audio.cli.naming import STDOUT, PlannedSound, Wanted, plan_sounds
from resonate_audio.cli.options import MAKING, Loading, Making, PromptsFile, Target, with_options
from resonate_audio.cli.pipes import write_wav_out
from resonate_audio.cli.sound_list import COLUMNS as LIST_COLUMNS
from resonate_audio.cli.sound_list import read_list
from resonate_audio.core.errors import InputError, ModelNotFoundError, OutputError
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.text import check_encodable

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio, Recipe
    from resonate_audio.model.presets import ModelConfig
    from resonate_audio.pipeline.path import Resonate

LARGEST_RANDOM_SEED = 2**31
"""Short enough to be typed again."""


@with_options
def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to hear; several make several sounds."),
    ] = None,
    prompts_file: PromptsFile = None,
    sound_list: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="A table (.csv, .jsonl, - is piped in) of what to make: prompt, name, negative, "
            "duration, takes, loop, seed and any option of how it sounds or is finished. What "
            "exists is kept; seeds count from 0 where none is given.",
            show_default=False,
        ),
    ] = None,
    best_of: Annotated[
        int,
        typer.Option(
            "--best-of",
            min=1,
            max=100,
            help="Make so many of each sound and keep the one that --judge likes most.",
        ),
    ] = 1,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            "-j",
            help="Who chooses: nano-lalm (the default), aqa:MODEL, my_module:function.",
            show_default=False,
        ),
    ] = None,
    making: Making = MAKING,
) -> None:
    """Make sounds from sentences.

    [bold]Examples[/bold]

      resonate generate "a rooster crows, then rain falls"

      resonate generate "a dog barks, then a door slams" --best-of 8

      resonate generate "thunder" "a church bell" -n 4 --seed 7 -o sounds/ --spectrogram

      resonate generate "a door slams" -o hit.ogg --trim -50 --length 0.7 --loudness -16

      resonate generate --prompts lines.txt -o "out/{prompt}-{seed}.flac" --steps 8

      resonate generate --list sounds.csv -o "out/{name}-{seed}.ogg" --trim -50 --loudness -16
    """
    from resonate_audio.data.prompts import read_prompt_rows

    listed = read_prompt_rows(prompts_file) if prompts_file else []
    if unread := [name for name in LIST_COLUMNS if any(row.fields.get(name) for row in listed)]:
        say(f"note: {prompts_file}: {', '.join(unread)} are read by --list, not by --prompts")
    texts = [*(prompts or []), *(row.prompt for row in listed)]
    wanted = [
        Wanted(text, making.negative, making.takes, asked=making.asked, finish=making.finish)
        for text in texts
    ]
    if sound_list is not None:
        wanted += read_list(sound_list, making)
    if not wanted:
        raise InputError('no prompt; try: resonate generate "a rooster crows, then rain falls"')
    texts = [text for item in wanted for text in (item.prompt, item.negative)]
    check_texts(texts)
    Sampling(**{"duration_s": 1.0, **making.asked})  # refuses nonsense before anything is loaded
    seed = 0 if making.seed is None and sound_list is not None else first_seed(making.seed)
    if judge is not None and best_of == 1:
        raise InputError("--judge: chooses among several, so it needs --best-of")
    if best_of > 1:
        if sound_list is not None:
            raise InputError("--best-of: goes with prompts, not with --list")
        rows = make_best(wanted, seed, best_of, judge or "nano-lalm", making)
        tell(rows, making.target, (*COLUMNS, "score", "others"))
        return
    sounds = plan_sounds(wanted, seed, making.target.output)
    kept = {} if sound_list is None else find_made(sounds, making)
    missing = [sound for sound in sounds if sound.path not in kept]
    check_outputs(missing, making.target)
    made = {}
    if missing:
        made = make_all(missing, from_words(load_for(missing, making)), making)
    if sound_list is None:
        tell(list(made.values()), making.target)
    else:
        draw_missing([sound for sound in sounds if sound.path in kept], making.target)
        say(f"{len(made)} made, {len(kept)} kept that existed")
        told = {path: (*row, "made") for path, row in made.items()} | kept
        tell([told[sound.path] for sound in sounds], making.target, (*COLUMNS, ""))


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what the shell passed on in another encoding.

    Raises:
        InputError: a text is not valid Unicode.
    """
    for text in texts:
        try:
            check_encodable(text)
        except ValueError as error:
            raise InputError(f"prompt {text!a}: not valid UTF-8") from error


def first_seed(seed: int | None) -> int:
    """The seed given, or a random one."""
    return secrets.randbelow(LARGEST_RANDOM_SEED) if seed is None else seed


def check_outputs(sounds: Batch, target: Target) -> None:
    """Find out before the work, not after it, that a file cannot be written.

    Raises:
        AudioError: a suffix stands for no format.
        InputError: there is no file to draw a picture beside.
        OutputError: a file exists and may not be replaced, or its folder cannot be written.
    """
    from resonate_audio.audio.io import check_output

    pictures = set[Path]()
    for sound in sounds:
        if sound.path == STDOUT:
            if target.spectrogram:
                raise InputError("--spectrogram: a picture lies beside a file; name one with -o")
            continue
        check_output(sound.path, target.overwrite)
        if target.spectrogram:
            picture = sound.path.with_suffix(".png")
            if picture.exists() and not target.overwrite:
                raise OutputError(f"{picture}: exists already; pass --overwrite to replace it")
            if picture in pictures:
                raise InputError(f"{picture}: would be the picture of two sounds; name them apart")
            pictures.add(picture)


def load(
    model: str,
    device: str | None,
    dtype: str | None,
    low_memory: bool = False,
    adapters: Sequence[str] = (),
    check: Check | None = None,
) -> Resonate:
    """Load a model, saying so: the big ones take a while.

    ``check`` is given its configuration first and may refuse what is asked of it.
    """
    from resonate_audio.pipeline.path import Resonate

    def begin(config: ModelConfig) -> None:
        if check is not None:
            check(config)
        say(f"loading {' with '.join((model, *adapters))}")

    return Resonate.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        low_memory=low_memory,
        adapters=adapters,
        on_config=begin,
    )


def load_as(loading: Loading, check: Check) -> Resonate:
    """Load the model that a command line asks for, unless it does not make what is asked."""
    dtype = loading.dtype and loading.dtype.value
    adapters = loading.adapter or []
    return load(loading.model, loading.device, dtype, loading.low_memory, adapters, check)


def say_what_is_cut(pipeline: Resonate, texts: Sequence[str]) -> None:
    """Tell which prompts are longer than the model reads; they are made from their beginning."""
    num_tokens = pipeline.config.text_encoder.num_tokens
    for text in pipeline.cut_prompts(list(dict.fromkeys(texts))):
        say(f"note: prompt cut at {num_tokens} tokens, the rest is not heard: {text[:50]}…")


def say_what_is_idle(pipeline: Resonate, wanted: Sequence[Wanted]) -> None:
    """Tell that a negative prompt has no effect, and what would give it one."""
    from resonate_audio.pipeline.request import idle_negative

    scales = [(x.negative, pipeline.config.sampling(**x.asked).guidance_scale) for x in wanted]
    told = [idle_negative([negative], scale) for negative, scale in scales]
    for text in dict.fromkeys(filter(None, told)):
        say(f"note: {text} (--guidance 4.5)")


def load_for(sounds: Batch, making: Making) -> Resonate:
    """Load the model, unless it does not make what is wanted, and say what it does not heed.

    Raises:
        InputError: a setting that it does not have, or a length that it does not make.
    """
    pipeline = load_as(making.loading, lambda config: check_sounds(config, sounds))
    wanted = [sound.wanted for sound in sounds]
    say_what_is_cut(pipeline, [text for item in wanted for text in (item.prompt, item.negative)])
    say_what_is_idle(pipeline, wanted)
    return pipeline


Check = Callable[["ModelConfig"], None]
"""Refuses what a model of this configuration does not make."""
Batch = Sequence[PlannedSound]
"""Sounds that are computed together."""
Way = Callable[[Batch, StepReport], list["Audio"]]
"""Computes a batch, telling its steps."""


def make_all(sounds: Batch, way: Way, making: Making) -> dict[Path, Row]:
    """Compute, finish and write sounds batch by batch, and say of each what was written."""
    rows = {}
    for sound, audio in each_made(sounds, way, making):
        write(sound, audio, making.target)
        rows[sound.path] = describe(sound, audio)
    return rows


def each_made(sounds: Batch, way: Way, making: Making) -> Iterator[tuple[PlannedSound, Audio]]:
    """Compute and finish sounds batch by batch, and give them one by one."""
    for label, batch in batches(sounds, making.loading.batch_size):
        yield from zip(batch, make(batch, way, label), strict=True)


def make_best(
    wanted: Sequence[Wanted], seed: int, best_of: int, judge: str, making: Making
) -> list[Row]:
    """Make several of each sound, write the one that a judge likes most, and say of it.

    Candidates of take k have the seeds of takes k, k + n, k + 2n, … of n, so none is made twice.

    Raises:
        ConfigError: there is no such judge.
        RewardError: it has no score for a sound.
    """
    from resonate_audio.pipeline.device import choose_device
    from resonate_audio.rewards.best import score_sound
    from resonate_audio.rewards.catalogue import open_reward, parse_specs

    parse_specs(judge)
    stride = making.takes * max(Counter(item.prompt for item in wanted).values())
    plans = [
        plan_sounds(wanted, seed + turn * stride, making.target.output) for turn in range(best_of)
    ]
    for plan in plans:
        check_outputs(plan, making.target)
    way = from_words(load_for(plans[0], making))
    reward = open_reward(judge, choose_device(making.loading.device))
    candidates = [sound for group in zip(*plans, strict=True) for sound in group]
    rows: list[Row] = []
    made = each_made(candidates, way, making)
    for group in zip(*[made] * best_of, strict=True):  # the candidates of one sound
        scores = [score_sound(reward, audio) for _, audio in group]
        best, chosen = group[scores.index(max(scores))]
        write(best, chosen, making.target)
        *others, highest = sorted(scores)
        spread = f"{others[0]:.3f} to {others[-1]:.3f}"
        rows.append((*describe(best, chosen), f"{highest:.3f}", spread))
    return rows


def find_made(sounds: Batch, making: Making) -> dict[Path, Row]:
    """Sounds that exist already and are kept: the row of each, and whether the list says so.

    Raises:
        AudioError: something else has the name of one.
    """
    from resonate_audio.audio.io import read_audio
    from resonate_audio.model.adapter import read_adapter
    from resonate_audio.pipeline.path import recorded_name

    there = [s for s in sounds if s.path != STDOUT and s.path.exists()]
    if making.target.overwrite or not there:
        return {}
    name = making.loading.model
    model, config = recorded_name(name), config_here(name)
    adapters = tuple(str(read_adapter(one)) for one in making.loading.adapter or ())
    rows = {}
    for sound in there:
        audio = read_audio(sound.path)
        is_same = is_of(audio.recipe, sound, model, adapters, config)
        state = "kept" if is_same else "kept; the list says otherwise"
        rows[sound.path] = (*describe(sound, audio), state)
    return rows


def config_here(model: str) -> ModelConfig | None:
    """Configuration of a model that is on this machine; None where it is not, or no longer."""
    from resonate_audio.model.folder import read_config
    from resonate_audio.model.hub import find_model

    try:
        return read_config(find_model(model, local_files_only=True))
    except ModelNotFoundError:
        return None


def draw_missing(kept: Batch, target: Target) -> None:
    """Draw the sounds that were there without a picture, where pictures are wanted."""
    from resonate_audio.audio.io import read_audio
    from resonate_audio.audio.spectrogram import write_spectrogram

    for sound in kept if target.spectrogram else ():
        picture = sound.path.with_suffix(".png")
        if not picture.exists():
            write_spectrogram(picture, read_audio(sound.path), sound.prompt)


def check_sounds(config: ModelConfig, sounds: Batch) -> None:
    """Refuse, before there are weights, what the model does not make.

    Raises:
        InputError: names the line.
    """
    from resonate_audio.core.edit import LONGEST_S
    from resonate_audio.pipeline.request import make_batch

    for sound in sounds:
        wanted, column = sound.wanted, ""
        try:
            make_batch(sound.prompt, wanted.negative, sound.seed)
            sampling = config.sampling(**wanted.asked)
            config.check_negative([wanted.negative])
            column = ", column duration"
            config.check_duration(sampling.duration_s, LONGEST_S)
        except InputError as error:
            place = f"{wanted.place}{column}: " if wanted.place else ""
            raise InputError(f"{place}{error}") from error


def batches(sounds: Batch, batch_size: int) -> Iterator[tuple[str, Batch]]:
    """Neighbours that one call can make, with what their progress is called."""
    start = 0
    for _, alike in groupby(sounds, key=_call):
        group = list(alike)
        for batch in (group[at : at + batch_size] for at in range(0, len(group), batch_size)):
            label = f"sounds {start + 1}-{start + len(batch)} of {len(sounds)}"
            yield (label if len(sounds) > 1 else batch[0].prompt), batch
            start += len(batch)


def _call(sound: PlannedSound) -> tuple[object, ...]:
    """What has to be equal for one call."""
    wanted = sound.wanted
    alone = (wanted.prompt, wanted.negative) if wanted.is_loop else None
    return wanted.asked, alone


def make(batch: Batch, way: Way, label: str) -> list[Audio]:
    """Compute and finish one batch, showing its steps."""
    from resonate_audio.audio.finish import finish_sound
    from resonate_audio.pipeline.request import RequestWarning

    with step_progress(label) as report, warnings.catch_warnings():
        warnings.simplefilter("ignore", RequestWarning)  # said once, before the first batch
        made = way(batch, report)
    finishes = [sound.wanted.finish for sound in batch]
    return [
        audio if finish is None else finish_sound(audio, finish)
        for audio, finish in zip(made, finishes, strict=True)
    ]


def from_words(pipeline: Resonate) -> Way:
    """Make sounds, or loops, from what they are said to be."""

    def way(batch: Batch, report: StepReport) -> list[Audio]:
        wanted, seeds = batch[0].wanted, [sound.seed for sound in batch]
        if wanted.is_loop:
            options = {**wanted.asked, "negative_prompt": wanted.negative, "on_step": report}
            return pipeline.loop(wanted.prompt, takes=len(seeds), seeds=seeds, **options)
        return pipeline.generate(
            [sound.prompt for sound in batch],
            negative_prompt=[sound.wanted.negative for sound in batch],
            seeds=seeds,
            on_step=report,
            batch_size=len(batch),
            **wanted.asked,
        )

    return way


def write(sound: PlannedSound, audio: Audio, target: Target) -> None:
    """Write one sound, and its picture when asked for."""
    from resonate_audio.audio.io import write_audio
    from resonate_audio.audio.spectrogram import write_spectrogram

    if sound.path == STDOUT:
        write_wav_out(audio)
        return
    write_audio(sound.path, audio, target.overwrite)
    if target.spectrogram:
        write_spectrogram(sound.path.with_suffix(".png"), audio, sound.prompt, target.overwrite)


Row = tuple[str, ...]
COLUMNS = ("file", "prompt", "length", "seed", "gain", "loudness")


def describe(sound: PlannedSound, audio: Audio) -> Row:
    """One row of the table of what was written."""
    recipe = audio.recipe
    gain = recipe.gain if recipe else 1.0
    return (
        str(sound.path),
        recipe.prompt if recipe else sound.prompt,
        f"{audio.duration_s:.2f} s",
        str(sound.seed),
        "1" if gain == 1.0 else f"{gain:.3f}",
        loudness_of(audio),
    )


def tell(rows: Sequence[Row], target: Target, columns: Row = COLUMNS) -> None:
    """Say what was written: on stdout, unless a sound went there."""
    if target.output != str(STDOUT):
        print_table(columns, rows)
        return
    for row in rows:
        say("  ".join(row))


def is_of(
    recipe: Recipe | None,
    sound: PlannedSound,
    model: str,
    adapters: tuple[str, ...],
    config: ModelConfig | None,
) -> bool:
    """Whether a sound is what a line of a list asks for, of whom.

    What the line leaves open is the model's own choice, where its configuration is known.
    """
    if recipe is None:
        return False
    wanted = sound.wanted
    settings = wanted.asked if config is None else config.sampling(**wanted.asked).model_dump()
    return (
        (recipe.model, recipe.adapters) == (model, adapters)
        and (recipe.prompt, recipe.negative_prompt, recipe.seed, recipe.finish)
        == (wanted.prompt, wanted.negative, sound.seed, wanted.finish)
        and (recipe.edit is not None) == wanted.is_loop
        and all(getattr(recipe, name) == value for name, value in settings.items())
    )


def loudness_of(audio: Audio) -> str:
    """Integrated loudness, said in LUFS."""
    import torch

    from resonate_audio.audio.loudness import SILENCE_LUFS, loudness_lufs

    lufs = float(loudness_lufs(torch.from_numpy(audio.samples)[None], audio.sample_rate_hz)[0])
    return "silent" if lufs <= SILENCE_LUFS else f"{lufs:.1f} LUFS"
