"""The quality table: its definitions, and one run over a model of random weights."""

from __future__ import annotations

from pathlib import Path

import nano_quality
import numpy as np
import pytest
import tagger
import torch
from nano_quality import Classes, Hits, difference
from tagger import Clip, Judge, TaggerRun

from resonate_audio.pipeline.path import Resonate


def hits_of(**recalls: tuple[int, int]) -> Hits:
    hits = Hits()
    for label, (right, total) in recalls.items():
        hits.add([label] * total, [label] * right + ["other"] * (total - right))
    return hits


def train_clips(**counts: int) -> list[Clip]:
    return [
        Clip(f"{label}{i}", label, (f"the {label} {i}",), "train", f"{label}{i}", "0", 0, 1)
        for label, count in counts.items()
        for i in range(count)
    ]


def test_accuracy_is_the_mean_over_classes_not_over_clips() -> None:
    assert hits_of(dog=(90, 100), bell=(0, 1)).accuracy(["dog", "bell"]) == pytest.approx(0.45)


def test_a_class_is_told_apart_by_cross_validation_not_by_its_held_out_clips() -> None:
    clips = train_clips(dog=3, bell=2, rain=1)
    cross = hits_of(dog=(2, 3), bell=(0, 2), rain=(1, 1))
    held = hits_of(dog=(0, 2), bell=(2, 2), rain=(1, 1))
    judge = Judge(("bell", "dog", "rain"), ())
    classes = nano_quality.tellable_classes(clips, judge, cross, held, None)
    assert classes.all == ("dog", "rain")
    assert classes.strict == ("rain",)


def test_a_class_without_held_out_clips_has_no_ceiling_and_is_left_out() -> None:
    judge = Judge(("dog",), ())
    cross = hits_of(dog=(3, 3))
    assert not nano_quality.tellable_classes(train_clips(dog=3), judge, cross, Hits(), None).all


def test_prompts_are_captions_of_training_clips_and_the_same_every_time() -> None:
    clips = train_clips(dog=5, bell=5)
    rows = nano_quality.prompts_of(clips, ["dog", "bell"], 4)
    assert rows == nano_quality.prompts_of(clips, ["dog", "bell"], 4)
    assert [label for label, _, _ in rows] == ["dog"] * 4 + ["bell"] * 4
    assert all(caption.startswith(f"the {label}") for label, caption, _ in rows)
    assert len({seed for _, _, seed in rows}) == 8


def test_an_interval_of_certain_answers_is_a_point() -> None:
    assert nano_quality.interval(hits_of(dog=(4, 4), bell=(2, 2)), ["dog", "bell"]) == (1.0, 1.0)


def test_the_ratio_to_an_equal_ceiling_is_one() -> None:
    hits = hits_of(dog=(3, 3), bell=(2, 2))
    line = nano_quality.ratio_row("nano / ceiling", hits, hits, [["dog", "bell"]])
    assert "**100.0%** [100.0%, 100.0%]" in line


def test_the_frequent_classes_are_the_first_forty() -> None:
    names = tuple(f"class {i}" for i in range(50))
    assert Classes(names, ()).frequent() == names[:40]


def test_a_perfect_decoder_has_no_error(tiny_model: Path) -> None:
    pipeline = Resonate.from_pretrained(str(tiny_model), device="cpu")

    class Echo:
        """Gives back the wave whose mel it is shown."""

        def __call__(self, mel: object) -> object:
            return wave

    sound = np.random.default_rng(0).normal(size=4096).astype(np.float32) * 0.1
    wave = torch.from_numpy(nano_quality.resample_to(sound, 8000))[None]
    pipeline.vocoder = Echo()  # type: ignore[assignment]
    _, error_db = nano_quality.reconstruct(pipeline, sound, through_vae=False)
    assert error_db == 0


def test_the_whole_table_is_printed(
    corpus: Path,
    tiny_model: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tagger.RUNS, "first", TaggerRun(num_steps=25, batch_clips=12))
    details = tmp_path / "classes.md"
    arguments = ["--model", str(tiny_model), "--corpus", str(corpus), "--cache", str(cache)]
    numbers = tmp_path / "numbers.json"
    arguments += ["--takes", "1", "--steps", "1", "--details", str(details)]
    assert nano_quality.main([*arguments, "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    again = [*arguments, "--skip-decoder", "--against", str(numbers)]
    assert nano_quality.main(again) == 0
    assert "less numbers, all and strict: +0.0% [+0.0%, +0.0%]" in capsys.readouterr().out
    for row in ("held out (the ceiling)", "VAE + vocoder", "prompted / ceiling", "| target |"):
        assert row in printed
    assert "| high beep |" in details.read_text()


def test_two_models_are_compared_on_the_same_sounds() -> None:
    right, wrong = [True, True], [False, True]
    one, other = Hits({"a": right, "b": right}), Hits({"a": wrong, "b": right})
    assert difference(one, other, ["a", "b"]) == "+25.0% [+0.0%, +50.0%]"
    assert difference(one, one, ["a", "b"]) == "+0.0% [+0.0%, +0.0%]"


def test_a_missing_corpus_ends_with_two_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nano_quality.main(["--corpus", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
