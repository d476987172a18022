"""Reading a run's folder, whatever state it was left in."""

import json
from pathlib import Path
from typing import Any

import pytest

from resonate_audio.core.errors import InputError
from resonate_audio.training.reinforce.run_log import read_run


def write_lines(path: Path, *lines: Any) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def take(folder: Path, **changes: Any) -> dict[str, Any]:
    """A line of takes.jsonl, with its file."""
    line = {"step": 1, "prompt": "rain", "take": 0, "reward": 0.5, "parts": {}, "kind": "best"}
    line |= {"file": f"takes/{len(list(folder.glob('takes/*')))}.flac"} | changes
    (folder / "takes").mkdir(exist_ok=True)
    (folder / "takes" / Path(str(line["file"])).name).touch()
    return line


def test_numbers_become_series_by_name(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "metrics.jsonl",
        {"step": 1, "kl": 0.5},
        {"step": 2, "kl": 1, "held_out/x": 0.25},
    )
    log = read_run(tmp_path)
    assert log.series == {"kl": ((1, 0.5), (2, 1.0)), "held_out/x": ((2, 0.25),)}
    assert log.last_step == 2


def test_of_a_step_that_was_logged_twice_the_later_line_counts(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", {"step": 2, "kl": 1.0}, {"step": 1, "kl": 0.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "kl": 9.0}\n')
    assert read_run(tmp_path).series["kl"] == ((1, 0.0), (2, 9.0))


def test_what_is_not_finite_is_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kl": NaN}\n{"step": 2, "kl": 1e999}\n')
    log = read_run(tmp_path)
    assert log.series == {}
    assert log.not_finite == {"kl": 2}


def test_texts_and_switches_are_not_numbers(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", {"step": 1, "a": "x", "b": True, "c": None, "d": [1]})
    assert read_run(tmp_path).series == {}


@pytest.mark.parametrize("line", ['{"step": 4', "[1]", '{"kl": 1}', '{"step": "2"}', "\x00"])
def test_broken_lines_are_counted_and_skipped(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "kl": 0.5}}\n{line}')
    log = read_run(tmp_path)
    assert log.series == {"kl": ((1, 0.5),)}
    assert log.num_unreadable == 1


def test_a_run_that_has_not_begun_is_empty(tmp_path: Path) -> None:
    log = read_run(tmp_path)
    assert (log.series, log.takes, log.recipe_text, log.last_step) == ({}, (), "", None)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_run(tmp_path / "nowhere")


def test_settings_are_found_by_their_dotted_name(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("algorithm:\n  kind: grpo\nmodel: nano\n")
    log = read_run(tmp_path)
    assert log.setting("algorithm.kind") == "grpo"
    assert log.setting("model.kind") is None
    assert log.setting("algorithm.nothing.here") is None


@pytest.mark.parametrize("text", ["a: [", "- 1", "7", "\x01: 1"])
def test_a_recipe_that_is_no_mapping_is_kept_as_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    log = read_run(tmp_path)
    assert (log.recipe, log.recipe_text) == ({}, text)


def test_the_newest_takes_come_first_and_of_a_step_the_best(tmp_path: Path) -> None:
    lines = [
        take(tmp_path, step=10, kind="worst", reward=-1.0),
        take(tmp_path, step=10, kind="best", reward=1.0),
        take(tmp_path, step=20, kind="worst", reward=-2.0),
        take(tmp_path, step=20, kind="best", reward=1.5),
        take(tmp_path, step=20, kind="best", reward=2.0),
    ]
    write_lines(tmp_path / "takes.jsonl", *lines)
    order = [(x.step, x.reward) for x in read_run(tmp_path).takes]
    assert order == [(20, 2.0), (20, 1.5), (20, -2.0), (10, 1.0), (10, -1.0)]


def test_a_resumed_run_replaces_the_takes_it_makes_again(tmp_path: Path) -> None:
    first = take(tmp_path, file="takes/a.flac", reward=0.0)
    again = take(tmp_path, file="takes/a.flac", reward=1.0)
    write_lines(tmp_path / "takes.jsonl", first, again)
    assert [x.reward for x in read_run(tmp_path).takes] == [1.0]


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.flac", "takes/none.flac", "takes", ""])
def test_only_files_inside_the_folder_are_played(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / "takes").mkdir(parents=True)
    (tmp_path / "secret.flac").touch()
    line = {"step": 1, "prompt": "rain", "take": 0, "reward": 0.5, "kind": "best", "file": name}
    write_lines(tmp_path / "run" / "takes.jsonl", line)
    (kept,) = read_run(tmp_path / "run").takes
    assert kept.file == ""


def test_a_line_with_a_null_character_is_counted_and_skipped(tmp_path: Path) -> None:
    write_lines(tmp_path / "takes.jsonl", take(tmp_path), take(tmp_path) | {"file": "a\x00b"})
    log = read_run(tmp_path)
    assert (len(log.takes), log.num_unreadable) == (1, 1)


def test_a_take_without_a_reward_is_counted_and_skipped(tmp_path: Path) -> None:
    write_lines(tmp_path / "takes.jsonl", take(tmp_path), take(tmp_path, reward=None))
    log = read_run(tmp_path)
    assert (len(log.takes), log.num_unreadable) == (1, 1)
