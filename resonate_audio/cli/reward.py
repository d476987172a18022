"""`resonate reward`: sound files and their texts in, scores out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonate_audio.cli.console import print_as_json, print_table, say
from resonate_audio.cli.generate import check_texts
from resonate_audio.cli.options import Device, PromptsFile
from resonate_audio.core.errors import InputError, NoAnswerError, RewardError

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio, Rewards
    from resonate_audio.rewards.base import Reward


@dataclass(frozen=True)
class Clip:
    """One sound file and the text it is judged by."""

    path: Path
    prompt: str
    audio: Audio


@dataclass(frozen=True)
class Verdict:
    """What the judges say of one clip."""

    clip: Clip
    judge: str
    total: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A clip that has no score, and why."""

    clip: Clip
    reason: str


def reward(
    clips: Annotated[
        list[Path], typer.Argument(metavar="CLIP...", help="Sound files of any rate and length.")
    ],
    judge: Annotated[
        str,
        typer.Option(
            "--judge",
            "-j",
            help="One or more: nano-lalm, clap, aqa:MODEL, 0.5*nano-clap, my_module:function.",
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            help="What every clip should be.",
            show_default="what the file says it was made from",
        ),
    ] = None,
    prompts_file: PromptsFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Device = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, max=1_000_000, help="Seconds that a judge has for clips of one length."
        ),
    ] = 3600.0,
) -> None:
    """Score sounds as a judge in training would.

    [bold]Examples[/bold]

      resonate reward dog.wav --judge nano-lalm --prompt "a dog barks twice"

      resonate reward dog.flac --judge clap

      resonate reward takes/*.flac --judge "aqa:Qwen/Qwen2.5-Omni-7B,0.5*my_module:function"
    """
    from resonate_audio.pipeline.device import choose_device
    from resonate_audio.rewards.catalogue import open_reward

    given = read_clips(clips, prompt, prompts_file)
    judges = open_reward(judge, choose_device(device), timeout)
    verdicts, failed = score_clips(judges, given)
    if not verdicts:
        raise RewardError(f"no clip could be scored; {failed[0].clip.path}: {failed[0].reason}")
    print_json(verdicts, failed) if as_json else print_verdicts(verdicts)
    for one in failed:
        say(f"{one.clip.path}: not scored: {one.reason}")
    if failed:
        raise typer.Exit(1)


def read_clips(paths: Sequence[Path], prompt: str | None, prompts_file: Path | None) -> list[Clip]:
    """Read the sounds and find a text for each.

    Raises:
        AudioError: a file is not audio.
        InputError: both kinds of prompts, another number of them than of clips, or a clip without.
    """
    from resonate_audio.audio.io import read_audio
    from resonate_audio.data.prompts import read_prompts

    if prompt is not None and prompts_file is not None:
        raise InputError("both --prompt and --prompts are given; expected one of them")
    if prompt is not None and not prompt.strip():
        raise InputError("--prompt is empty; say what to hear")
    texts: Sequence[str | None] = [prompt] * len(paths)
    if prompts_file is not None:
        texts = read_prompts(prompts_file)
        if len(texts) != len(paths):
            raise InputError(f"{prompts_file}: {len(texts)} prompts for {len(paths)} clips")
    check_texts([text for text in texts if text is not None])
    given = []
    for path, text in zip(paths, texts, strict=True):
        audio = read_audio(path)
        given.append(Clip(path, find_prompt(path, audio) if text is None else text, audio))
    return given


def find_prompt(path: Path, audio: Audio) -> str:
    """The text that a file of ours says it was made from.

    Raises:
        InputError: it says nothing.
    """
    from resonate_audio.audio.io import read_recipe

    recipe = audio.recipe or read_recipe(path)  # says it where a recipe is there, but damaged
    if recipe is None:
        raise InputError(f"{path}: does not say what it was made from; give --prompt or --prompts")
    return recipe.prompt


def score_clips(judges: Reward, clips: Sequence[Clip]) -> tuple[list[Verdict], list[Failed]]:
    """Score clips, those of one rate and length together: padding would change scores.

    A clip that cannot be scored costs the others nothing.
    """
    kinds: dict[tuple[int, int], list[int]] = {}
    for index, clip in enumerate(clips):
        kind = (clip.audio.sample_rate_hz, len(clip.audio.samples))
        kinds.setdefault(kind, []).append(index)
    found: dict[int, Verdict | Failed] = {}
    with notes_of_warnings(), redirect_stdout(sys.stderr):  # results alone go to the output
        for indices in kinds.values():
            found |= dict(
                zip(indices, score_kind(judges, [clips[i] for i in indices]), strict=True)
            )
    ordered = [found[index] for index in range(len(clips))]
    return (
        [one for one in ordered if isinstance(one, Verdict)],
        [one for one in ordered if isinstance(one, Failed)],
    )


def score_kind(judges: Reward, clips: Sequence[Clip]) -> list[Verdict | Failed]:
    """Score clips of one rate and length together; one by one where a judge refuses them so.

    A judge that refuses several and takes each of them is at fault itself: none has a score.
    """
    try:
        rewards = score_alike(judges, clips)
    except RewardError as error:
        refused = [Failed(clip, str(error)) for clip in clips]
        if len(clips) == 1 or isinstance(error, NoAnswerError):
            return [*refused]
        found = [one for clip in clips for one in score_kind(judges, [clip])]
        return found if any(isinstance(one, Failed) for one in found) else [*refused]
    return [
        Verdict(
            clip,
            rewards.judge,
            float(rewards.total[row]),
            {name: float(part[row]) for name, part in rewards.parts.items()},
        )
        for row, clip in enumerate(clips)
    ]


def score_alike(judges: Reward, clips: Sequence[Clip]) -> Rewards:
    """Score clips of one rate and length."""
    from resonate_audio.rewards.desk import score_sounds

    return score_sounds(judges, [clip.audio for clip in clips], [clip.prompt for clip in clips])


@contextmanager
def notes_of_warnings() -> Iterator[None]:
    """What judges warn of, once each, as plain lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        say(f"note: {message}")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """A row for each clip: its score, and the parts that do not repeat it."""
    names = dict.fromkeys(
        name for one in verdicts for name, value in one.parts.items() if value != one.total
    )
    print_table(
        ("clip", "prompt", "score", *names),
        [
            (
                str(verdict.clip.path),
                verdict.clip.prompt,
                f"{verdict.total:.4f}",
                *(f"{verdict.parts[n]:.4f}" if n in verdict.parts else "" for n in names),
            )
            for verdict in verdicts
        ],
    )


def print_json(verdicts: Sequence[Verdict], failed: Sequence[Failed] = ()) -> None:
    """A list with an object for each clip."""
    listed: list[dict[str, Any]] = [
        {
            "clip": str(verdict.clip.path),
            "prompt": verdict.clip.prompt,
            "score": verdict.total,
            "parts": verdict.parts,
            "judge": verdict.judge,
        }
        for verdict in verdicts
    ]
    listed += [
        {
            "clip": str(one.clip.path),
            "prompt": one.clip.prompt,
            "score": None,
            "error": one.reason,
        }
        for one in failed
    ]
    print_as_json(listed)
