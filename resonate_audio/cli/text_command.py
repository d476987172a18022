"""Commands whose arguments are texts: ``"-5 dB hiss"`` is one, and no option."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

_MARK = "\ue000"
"""Put before a text while options are looked for; no text of ours begins with it."""


class TextCommand(TyperCommand):
    """A command that takes a hyphen with blanks behind it for the beginning of a text.

    No option has a blank in its name, so nothing is lost; a text without blanks needs ``--``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line whose texts are hidden from the search for options."""
        try:
            left = super().parse_args(ctx, [_MARK + a if is_text(a) else a for a in args])
        except Exception as error:
            for name in ("message", "option_name"):
                if isinstance(told := getattr(error, name, None), str):
                    setattr(error, name, told.replace(_MARK, ""))
            raise
        ctx.params = {name: _unmarked(value) for name, value in ctx.params.items()}
        return [_unmarked(one) for one in left]


def is_text(argument: str) -> bool:
    """Whether an argument begins like an option and can be none."""
    name = argument.partition("=")[0]
    return argument.startswith("-") and any(sign.isspace() for sign in name)


def _unmarked(value: Any) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value.replace(_MARK, "")
    if isinstance(value, Path):
        return type(value)(str(value).replace(_MARK, ""))
    return type(value)(map(_unmarked, value)) if isinstance(value, list | tuple) else value
