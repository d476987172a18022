"""Files appear whole or not at all."""

import errno
from pathlib import Path

import pytest

from resonate_audio.core.errors import OutputError
from resonate_audio.core.files import atomic_path, output_error


def test_a_file_appears_with_its_content(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


def test_the_temporary_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.flac") as temporary:
        temporary.touch()
        assert temporary.suffix == ".flac"


def test_the_old_content_stands_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def write_half(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def test_a_failure_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="--overwrite"), atomic_path(path, overwrite=False):
        pytest.fail("the block must not run")
    assert path.read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write it"), atomic_path(tmp_path / "file/a.txt"):
        pytest.fail("the block must not run")


def test_a_full_disk_is_called_so() -> None:
    error = output_error(Path("a.wav"), OSError(errno.ENOSPC, "No space left on device"))
    assert str(error) == "a.wav: the disk is full; nothing was written"
