from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from plain_judges import Steady

from resonate_audio.core.errors import ConfigError, RewardError
from resonate_audio.core.types import Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.function import open_function

RATE_HZ = 44_100
TIME_S = torch.arange(RATE_HZ) / RATE_HZ
AUDIO = Waveform(
    torch.tensor([0.1, 0.5, 1.0])[:, None] * torch.sin(2 * math.pi * 100 * TIME_S), RATE_HZ
)
TEXTS = ["a", "dog", "barks"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loudness", [0.1 / math.sqrt(2), 0.5 / math.sqrt(2), 1 / math.sqrt(2)]),
        ("text_length", [1, 3, 5]),
        ("rate", [RATE_HZ] * 3),
        ("as_tensor", [0, 1, 2]),
    ],
)
def test_what_the_function_gives_is_the_score(name: str, expected: list[float]) -> None:
    rewards = score_now(open_function(f"plain_judges:{name}"), AUDIO, TEXTS)
    assert rewards.total.tolist() == pytest.approx(expected, rel=1e-5)
    assert rewards.judge == f"plain_judges:{name}"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("too_few", r"total has shape \(2,\); expected one score for each of 3 rows"),
        ("not_a_number", "total of row 2 is nan"),
        ("words", "gave list; expected one number a row"),
        ("nothing", "gave NoneType; expected one number a row"),
        ("two_columns", "gave Tensor; expected one number a row"),
        ("broken", "KeyError: 'dog'"),
        ("complex_numbers", "gave ndarray; expected one number a row"),
        ("complex_tensor", "gave Tensor; expected one number a row"),
        ("numbers_as_words", "gave list; expected one number a row"),
        ("cancelled", "a part of it was cancelled"),
        ("cancelled_async", "a part of it was cancelled"),
    ],
)
def test_what_is_no_score_is_an_error_that_names_the_function(name: str, complaint: str) -> None:
    with pytest.raises(RewardError, match=f"plain_judges:{name}: {complaint}"):
        score_now(open_function(f"plain_judges:{name}"), AUDIO, TEXTS)


def test_the_function_may_spoil_its_own_arrays() -> None:
    before = AUDIO.samples.clone()
    score_now(open_function("plain_judges:spoil"), AUDIO, TEXTS)
    assert torch.equal(AUDIO.samples, before)


def test_a_class_of_judges_is_made_and_asked() -> None:
    judge = open_function("plain_judges:Steady")
    assert isinstance(judge, Steady)
    assert isinstance(judge, Reward)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("no_such_module_here:score", "cannot import no_such_module_here"),
        ("plain_judges:gone", "plain_judges has no function or judge called gone"),
        ("plain_judges:NUMBER", "no function or judge called NUMBER"),
    ],
)
def test_a_place_without_a_judge_is_named(place: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_function(place)


def test_a_file_in_the_current_folder_is_found_by_a_script(tmp_path: Path) -> None:
    """A script's own folder is on the path; the folder it is called in is not."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "my_judge.py").write_text("def score(samples, rate, prompts): return []")
    script = tmp_path / "script.py"
    script.write_text(
        "from resonate_audio.rewards.function import open_function\n"
        "print(open_function('my_judge:score').name)"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path / "here", capture_output=True, text=True
    )
    assert done.stdout == "my_judge:score\n", done.stderr


def test_the_documented_example_is_a_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "documented_judge.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    tones = [torch.sin(2 * math.pi * frequency_hz * TIME_S) for frequency_hz in (100, 5000)]
    audio = Waveform(torch.stack(tones), RATE_HZ)
    total = score_now(open_function("documented_judge:brightness"), audio, ["low", "high"]).total
    assert total.tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
