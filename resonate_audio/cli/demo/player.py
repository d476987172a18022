"""What the demo's pages have in common: a sound with its picture, a play button and a clock."""

from __future__ import annotations

import html
import io
from importlib.resources import files
from pathlib import Path
from string import Template


def render_player(
    path: Path, duration_s: float, title: str, label: str, heading: str = "h2"
) -> str:
    """The inside of an element of class ``player``; sound and picture are within the page.

    Args:
        path: the sound; beside it its picture, as `write_spectrogram` draws it.
        duration_s: how long it is.
        title: above the picture, plain text.
        label: what is heard, plain text, for those who do not see the picture.
        heading: HTML element of the title.
    """
    from resonate_audio.audio.spectrogram import DATA_LEFT, DATA_WIDTH
    from resonate_audio.core.page import data_url, play_button

    return template("player.html").substitute(
        button=play_button(label),
        heading=heading,
        title=html.escape(title),
        label=html.escape(label),
        duration=f"{duration_s:.1f}",
        picture=data_url("image/webp", _compressed(path.with_suffix(".png"))),
        data_left=DATA_LEFT,
        data_width=DATA_WIDTH,
        sound=data_url(f"audio/{path.suffix[1:]}", path.read_bytes()),
        file=html.escape(path.name),
    )


def template(name: str) -> Template:
    """A piece of HTML or a style sheet that lies beside the commands."""
    return Template((files("resonate_audio.cli.demo") / name).read_text(encoding="utf-8"))


def _compressed(picture: Path) -> bytes:
    """The picture as WebP: a fifth of the bytes for the same look."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(picture).convert("RGB").save(buffer, format="webp", quality=82)
    return buffer.getvalue()
