"""The libraries themselves, offline, in a process as a user starts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from resonate_audio.cli.main import run
from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError, TrainingError
from resonate_audio.training.loop.progress import read_metrics
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.track import (
    ID_FILE,
    TRACKERS,
    TrackerName,
    Tracking,
    check_tracker,
    run_id_of,
)

HERE = Path(__file__).parent
MISSING = [name for name in TRACKERS if find_spec(name) is None]
PROXY = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "ALL_PROXY")}
"""Nothing leaves this machine: whatever tried to would fail."""
TRAIN = """
import json, sys
from pathlib import Path
from test_run import fit

name, output = sys.argv[1], Path("run")
fit(output, num_steps=3, track=name)
fit(output, num_steps=6, track=name)
"""
"""A run of six steps that was stopped after three."""


def needs(name: str) -> pytest.MarkDecorator:
    reason = f'needs: pip install "resonate-audio[{name}]"'
    return pytest.mark.skipif(name in MISSING, reason=reason)


def run_tracked(folder: Path, name: str, read: str, **variables: str) -> tuple[Any, str]:
    """Train in a process of its own; what ``read`` prints of the tracker, and what was said."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAIN + read, name],
        env=os.environ | PROXY | {"HOME": str(folder), "PYTHONPATH": path_of_tests()} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == bool(read), "trackers print to standard error"
    return json.loads(done.stdout or "null"), done.stderr


def path_of_tests() -> str:
    return os.pathsep.join([str(HERE), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])


def losses(folder: Path) -> list[list[float]]:
    """Steps and losses of the run's own file."""
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    return [[line["step"], line["loss"]] for line in lines]


def assert_same(folder: Path, found: Any, said: str) -> None:
    """A tracker has all steps of both starts, in one run."""
    assert "the training goes on without it" not in said
    assert "resumed" in said
    own = losses(folder)
    assert [step for step, _ in own] == list(range(1, 7))
    assert [step for step, _ in found] == list(range(1, 7))
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in own], rel=1e-6)


READ_TENSORBOARD = """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator("run/tensorboard").Reload()
assert "recipe/text_summary" in events.Tags()["tensors"]
print(json.dumps([[one.step, one.value] for one in events.Scalars("loss")]))
"""


@needs("tensorboard")
def test_tensorboard_has_what_the_metrics_file_has(tmp_path: Path) -> None:
    assert_same(tmp_path, *run_tracked(tmp_path, "tensorboard", READ_TENSORBOARD))


READ_MLFLOW = """
from mlflow import MlflowClient

client = MlflowClient("sqlite:///run/mlflow.db")
[run] = client.search_runs([client.get_experiment_by_name("resonate-audio").experiment_id])
assert run.info.status == "FINISHED"
history = client.get_metric_history(run.info.run_id, "loss")
print(json.dumps([[one.step, one.value] for one in history]))
"""


@needs("mlflow")
def test_mlflow_has_what_the_metrics_file_has(tmp_path: Path) -> None:
    assert_same(tmp_path, *run_tracked(tmp_path, "mlflow", READ_MLFLOW))


READ_TRACKIO = """
import trackio
from trackio.sqlite_storage import SQLiteStorage

[run] = trackio.Api().runs("resonate-audio")
found = SQLiteStorage.get_logs("resonate-audio", run.name)
print(json.dumps([[line["step"], line["loss"]] for line in found]))
"""


@needs("trackio")
def test_trackio_has_what_the_metrics_file_has(tmp_path: Path) -> None:
    place = str(tmp_path / "trackio")
    assert_same(tmp_path, *run_tracked(tmp_path, "trackio", READ_TRACKIO, TRACKIO_DIR=place))


READ_WANDB = """
from wandb.proto import wandb_internal_pb2

kept = Path("run/track-id.txt").read_text().strip()


def records(data):
    place, whole = 7, b""  # behind the file's head: pieces of records in blocks of 32 KiB
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


found = []
for path in Path("run/wandb").glob("offline-run-*/*.wandb"):
    assert path.name == f"run-{kept}.wandb"
    for record in records(path.read_bytes()):
        items = {x.key or ".".join(x.nested_key): x.value_json for x in record.history.item}
        if "loss" in items:
            found.append([int(items["_step"]), float(items["loss"])])
print(json.dumps(sorted(found)))
"""
"""What `wandb sync` would send."""


@needs("wandb")
def test_wandb_keeps_it_in_the_folder_of_the_run_when_offline(tmp_path: Path) -> None:
    assert_same(tmp_path, *run_tracked(tmp_path, "wandb", READ_WANDB, WANDB_MODE="offline"))


@needs("mlflow")
def test_a_training_outlives_a_server_that_is_not_there(tmp_path: Path) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    _, said = run_tracked(tmp_path, "mlflow", "", **away)
    assert said.count("warning: run.track mlflow: ") == 2, "once at each start"
    assert [step for step, _ in losses(tmp_path)] == list(range(1, 7))


class Broken:
    """Raises in one of its methods, or when it is made; else it keeps what it is told."""

    def __init__(self, fails: str) -> None:
        self.fails, self.told = fails, list[str]()

    def __call__(self, told: Any) -> Broken:
        return self._do("open")

    def log(self, step: int, values: Any) -> None:
        self._do(f"log {step} {sorted(values)}", "log")

    def close(self, finished: bool) -> None:
        self._do(f"close {finished}", "close")

    def _do(self, what: str, name: str = "open") -> Broken:
        self.told.append(what)
        if name == self.fails:
            raise ConnectionError("the server\nis away")
        return self


CONFIG = parse_config(TrainerConfig, {"run": {"output": "x", "track": "tensorboard"}}, "test")


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("open", ["open"]),
        ("log", ["open", "log 1 ['loss']"]),
        ("close", ["open", "log 1 ['loss']", "log 2 ['loss']", "close True"]),
    ],
)
@needs("tensorboard")
def test_a_tracker_that_fails_is_told_once_and_asked_no_more(
    fails: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, said = Broken(fails), list[str]()
    monkeypatch.setitem(TRACKERS, "tensorboard", tracker)
    tracking = Tracking(said.append)
    tracking.open("tensorboard", tmp_path, 0, CONFIG)
    tracking.log({"step": 1, "loss": 0.5, "grad_norm": float("nan")})
    tracking.log({"step": 2, "loss": 0.5})
    tracking.close(True)
    assert tracker.told == told
    assert said == [
        "warning: run.track tensorboard: ConnectionError: the server is away; the training goes on "
        "without it"
    ]


@pytest.mark.skipif(not MISSING, reason="every tracker's library is installed here")
def test_a_library_that_is_missing_ends_in_one_line_with_its_command(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings["run"]["track"] = MISSING[0]
    recipe.write_text(yaml.safe_dump(settings))
    assert run(["train", "vae", "--recipe", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert f'pip install "resonate-audio[{MISSING[0]}]"' in said
    assert said.count("\n") == 1
    assert not Path(settings["run"]["output"]).exists()


@pytest.mark.skipif(not MISSING, reason="every tracker's library is installed here")
def test_without_the_command_line_it_is_refused_too(tmp_path: Path) -> None:
    name: TrackerName = MISSING[0]  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=f"{name} is not installed"):
        Tracking(print).open(name, tmp_path, 0, CONFIG)


def test_no_tracker_asks_for_nothing(tmp_path: Path) -> None:
    check_tracker(None)
    tracking = Tracking(print)
    tracking.open(None, tmp_path, 0, CONFIG)
    tracking.log({"step": 1, "loss": 0.5})
    tracking.close(True)
    assert list(tmp_path.iterdir()) == []


def test_another_tracker_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"track: Input should be 'trackio', 'wandb'"):
        parse_config(RunConfig, {"output": "x", "track": "comet"}, "test")


def test_a_run_keeps_its_id(tmp_path: Path) -> None:
    first = run_id_of(tmp_path)
    assert run_id_of(tmp_path) == first
    (tmp_path / ID_FILE).write_text("mine\n")
    with pytest.raises(TrainingError, match=r"'mine' is no id of 16 hexadecimal digits"):
        run_id_of(tmp_path)


def test_a_folder_that_is_called_like_a_library_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match="wandb is not installed"):
        check_tracker("wandb")
