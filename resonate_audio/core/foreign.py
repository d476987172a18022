"""Code of other people: it may raise, exit or panic as it likes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resonate_audio.core.errors import CheckpointError, ResonateError


@contextmanager
def foreign_code(what: str, error: type[ResonateError]) -> Iterator[None]:
    """Run what somebody else wrote: whatever it raises, exits with or panics of is one error.

    Interrupts and our own errors pass, and so does that the task that runs it was cancelled.

    Raises:
        ResonateError: of the type ``error``, beginning with ``what``.
    """
    try:
        yield
    except (ResonateError, KeyboardInterrupt, GeneratorExit):
        raise
    except (asyncio.CancelledError, concurrent.futures.CancelledError) as failure:
        if _task_is_cancelled():
            raise
        raise error(f"{what}: a part of it was cancelled") from failure
    except BaseException as failure:
        text = str(failure).encode("utf-8", "backslashreplace").decode()
        reason = " ".join(text.split())[:200]
        raise error(f"{what}: {type(failure).__name__}: {reason}") from failure


def _task_is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # this thread has no event loop
        return False
    return task is not None and task.cancelling() > 0


@contextmanager
def quiet_loading(folder: Path) -> Iterator[None]:
    """Load from ``folder`` without progress bars, notes or warnings, and name it when that fails.

    Raises:
        CheckpointError: a file is missing, broken, or of another kind of model.
    """
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            foreign_code(f"{folder}: cannot be loaded", CheckpointError),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
