"""The whole benchmark on a tiny model: on a CPU always, on a GPU where there is one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gpu
import pytest
import torch
from tiny_model import TINY

LACKING = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMALL = gpu.Sizes(
    lambda: gpu.random_model(TINY),
    duration_s=0.5, clips=(1, 2), steps=2, takes=3, train_rows=(2,), judged=(2, 1.0), product=64,
    repeats=1,
)  # fmt: skip
EVERYWHERE = {"large products", "generation", "reinforcement", "pre-training", "judges", "nano"}


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=LACKING)])
def test_everything_is_measured_and_kept(name: str, tmp_path: Path) -> None:
    device, path = torch.device(name), tmp_path / "gpu.json"
    gpu.measure_all(gpu.Report(device, path, time.monotonic() + 600), SMALL)
    found = json.loads(path.read_text())
    rows = {section: found[section] for section in EVERYWHERE | {"evaluation"}}
    assert not [row for section in rows.values() for row in section if "left out" in row]
    assert [row["what"] for row in rows["generation"]] == ["1 x 0.5 s", "2 x 0.5 s"]
    for row in rows["generation"]:
        stages = row["flow s"] + row["VAE s"] + row["vocoder s"]
        assert row["together s"] == pytest.approx(stages)
        assert row["TFLOP/s"] > 0
    assert len(rows["reinforcement"]) == 3
    assert all(row["update s"] > 0 for row in rows["reinforcement"])
    assert rows["nano"][-1]["relative L2, float32"] < 0.05
    forms = {row["what"].split(", ", 1)[1] for row in rows["evaluation"]}
    in_eager = {"as it is"}
    graphs = {"as it is, as a graph", "compiled blocks", "compiled blocks, as a graph"}
    assert forms == (in_eager if name == "cpu" else in_eager | graphs)


def test_what_begins_after_the_budget_is_named(tmp_path: Path) -> None:
    report = gpu.Report(torch.device("cpu"), tmp_path / "gpu.json", time.monotonic() - 1)
    report.measure("judges", "nano-lalm", lambda: pytest.fail("begun"))
    [row] = json.loads((tmp_path / "gpu.json").read_text())["judges"]
    assert row == {"what": "nano-lalm", "left out": "the time was up"}
