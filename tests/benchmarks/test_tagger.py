"""The judge of nano: what it hears, what it learns from, what it must not have met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tagger
import torch
from tagger import Clip, Judge, Pictures, TaggerRun

from resonate_audio.core.errors import ManifestError

SHORT = TaggerRun(num_steps=25, batch_clips=12)


def clip(label: str, group: str, split: str = "train", name: str = "") -> Clip:
    return Clip(name or group, label, ("x",), split, group, "0.ogg", 0, 1)


def test_a_picture_does_not_depend_on_loudness() -> None:
    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    bank = tagger.mel_bank()
    np.testing.assert_allclose(
        tagger.picture(sound, bank), tagger.picture(0.01 * sound, bank), atol=0.1
    )


def test_silence_around_a_sound_is_cut_off() -> None:
    sound = np.random.default_rng(0).normal(size=1600).astype(np.float32)
    padded = np.concatenate([np.zeros(16_000), sound, np.zeros(32_000)])
    assert len(tagger.trim_silence(padded)) <= len(sound) + 4 * 160


def test_a_tone_lights_the_band_it_is_in() -> None:
    time_s = np.arange(16_000) / 16_000
    levels = tagger.picture(np.sin(2 * np.pi * 1000 * time_s), tagger.mel_bank())
    edges_mel = np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 7800 / 700), 66)
    centres_hz = 700 * (10 ** (edges_mel[1:-1] / 2595) - 1)
    assert abs(centres_hz[levels[30].argmax()] - 1000) < 60


def test_windows_cover_a_long_clip_from_end_to_end() -> None:
    levels = np.arange(400, dtype=np.float32)[:, None].repeat(64, 1)
    windows = tagger.covering_windows(levels)
    # 5 s are 312 frames: later ones are not judged.
    assert windows[0, 0, 0] == 0
    assert windows[-1, -1, 0] == 311


def test_a_short_clip_stands_in_the_middle_of_its_window() -> None:
    [window] = tagger.covering_windows(np.zeros((60, 64), np.float32))
    assert (window[50:110] == 0).all()
    assert (window[:50] == tagger.FLOOR_DB).all()
    assert (window[110:] == tagger.FLOOR_DB).all()


def test_augmentation_never_falls_below_the_floor() -> None:
    window = torch.full((4, tagger.WINDOW_FRAMES, tagger.NUM_BANDS), tagger.FLOOR_DB)
    changed = tagger.augment(window, torch.Generator().manual_seed(0))
    assert changed.min() >= tagger.FLOOR_DB


def test_rare_classes_are_not_learnt() -> None:
    often = [clip("often", f"a{i}") for i in range(tagger.MIN_TRAIN_CLIPS)]
    rare = [clip("rare", f"b{i}") for i in range(tagger.MIN_TRAIN_CLIPS - 1)]
    one_recording = [clip("one", "c") for _ in range(20)]
    assert tagger.pick_classes([*often, *rare, *one_recording]) == ["often"]


def test_folds_share_a_class_evenly_and_keep_groups_whole() -> None:
    clips = [clip("bark", f"g{i // 2}", name=str(i)) for i in range(24)]
    folds = tagger.assign_folds(clips)
    sizes = np.bincount([folds[c.group] for c in clips])
    assert sizes.tolist() == [8, 8, 8]


def test_a_network_never_meets_the_fold_it_cross_validates(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tagger.read_clips(corpus)
    pictures, _ = tagger.picture_corpus(corpus, clips, tmp_path)
    seen: list[set[str]] = []
    train = tagger.train_tagger

    def remember(pictures: Pictures, indices: list[int], *rest: object) -> tagger.Tagger:
        seen.append({clips[i].group for i in indices})
        return train(pictures, indices, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tagger, "train_tagger", remember)
    run = TaggerRun(num_steps=1, batch_clips=4)
    tagger.make_judge(clips, pictures, tmp_path, run, say=lambda _: None)
    folds = tagger.assign_folds([c for c in clips if not c.held_out])
    everything = set(folds)
    for fold, groups in enumerate(seen):
        assert groups == {group for group in everything if folds[group] != fold}


def test_the_judge_tells_a_hum_from_a_beep_and_from_hiss(corpus: Path, cache: Path) -> None:
    clips = tagger.read_clips(corpus)
    pictures, held = tagger.picture_corpus(corpus, clips, cache)
    judge, _ = tagger.make_judge(clips, pictures, cache, SHORT, say=lambda _: None)
    assert judge.tag_sounds(list(held.values())) == [clips[i].label for i in held]


def test_a_cached_judge_is_the_same_judge_and_training_is_repeatable(
    corpus: Path, tmp_path: Path
) -> None:
    clips = tagger.read_clips(corpus)
    pictures, _ = tagger.picture_corpus(corpus, clips, tmp_path)
    run, said = TaggerRun(num_steps=1, batch_clips=4), list[str]()
    first, again, anew = (
        tagger.make_judge(clips, pictures, tmp_path / place, run, say=said.append)[0]
        for place in ("a", "a", "b")
    )
    assert sum(line.startswith("judge") for line in said) == 2 * tagger.NUM_FOLDS
    assert_same(first, again)
    assert_same(first, anew)


def test_the_second_ear_knows_one_half_of_the_recordings(corpus: Path, cache: Path) -> None:
    clips = tagger.read_clips(corpus)
    pictures, held = tagger.picture_corpus(corpus, clips, cache)
    run = TaggerRun(num_steps=120, batch_clips=12, learning_rate=1e-3, ear="second")
    judge, tags = tagger.make_judge(clips, pictures, cache, run, say=lambda _: None)
    assert [type(model) for model in judge.models] == [tagger.FrameTagger]
    training = [clip for clip in clips if clip.label in judge.classes and not clip.held_out]
    assert 0 < len(tags) < len(training)
    met = {clip.group for clip in training if clip.id not in tags}
    assert not met & {clip.group for clip in training if clip.id in tags}
    assert judge.tag_sounds(list(held.values())) == [clips[i].label for i in held]


def assert_same(first: Judge, second: Judge) -> None:
    for one, other in zip(first.models, second.models, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


def test_a_missing_corpus_says_how_to_rebuild_it(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="recipes/nano/prepare"):
        tagger.read_clips(tmp_path)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ManifestError, match=r"manifest\.jsonl:1"):
        tagger.read_clips(tmp_path)
