"""Rebuilding nano's corpus: what each step must do, and one small package from end to end."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpus import choose, process, rules, sources, spoken, unpack
from corpus.candidates import Candidate
from corpus.captions import word_clip
from corpus.choose import Groups, Item, split_items
from corpus.licences import Credit, match_licence, read_copyright
from corpus.midi import Track, variable_length
from corpus.process import Processed
from corpus.render import compose

RATE_HZ = process.SAMPLE_RATE_HZ
PREPARE = Path(sources.HERE).parent / "prepare"
PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "manifest.jsonl"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return (0.3 * chance.uniform(-1, 1, int(seconds * RATE_HZ))).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE_HZ), np.float32)


def processed(label: str = "dog bark", **fields: object) -> Processed:
    captions = rules.read_labels()[label]
    candidate = Candidate("zoo", "deb/zoo/a.ogg", "a.ogg", label, captions, Credit("CC0"))
    values = {
        "id": "zoo-1", "candidate": candidate, "segment": 0, "num_segments": 1,
        "frames": RATE_HZ, "sample_rate_orig": RATE_HZ, "pcm": "x", "num_bursts": 1,
        "depth_db": 40.0,
    }  # fmt: skip
    return Processed(**(values | fields))  # type: ignore[arg-type]


# ---------------------------------------------------------------- rules and wording


def test_every_rule_names_a_class_that_has_captions() -> None:
    labels = rules.read_labels()
    for source in rules.read_rules(labels):
        assert all(rule.rejects or labels[rule.label] for rule in source.rules)


def test_the_first_rule_that_matches_decides() -> None:
    first, second = rules.parse_rule("dog bark | ^dog"), rules.parse_rule("cat meow | dog|cat")
    source = rules.Source("zoo", "deb/zoo", "CC0", (first, second))
    assert source.match("Dog1") is first
    assert source.match("hotdog") is second
    assert source.match("cow") is None


def test_a_rule_may_reject_by_class_or_by_caption() -> None:
    assert rules.parse_rule("- | ^music").rejects
    assert rules.parse_rule("dog bark | ^fake | -").rejects
    assert not rules.parse_rule("dog bark | ^dog").rejects


def test_a_bar_inside_a_pattern_is_not_a_separator() -> None:
    rule = rules.parse_rule("cat meow | Animal/(Cat|Meow)$ | a cat / the cat")
    assert rule.pattern.search("Animal/Meow")
    assert rule.captions == ("a cat", "the cat")


@pytest.mark.parametrize(
    ("kind", "path", "caption"),
    [
        ("ast_es", "x/digits/12", "a woman says the number twelve in Spanish"),
        ("ast_it", "x/digits/90", "a man says the number ninety in Italian"),
        ("ast_en", "x/digits/day-2", 'a woman says "tuesday"'),
        ("ast_en", "letters/b", "a woman says the letter B"),
        ("ast_en", "phonetic/q_p", 'a woman says "quebec"'),
        ("strum", "Gmajor_up", "an acoustic guitar strums a G major chord with an upstroke"),
        ("strum", "Aminor_02", "an acoustic guitar strums an A minor chord"),
        ("mkviii", "x/too-low-gear", 'a cockpit warning voice says "too low, gear"'),
        ("fdo", "audio-channel-front-left", 'a woman says "front left"'),
    ],
)  # fmt: skip
def test_names_spell_out_captions(kind: str, path: str, caption: str) -> None:
    assert spoken.caption_of(kind, path, Path()) == caption


def test_only_eight_takes_of_a_spoken_digit_are_used() -> None:
    assert spoken.caption_of("fsdd", "3_theo_7", Path())
    assert spoken.caption_of("fsdd", "3_theo_8", Path()) is None


@pytest.mark.parametrize(("bursts", "words"), [(1, "once"), (2, "twice"), (5, "several times")])
def test_barks_are_counted(bursts: int, words: str) -> None:
    _, captions = word_clip(processed(num_bursts=bursts), rules.read_labels())
    assert f"a dog barks {words}" in captions


def test_barks_in_noise_are_not_counted() -> None:
    _, captions = word_clip(processed(num_bursts=2, depth_db=21.9), rules.read_labels())
    assert not any("twice" in caption for caption in captions)


def test_one_step_is_not_worded_as_many() -> None:
    step = processed("footsteps on grass", frames=RATE_HZ // 2)
    assert word_clip(step, rules.read_labels())[0] in (
        "a single footstep on grass",
        "one footstep on grass",
    )


# ---------------------------------------------------------------- signals


def test_trimming_keeps_ten_milliseconds_before_and_forty_after() -> None:
    sound = np.concatenate([silence(1), noise(0.5), silence(1)])
    kept = process.trim(sound)
    assert len(kept) == int(0.5 * RATE_HZ) + RATE_HZ * 10 // 1000 + 3 * RATE_HZ // 100


def test_a_quiet_tail_is_trimmed_fifty_decibels_below_the_loudest() -> None:
    tail = noise(1, seed=1)
    kept = process.trim(np.concatenate([noise(0.5), tail * 10 ** (-49 / 20)]))
    assert len(kept) > 1.4 * RATE_HZ
    cut = process.trim(np.concatenate([noise(0.5), tail * 10 ** (-52 / 20)]))
    assert len(cut) < 0.6 * RATE_HZ


@pytest.mark.parametrize(("label", "count"), [("rain", 4), ("dog bark", 1)])
def test_a_long_ambience_gives_four_clips_anything_else_one(label: str, count: int) -> None:
    parts = process.cut(noise(60), label)
    assert [len(part) for part in parts] == [10 * RATE_HZ] * count


def test_segments_reach_from_the_first_to_the_last_second() -> None:
    ramp = np.arange(30 * RATE_HZ, dtype=np.float32)
    parts = process.segments(ramp, 3)
    assert [part[0] for part in parts] == [0, 10 * RATE_HZ, 20 * RATE_HZ]


def test_levels_are_moved_only_when_they_must_be() -> None:
    wave = np.array([0.0, 1.0], np.float32)
    peaks = {p: float(process.level(wave * p).max()) for p in (2.0, 0.5, 0.1, 0.001)}
    assert peaks == pytest.approx({2.0: 0.99, 0.5: 0.5, 0.1: 0.5, 0.001: 0.01})


@pytest.mark.parametrize(
    ("sound", "reason"), [(silence(1), "silent"), (noise(0.1), "short"), (silence(0), "silent")]
)
def test_what_cannot_be_used_is_named(sound: np.ndarray, reason: str) -> None:
    assert process.cut(sound, "rain") == reason


def test_bursts_are_counted_across_pauses() -> None:
    bark, pause = noise(0.2), silence(0.3)
    assert process.count_bursts(np.concatenate([bark, pause] * 3))[0] == 3
    # A gap under 100 ms does not separate.
    assert process.count_bursts(np.concatenate([bark, silence(0.08), bark]))[0] == 1


def test_a_listing_survives_the_round_trip() -> None:
    assert Processed.from_fields(json.loads(processed().to_json())) == processed()


# ---------------------------------------------------------------- choice


def test_joined_groups_share_a_root_however_they_were_joined() -> None:
    groups = Groups()
    groups.join(["a", "b"])
    groups.join(["c", "d"])
    groups.join(["b", "c"])
    assert len({groups.find(key) for key in "abcd"}) == 1
    assert groups.find("e") == "e"


def test_twenty_recordings_give_one_test_and_one_val_clip() -> None:
    items = [Item(f"id{i}", "dog bark", i) for i in range(20)]
    assert sorted(split_items(items).values()) == ["test", *["train"] * 18, "val"]


@pytest.mark.parametrize(("num_groups", "held_out"), [(4, 0), (5, 1), (7, 1), (8, 2)])
def test_small_classes_hold_out_less(num_groups: int, held_out: int) -> None:
    items = [Item(f"id{i}", "dog bark", i) for i in range(num_groups)]
    split = split_items(items)
    assert sum(name != "train" for name in split.values()) == held_out


def test_a_group_is_never_split() -> None:
    items = [Item(f"{label}{i}", label, i // 2) for label in ("a", "b") for i in range(40)]
    split = split_items(items)
    assert set(split) == set(range(20))


def test_a_large_group_stays_in_training() -> None:
    items = [Item(f"big{i}", "rain", "big") for i in range(30)]
    items += [Item(f"id{i}", "rain", i) for i in range(10)]
    assert split_items(items)["big"] == "train"


def test_take_numbers_are_no_part_of_a_name() -> None:
    assert choose.name_stem("s", "dir/bark_01.ogg") == choose.name_stem("s", "dir/bark2b.wav")
    assert choose.name_stem("s", "dir/bark1.ogg") != choose.name_stem("s", "dir/growl1.ogg")


def test_a_shifted_and_turned_wave_is_the_same_wave() -> None:
    wave = noise(0.2)
    shifted = -0.5 * np.concatenate([silence(0.05), wave])
    assert choose.wave_likeness(wave, shifted) == pytest.approx(1, abs=1e-4)
    assert choose.wave_likeness(wave, noise(0.2, seed=1)) < 0.2


def test_of_two_equal_clips_the_better_source_stays() -> None:
    def of(source: str) -> Processed:
        candidate = Candidate(source, f"{source}/a", "a", "rain", ("rain",), Credit("CC0"))
        return processed(id=source, candidate=candidate)

    alive, _ = choose.without_duplicates([of("widelands"), of("esc10"), of("unlisted")], [])
    assert alive == {1}


def test_the_published_choice_holds_no_group_in_two_splits() -> None:
    splits: dict[str, set[str]] = {}
    for choice in choose.read_choices().values():
        splits.setdefault(choice.group, set()).add(choice.split)
    assert all(len(names) == 1 for names in splits.values())


# ---------------------------------------------------------------- licences


def test_the_last_pattern_of_a_copyright_file_that_fits_decides(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nLicense: GPL-2+\n\nFiles: sounds/dog*.ogg\n sounds/cat.ogg\nLicense: CC0-1.0\n"
    )
    table = read_copyright(path)
    assert match_licence(table, "deb/p/usr/share/sounds/dog1.ogg", "?") == "CC0-1.0"
    assert match_licence(table, "deb/p/usr/share/sounds/cat.ogg", "?") == "CC0-1.0"
    assert match_licence(table, "deb/p/usr/share/sounds/cow.ogg", "?") == "GPL-2+"
    assert match_licence((), "deb/p/usr/cow.ogg", "GPL-3+") == "GPL-3+"


@pytest.mark.parametrize("licence", ["CC-Sampling+", "CC-BY-NC-3.0", "Artistic-1.0", "?"])
def test_what_may_not_be_shared_is_not_used(licence: str) -> None:
    assert not Credit(licence).usable


def test_open_licences_are_used() -> None:
    assert Credit("CC-BY-SA-4.0").usable


# ---------------------------------------------------------------- rendering


@pytest.mark.parametrize(
    ("number", "coded"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x81\x00"), (16383, b"\xff\x7f")]
)
def test_midi_numbers_have_seven_bits_a_byte(number: int, coded: bytes) -> None:
    assert variable_length(number) == coded


def test_a_note_of_one_second_lasts_nine_hundred_and_sixty_ticks() -> None:
    track = Track()
    track.note(0.0, 1.0, 60, 90)
    assert bytes([0x90, 60, 90]) + variable_length(960) + bytes([0x80, 60, 0]) in track.to_bytes()


def test_every_rendered_sound_is_named_once_and_has_a_caption() -> None:
    score = compose(0, rules.read_labels())
    assert len({slot.name for slot in score.slots}) == len(score.slots)
    assert all(slot.captions for slot in score.slots)


# ---------------------------------------------------------------- unpacking


def test_a_qt_resource_gives_its_sounds(tmp_path: Path) -> None:
    """One folder "s" with "a.ogg", deflated, as rcc writes it in version 1."""
    content = b"sound" * 10
    deflated = struct.pack(">I", len(content)) + zlib.compress(content)
    data = struct.pack(">I", len(deflated)) + deflated
    names = b"".join(
        struct.pack(">HI", len(name), 0) + name.encode("utf-16-be") for name in ("s", "a.ogg")
    )
    tree = struct.pack(">IHII", 0, 2, 1, 1)  # the root: one child, node 1
    tree += struct.pack(">IHII", 0, 2, 1, 2)  # "s": one child, node 2
    tree += struct.pack(">IHHHI", 8, 1, 0, 0, 0)  # "a.ogg", deflated, at the start of the data
    head = b"qres" + struct.pack(">IIII", 1, 20, 20 + len(tree), 20 + len(tree) + len(data))
    path = tmp_path / "x.rcc"
    path.write_bytes(head + tree + data + names)
    assert list(unpack._resource_members(path)) == [("/s/a.ogg", content)]


def test_members_that_climb_out_of_an_archive_stay_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = sources.Folders(tmp_path / "work")
    inner = sources.InnerArchive("zoo", "zoo.zip", "zoo")
    monkeypatch.setattr(unpack, "INNER_ARCHIVES", (inner,))
    (folders.sources / "deb/zoo").mkdir(parents=True)
    with zipfile.ZipFile(folders.sources / "deb/zoo/zoo.zip", "w") as archive:
        archive.writestr("../../../evil.ogg", b"x")
    assert unpack.unpack_inner("zoo", folders) == 1
    assert (folders.sources / "x/zoo/evil.ogg").is_file()


def run_prepare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PREPARE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_unknown_source_ends_with_two_and_one_line(tmp_path: Path) -> None:
    done = run_prepare("--out", tmp_path / "out", "--only", "no-such-package")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only no-such-package")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def tiny_deb(tmp_path: Path) -> Path:
    """A package by the name of a real one, with two sounds of known classes and one of none."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed: no package can be built here")
    root = tmp_path / "root"
    stereo = root / "usr/share/sounds/Yaru/stereo"
    documents = root / "usr/share/doc/yaru-theme-sound"
    for folder in (stereo, documents, root / "DEBIAN"):
        folder.mkdir(parents=True)
    for number, name in enumerate(("trash-empty", "message", "zzz-no-rule-names-this")):
        with soundfile.SoundFile(stereo / f"{name}.oga", "w", RATE_HZ, 1, format="OGG") as file:
            file.write(noise(0.4, seed=number))
    (documents / "copyright").write_text("All of it: CC-BY-SA-4.0\n")
    (root / "DEBIAN/control").write_text(
        "Package: yaru-theme-sound\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\n"
        "Description: test\n"
    )
    debs = tmp_path / "work/debs"
    debs.mkdir(parents=True)
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root]
    subprocess.run([*command, debs / "yaru-theme-sound_1_all.deb"], check=True, capture_output=True)
    return tmp_path / "work"


def test_a_package_becomes_a_corpus_and_a_second_run_changes_nothing(
    tiny_deb: Path, tmp_path: Path
) -> None:
    arguments = ("--out", tmp_path / "out", "--work", tiny_deb, "--every")
    first = run_prepare(*arguments, "--only", "yaru-theme-sound")
    assert first.returncode == 0, first.stderr
    manifest = (tmp_path / "out/manifest.jsonl").read_text()
    rows = [json.loads(line) for line in manifest.splitlines()]
    assert sorted(Path(row["origin"]).stem for row in rows) == ["message", "trash-empty"]
    assert {row["licence"] for row in rows} == {"CC-BY-SA-4.0"}
    shard, _ = soundfile.read(tmp_path / "out/shards" / rows[-1]["shard"])
    assert len(shard) >= rows[-1]["start"] + rows[-1]["frames"]
    assert "1 files left out: named by no rule" in first.stdout
    assert run_prepare(*arguments, "--only", "yaru-theme-sound").returncode == 0
    assert (tmp_path / "out/manifest.jsonl").read_text() == manifest


@pytest.fixture(scope="module")
def published() -> list[dict[str, Any]]:
    """The corpus as it was published, where it is at hand."""
    if not PUBLISHED.is_file():
        pytest.skip("../shared/corpus is not beside the checkout: nothing to compare with")
    return [json.loads(line) for line in PUBLISHED.read_text(encoding="utf-8").splitlines()]


def name_within(row: dict[str, Any], named: dict[str, rules.Source]) -> str:
    """A clip's file relative to its source's folder."""
    folder = named[row["source"]].folder if row["source"] in named else "render"
    return str(row["origin"]).removeprefix(f"{folder}/")


def test_every_published_clip_keeps_its_class_and_its_id(published: list[dict[str, Any]]) -> None:
    named = {source.name: source for source in rules.read_rules(rules.read_labels())}
    for row in published:
        name = name_within(row, named)
        stem = str(Path(name).with_suffix("")) if unpack.is_sound(name) else name
        if row["source"] in named:
            rule = named[row["source"]].match(stem)
            assert rule is not None, row["origin"]
            assert rule.label == row["label"], row["origin"]
        else:
            name = stem
        ids = {process.clip_id(row["source"], name, segment) for segment in range(4)}
        assert row["id"] in ids, row["origin"]


def test_every_published_rendering_is_played_again(published: list[dict[str, Any]]) -> None:
    for index, font in enumerate(sources.SOUNDFONTS):
        slots = {slot.name: slot for slot in compose(index, rules.read_labels()).slots}
        for row in published:
            if row["source"] == f"gm_{font}":
                slot = slots[Path(row["origin"]).stem]
                assert slot.label == row["label"]
                assert set(slot.captions) & set(row["captions"])


def test_the_published_choice_is_the_published_corpus(published: list[dict[str, Any]]) -> None:
    choices = choose.read_choices()
    rows = {row["id"]: choose.Choice(row["split"], row["group"]) for row in published}
    assert choices == rows


@pytest.mark.slow
def test_a_real_package_gives_the_published_clips(
    published: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Downloads half a megabyte through apt-get."""
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not installed")
    done = run_prepare("--out", tmp_path, "--only", "yaru-theme-sound")
    if "sources skipped" in done.stdout:
        pytest.skip(f"the package cannot be had here: {done.stdout[-200:]}")
    made = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    expected = {row["id"]: row for row in published if row["source"] == "yaru"}
    place = {"shard", "start"}
    assert {row["id"] for row in made} == set(expected)
    for row in made:
        wanted = {k: v for k, v in expected[row["id"]].items() if k not in place}
        assert {k: v for k, v in row.items() if k not in place} == wanted
