"""Plain lines when nobody watches."""

import io

import pytest

from resonate_audio.cli.console import print_table, step_progress


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("file", "seed"), [("long-name.wav", "7"), ("b.wav", "12345")])
    assert (
        capsys.readouterr().out == "file           seed\nlong-name.wav  7\nb.wav          12345\n"
    )


def test_an_empty_table_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("file", "seed"), [])
    assert capsys.readouterr().out == "file  seed\n"


def test_progress_in_a_pipe_says_the_first_and_the_last_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with step_progress("sounds") as report:
        for done in range(1, 26):
            report(done, 25)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sounds: step 1 of 25", "sounds: step 25 of 25"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal_keeps_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    print_table(("file",), [("[bold]a.wav[/bold]",)])
    assert "[bold]a.wav[/bold]" in terminal.getvalue()


def test_progress_on_a_terminal_counts_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with step_progress("[sounds]") as report:
        report(25, 25)
    assert "25/25" in terminal.getvalue()
    assert "[sounds]" in terminal.getvalue()
