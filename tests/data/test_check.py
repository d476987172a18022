import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bells import RATE_HZ, bells

from resonate_audio.core.errors import ManifestError, OutputError
from resonate_audio.data.check import KINDS, CheckReport, check_manifest
from resonate_audio.data.check_page import check_place, histogram, render_check, write_check
from resonate_audio.data.inspection import CheckConfig
from resonate_audio.data.manifest import Clip, write_manifest
from resonate_audio.data.mix import MixConfig, mix_manifests


class Corpus:
    """Sounds and the lines that list them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clips: list[Clip] = []

    def list(self, name: str, **fields: Any) -> None:
        line = {"audio_id": name.split(".")[0], "audio_path": name, "caption": f"sound {name}"}
        self.clips.append(Clip.model_validate(line | fields))

    def add(self, name: str, samples: np.ndarray, rate_hz: int = RATE_HZ, **fields: Any) -> None:
        codec = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(name.split(".")[1], "PCM_16")
        soundfile.write(self.folder / name, samples, rate_hz, subtype=codec)
        self.list(name, **fields)

    def write(self) -> Path:
        write_manifest(self.folder / "m.jsonl", self.clips)
        return self.folder / "m.jsonl"

    def check(self, **options: Any) -> CheckReport:
        return check_manifest(self.write(), CheckConfig(**options))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def by_kind(report: CheckReport) -> dict[str, list[str | None]]:
    return {kind: [x.audio_id for x in report.of_kind(kind)] for kind in report.counts()}


def test_a_good_manifest_has_no_problem(corpus: Corpus) -> None:
    for seed in range(4):
        corpus.add(f"{seed}.wav", bells(seed), split="train", licence="CC0-1.0", source="bells")
    report = corpus.check()
    assert report.findings == []
    assert report.num_clips == 4
    assert report.seconds == pytest.approx(12.0)
    assert report.licences == {"CC0-1.0": 4}
    assert report.rates_hz == {RATE_HZ: 4}


def test_each_problem_is_found_where_it_is(corpus: Corpus) -> None:
    corpus.add("good.wav", bells(0))
    corpus.list("gone.wav")
    (corpus.folder / "text.wav").write_text("no sound", encoding="utf-8")
    corpus.list("text.wav")
    corpus.add("cut.wav", bells(1), start_frame=10, num_frames=10 * RATE_HZ)
    corpus.add("quiet.wav", np.zeros(RATE_HZ))
    corpus.add("hot.wav", np.clip(5 * bells(2), -1, 1))
    corpus.add("low.wav", bells(3, rate_hz=16_000), 16_000)
    corpus.add("brief.wav", bells(4, seconds=0.4))
    corpus.add("long.wav", bells(5), duration=30.0)
    corpus.add("words.wav", bells(6), caption="?!")
    assert by_kind(corpus.check()) == {
        "missing": ["gone"],
        "unreadable": ["text"],
        "outside": ["cut"],
        "silent": ["quiet"],
        "clipped": ["hot"],
        "low-rate": ["low"],
        "short": ["brief"],
        "duration": ["long"],
        "caption-marks": ["words"],
    }


def test_copies_are_found_through_codecs_rates_and_gain(corpus: Corpus) -> None:
    for seed in range(12):
        corpus.add(f"other{seed}.wav", bells(100 + seed))
    corpus.add("first.wav", bells(0))
    corpus.add("vorbis.ogg", bells(0))
    corpus.add("layer3.mp3", 0.3 * bells(0))
    corpus.add("gain.wav", 0.1 * bells(0))
    corpus.add("late.wav", np.pad(bells(0), (4000, 4000)))
    report = corpus.check()
    assert by_kind(report) == {"duplicate": ["vorbis", "layer3", "gain", "late"]}
    assert {x.detail for x in report.of_kind("duplicate")} == {"sounds like first"}


def test_silent_clips_are_no_copies_of_each_other(corpus: Corpus) -> None:
    corpus.add("a.wav", np.zeros(RATE_HZ))
    corpus.add("b.wav", np.zeros(RATE_HZ))
    assert by_kind(corpus.check()) == {"silent": ["a", "b"]}


def test_a_copy_in_another_split_leaks(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0), split="train")
    corpus.add("b.ogg", bells(0), split="test")
    report = corpus.check()
    assert by_kind(report) == {"duplicate": ["b"], "leak": ["b"]}
    assert report.of_kind("leak")[0].detail == "test; a of train sounds the same"


def test_a_copy_leaks_whatever_the_place_of_one_without_a_split(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0))
    corpus.add("b.wav", bells(0), split="train")
    corpus.add("c.wav", bells(0), split="test")
    report = corpus.check()
    assert by_kind(report) == {"duplicate": ["b", "c"], "leak": ["c"]}
    assert report.of_kind("leak")[0].detail == "test; b of train sounds the same"


def test_a_group_in_two_splits_leaks(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0), split="train", group="youtube:1")
    corpus.add("b.wav", bells(1), split="train", group="youtube:1")
    corpus.add("c.wav", bells(2), split="test", group="youtube:1")
    report = corpus.check()
    assert by_kind(report) == {"leak": ["c"]}
    assert report.of_kind("leak")[0].detail == ("test; a of train is of the same group, youtube:1")


def test_clips_of_one_file_are_compared_as_clips(corpus: Corpus) -> None:
    corpus.add("a.wav", np.concatenate([bells(0), bells(1), bells(0)]), num_frames=3 * RATE_HZ)
    for number in (1, 2):
        start = number * 3 * RATE_HZ
        corpus.list("a.wav", audio_id=str(number), start_frame=start, num_frames=3 * RATE_HZ)
    assert by_kind(corpus.check()) == {"duplicate": ["2"]}


def test_repeats_of_a_mixture_are_no_copies(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0))
    mixture = corpus.folder / "mix.jsonl"
    mix_manifests([corpus.write()], mixture, MixConfig(weights=(3,)))
    report = check_manifest(mixture, CheckConfig())
    assert (report.num_clips, report.num_repeats, report.findings) == (1, 2, [])


def test_a_caption_that_many_clips_share_is_told_once(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0), audio_id="0")
    for number in range(1, 40):
        caption = "this audio contains noise" if number < 25 else f"this audio contains a {number}"
        corpus.list("a.wav", audio_id=str(number), caption=caption)
    report = corpus.check()
    assert [x.detail for x in report.of_kind("caption-repeated")] == [
        "'this audio contains noise' is the whole caption of 24 of 40 clips"
    ]


def test_an_opening_that_many_captions_share_is_told(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0), audio_id="0")
    for number in range(1, 30):
        corpus.list("a.wav", audio_id=str(number), caption=f"In this recording we hear {number}")
    assert corpus.check().of_kind("caption-repeated")[0].detail == (
        "'in this recording we' is the beginning of 29 of 30 clips"
    )


def test_two_processes_say_what_one_says(corpus: Corpus) -> None:
    corpus.add("a.wav", bells(0))
    corpus.add("b.ogg", bells(0))
    corpus.list("gone.wav")
    path = corpus.write()
    one, two = (check_manifest(path, CheckConfig(), workers) for workers in (1, 2))
    assert one == two


def test_progress_counts_every_line(corpus: Corpus) -> None:
    for number in range(5):
        corpus.list("gone.wav", audio_id=str(number))
    steps: list[tuple[int, int]] = []
    check_manifest(
        corpus.write(), CheckConfig(), report=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 5) for done in range(1, 6)]


@pytest.fixture
def killer() -> Iterator[None]:
    """Kills both processes once both are there."""

    def kill() -> None:
        while len(children := multiprocessing.active_children()) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
        for child in children:
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("killer")
def test_a_killed_worker_is_one_clear_error(corpus: Corpus) -> None:
    os.mkfifo(corpus.folder / "never.wav")  # reading it waits for a writer that never comes
    for number in range(64):
        corpus.list("never.wav", audio_id=str(number))
        corpus.list("gone.wav", audio_id=f"gone {number}")
    with pytest.raises(ManifestError, match="a process that decodes was killed, perhaps for mem"):
        check_manifest(corpus.write(), CheckConfig(), 2)


def test_an_empty_manifest_is_told(corpus: Corpus) -> None:
    with pytest.raises(ManifestError, match=r"m\.jsonl: no clip in it"):
        corpus.check()


def test_an_id_used_twice_is_told(corpus: Corpus) -> None:
    corpus.list("a.wav")
    corpus.list("a.wav")
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: audio_id a was used before"):
        corpus.check()


def test_the_histogram_counts_each_clip_once_and_has_no_empty_ends() -> None:
    rows = histogram([0.4, 1.0, 10.0, 10.0, 9.99, 700.0])
    assert rows[0] == ("0\N{EN DASH}0.5 s", 1)
    assert ("8\N{EN DASH}10.5 s", 3) in rows
    assert rows[-1] == ("600 s and more", 1)
    assert sum(count for _, count in rows) == 6
    assert histogram([]) == []


class Tags(HTMLParser):
    """Fails on tags that do not nest."""

    VOID = frozenset(["meta", "link", "path", "rect", "br"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_escapes_what_a_manifest_holds_and_nests(corpus: Corpus) -> None:
    corpus.list("gone.wav", audio_id="<script>alert(1)</script>", source="<b>", licence="<i>")
    page = render_check(corpus.check())
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>" not in page.replace("<b>&lt;", "")
    assert KINDS["missing"] in page


def test_the_json_has_every_finding(corpus: Corpus) -> None:
    for number in range(150):
        corpus.list("gone.wav", audio_id=str(number), caption=f"sound {number}")
    write_check(corpus.folder / "check.html", corpus.check())
    values = json.loads((corpus.folder / "check.json").read_text(encoding="utf-8"))
    assert len(values["findings"]) == 150
    assert values["counts"] == {"missing": 150}
    assert "… and 50 more" in (corpus.folder / "check.html").read_text(encoding="utf-8")


def test_what_is_no_page_of_a_check_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"precious": 1}')
    with pytest.raises(OutputError, match=r"a\.json: exists already and is of no check"):
        check_place(tmp_path / "a.html")
    (tmp_path / "a.json").write_text('{"manifest": "m.jsonl", "findings": []}')
    check_place(tmp_path / "a.html")
    check_place(tmp_path / "b.html")
