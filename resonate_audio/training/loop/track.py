"""A run's numbers in somebody's tracker: trackio, Weights & Biases, TensorBoard or MLflow.

Each is spoken to through its own client, with its own settings from the environment: without any it
stays on this machine, or asks as it always does. The run's own ``metrics.jsonl`` does not need it,
so a tracker that fails is told once, and the training goes on without it.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.documents.text import read_text
from resonate_audio.core.documents.yaml_text import format_yaml
from resonate_audio.core.errors import ConfigError, ResonateError, TrainingError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.foreign import foreign_code

TrackerName = Literal["trackio", "wandb", "tensorboard", "mlflow"]
PROJECT = "resonate-audio"
"""Project, or experiment, where the environment names none."""
ID_FILE = "track-id.txt"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told of a run when it begins or goes on."""

    folder: Path
    """The run's; what a tracker keeps on this machine by itself lies in it."""
    run_id: str
    """The same whenever the run goes on."""
    step: int
    """Updates that are done."""
    recipe: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, and what tells runs of that name apart."""
        return f"{self.folder.resolve().name}-{self.run_id[:6]}"


class Tracker(Protocol):
    """Where numbers go; whatever it raises ends the tracking and not the training."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the finite numbers of a step; a run that goes on may repeat one."""

    def close(self, finished: bool) -> None:
        """Send what is left; ``finished`` is false when the run will go on."""


class TrackioTracker:
    """trackio, in its own folder here or where ``TRACKIO_SPACE_ID`` or a server is named."""

    def __init__(self, told: Tracked) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(
            project=project, name=told.name, config=dict(told.recipe), resume="allow", embed=False
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the numbers; a thread of trackio's writes or sends them."""
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """Wait until all are written."""
        import trackio

        trackio.finish()  # of the run alone, it would be finished once more when Python ends


class WandbTracker:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps all of it in the run's folder."""

    def __init__(self, told: Tracked) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(
            project=project, id=told.run_id, name=told.name, resume="allow",
            dir=str(told.folder), config=dict(told.recipe),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the numbers; a process of wandb's writes or sends them."""
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if finished else 1)


class TensorBoardTracker:
    """Event files for TensorBoard, in ``tensorboard/`` of the run's folder."""

    def __init__(self, told: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = str(told.folder / "tensorboard")
        self._writer: Any = SummaryWriter(folder, purge_step=told.step + 1 if told.step else None)
        self._writer.add_text("recipe", f"```yaml\n{format_yaml(dict(told.recipe))}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers, so that a page that is open shows them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """Close the file."""
        self._writer.close()


class MlflowTracker:
    """MLflow, at ``MLFLOW_TRACKING_URI`` or in ``mlflow.db`` of the run's folder."""

    def __init__(self, told: Tracked) -> None:
        from mlflow import MlflowClient

        here = f"sqlite:///{told.folder.resolve() / 'mlflow.db'}"
        self._client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
        tag = "resonate.run"
        found = self._client.search_runs([experiment], f"tags.`{tag}` = '{told.run_id}'")
        run = found[0] if found else self._client.create_run(
            experiment, run_name=told.name, tags={tag: told.run_id}
        )  # fmt: skip
        self._run_id = run.info.run_id
        self._client.update_run(self._run_id, status="RUNNING")
        self._client.log_text(self._run_id, format_yaml(dict(told.recipe)), "recipe.yaml")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write or send the numbers; names have the letters that MLflow takes."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        plain = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in values.items()}
        metrics = [Metric(name, value, now, step) for name, value in plain.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "trackio": TrackioTracker,
    "wandb": WandbTracker,
    "tensorboard": TensorBoardTracker,
    "mlflow": MlflowTracker,
}
"""By what a recipe calls them, which is the library's name and that of the extra, too."""
assert set(TRACKERS) == set(get_args(TrackerName))


def check_tracker(name: TrackerName | None) -> None:
    """Refuse a tracker whose library is not there, before anything else is done.

    Raises:
        ConfigError: with the command that installs it.
    """
    found = find_spec(name) if name is not None else None
    if name is not None and (found is None or found.origin is None):  # none: a folder of that name
        raise ConfigError(
            f'run.track {name}: {name} is not installed: pip install "resonate-audio[{name}]"'
        )


class Tracking:
    """The numbers of a run on their way to its tracker, if it has one that works."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Track nothing yet; ``say`` is told what fails."""
        self._say = say
        self._tracker: Tracker | None = None
        self._name = ""

    def open(self, name: TrackerName | None, folder: Path, step: int, recipe: FrozenConfig) -> None:
        """Begin, or go on with, what a tracker has of a run.

        Raises:
            ConfigError: its library is not installed.
            TrainingError: the folder holds an id that is none.
        """
        check_tracker(name)
        if name is None:
            return
        told = Tracked(folder, run_id_of(folder), step, recipe.model_dump(mode="json"))
        self._name = name
        self._try(lambda: self._open(TRACKERS[name], told))

    def log(self, values: Mapping[str, float | int]) -> None:
        """Pass on a line of metrics: its ``step``, and what is finite of the rest."""
        tracker = self._tracker
        finite = {
            name: float(value)
            for name, value in values.items()
            if name != "step" and math.isfinite(value)
        }
        if tracker is not None and finite:
            self._try(lambda: tracker.log(int(values["step"]), finite))

    def close(self, finished: bool) -> None:
        """Let the tracker finish; nothing is passed on from here."""
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.close(finished))
        self._tracker = None

    def _open(self, tracker: Callable[[Tracked], Tracker], told: Tracked) -> None:
        self._tracker = tracker(told)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            # some print; standard output is for what a command makes
            with foreign_code(self._name, TrainingError), redirect_stdout(sys.stderr):
                call()
        except ResonateError as error:
            self._tracker = None
            self._say(f"warning: run.track {error}; the training goes on without it")


def run_id_of(folder: Path) -> str:
    """The id under which trackers know a run; made at its first start, kept in its folder.

    Raises:
        TrainingError: what the file holds is no id.
        OutputError: it cannot be written.
    """
    place = folder / ID_FILE
    if not place.exists():
        with atomic_path(place) as temporary:
            temporary.write_text(secrets.token_hex(8) + "\n", encoding="utf-8")
    return read_id(place)


def read_id(place: Path) -> str:
    """The id that a file holds.

    Raises:
        TrainingError: it cannot be read, or holds no id.
    """
    text = read_text(place, TrainingError).strip()
    if not _ID.fullmatch(text):
        raise TrainingError(
            f"{place}: {text[:40]!r} is no id of 16 hexadecimal digits; remove the file, and the "
            "tracker begins another run"
        )
    return text
