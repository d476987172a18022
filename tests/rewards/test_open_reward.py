from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_judges import build_clap, make_llm, write_llm

from resonate_audio.core.errors import (
    CheckpointError,
    ConfigError,
    ModelNotFoundError,
    ResonateError,
)
from resonate_audio.core.types import Waveform
from resonate_audio.model.hub_client import NotHereError
from resonate_audio.rewards.audio_llm.aqascore import AQAReward
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import JUDGES, open_reward, parse_spec, short_labels
from resonate_audio.rewards.clap.laion import CLAPReward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.remote.judge import RemoteAQAReward

AUDIO = Waveform(0.1 * torch.ones(2, 8000), 16_000)
TEXTS = ["rain", "wind"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("judges")
    write_llm(make_llm("qwen2_audio"), place / "lalm")
    model, processor = build_clap()
    model.save_pretrained(place / "clap")
    processor.save_pretrained(place / "clap")
    return {name: place / name for name in ("lalm", "clap")}


@pytest.mark.filterwarnings(
    "ignore::resonate_audio.rewards.audio_llm.aqascore.LowAnswerMassWarning"
)
def test_a_line_of_judges_is_opened_weighted_and_scored(folders: dict[str, Path]) -> None:
    aqa = f"aqa:{folders['lalm']}#question=official"
    judge = open_reward(f"0.5*clap:{folders['clap']}, {aqa},-2*plain_judges:loudness")
    assert isinstance(judge, Reward)
    assert judge.name == "0.5*clap+aqa+-2*plain_judges:loudness"
    rewards = score_now(judge, AUDIO, TEXTS)
    parts = rewards.parts
    expected = 0.5 * parts["clap"] + parts["aqa"] - 2 * parts["plain_judges:loudness"]
    torch.testing.assert_close(rewards.total, expected)
    assert "aqa/answer_mass" in parts
    assert "official" in rewards.judge


def test_a_list_of_judges_is_the_same_as_a_line(folders: dict[str, Path]) -> None:
    specs = [f"clap:{folders['clap']}", "plain_judges:loudness"]
    assert open_reward(specs).name == open_reward(",".join(specs)).name


def test_options_reach_the_judge(folders: dict[str, Path]) -> None:
    spec = f"aqa:{folders['lalm']}#dtype=bfloat16&question=Do you hear %7Bc%7D%3F&batch_size=3"
    judge = open_reward(spec).members[0].judge
    assert isinstance(judge, AQAReward)
    assert "Do you hear {c}?" in judge.llm.question.template
    assert next(judge.llm.model.parameters()).dtype == torch.bfloat16


def test_judges_get_the_shortest_labels_that_tell_them_apart() -> None:
    texts = ["clap", "aqa:a/x", "aqa:b/y", "aqa:b/y#question=official", "nano-clap"]
    assert short_labels([parse_spec(text) for text in texts]) == [
        "clap",
        "aqa:a/x",
        "aqa:b/y",
        "aqa:b/y#question=official",
        "nano-clap",
    ]


def test_two_judges_of_one_kind_are_told_apart(folders: dict[str, Path]) -> None:
    clap = folders["clap"]
    judge = open_reward([f"clap:{clap}", f"clap:{clap}#batch_size=2"])
    assert [member.label for member in judge.members] == [
        f"clap:{clap}",
        f"clap:{clap}#batch_size=2",
    ]
    assert all(isinstance(member.judge, CLAPReward) for member in judge.members)


def test_a_remote_judge_keeps_its_whole_address() -> None:
    judge = open_reward("0.25*remote:http://127.0.0.1:9/v1#model=m").members[0]
    assert isinstance(judge.judge, RemoteAQAReward)
    assert (judge.label, judge.weight) == ("remote", 0.25)


def test_the_time_limit_is_passed_on() -> None:
    assert open_reward("plain_judges:loudness", timeout_s=7.0).timeout_s == 7.0


@pytest.mark.parametrize(
    ("text", "weight", "kind", "source", "options"),
    [
        ("clap", 1.0, "clap", None, ""),
        (" 0.5*clap:laion/x ", 0.5, "clap", "laion/x", ""),
        ("-1e-2*pkg.mod:name", -0.01, "pkg.mod:name", None, ""),
        ("aqa:a/b@main#dtype=float32", 1.0, "aqa", "a/b@main", "#dtype=float32"),
        (
            "remote:http://a:1/v1|http://b:2/v1#model=a*b",
            1.0,
            "remote",
            "http://a:1/v1|http://b:2/v1",
            "#model=a*b",
        ),
    ],
)
def test_a_judge_is_read_from_text(
    text: str, weight: float, kind: str, source: str | None, options: str
) -> None:
    spec = parse_spec(text)
    assert (spec.weight, spec.kind, spec.source, spec.options) == (weight, kind, source, options)


@pytest.mark.parametrize("text", ["clop", "clop:laion/x#batch_size=2"])
def test_an_unknown_judge_lists_those_that_exist(text: str) -> None:
    with pytest.raises(ConfigError, match="clop") as caught:
        open_reward(f"plain_judges:loudness,{text}")
    assert all(kind in str(caught.value) for kind in JUDGES)
    assert "module:name" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("", "expected weight"),
        ("clap,,clap", "expected weight"),
        ("half*plain_judges:loudness", "'half' is no weight"),
        ("aqa", "which model"),
        ("remote", "at which URL"),
        ("nano-clap:somewhere", "takes no model"),
        ("nano-eval#batch_size=2", "takes no model or option"),
        ("clap#batch_size=0", "batch_size"),
        ("clap#sise=2", "sise"),
        ("aqa:x/y#dtype=int4", "dtype int4"),
        ("nan*plain_judges:loudness", "weight nan"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(spec: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_reward(spec)


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        open_reward(f"clap:{tmp_path}")


def test_every_mistake_is_one_line(tmp_path: Path) -> None:
    for spec in ("clop", "aqa", f"clap:{tmp_path}", f"aqa:{tmp_path}", "clap:not/a/hub/id"):
        with pytest.raises(ResonateError) as caught:
            open_reward(spec)
        assert "\n" not in str(caught.value)


def test_a_judge_without_its_weights_names_those_that_need_no_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody_answers(*_: object, **__: object) -> None:
        raise NotHereError("laion/larger_clap_general: cannot be fetched from the hub")

    monkeypatch.setattr("resonate_audio.rewards.pretrained.fetch", nobody_answers)
    expected = r"judge clap: needs its weights once .* nano-lalm, nano-clap, nano-eval; laion/"
    with pytest.raises(ModelNotFoundError, match=expected):
        open_reward("clap")
