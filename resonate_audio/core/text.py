"""Words from elsewhere as they may be shown: on a terminal, in a log, in an answer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

LONGEST = 500
"""Signs of a message; what is longer is cut in its middle, where it says least."""
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls of a terminal (ESC, CSI, …), line ends that no editor shows, signs that turn the
direction of reading, and halves of surrogate pairs, which cannot be encoded."""
_CUT = " … "


def check_encodable(text: str) -> None:
    """Refuse what JSON can say and nothing can write.

    Raises:
        ValueError: it holds half of a surrogate pair.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("holds half of a surrogate pair, which is no text")


def visible(text: str, longest: int | None = LONGEST) -> str:
    r"""A text without signs that act instead of being read; each stands as its code, like ``\x1b``.

    Args:
        text: anything; tabs and line feeds are kept.
        longest: signs to keep; None keeps all.
    """
    shown = _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], shortened(text, longest))
    return shortened(shown, longest)


def one_line(text: str, longest: int | None = LONGEST) -> str:
    """The same without line breaks and runs of blanks."""
    return visible(" ".join(shortened(text, 4 * longest if longest else None).split()), longest)


def visible_json(text: str) -> str:
    """JSON in which those signs, which it would allow, are written as its own escapes."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, longest: int | None) -> str:
    """A text of at most so many signs: beginning and end, the middle left out."""
    if longest is None or len(text) <= longest:
        return text
    rest = longest - len(_CUT)
    return text[: rest - rest // 3] + _CUT + text[len(text) - rest // 3 :]


def suggest(name: str, known: Sequence[str]) -> str:
    """What was meant by a name that is not known, or else what is."""
    near = difflib.get_close_matches(name[:100].lower(), known, 1, 0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(known)}" if known else "there is no such field"
