"""The `resonate` command, also as ``python -m resonate_audio``, for launchers such as torchrun."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Run a command line; Ctrl-C ends it in one line even while its parts are being loaded."""
    before = signal.signal(signal.SIGINT, _leave)
    from resonate_audio.cli.main import main as run_command

    signal.signal(signal.SIGINT, before)
    run_command()


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: a library that is interrupted while it loads may raise anything, or abort."""
    os.write(2, b"resonate: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
