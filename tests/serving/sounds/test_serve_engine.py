"""Queue, batches and models in memory, without HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resonate_audio.core.errors import ConfigError, ModelNotFoundError
from resonate_audio.core.sampling import Sampling
from resonate_audio.pipeline.request import Batch
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.metrics import Histogram, Metrics
from resonate_audio.serving.sounds.engine import Engine, Outcome, Task
from resonate_audio.serving.sounds.requests import JobRequest, Wanted
from resonate_audio.serving.sounds.service import Service
from resonate_audio.serving.sounds.shelf import Catalogue, Shelf
from resonate_audio.serving.sounds.store import Sound, Store, new_id

QUICK = Sampling(0.5, 2, 1.0)
WAIT_S = 60.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    config = ServeConfig(home=tmp_path_factory.mktemp("home"), max_queued_rows=100)
    engine = Engine(Catalogue(config), config, Metrics())
    engine.start()
    yield engine
    engine.stop()


def task(num_rows: int = 1, sampling: Sampling = QUICK, first_seed: int = 0) -> Task:
    seeds = tuple(range(first_seed, first_seed + num_rows))
    return Task(Wanted("nano", Batch(("rain",) * num_rows, ("",) * num_rows, seeds), sampling))


def test_a_task_larger_than_a_batch_gets_all_its_sounds_in_order(engine: Engine) -> None:
    outcome = engine.submit(task(20)).done.result(WAIT_S)
    seeds = [sound.recipe.seed for sound in outcome.sounds if sound.recipe is not None]
    assert seeds == list(range(20))


def test_tasks_of_different_kinds_each_get_their_own(engine: Engine) -> None:
    tasks = [task(2, Sampling(0.3 + 0.1 * (n % 3), 1 + n % 2, 1.0), n) for n in range(12)]
    for one in tasks:
        engine.submit(one)
    for one in tasks:
        outcome = one.done.result(WAIT_S)
        assert [len(sound.samples) for sound in outcome.sounds] == [
            round(one.wanted.sampling.duration_s * 44_100)
        ] * 2


def test_a_waiting_task_that_is_cancelled_never_begins(engine: Engine) -> None:
    long = engine.submit(task(4, Sampling(10.0, 25, 1.0)))
    waiting = engine.submit(task())
    engine.cancel(waiting)
    engine.cancel(long)
    assert waiting.done.result(WAIT_S).status == "cancelled"
    assert waiting.steps == [0]
    assert engine.queued_rows == 0


def test_every_task_ends_once_however_often_it_is_ended(engine: Engine) -> None:
    ends: list[Outcome] = []
    one = task(3, Sampling(1.0, 25, 1.0))
    one.on_end = lambda _, outcome: ends.append(outcome)
    engine.submit(one)
    threads = [threading.Thread(target=engine.cancel, args=(one,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.done.result(WAIT_S)
    assert len(ends) == 1


def test_a_result_that_cannot_be_kept_is_a_failure_and_the_worker_goes_on(engine: Engine) -> None:
    def refuse(_: Task, outcome: Outcome) -> None:
        raise OSError("the disk is gone")

    one = task()
    one.on_end = refuse
    assert engine.submit(one).done.result(WAIT_S).status == "failed"
    assert engine.submit(task()).done.result(WAIT_S).status == "succeeded"


def test_what_the_model_refuses_fails_alone(engine: Engine) -> None:
    bad = engine.submit(task(1, Sampling(5000.0, 2, 1.0)))
    error = bad.done.result(WAIT_S).error
    assert error is not None
    assert error.status == 422
    assert engine.submit(task()).done.result(WAIT_S).status == "succeeded"


def test_no_more_rows_are_taken_than_the_queue_holds(engine: Engine) -> None:
    with pytest.raises(ApiError, match="queue is full") as caught:
        engine.submit(task(101))
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) >= 1


def test_no_more_tasks_are_taken_than_may_be_open(tmp_path: Path) -> None:
    config = ServeConfig(home=tmp_path, max_open_jobs=2)
    engine = Engine(Catalogue(config), config, Metrics())
    engine.submit(task())
    engine.submit(task())
    with pytest.raises(ApiError, match="queue is full"):
        engine.submit(task())
    assert [one.done.result().status for one in engine.stop()] == ["failed", "failed"]


def test_a_full_shelf_drops_the_model_that_was_used_longest_ago(
    tmp_path: Path, tiny_model: Path
) -> None:
    names = {name: str(tiny_model) for name in "abc"}
    room_mb = Catalogue(ServeConfig(home=tmp_path, models=names)).models["a"].room_mb
    config = ServeConfig(home=tmp_path, models=names, memory_budget_mb=2.5 * room_mb)
    shelf = Shelf(Catalogue(config), "cpu", config)
    first = shelf.get("a")
    shelf.get("b")
    assert shelf.get("a") is first
    shelf.get("c")
    assert shelf.names == ["a", "c"]
    assert shelf.get("a") is first


def test_a_model_larger_than_the_budget_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_budget_mb"):
        Service(ServeConfig(home=tmp_path, memory_budget_mb=1.0))


def test_a_model_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        Service(ServeConfig(home=tmp_path, models={"mine": str(tmp_path / "nowhere")}))


@pytest.mark.parametrize("name", ["", "two words", "../up", "line\nbreak"])
def test_a_model_name_must_fit_into_a_header_and_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="model name"):
        ServeConfig(home=tmp_path, models={name: "nano"})


def test_two_models_are_served_by_their_names(tmp_path: Path, tiny_model: Path) -> None:
    models = {"nano": "nano", "tiny": str(tiny_model)}
    service = Service(ServeConfig(home=tmp_path, models=models))
    assert service.catalogue.check(JobRequest(input="rain")).model == "nano"
    assert service.catalogue.check(JobRequest(input="rain", model="tiny")).model == "tiny"


def test_old_jobs_and_the_oldest_sounds_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [new_id() for _ in range(3)]
    for number, id in enumerate(ids):
        store.add_job(id, JobRequest(input="rain"))
        store.end_job(id, "succeeded", None, [(sound_of(id, number), b"RIFF")])
    store.tidy(keep_jobs_s=3600.0, max_sounds=2)
    assert [one.seed for one in store.search("", 10, 0)[0]] == [2, 1]
    assert store.find_job(ids[0]) is not None
    store.tidy(keep_jobs_s=-1.0, max_sounds=2)
    assert store.find_job(ids[0]) is None
    store.close()


def test_only_the_first_end_of_a_job_is_written(tmp_path: Path) -> None:
    store, id = Store(tmp_path), new_id()
    store.add_job(id, JobRequest(input="rain"))
    store.end_job(id, "cancelled", None, [])
    store.end_job(id, "succeeded", None, [(sound_of(id, 1), b"RIFF")])
    job = store.find_job(id)
    assert job is not None
    assert job.status == "cancelled"
    assert store.sounds_of(id) == []
    store.close()


def sound_of(job: str, seed: int) -> Sound:
    return Sound(
        id=new_id(), job=job, created=0.0, prompt="rain", negative_prompt="", model="nano",
        duration_s=1.0, num_inference_steps=1, guidance_scale=1.0, seed=seed, sample_rate=16_000,
        peak=0.5,
    )  # fmt: skip


def test_a_histogram_counts_values_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 2.0, 7.0):
        histogram.add(value)
    assert list(histogram.lines("x")) == [
        'x_bucket{le="1.0"} 2', 'x_bucket{le="2.0"} 3', 'x_bucket{le="+Inf"} 4',
        "x_sum 10.500000", "x_count 4",
    ]  # fmt: skip
