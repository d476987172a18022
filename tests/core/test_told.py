import pytest

from resonate_audio.core import progress
from resonate_audio.core.progress import format_duration, told


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00:00"), (59.6, "0:01:00"), (3723.0, "1:02:03")]
)
def test_durations_are_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_long_preparation_tells_its_share_and_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, said = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for _ in told(range(60), 60, said.append):
        clock[0] += 1.0
    assert said == [f"  {n / 60:.0%}, 0:00:{60 - n:02d} left" for n in (10, 20, 30, 40, 50)]


def test_a_short_one_says_nothing_and_gives_everything() -> None:
    said: list[str] = []
    assert list(told("abc", 3, said.append)) == list("abc")
    assert not said
