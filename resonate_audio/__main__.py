"""The `resonate` command, also as ``python -m resonate_audio``, for launchers such as torchrun."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


SPINS = 3000
"""Turns for which an OpenMP thread that has nothing to do keeps its core before it sleeps."""


def main() -> None:
    """Run a command line; Ctrl-C ends it in one line even while its parts are being loaded."""
    share_cores()
    before = signal.signal(signal.SIGINT, _leave)
    from resonate_audio.cli.main import main as run_command

    signal.signal(signal.SIGINT, before)
    run_command()


def share_cores() -> None:
    """Let threads of OpenMP sleep soon, so that several commands can run at once.

    Each brings a team of as many threads as there are cores, and one that waits for the rest of
    its team keeps its core for 300,000 turns: two commands side by side took four times as long
    as one (docs/speed.md). Read when PyTorch is loaded; what the environment says of it counts.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: a library that is interrupted while it loads may raise anything, or abort."""
    os.write(2, b"resonate: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
