from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resonate_audio.core.errors import InputError, ManifestError, OutputError
from resonate_audio.data.manifest import Clip, read_manifest, write_manifest
from resonate_audio.data.mix import MixConfig, mix_manifests, weigh


def corpus(folder: Path, name: str, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    clips = (
        Clip(audio_id=f"{name}-{i}", audio_path=f"wav/{i}.wav", caption="a bell")
        for i in range(count)
    )
    write_manifest(folder / f"{name}.jsonl", clips)
    return folder / f"{name}.jsonl"


def sizes(path: Path) -> Counter[str]:
    return Counter(str(clip.source) for clip in read_manifest(path).clips)


def test_without_weights_every_clip_occurs_once(tmp_path: Path) -> None:
    paths = [corpus(tmp_path, "a", 5), corpus(tmp_path, "b", 20)]
    mix_manifests(paths, tmp_path / "m.jsonl", MixConfig())
    assert sizes(tmp_path / "m.jsonl") == {"a": 5, "b": 20}


def test_a_whole_weight_repeats_the_list_as_the_official_code_does(tmp_path: Path) -> None:
    paths = [corpus(tmp_path, "a", 4), corpus(tmp_path, "b", 7)]
    shares = mix_manifests(paths, tmp_path / "m.jsonl", MixConfig(weights=(5, 1)))
    clips = read_manifest(tmp_path / "m.jsonl").clips
    times = Counter(clip.audio_id.split("~")[0] for clip in clips)
    assert [times[f"a-{i}"] for i in range(4)] == [5, 5, 5, 5]
    assert [times[f"b-{i}"] for i in range(7)] == [1] * 7
    assert [share.times for share in shares] == [5, 1]


def test_a_part_of_a_weight_is_a_seeded_choice_of_exact_size(tmp_path: Path) -> None:
    paths = [corpus(tmp_path, "a", 40)]
    chosen = []
    for seed in (0, 0, 1):
        mix_manifests(
            paths, tmp_path / "m.jsonl", MixConfig(weights=(1.5,), seed=seed), overwrite=True
        )
        clips = read_manifest(tmp_path / "m.jsonl").clips
        assert len(clips) == 60
        chosen.append({clip.audio_id for clip in clips if "~" in clip.audio_id})
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_a_temperature_of_two_draws_by_the_root_of_the_size() -> None:
    counts = [100, 10_000]
    times = weigh(counts, MixConfig(temperature=2))
    assert times == pytest.approx([10.0, 1.0])


@given(
    counts=st.lists(st.integers(1, 10**7), min_size=1, max_size=6),
    temperature=st.floats(1, 50),
)
def test_a_temperature_never_loses_a_clip_and_keeps_the_order_of_sizes(
    counts: list[int], temperature: float
) -> None:
    times = weigh(counts, MixConfig(temperature=temperature))
    assert all(time >= 1 for time in times)
    drawn = [count * time for count, time in zip(counts, times, strict=True)]
    by_size = sorted(range(len(counts)), key=lambda index: counts[index])
    ranked = [drawn[index] for index in by_size]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(ranked))


def test_corpora_are_spread_evenly(tmp_path: Path) -> None:
    paths = [corpus(tmp_path, "a", 10), corpus(tmp_path, "b", 90)]
    mix_manifests(paths, tmp_path / "m.jsonl", MixConfig())
    sources = [clip.source for clip in read_manifest(tmp_path / "m.jsonl").clips]
    assert [sources[i : i + 10].count("a") for i in range(0, 100, 10)] == [1] * 10


def test_paths_start_at_the_mixture(tmp_path: Path) -> None:
    paths = [corpus(tmp_path / "x" / "y", "a", 1)]
    mix_manifests(paths, tmp_path / "out" / "m.jsonl", MixConfig())
    manifest = read_manifest(tmp_path / "out" / "m.jsonl")
    assert manifest.clips[0].audio_path == "../x/y/wav/0.wav"


def test_two_manifests_that_share_an_id_are_named_with_it(tmp_path: Path) -> None:
    paths = [corpus(tmp_path / "one", "a", 3), corpus(tmp_path / "two", "a", 3)]
    with pytest.raises(ManifestError, match=r"two/a\.jsonl:1: audio_id a-0 is in .*one/a\.jsonl"):
        mix_manifests(paths, tmp_path / "m.jsonl", MixConfig())
    assert not (tmp_path / "m.jsonl").exists()


def test_an_id_used_twice_in_one_manifest_is_named(tmp_path: Path) -> None:
    path = corpus(tmp_path, "a", 2)
    path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with pytest.raises(ManifestError, match=r"a\.jsonl:3: audio_id a-0 was used before"):
        mix_manifests([path], tmp_path / "m.jsonl", MixConfig())


def test_an_empty_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"a\.jsonl: no clip in it"):
        mix_manifests([corpus(tmp_path, "a", 0)], tmp_path / "m.jsonl", MixConfig())


def test_a_mixture_is_not_repeated_again(tmp_path: Path) -> None:
    mix_manifests([corpus(tmp_path, "a", 2)], tmp_path / "m.jsonl", MixConfig(weights=(2,)))
    with pytest.raises(ManifestError, match="audio_id a-0~2 looks repeated already"):
        mix_manifests([tmp_path / "m.jsonl"], tmp_path / "n.jsonl", MixConfig(weights=(2,)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MixConfig(weights=(1, 2)), "2 weights for 1 manifests"),
        (MixConfig(weights=(0,)), "each must be positive"),
        (MixConfig(weights=(1e12,)), "10,000 at most"),
        (MixConfig(weights=(1,), temperature=2), "both weights and a temperature"),
    ],
)
def test_weights_that_cannot_be_meant_are_told(
    tmp_path: Path, config: MixConfig, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mix_manifests([corpus(tmp_path, "a", 2)], tmp_path / "m.jsonl", config)


def test_an_older_mixture_is_kept(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(OutputError, match="exists already"):
        mix_manifests([corpus(tmp_path, "a", 2)], tmp_path / "m.jsonl", MixConfig())
    assert (tmp_path / "m.jsonl").read_text(encoding="utf-8") == "precious"
