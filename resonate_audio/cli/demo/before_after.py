"""The page that lets one hear what reinforcement did: the same noise, before and after."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resonate_audio.cli.demo.player import render_player, template
from resonate_audio.cli.generate import write
from resonate_audio.cli.naming import PlannedSound, Wanted, slug
from resonate_audio.cli.options import Target
from resonate_audio.core.charts import Chart, Line, Points, render_chart
from resonate_audio.core.errors import InputError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.page import (
    format_number,
    read_asset,
    render_page,
    render_table,
)

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio


@dataclass(frozen=True)
class JudgedSound:
    """A sound and what both judges say of it."""

    audio: Audio
    training: float
    """Score of the judge that the model was trained on."""
    held_out: float
    """Score of the judge that no training used."""


@dataclass(frozen=True)
class SoundPair:
    """One prompt and seed, before and after: the noise is the same, only the weights differ."""

    prompt: str
    seed: int
    before: JudgedSound
    after: JudgedSound


@dataclass(frozen=True)
class RewardCurve:
    """How the training went, by step."""

    judge: str
    """Whose scores were the reward."""
    held_out_judge: str
    rewards: Points
    spread: Points = ()
    """Standard deviation among the takes of a prompt."""
    held_out: Points = ()


@dataclass(frozen=True)
class MeanScore:
    """A judge's mean over all pairs, with an interval for the mean change."""

    judge: str
    before: float
    after: float
    low: float
    """Lower end of the 95 % paired bootstrap interval of the change."""
    high: float
    trained_on: bool = False

    @property
    def change(self) -> float:
        """Mean of after − before."""
        return self.after - self.before


def write_before_after(
    folder: Path,
    pairs: Sequence[SoundPair],
    curve: RewardCurve,
    scores: Sequence[MeanScore],
    title: str,
) -> Path:
    """Write sounds, pictures and ``index.html``, which holds them all, so it can be passed on.

    Args:
        folder: where to; earlier files of the same names are replaced.
        pairs: the sounds.
        curve: the training's rewards.
        scores: means over the pairs or over a larger set of the same kind.
        title: headline, plain text.

    Returns:
        The page.

    Raises:
        InputError: there is no pair.
        OutputError: a file cannot be written, or the disk is full.
    """
    if not pairs:
        raise InputError("no pair of sounds to compare; expected one or more")
    cards = "".join(_pair_card(folder, number, pair) for number, pair in enumerate(pairs, 1))
    text = _render(cards, pairs, curve, scores, title)
    with atomic_path(folder / "index.html") as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
    return folder / "index.html"


def tell_story(pairs: Sequence[SoundPair], curve: RewardCurve) -> str:
    """What was done, in plain words."""
    num_steps = curve.rewards[-1][0] if curve.rewards else 0
    steps = f"for {num_steps} steps" if num_steps else "for a while"
    num_prompts = len({pair.prompt for pair in pairs})
    return (
        f"The model practised {steps}: it made several takes of each prompt, the judge "
        f"{curve.judge} scored them, and the weights moved a little towards what it preferred. "
        f"Then {_count(len(pairs), 'sound')} for {_count(num_prompts, 'prompt')} were made twice "
        "from the same noise: with the weights from before, and with those from after, with no "
        "guidance added, as it was taught. What "
        "differs within a pair is what training changed. The judge "
        f"{curve.held_out_judge} took no part in training: if only {curve.judge} is happier, the "
        "model may have learnt that judge's weaknesses and not better sound."
    )


def judge_change(score: MeanScore) -> str:
    """What one judge's interval says, in plain words."""
    role = "the judge trained on" if score.trained_on else "not trained on"
    who = f"{score.judge} ({role})"
    if score.low <= 0 <= score.high:
        return f"{who}: no change that these sounds can show."
    direction = "higher" if score.low > 0 else "lower"
    return f"{who}: {direction} after training, by more than chance explains."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def _render(
    cards: str,
    pairs: Sequence[SoundPair],
    curve: RewardCurve,
    scores: Sequence[MeanScore],
    title: str,
) -> str:
    body = template("before_after.html").substitute(
        story=html.escape(tell_story(pairs, curve)),
        scores=_score_table(scores),
        verdicts="".join(f"<li>{html.escape(judge_change(score))}</li>" for score in scores),
        cards=cards,
        charts="".join(render_chart(chart) for chart in _charts(curve)),
    )
    style = template("before_after.css").template
    return render_page(
        title=title,
        headline=title,
        summary="The same noise before and after reinforcement, side by side.",
        body=body,
        style=read_asset("charts.css") + style,
        script=read_asset("charts.js"),
    )


def _charts(curve: RewardCurve) -> list[Chart]:
    """Reward and held-out score above each other, on one axis of steps."""
    steps = [step for step, _ in curve.rewards + curve.held_out]
    span = (min(steps), max(steps)) if steps else None
    note = "The band is one standard deviation among the takes of a prompt."
    reward = Line("reward", curve.rewards, curve.spread)
    held_out = Line("score", curve.held_out)
    return [
        Chart(
            f"Training reward: {curve.judge}",
            (reward,),
            note=note if curve.spread else "",
            wide=True,
            steps=span,
        ),
        Chart(f"Held-out judge: {curve.held_out_judge}", (held_out,), wide=True, steps=span),
    ]


def _score_table(scores: Sequence[MeanScore]) -> str:
    columns = ["judge", "before", "after", "change", "95 % interval"]
    rows = [
        [
            score.judge,
            format_number(score.before),
            format_number(score.after),
            _signed(score.change),
            f"{_signed(score.low)} to {_signed(score.high)}",
        ]
        for score in scores
    ]
    return render_table(columns, rows, "Mean scores before and after")


def _signed(value: float) -> str:
    return "+" * (value > 0) + format_number(value)


def _pair_card(folder: Path, number: int, pair: SoundPair) -> str:
    sides = "".join(
        _side(folder / f"{number:02d}-{slug(pair.prompt)}-{pair.seed}-{when}.flac", pair, when)
        for when in ("before", "after")
    )
    changes = [
        f"{judge} {_signed(after - before)}"
        for judge, before, after in (
            ("training judge", pair.before.training, pair.after.training),
            ("held-out judge", pair.before.held_out, pair.after.held_out),
        )
    ]
    return template("before_after_pair.html").substitute(
        prompt=html.escape(pair.prompt),
        seed=pair.seed,
        changes="".join(f"<span>{html.escape(change)}</span>" for change in changes),
        sides=sides,
    )


def _side(path: Path, pair: SoundPair, when: str) -> str:
    """Write one sound with its picture, and show it."""
    sound = pair.before if when == "before" else pair.after
    plan = PlannedSound(Wanted(pair.prompt), pair.seed, path)
    write(plan, sound.audio, Target(spectrogram=True, overwrite=True))
    label = f"{pair.prompt}, {when}"
    return template("before_after_side.html").substitute(
        player=render_player(path, sound.audio.duration_s, when.capitalize(), label, "h4"),
        file=html.escape(path.name),
        training=format_number(sound.training),
        held_out=format_number(sound.held_out),
    )
