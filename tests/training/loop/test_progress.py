import io
import json
from pathlib import Path

import pytest

from resonate_audio.training.loop.progress import (
    ProgressLine,
    append_metrics,
    keep_metrics_until,
    plot_metrics,
    read_metrics,
    running_mean,
)


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        append_metrics(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 4')  # killed while writing
    keep_metrics_until(path, 20)
    assert [line["step"] for line in read_metrics(path)] == [10, 20]
    assert path.read_text().endswith("}\n")


def test_metrics_are_one_json_object_per_line(tmp_path: Path) -> None:
    append_metrics(tmp_path / "m", {"step": 1, "loss": 0.5})
    assert json.loads((tmp_path / "m").read_text()) == {"step": 1, "loss": 0.5}


def test_the_remaining_time_follows_the_speed_since_the_start() -> None:
    line = ProgressLine(num_steps=100, start_step=40, stream=io.StringIO())
    line.started -= 30.0  # ten steps in thirty seconds leave fifty steps of three seconds
    assert line.eta_s(50) == pytest.approx(150, abs=1)


def test_a_log_file_gets_whole_lines() -> None:
    stream = io.StringIO()
    line = ProgressLine(2, 0, stream)
    line.show(1, {"loss": 0.5})
    line.say("done")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("step 1/2  loss 0.5")
    assert second == "done"


def test_the_running_mean_covers_the_last_values() -> None:
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    for step in range(4):
        append_metrics(tmp_path / "m", {"step": step, "loss": 1.0 / (step + 1), "kl_loss": 0.1})
    plot_metrics(tmp_path / "m", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("num_points", [1, 2, 9])
def test_the_plot_of_a_short_run_shows_its_points_over_whole_steps(
    tmp_path: Path, num_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda x, *a, **k: (drawn.append(x), save(x, *a, **k)))
    for step in range(num_points):
        append_metrics(tmp_path / "m", {"step": step, "loss": 1.0 / (step + 1)})
    plot_metrics(tmp_path / "m", tmp_path / "loss.png")
    (axes,) = drawn[0].axes
    assert any(line.get_marker() not in ("", "None") for line in axes.lines)
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_lines_without_a_loss_are_no_obstacle_to_the_plot(tmp_path: Path) -> None:
    metrics, picture = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    append_metrics(metrics, {"step": 1, "held_out/judge": 0.5})
    plot_metrics(metrics, picture)
    assert not picture.exists()
    append_metrics(metrics, {"step": 2, "loss": 0.5})
    append_metrics(metrics, {"step": 2, "held_out/judge": 0.5})
    plot_metrics(metrics, picture)
    assert picture.stat().st_size > 1000
