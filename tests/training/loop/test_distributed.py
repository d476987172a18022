"""Several real processes, started by torchrun, train as one would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import CALM, assert_same_training, finish, last, run_here, start
from test_resume import save_vae
from tiny_grpo import write_grpo_recipe

from resonate_audio.core.types import Rewards, TextFeatures
from resonate_audio.training.loop.checkpoint import list_checkpoints, load_checkpoint
from resonate_audio.training.loop.distributed import Ranks, split_in_buckets
from resonate_audio.training.pretrain.task import FlowBatch
from resonate_audio.training.reinforce.judging import interleave_rewards
from resonate_audio.training.reinforce.trainer import Update


@pytest.fixture
def pretrain(tmp_path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A pre-training recipe whose epochs end in a batch of a single row."""
    return settings | {
        "weights": {"vae": str(save_vae(tmp_path, settings))},
        "window_s": [1.0],
        "flow": {"frames_per_batch": 4 * 16, "condition_dropout": 0.3},
        "optim": CALM,
        "run": settings["run"] | {"micro_batches": 2, "num_steps": 4, "save_every": 2},
    }


@pytest.fixture
def grpo(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A GRPO recipe with groups that lie in all processes."""
    recipe = write_grpo_recipe(tmp_path, tiny_model)
    return recipe | {
        "updates_per_step": 2,
        "optim": recipe["optim"] | {"eps": CALM["eps"]},
        "run": recipe["run"] | {"num_steps": 3},
    }


WORLDS = [
    pytest.param(2, "ddp", id="2 replicas"),
    pytest.param(2, "fsdp", id="2 shards", marks=pytest.mark.slow),
    pytest.param(4, "ddp", id="4 replicas", marks=pytest.mark.slow),
    pytest.param(4, "fsdp", id="4 shards", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("world", "parallel"), WORLDS)
def test_pretraining_in_processes_is_that_of_one(
    pretrain: dict[str, Any], world: int, parallel: str
) -> None:
    run_here("pretrain", pretrain, "one")
    finish(start(world, "pretrain", pretrain, "many", parallel=parallel))
    assert_same_training(pretrain, "one", "many")


@pytest.mark.parametrize(("world", "parallel"), WORLDS)
def test_reinforcement_in_processes_is_that_of_one(
    grpo: dict[str, Any], world: int, parallel: str
) -> None:
    run_here("grpo", grpo, "one")
    finish(start(world, "grpo", grpo, "many", parallel=parallel))
    assert_same_training(grpo, "one", "many")


def test_rows_of_all_processes_are_all_rows_once() -> None:
    rows = torch.arange(10, 21)
    parts = [Ranks(rank, 4).mine(rows) for rank in range(4)]
    assert sorted(torch.cat(parts).tolist()) == rows.tolist()
    assert {len(part) for part in parts} == {2, 3}


def test_takes_of_a_prompt_lie_in_every_process() -> None:
    rows = torch.arange(48)
    for rank in range(8):
        groups = Ranks(rank, 8).mine(rows) // 24
        assert groups.bincount().tolist() == [3, 3]


def test_scores_of_all_processes_come_back_in_the_order_of_the_rows() -> None:
    rows = torch.arange(7, dtype=torch.float64)
    tables = [Rewards(own, {"double": 2 * own}, "judge") for own in parts_of(rows, 3)]
    joined = interleave_rewards(tables)
    assert joined.total.tolist() == rows.tolist()
    assert joined.parts["double"].tolist() == (2 * rows).tolist()


@pytest.mark.parametrize("num_rows", [1, 3, 8])
def test_shares_of_a_batch_add_up_to_one_and_nobody_is_without_a_row(num_rows: int) -> None:
    zeros = torch.zeros(num_rows, 2, 1)
    features = TextFeatures(torch.zeros(num_rows, 1, 1), torch.zeros(num_rows, 1))
    data = torch.arange(float(num_rows))[:, None, None].expand(-1, 2, 1)
    batch = FlowBatch(data, zeros, torch.zeros(num_rows), features, None)
    parts = [batch.part_of(Ranks(rank, 4)) for rank in range(4)]
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert all(len(part.data) for part in parts)
    seen = torch.cat([part.data[:, 0, 0] for part in parts if part.share])
    assert sorted(seen.tolist()) == list(range(num_rows))


@pytest.mark.parametrize("size", [1, 5, 8])
def test_every_item_of_an_update_belongs_to_one_process(size: int) -> None:
    updates = [
        Update(torch.arange(size), True, torch.Generator(), Ranks(rank, 4)) for rank in range(4)
    ]
    parts = [update.own_part(size) for update in updates]
    assert sum(share for _, share in parts) == pytest.approx(1.0)
    assert sorted(torch.cat([own for own, share in parts if share]).tolist()) == list(range(size))


def parts_of(rows: torch.Tensor, world: int) -> list[torch.Tensor]:
    return [rows[rank::world] for rank in range(world)]


def test_buckets_hold_every_gradient_once_and_no_more_than_their_size() -> None:
    tensors = [torch.zeros(size) for size in (3, 3, 100, 1, 1, 1)]
    buckets = split_in_buckets(tensors, size=24)
    assert [len(bucket) for bucket in buckets] == [2, 1, 3]
    assert [id(tensor) for bucket in buckets for tensor in bucket] == [id(t) for t in tensors]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("verb", "algorithm"),
    [
        ("grpo", {"kind": "guard"}),
        ("grpo", {"kind": "dppo"}),
        ("nft", {"kind": "nft", "old_decay": 0.5}),
        ("awm", {"kind": "awm"}),
        ("dpo", {"kind": "dpo", "online": True}),
        ("bon", {"kind": "raft"}),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_every_algorithm_in_two_processes_is_that_of_one(
    grpo: dict[str, Any], verb: str, algorithm: dict[str, Any], parallel: str
) -> None:
    recipe = grpo | {"algorithm": algorithm}
    run_here(verb, recipe, "one")
    finish(start(2, verb, recipe, "many", parallel=parallel))
    assert_same_training(recipe, "one", "many")


@pytest.mark.slow
def test_adapters_in_two_processes_are_those_of_one(grpo: dict[str, Any]) -> None:
    recipe = grpo | {"lora": {"rank": 2}}
    run_here("grpo", recipe, "one")
    finish(start(2, "grpo", recipe, "many"))
    finish(start(2, "grpo", recipe, "shards", parallel="fsdp"))
    assert_same_training(recipe, "one", "many")
    assert_same_training(recipe, "one", "shards")


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(2, 1), (2, 4), (1, 2)])
def test_a_checkpoint_goes_on_in_another_number_of_processes(
    pretrain: dict[str, Any], worlds: tuple[int, int]
) -> None:
    run_here("pretrain", pretrain, "one")
    before, after = worlds
    kinds = ["fsdp" if world > 1 else "ddp" for world in worlds]
    finish(start(before, "pretrain", pretrain, "two", num_steps=2, parallel=kinds[0]))
    said = finish(start(after, "pretrain", pretrain, "two", num_steps=4, parallel=kinds[1]))
    assert "resumed" in said
    assert_same_training(pretrain, "one", "two")


@pytest.mark.slow
def test_a_batch_that_the_processes_cannot_share_is_refused_in_one_line(
    pretrain: dict[str, Any],
) -> None:
    said = finish(start(3, "pretrain", pretrain, "odd"), fails=True)
    message = "a batch of 4 rows does not split over 3 processes; make it 6 rows"
    assert len([line for line in said.splitlines() if line.startswith("resonate: ")]) >= 1
    assert f"flow.frames_per_batch 64 (16 a row): {message}" in said


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_process_killed_in_the_middle_and_restarted_by_torchrun_ends_with_the_same_bits(
    pretrain: dict[str, Any], parallel: str
) -> None:
    long = {"num_steps": 16, "save_every": 2, "parallel": parallel}
    finish(start(2, "pretrain", pretrain, "whole", **long))
    process = start(2, "pretrain", pretrain, "killed", restarts=1, **long)
    folder = Path(pretrain["run"]["output"]).with_name("killed") / "checkpoints"
    while not list_checkpoints(folder):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    os.kill(workers(process)[-1], signal.SIGKILL)
    said = finish(process)
    assert "resumed" in said
    first, second = last(pretrain, "whole"), last(pretrain, "killed")
    assert first.step == second.step == 16
    differ = [n for n, value in first.tensors.items() if not torch.equal(value, second.tensors[n])]
    assert differ == []


@pytest.mark.slow
def test_a_judge_that_fails_in_one_process_stops_all_with_its_cause(grpo: dict[str, Any]) -> None:
    recipe = grpo | {"reward": "loud_judge:deaf_second_process"}
    said = finish(start(2, "grpo", recipe, "deaf"), fails=True)
    assert "judge of process 1" in said
    assert "nan" in said
    first_trace = said.split("Traceback")[1]
    assert "torch/distributed/run.py" in first_trace, "ours end in one line; this one is torchrun's"
    folder = Path(grpo["run"]["output"]).with_name("deaf") / "checkpoints"
    assert [load_checkpoint(path).step for path in list_checkpoints(folder)] == [1]


def workers(launcher: "subprocess.Popen[str]") -> list[int]:
    """Processes that torchrun started."""
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


LEAVE = """
import os
import torch
import torch.distributed as dist
from resonate_audio.training.loop.distributed import joined_ranks

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
with joined_ranks("cpu"):
    import torch.distributed.nn.functional  # as torch does by itself, sooner or later
    dist.all_reduce(torch.ones(3))
    during = threads()
assert before == threads() < during, (before, threads(), during)
"""


def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    script = tmp_path / "leave.py"
    script.write_text(LEAVE)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
