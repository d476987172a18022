"""JSON that is read value by value instead of whole."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.json_text import STRICT, check_value, too_deep
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import open_regular

CHUNK_BYTES = 1 << 18
MAX_VALUE = 1 << 24
"""Letters of one value: it is held whole."""


class JsonText:
    """A JSON file from which marks and values are taken in their order."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises:
            ManifestError: it cannot be read.
        """
        try:
            self._file = open_regular(path)
        except OSError as error:
            raise ManifestError(f"{path}: cannot read it ({error.strerror or error})") from error
        self.path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._held, self._at, self._bytes = "", 0, 0

    def __enter__(self) -> JsonText:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def take(self, mark: str) -> bool:
        """Whether ``mark`` comes next; it is passed if so."""
        if self._next() != mark:
            return False
        self._at += 1
        return True

    def expect(self, mark: str) -> None:
        """Pass ``mark``.

        Raises:
            ManifestError: something else comes next.
        """
        if not self.take(mark):
            raise self._error(f"expected {mark}, got {self._next() or 'the end of the file'}")

    def separate(self, end: str) -> None:
        """Pass a comma, unless ``end`` comes next.

        Raises:
            ManifestError: neither comes next.
        """
        if self._next() != end:
            self.expect(",")

    def value(self) -> Any:
        """The next value, whole.

        Raises:
            ManifestError: it is not JSON, or the file ends within it.
        """
        self._next()
        size = CHUNK_BYTES
        while True:
            try:
                value, end = STRICT.raw_decode(self._held, self._at)
            except RecursionError as error:
                raise too_deep(str(self.path), ManifestError) from error
            except ValueError as error:
                if len(self._held) - self._at > MAX_VALUE or not self._grow(size):
                    raise self._error(str(error).split(":")[0]) from error
                size *= 2  # a long value is tried few times, not once a chunk
            else:
                check_value(value, self._held[self._at : end], str(self.path))
                self._at = end
                return value

    def _next(self) -> str:
        while True:
            rest = self._held[self._at : self._at + 1]
            if rest and not rest.isspace():
                return rest
            if rest:
                self._at += 1
            elif not self._grow():
                return ""

    def _grow(self, size: int = CHUNK_BYTES) -> bool:
        data = self._file.read(size)
        try:
            text = self._decode.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._bytes + len(data) - len(error.object) + error.start + 1
            raise ManifestError(
                f"{self.path}: byte {at} (0x{error.object[error.start]:02x}) is not UTF-8; convert "
                "the file, for example with `iconv -f WINDOWS-1252 -t UTF-8`"
            ) from error
        if not data:
            return False
        self._bytes += len(data)
        self._held, self._at = self._held[self._at :] + text, 0
        return True

    def _error(self, what: str) -> ManifestError:
        return ManifestError(f"{self.path}: not JSON, or cut short: {what}")
