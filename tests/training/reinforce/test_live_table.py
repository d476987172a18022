import io
import re
from collections.abc import Iterator

import pytest

from resonate_audio.training.loop.progress import ProgressLine
from resonate_audio.training.reinforce.live_table import BARS, LiveTable, order_rows, sparkline


class Terminal(io.StringIO):
    """A stream that someone watches."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "100"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    return Terminal()


def words(stream: io.StringIO) -> str:
    """What was written, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def row(text: str, label: str) -> list[str]:
    """Cells of the last row that begins with ``label``."""
    (*_, line) = [line for line in text.split("\n") if line.strip().startswith(label)]
    return line.strip().removeprefix(label).split()


def test_a_trainer_may_take_it_in_place_of_the_progress_line() -> None:
    table = LiveTable(100, 40, io.StringIO())
    assert isinstance(table, ProgressLine)
    assert table.start_step == 40
    table.started -= 30.0  # ten steps in thirty seconds leave fifty steps of three seconds
    assert table.eta_s(50) == pytest.approx(150, abs=1)


def test_a_log_file_gets_one_line_a_step_with_what_matters() -> None:
    stream = io.StringIO()
    with LiveTable(200, 0, stream) as table:
        table.show(
            5,
            {
                "reward/mean": 0.5,
                "reward/std": 0.1,
                "held_out/nano-eval": 0.25,
                "kl": 1e-5,
                "clip/low": 0.01,
                "clip/high": 0.02,
                "seconds/rollout": 1.5,
                "seconds/update": 2.5,
                "detect/silent_share": 0.75,
            },
        )
        table.say("saved")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 5/200  reward 0.5 ± 0.1  held-out nano-eval 0.25  KL 1e-05")
    assert "clipped 0.03  4 s  ETA 0:" in first
    assert "0.75" not in first
    assert second == "saved"


def test_a_dumb_terminal_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    LiveTable(9, 0, terminal).show(1, {"reward/mean": 0.5})
    assert terminal.getvalue().startswith("step 1/9  reward 0.5  ETA")


def test_the_table_shows_now_the_mean_of_ten_and_bars(terminal: Terminal) -> None:
    with LiveTable(200, 0, terminal) as table:
        for step in range(1, 21):
            table.show(step, {"reward/mean": float(step)})
    now, mean, bars = row(words(terminal), "reward")
    assert (now, mean) == ("20", "15.5")  # 11 … 20
    assert (bars[0], bars[-1], len(bars)) == (BARS[0], BARS[-1], 20)


def test_the_title_says_step_share_and_speed(terminal: Terminal) -> None:
    with LiveTable(200, 0, terminal) as table:
        table.show(50, {"loss": 1.0, "steps/s": 0.25})
    assert "step 50 of 200  25 %  0.25 steps/s  ETA 0:00:00" in words(terminal)


def test_a_number_that_is_not_measured_at_every_step_stays(terminal: Terminal) -> None:
    with LiveTable(9, 0, terminal) as table:
        table.show(1, {"held_out/x": 0.5, "loss": 1.0})
        table.show(2, {"loss": 1.0})
    assert row(words(terminal), "held-out: x")[0] == "0.5"


def test_what_is_said_meanwhile_is_not_read_as_markup(terminal: Terminal) -> None:
    with LiveTable(9, 0, terminal) as table:
        table.show(1, {"loss": 1.0})
        table.say("saved [bold]here[/bold]")
    assert "saved [bold]here[/bold]" in words(terminal)


def test_names_in_brackets_are_not_read_as_markup(terminal: Terminal) -> None:
    with LiveTable(9, 0, terminal) as table:
        table.show(1, {"held_out/[red]": 1.0})
    assert row(words(terminal), "held-out: [red]")[0] == "1"


def test_the_cursor_is_shown_while_the_table_stands(terminal: Terminal) -> None:
    table = LiveTable(9, 0, terminal)
    table.show(1, {"loss": 1.0})
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l")
    table.close()


def test_closing_twice_or_before_the_first_step_does_nothing() -> None:
    table = LiveTable(9, 0, io.StringIO())
    table.close()
    table.close()
    assert table.columns == {}


def test_rows_have_a_fixed_order_and_unknown_names_come_last() -> None:
    names = ["mine", "seconds/update", "kl", "reward/loud_part", "held_out/x", "reward/mean"]
    assert order_rows(names) == [
        ("reward/mean", "reward"),
        ("reward/loud_part", "reward: loud part"),
        ("held_out/x", "held-out: x"),
        ("kl", "KL"),
        ("seconds/update", "seconds: update"),
        ("mine", "mine"),
    ]


def test_the_spread_is_not_also_a_part_of_the_reward() -> None:
    assert order_rows(["reward/std"]) == [("reward/std", "spread of takes")]


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([0.0, 7.0], "▁█"),
        ([float(v) for v in range(8)], BARS),
        ([3.0, 3.0], "▁▁"),
        ([0.0, float("nan"), 1.0, float("inf")], "▁ █ "),
    ],
)
def test_bars_stand_between_the_lowest_and_the_highest_value(
    values: list[float], bars: str
) -> None:
    assert sparkline(values) == bars


def test_a_diverging_run_is_still_shown(terminal: Terminal) -> None:
    with LiveTable(9, 0, terminal) as table:
        table.show(1, {"loss": float("inf")})
        table.show(2, {"loss": float("-inf")})
    assert row(words(terminal), "loss")[:2] == ["-inf", "nan"]
