"""A Gradio Space: describe a sound, hear takes, vary one, download it with its recipe inside.

``nano`` on the free CPU hardware; ``RESONATE_MODEL`` in the Space's variables names another, such
as ``resonate`` on a GPU.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from resonate_audio import Resonate, ResonateError, write_audio

MODEL = os.environ.get("RESONATE_MODEL", "nano")
MAX_TAKES = 4
EXAMPLES = ["a dog barks twice", "rain falls on leaves", "a steam train whistles", "a door slams"]


@cache
def model() -> Resonate:
    """The model, loaded when it is first needed and kept."""
    return Resonate.from_pretrained(MODEL)


def generate(
    prompt: str, seconds: float, seed: float, takes: float, progress: gr.Progress = gr.Progress()
) -> list[Any]:
    """Make takes; a file for each player, the rest hidden."""
    count = int(takes)

    def work() -> list[Any]:
        seeds = list(range(int(seed), int(seed) + count))
        return model().generate(
            [prompt] * count, duration_s=seconds, seeds=seeds, on_step=telling(progress)
        )

    return players(work)


def vary(
    source: str | None,
    prompt: str,
    strength: float,
    seed: float,
    takes: float,
    progress: gr.Progress = gr.Progress(),
) -> list[Any]:
    """Make sounds like an uploaded or recorded one."""
    if source is None:
        raise gr.Error("give a sound first")

    def work() -> list[Any]:
        return model().vary(
            Path(source),
            strength,
            prompt or None,
            takes=int(takes),
            seeds=int(seed),
            on_step=telling(progress),
        )

    return players(work)


def telling(progress: gr.Progress) -> Any:
    """What a generation calls after each step."""
    return lambda done, total: progress((done, total), unit="steps") is not False


def players(work: Any) -> list[Any]:
    """The sounds of some work as files for the players; a mistake of the user's is one line."""
    try:
        sounds = work()
    except ResonateError as error:
        raise gr.Error(str(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="resonate-"))
    files = []
    for number, sound in enumerate(sounds, 1):
        path = folder / f"take-{number}.flac"
        write_audio(path, sound)
        files.append(str(path))
    shown = [gr.Audio(value=file, visible=True) for file in files]
    return shown + [gr.Audio(value=None, visible=False)] * (MAX_TAKES - len(shown))


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="Resonate Audio") as page:
        gr.Markdown("# Resonate Audio\nSounds, not speech, from a short description.")
        with gr.Row():
            seed = gr.Number(7, label="Seed", precision=0, minimum=0)
            takes = gr.Slider(1, MAX_TAKES, 2, step=1, label="Takes")
        with gr.Tab("Make"):
            prompt = gr.Textbox(EXAMPLES[0], label="What to hear")
            gr.Examples(EXAMPLES, prompt)
            seconds = gr.Slider(0.5, 10, 4, step=0.5, label="Seconds")
            make = gr.Button("Make", variant="primary")
        with gr.Tab("Vary"):
            source = gr.Audio(type="filepath", label="A sound")
            wish = gr.Textbox("", label="What to hear (may stay empty)")
            strength = gr.Slider(0, 1, 0.6, step=0.05, label="Strength: 0 keeps it, 1 is free")
            again = gr.Button("Vary", variant="primary")
        sounds = [
            gr.Audio(label=f"Take {number + 1}", visible=number == 0, interactive=False)
            for number in range(MAX_TAKES)
        ]
        make.click(generate, [prompt, seconds, seed, takes], sounds, api_name="generate")
        again.click(vary, [source, wish, strength, seed, takes], sounds, api_name="vary")
    return page


if __name__ == "__main__":
    build().queue(max_size=16).launch()
