"""UTF-8 files, whole or line by line: regular files only, of limited size."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from resonate_audio.core.errors import ManifestError, ResonateError
from resonate_audio.core.files import open_regular

MAX_BYTES = 1 << 28
"""Of a document that is read whole: 256 MiB."""
MAX_LINE_BYTES = 1 << 24
"""Of one line of a document that is read line by line: 16 MiB."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STDIN = Path("-")
"""Stands for what is piped into a command."""

ErrorType = type[ResonateError]


def read_bytes(path: Path, error: ErrorType = ManifestError, max_bytes: int = MAX_BYTES) -> bytes:
    """All bytes of a regular file, or of the standard input for ``-``.

    Raises:
        ResonateError: of the type ``error``; the file cannot be read, is no regular file, or is
            larger than ``max_bytes``.
    """
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with open_regular(path) as file:
                data = file.read(max_bytes + 1)
    except OSError as failure:
        raise error(f"{path}: cannot read it ({failure.strerror or failure})") from failure
    if len(data) > max_bytes:
        raise error(f"{path}: over {max_bytes:,} bytes, the most that is read of such a file")
    return data


def read_text(path: Path, error: ErrorType = ManifestError, max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 file, without its byte order mark.

    Raises:
        ResonateError: of the type ``error``; as for `read_bytes`, or it is not UTF-8, or holds a
            NUL; names the line.
    """
    data = read_bytes(path, error, max_bytes).removeprefix(BYTE_ORDER_MARK)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as failure:
        before = data[: failure.start]
        line = data[before.rfind(b"\n") + 1 :].split(b"\n", 1)[0]
        text = decode_line(line, f"{path}:{before.count(10) + 1}", error)
    return refuse_nul(text, path, error)


def read_lines(path: Path, error: ErrorType = ManifestError) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their numbers from 1; only a line feed ends a line.

    Raises:
        ResonateError: of the type ``error``; the file cannot be read, is no regular file, is not
            UTF-8, or has a line over `MAX_LINE_BYTES`; names the line and the byte.
    """
    try:
        with open_regular(path) as file:
            lines = iter(partial(file.readline, MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                data = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
                if len(data) > MAX_LINE_BYTES:
                    raise error(f"{path}:{number}: a line of over {MAX_LINE_BYTES:,} bytes")
                try:
                    text = data.decode("utf-8")
                except UnicodeDecodeError:
                    text = decode_line(data, f"{path}:{number}", error)  # says which byte
                yield number, text
    except OSError as failure:
        raise error(f"{path}: cannot read it ({failure.strerror or failure})") from failure


def decode_line(data: bytes, place: str, error: ErrorType = ManifestError) -> str:
    """The text of a line's bytes.

    Raises:
        ResonateError: of the type ``error``; they are not UTF-8; names the byte.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as failure:
        byte = data[failure.start]
        came_from = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        raise error(
            f"{place}: byte {failure.start + 1} of the line (0x{byte:02x}) is not UTF-8; "
            f"convert the file, for example with `iconv -f {came_from} -t UTF-8`"
        ) from failure


def refuse_nul(text: str, path: Path, error: ErrorType = ManifestError) -> str:
    """The text, if no NUL is in it: no library below takes one in a name or a sentence.

    Raises:
        ResonateError: of the type ``error``; names the line.
    """
    place = text.find("\0")
    if place >= 0:
        line = text.count("\n", 0, place) + 1
        raise error(f"{path}:{line}: a NUL character; is it UTF-16, or no text at all?")
    return text


def listed(names: Iterable[str], most: int = 200) -> str:
    """Names in one line of a limited length; "none" for no name."""
    return one_line(ValueError(", ".join(map(str, names)) or "none"), most)


def one_line(error: BaseException, most: int = 160) -> str:
    """What a library says, as one line of a limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "an object", text)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"
