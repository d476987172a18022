"""`resonate data encode`: one line for what it cannot use."""

import pytest

from resonate_audio.cli.data.encode import read_windows
from resonate_audio.core.errors import InputError


def test_windows_are_seconds_between_commas() -> None:
    assert read_windows("2.5,10") == (2.5, 10.0)


@pytest.mark.parametrize("text", ["0.001", "5,0", "-1", "inf", "nan"])
def test_a_window_that_holds_no_sound_is_told(text: str) -> None:
    with pytest.raises(InputError, match=rf"--windows {text}: expected 0\.1 s or more"):
        read_windows(text)
