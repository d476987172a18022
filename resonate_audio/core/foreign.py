"""Code of other people: it may raise, exit or panic as it likes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from resonate_audio.core.errors import ResonateError


@contextmanager
def foreign_code(what: str, error: type[ResonateError]) -> Iterator[None]:
    """Run what somebody else wrote: whatever it raises, exits with or panics of is one error.

    Interrupts and our own errors pass.

    Raises:
        ResonateError: of the type ``error``, beginning with ``what``.
    """
    try:
        yield
    except (ResonateError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as failure:
        if type(failure).__name__ == "CancelledError":
            raise
        text = str(failure).encode("utf-8", "backslashreplace").decode()
        reason = " ".join(text.split())[:200]
        raise error(f"{what}: {type(failure).__name__}: {reason}") from failure
