import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError, OutputError, TrainingError
from resonate_audio.training.loop.checkpoint import list_checkpoints, load_checkpoint
from resonate_audio.training.loop.contents import check_same_run
from resonate_audio.training.loop.progress import read_metrics
from resonate_audio.training.loop.resume import with_new_fields
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.start import resolve_device, train
from resonate_audio.training.loop.task import Draw, Losses, Task, generator_for
from resonate_audio.training.loop.trainer import RunResult


class LineTask(Task):
    """Learn y = 2x from draws; ``spoil`` makes the loss of one step infinite."""

    def __init__(self, spoil: int | None = None, at_step: dict[int, Any] | None = None) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 0.5)
        self.phases = {"model": self.model}
        self.spoil = spoil
        self.at_step = at_step or {}
        self.heard: list[float] = []

    def loss(self, phase: str, draw: Draw) -> tuple[Tensor, Losses]:
        if draw.step in self.at_step:
            self.at_step[draw.step]()
        x = torch.randn(8, 1, generator=draw.generator)
        error = (self.model(x) - 2 * x).square().mean()
        return error / 0 if draw.step == self.spoil else error, {}

    def sample(self, folder: Path, step: int) -> None:
        self.heard.append(self.model.weight.item())


def config(folder: Path, **run: Any) -> TrainerConfig:
    values = {"output": str(folder), "num_steps": 20, "device": "cpu", "log_every": 1}
    optim = {"learning_rate": 0.05, "warmup_steps": 0}
    return parse_config(TrainerConfig, {"run": values | run, "optim": optim}, "test")


def fit(folder: Path, task: Task | None = None, **run: Any) -> RunResult:
    return train(lambda _: task or LineTask(), config(folder, **run))


def final(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).tensors


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_falls(tmp_path: Path) -> None:
    fit(tmp_path, num_steps=60)
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.05 * losses[0]


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 7: loss is inf"):
        fit(tmp_path, LineTask(spoil=7), log_every=5)


def test_weights_spoiled_by_such_a_loss_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        fit(tmp_path, LineTask(spoil=8), log_every=100, save_every=3)
    assert torch.isfinite(final(tmp_path)["module.model.weight"]).all()


def test_a_stopped_and_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    stop = LineTask(at_step={9: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert fit(tmp_path / "a", stop, save_every=4) == fit_result(tmp_path / "a", 10)
    assert fit(tmp_path / "a", save_every=4).finished
    fit(tmp_path / "b", save_every=100)
    assert same(final(tmp_path / "a"), final(tmp_path / "b"))


def test_a_signal_is_answered_at_once_and_the_end_of_a_run_is_left_for_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.daemon:
                thread.join(1)
        assert "stopping after step 20" in capsys.readouterr().err

    assert not fit(tmp_path, LineTask(at_step={19: stop})).finished
    assert fit(tmp_path).finished


def fit_result(folder: Path, step: int) -> RunResult:
    last = read_metrics(folder / "metrics.jsonl")[-1]
    losses = {name: last[name] for name in ("loss", "grad_norm")}
    return RunResult(step, finished=False, last_losses=losses)


def test_a_resumed_run_writes_the_metrics_of_an_unbroken_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        fit(tmp_path / "a", LineTask(spoil=10), save_every=4)
    fit(tmp_path / "a", save_every=4)
    fit(tmp_path / "b")

    def losses(folder: str) -> list[tuple[int, float]]:
        lines = read_metrics(tmp_path / folder / "metrics.jsonl")
        return [(line["step"], line["loss"]) for line in lines]

    assert losses("a") == losses("b")


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    fit(tmp_path)
    before = final(tmp_path)
    assert fit(tmp_path).step == 20
    assert same(before, final(tmp_path))


@pytest.mark.parametrize("limit", ["max_hours", "max_cpu_hours"])
def test_a_time_limit_stops_with_a_checkpoint(tmp_path: Path, limit: str) -> None:
    result = fit(tmp_path, num_steps=10**7, **{limit: 1e-4})
    assert not result.finished
    assert load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1]).step == result.step


def test_another_recipe_is_refused_by_field(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(TrainingError, match=r"^run\.seed changed .* \(run\.seed was 0, is now 1\)"):
        fit(tmp_path, seed=1)


def test_a_start_that_is_refused_leaves_the_recipe_of_the_run(tmp_path: Path) -> None:
    fit(tmp_path)
    before = (tmp_path / "recipe.yaml").read_bytes()
    with pytest.raises(TrainingError):
        fit(tmp_path, seed=1)
    assert (tmp_path / "recipe.yaml").read_bytes() == before


def test_a_field_that_the_older_version_did_not_know_does_not_stop_a_run() -> None:
    config = TrainerConfig(run=RunConfig(output=Path("x")))
    saved = config.model_dump(mode="json")
    del saved["optim"]["clip_norm"]
    check_same_run(with_new_fields(TrainerConfig, saved), config, {}, {})
    saved["optim"]["learning_rate"] = 3.0
    with pytest.raises(TrainingError, match=r"^optim\.learning_rate changed"):
        check_same_run(with_new_fields(TrainerConfig, saved), config, {}, {})


def test_a_finished_run_may_be_made_longer(tmp_path: Path) -> None:
    fit(tmp_path)
    assert fit(tmp_path, num_steps=25).step == 25


def test_micro_batches_average_their_gradients(tmp_path: Path) -> None:
    class Mean(LineTask):
        def loss(self, phase: str, draw: Draw) -> tuple[Tensor, Losses]:
            return (self.model.weight.sum() - draw.index).square() / 2, {}

    fit(tmp_path, Mean(), num_steps=1, micro_batches=4)
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    # w = 0.5: (w - k)²/2 over k = 0..3 has mean 1.125 and slope w - 1.5
    assert line["loss"] == pytest.approx(1.125)
    assert line["grad_norm"] == pytest.approx(1.0)


def test_samples_are_made_with_the_averaged_weights_and_training_goes_on(tmp_path: Path) -> None:
    task = LineTask()
    fit(tmp_path, task, sample_every=10)
    saved = final(tmp_path)
    assert len(task.heard) == 2
    assert task.heard[-1] == saved["average.weight"].item()
    assert task.model.weight.item() == saved["module.model.weight"].item()
    assert task.heard[-1] != task.model.weight.item()


def test_listening_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    fit(tmp_path / "a", sample_every=3)
    fit(tmp_path / "b")
    assert same(final(tmp_path / "a"), final(tmp_path / "b"))


def test_a_run_can_be_held_by_another_thread(tmp_path: Path) -> None:
    results: list[RunResult] = []
    thread = threading.Thread(target=lambda: results.append(fit(tmp_path)))
    thread.start()
    thread.join()
    assert results[0].finished


def test_draws_of_different_steps_and_seeds_are_different() -> None:
    firsts = {
        torch.rand(1, generator=generator_for(seed, index, "cpu", purpose)).item()
        for seed in (0, 1)
        for index in (0, 1, 10)
        for purpose in ("step", "crops")
    }
    assert len(firsts) == 12


def test_the_resolved_recipe_lies_in_the_run_and_in_the_checkpoint(tmp_path: Path) -> None:
    fit(tmp_path)
    saved = load_checkpoint(list_checkpoints(tmp_path / "checkpoints")[-1])
    assert saved.config == config(tmp_path).model_dump(mode="json")
    assert "num_steps: 20" in (tmp_path / "recipe.yaml").read_text()


def test_a_device_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"run\.device cuda:93: not usable"):
        resolve_device("cuda:93")


def test_an_output_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        fit(tmp_path / "file")
