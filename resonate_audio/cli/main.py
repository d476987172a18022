"""The `resonate` command: one file per sub-command, one line per mistake, exit codes.

Exit codes: 0 done · 1 done, and the answer is no (a check failed, a replay differs) · 2 the
caller can fix it (one line on stderr says how) · 130 interrupted.
"""

from __future__ import annotations

import ctypes
import errno
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any

import typer

from resonate_audio.cli import (
    convert,
    doctor,
    edit,
    generate,
    keys,
    listen,
    models,
    play,
    replay,
    reward,
    serve,
    studio,
    train,
)
from resonate_audio.cli.console import LONGEST, prepare_streams, print_text, say
from resonate_audio.cli.data import app as data
from resonate_audio.cli.demo import command as demo
from resonate_audio.cli.evaluate import app as evaluate
from resonate_audio.cli.mcp import command as mcp
from resonate_audio.cli.options import with_given_paths
from resonate_audio.cli.text_command import TextCommand
from resonate_audio.core.errors import ResonateError
from resonate_audio.core.files import NO_ROOM
from resonate_audio.core.text import one_line

# The class is public only as the parent of BadParameter, here and in older typers.
UsageError: Any = typer.BadParameter.__bases__[0]
OF_THE_DISK = NO_ROOM | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG}
"""What the caller can mend, whichever library met it."""
_NO_INTEGER = re.compile("Input should be a valid integer, unable to parse string as an integer")
_NO_NUMBER = re.compile("Input should be a valid number, unable to parse string as a number")
"""What newer typers say of an option that is no number, in pydantic's words."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
INSIST_S = 1.0
"""How long after an interrupt the command must be on its way out."""

app = typer.Typer(
    name="resonate",
    help="Text in, sound out; and a generator that learns from feedback.",
    epilog='Start with:  resonate generate "a rooster crows, then rain falls"',
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print_text(f"resonate {version('resonate-audio')}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Text in, sound out; and a generator that learns from feedback."""


app.command(cls=TextCommand)(generate.generate)
app.command()(edit.vary)
for _way in (edit.reword, edit.replace, edit.extend, edit.loop, edit.sequence):
    app.command(cls=TextCommand)(_way)
app.command()(replay.replay)
app.command()(play.play)
app.command()(convert.convert)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(reward.reward)
app.command()(serve.serve)
app.command()(studio.studio)
app.command()(mcp.mcp)
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="eval")
app.add_typer(listen.app, name="listen")
app.add_typer(keys.app, name="keys")


def unwrapped(text: str) -> str:
    """A docstring whose paragraphs are lines, for a terminal of any width; examples stay apart."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.cleandoc(text))


def _take_given_paths(commands: typer.Typer) -> None:
    """Let every command take its paths as `given_path` reads them, those of groups, too."""
    for info in commands.registered_commands:
        if info.callback:
            info.help = info.help or unwrapped(info.callback.__doc__ or "")
            info.callback = with_given_paths(info.callback)
    for group in commands.registered_groups:
        _take_given_paths(group.typer_instance) if group.typer_instance else None


_take_given_paths(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; user mistakes become one stderr line."""
    try:
        result = app(args=list(arguments), standalone_mode=False)
    except UsageError as error:
        return _show_usage(error)
    except ResonateError as error:
        return _fail(str(error), code=2)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except OSError as error:
        return _show_lost_output(error)
    if result == INTERRUPTED:  # newer typers catch the interrupt and return this
        return _fail("interrupted; files that were finished are kept", code=INTERRUPTED)
    return result if isinstance(result, int) else 0


def main() -> None:
    """The whole of the `resonate` script: a command line, and the exit code of the process."""
    prepare_streams()
    code = _run_interruptibly(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _show_lost_output(error)
    sys.exit(code)


def _run_interruptibly(arguments: Sequence[str]) -> int:
    """Run a command line; after Ctrl-C whatever goes wrong is put down to that.

    A library that is loaded or called when the interrupt comes may turn it into another error, or
    print it as one that nobody could catch, or drop it.
    """
    is_over, has_ended = threading.Event(), threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if is_over.is_set():  # a second one: nobody has time
            os._exit(INTERRUPTED)
        is_over.set()
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        threading.Thread(target=_insist, args=(has_ended,), daemon=True).start()
        raise KeyboardInterrupt

    with suppress(ValueError):  # not the main thread: the caller has the signals
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
    try:
        os.getcwd()
        return run(arguments)
    except FileNotFoundError as error:
        if error.filename is None and not _is_there():
            return _fail("the folder that you are in is gone; change into another one", code=2)
        raise
    except BaseException:
        if is_over.is_set():
            return _fail("interrupted; files that were finished are kept", code=INTERRUPTED)
        raise
    finally:
        has_ended.set()


def _insist(has_ended: threading.Event) -> None:
    """Interrupt again where that was dropped, as callbacks of the import system do.

    While the main thread handles an exception it is on its way out, and is left in peace.
    """
    main = threading.main_thread().ident
    while main is not None and not has_ended.wait(INSIST_S):
        if sys._current_exceptions().get(main) in (None, (None, None, None)):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(main), ctypes.py_object(KeyboardInterrupt)
            )


def _is_there() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _show_lost_output(error: OSError) -> int:
    """What was said could not be written: its reader went away, or its disk is full.

    Raises:
        OSError: it is an error of another kind.
    """
    if isinstance(error, BrokenPipeError):  # `resonate models | head -1`: not an error
        _drop_output()
        return 0
    if error.errno in NO_ROOM and error.filename is None:
        _drop_output()
        return _fail("the disk is full where the output goes; the rest of it is lost", code=2)
    if error.errno in OF_THE_DISK:  # written by a library, and not through our own door
        return _fail(f"{error.filename or 'a file'}: {error.strerror}", code=2)
    raise error


def _drop_output() -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    if type(error).__name__ == "NoSuchOption":
        where += "; put -- before a text that begins with a hyphen"
    message = _NO_INTEGER.sub("expected a whole number", error.format_message())
    message = _NO_NUMBER.sub("expected a number", message)
    return _fail(one_line(message, LONGEST // 2) + where, code=2)


def _fail(message: str, code: int) -> int:
    say(f"resonate: {one_line(message, LONGEST // 2)}")
    return code


if __name__ == "__main__":
    main()
