"""One look for every page we write: a single HTML file that needs nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import math
from importlib.resources import files
from string import Template

PLAY_ICON = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="go" d="M8 5.2v13.6L19 12z"/>'
    '<path class="stop" d="M7 5h3.6v14H7zM13.4 5H17v14h-3.6z"/></svg>'
)


def render_page(
    title: str, headline: str, summary: str, body: str, style: str = "", script: str = ""
) -> str:
    """A whole page around ``body``, light or dark as the reader's system is.

    An element of class ``player`` that holds an ``audio``, a button of class ``play``, a range of
    class ``seek`` and a ``clock`` is brought to life; only one of them plays at a time.

    Args:
        title: after the product's name in the tab, plain text.
        headline: plain text.
        summary: plain text under the headline.
        body: HTML; whoever makes it escapes what comes from outside.
        style: CSS beside the page's own.
        script: JavaScript after the page's own.
    """
    texts = {"title": title, "headline": headline, "summary": summary}
    escaped = {name: html.escape(text) for name, text in texts.items()}
    style, script = read_asset("page.css") + style, read_asset("page.js") + script
    page = Template(read_asset("page.html"))
    return page.substitute(escaped, body=body, style=style, script=script)


def read_asset(name: str) -> str:
    """A style sheet, script or template that lies beside this module."""
    return (files("resonate_audio.core") / name).read_text(encoding="utf-8")


def play_button(label: str) -> str:
    """The round button of a player; ``label`` is plain text and says what is heard."""
    return (
        f'<button class="play" type="button" aria-label="Play: {html.escape(label)}" '
        f'aria-pressed="false">{PLAY_ICON}</button>'
    )


def render_table(columns: list[str], rows: list[list[str]], caption: str) -> str:
    """A table of plain texts that scrolls sideways where it is too wide.

    The first cell of a row is its heading; all others stand to the right, as numbers do.
    """
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    label = html.escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<caption>{label}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def anchor(title: str) -> str:
    """What links call the section of a title."""
    return title.lower().replace(" ", "-")


def data_url(kind: str, data: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def format_number(value: float) -> str:
    """Four digits, with a real minus sign: 0.4312, 1250, −23.1, 3.2e−5."""
    if not math.isfinite(value):
        return "not finite"
    return tidy_number(f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}")


def tidy_number(text: str) -> str:
    """Digits of a number as they are printed in books: 1e-05 becomes 1e−5."""
    short = text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return short.replace("-", "\N{MINUS SIGN}")
