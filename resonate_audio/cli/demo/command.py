"""`resonate demo`: eight sounds, their pictures, and one page that plays them."""

from __future__ import annotations

import html
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.cli.demo.player import render_player, template
from resonate_audio.cli.generate import check_outputs, from_words, load, make, write
from resonate_audio.cli.naming import PlannedSound, Wanted, slug
from resonate_audio.cli.options import Asked, Device, Model, Target

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio
    from resonate_audio.pipeline.path import Resonate

DEFAULT_OUTPUT = Path("demo-output")
SOUNDS = (
    ("a dog barks several times", 1),
    ("rain falling", 2),
    ("a rooster crows", 3),
    ("thunder rumbling", 4),
    ("a clock ticking", 5),
    ("a piano plays a short melody", 6),
    ("rain falls while a dog barks", 7),
    ("a rooster crows, then a cow moos", 8),
)
"""Prompts and seeds: six single events, one mixture, one sequence."""


@dataclass(frozen=True)
class DemoSound:
    """One sound of the page with everything its card shows."""

    plan: PlannedSound
    audio: Audio

    @property
    def picture(self) -> Path:
        """The spectrogram beside the sound."""
        return self.plan.path.with_suffix(".png")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the sounds, pictures and page.")
    ] = DEFAULT_OUTPUT,
    model: Model = "nano",
    device: Device = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Solver steps.", show_default="the model's own"),
    ] = None,
    learn: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Steps of reinforcement, then a second page: the same noise before and after.",
        ),
    ] = 0,
) -> None:
    """Make eight sounds with the embedded model and a page that plays them.

    With --learn the model is then taught for so many steps by a judge that listens, and a second
    page plays each sound before and after: same words, same noise, other weights. 120 steps take
    about ten minutes on two cores. Earlier files are replaced.

    [bold]Examples[/bold]

      resonate demo --output demo-output

      resonate demo --learn 120
    """
    started_s = time.monotonic()
    target = Target(spectrogram=True, overwrite=True)
    asked = {} if steps is None else {"num_inference_steps": steps}
    plans = plan_page(output, asked)
    check_outputs(plans, target)
    pipeline = load(model, device, None)
    sounds = []
    made = make(plans, from_words(pipeline), "eight sounds")
    for plan, audio in zip(plans, made, strict=True):
        write(plan, audio, target)
        sounds.append(DemoSound(plan, audio))
    page = write_page(output / "index.html", sounds, model, time.monotonic() - started_s)
    rows = [(item.plan.prompt, str(item.plan.path), str(item.picture)) for item in sounds]
    print_table(("prompt", "sound", "picture"), rows)
    say(f"took {time.monotonic() - started_s:.0f} s")
    print_text(f"\nOpen the page:  {page.resolve().as_uri()}")
    if learn:
        page = learn_and_compare(output / "feedback", pipeline, model, steps, learn)
        say(f"took {time.monotonic() - started_s:.0f} s in all")
        print_text(f"\nBefore and after feedback:  {page.resolve().as_uri()}")


def plan_page(output: Path, asked: Asked) -> list[PlannedSound]:
    """The sounds of a page, with these settings."""
    return [
        PlannedSound(Wanted(text, asked=asked), seed, output / f"{slug(text)}.wav")
        for text, seed in SOUNDS
    ]


def learn_and_compare(
    output: Path, pipeline: Resonate, model: str, steps: int | None, num_steps: int
) -> Path:
    """Reinforce the model for a few steps; put its sounds before and after on one page.

    Without guidance, as it is taught: what guidance adds is not what training changed.
    """
    import shutil

    from resonate_audio.cli.demo.before_after import write_before_after
    from resonate_audio.cli.demo.teach import GUIDANCE, make_pairs, teach

    shutil.rmtree(output / "reinforcement", ignore_errors=True)
    say(f"\nteaching {model} for {num_steps} steps")
    taught = teach(model, output / "reinforcement", num_steps, say)
    plans = plan_page(output, {"num_inference_steps": steps, "guidance_scale": GUIDANCE})
    before, after = (
        make(plans, from_words(made_by), label)
        for made_by, label in (
            (pipeline, "sounds before"),
            (load(str(taught.model), None, None), "sounds after"),
        )
    )
    pairs = make_pairs(
        [plan.prompt for plan in plans], [plan.seed for plan in plans], before, after
    )
    title = "Sounds before and after feedback"
    return write_before_after(output, pairs, taught.curve, taught.scores, title)


def write_page(path: Path, sounds: Sequence[DemoSound], model: str, took_s: float) -> Path:
    """Write the page, sounds and pictures inside it, so that one file can be passed on.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    from resonate_audio.audio.io import write_bytes

    write_bytes(path, render_page(sounds, model, took_s).encode("utf-8"), overwrite=True)
    return path


def render_page(sounds: Sequence[DemoSound], model: str, took_s: float) -> str:
    """The page's HTML; every text that comes from outside is escaped."""
    from resonate_audio.core import page

    length_s = sum(item.audio.duration_s for item in sounds)
    example = (
        'resonate generate "a rooster crows, then rain falls" --spectrogram\n'
        "resonate studio      # in the browser: generate, compare, judge\n"
        "resonate generate --help"
    )
    cards = "\n".join(_render_card(item, model) for item in sounds)
    return page.render_page(
        title="sounds from sentences",
        headline="Sounds from sentences",
        summary=f"{len(sounds)} sounds, {length_s:.0f} seconds in all, made on this machine by "
        f"{model} in {took_s:.0f} seconds. Press play, or click into a picture.",
        body=template("demo.html").substitute(cards=cards, example=html.escape(example)),
    )


def _render_card(item: DemoSound, model: str) -> str:
    plan = item.plan
    command = ["resonate", "generate", plan.prompt, "--seed", str(plan.seed), "--model", model]
    return template("demo_card.html").substitute(
        player=render_player(plan.path, item.audio.duration_s, plan.prompt, plan.prompt),
        seed=plan.seed,
        rate=f"{item.audio.sample_rate_hz / 1000:g}",
        file=html.escape(plan.path.name),
        command=html.escape(shlex.join(command)),
    )
