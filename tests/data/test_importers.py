"""Each corpus in the layout its makers publish, in small."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from resonate_audio.core.errors import ManifestError, OutputError
from resonate_audio.data.corpora import read_csv, read_json, video_of
from resonate_audio.data.importers import ImportReport, import_corpus
from resonate_audio.data.manifest import Clip, read_manifest


def lay(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files; importers never open sounds, so theirs are empty."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def bring(kind: str, root: Path, **options: Any) -> tuple[dict[str, Clip], ImportReport]:
    output = root.parent / "out" / f"{kind}.jsonl"
    report = import_corpus(kind, root, output, **options)
    manifest = read_manifest(output)
    for clip in manifest.clips:
        assert manifest.audio_file(clip).is_file(), clip.audio_path
    return {clip.audio_id: clip for clip in manifest.clips}, report


AUDIOCAPS = {
    "dataset/train.csv": "audiocap_id,youtube_id,start_time,caption\n"
    '91139,r1nicOVtvkQ,130,"A woman talks nearby, as water pours"\n'
    "58146,-0xzrMun0Rs,30,Birds chirp\n"
    "51137,GONE_567890,30,Wind\n",
    "dataset/test.csv": "audiocap_id,youtube_id,start_time,caption\n"
    "103549,7fmOlUlwoNg,20,Constant rattling noise\n"
    "103541,6BJ455B1aAs,0,A rocket flies by\n"
    "103550,7fmOlUlwoNg,20,Something rattles\n",
    "audio/train/r1nicOVtvkQ_130.flac": b"",
    "audio/train/Y-0xzrMun0Rs.flac": b"",
    "audio/test/103549.wav": b"",
    "audio/test/6BJ455B1aAs.wav": b"",
    "audio/test/unknown12345.wav": b"",
}


def test_audiocaps_joins_the_captions_of_a_video(tmp_path: Path) -> None:
    clips, _ = bring("audiocaps", lay(tmp_path / "ac", AUDIOCAPS))
    clip = clips["audiocaps-7fmOlUlwoNg_20"]
    assert clip.all_captions() == ("Constant rattling noise", "Something rattles")
    assert clip.split == "test"
    assert clip.group == "youtube:7fmOlUlwoNg"
    assert clip.audio_path == "../ac/audio/test/103549.wav"


def test_audiocaps_finds_files_however_they_were_named(tmp_path: Path) -> None:
    clips, _ = bring("audiocaps", lay(tmp_path / "ac", AUDIOCAPS))
    assert len(clips) == 4
    assert clips["audiocaps-r1nicOVtvkQ_130"].caption == "A woman talks nearby, as water pours"


def test_what_is_listed_but_absent_and_there_but_unlisted_is_counted_and_named(
    tmp_path: Path,
) -> None:
    _, report = bring("audiocaps", lay(tmp_path / "ac", AUDIOCAPS))
    assert (report.kept, report.absent.count, report.unlisted.count) == (4, 1, 1)
    assert "GONE_567890_30" in report.absent.examples[0]
    assert "train.csv:4" in report.absent.examples[0]
    assert report.unlisted.examples == ["audio/test/unknown12345.wav"]
    assert report.lines()[1].startswith("1 listed, but their sound is not there: GONE_567890_30")


def test_audioset_takes_audiosetcaps_and_the_evaluation_segments(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "as",
        {
            "Dataset/AudioSetCaps_caption.csv": "id,caption\n"
            "Y---1_cCGK4M,A train passes\nY-0XBalEBUTc,A man speaks\n",
            "segments/eval_segments.csv": "# Segments csv created\n# num_ytids=1\n"
            "# YTID, start_seconds, end_seconds, positive_labels\n"
            '-0XBalEBUTc, 30.000, 40.000, "/m/09x0r"\n',
            "segments/class_labels_indices.csv": 'index,mid,display_name\n0,/m/09x0r,"Speech"\n',
            "audios/balanced_train_segments/Y---1_cCGK4M.wav": b"",
            "audios/eval_segments/-0XBalEBUTc_30.000.wav": b"",
        },
    )
    clips, report = bring("audioset", root)
    assert {name: clip.split for name, clip in clips.items()} == {
        "audioset----1_cCGK4M": "train",
        "audioset--0XBalEBUTc": "test",
    }
    assert report.lines() == ["2 clips written"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.json", '{"---1_cCGK4M": "A train passes"}'),
        (
            "captions.json",
            '{"data": [{"audio_id": "Y---1_cCGK4M.wav", "caption": "A train passes"}]}',
        ),
        ("captions.json", '[{"id": "Y---1_cCGK4M", "captions": ["A train passes"]}]'),
        ("captions.jsonl", '{"youtube_id": "---1_cCGK4M", "text": "A train passes"}\n'),
        ("captions.tsv", "ytid\tcaption\n---1_cCGK4M\tA train passes\n"),
    ],
)
def test_audioset_captions_may_come_in_any_table(tmp_path: Path, name: str, text: str) -> None:
    clips, _ = bring("audioset", lay(tmp_path / "as", {name: text, "a/Y---1_cCGK4M.flac": b""}))
    assert clips["audioset----1_cCGK4M"].caption == "A train passes"


def test_clotho_has_five_captions_and_a_licence(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "clotho",
        {
            "clotho_csv_files/clotho_captions_development.csv": "file_name,caption_1,caption_2,"
            "caption_3,caption_4,caption_5\nDistorted AM Radio noise.wav,a,b,c,d,e\n",
            "clotho_csv_files/clotho_captions_evaluation.csv": "file_name,caption_1,caption_2,"
            "caption_3,caption_4,caption_5\nrain.wav,a,a,b,c,d\n",
            "clotho_csv_files/clotho_metadata_development.csv": "file_name,keywords,sound_id,"
            "sound_link,start_end_samples,manufacturer,license\nDistorted AM Radio noise.wav,"
            "noise,346106,https://freesound.org/people/x,[0 1],Jos\xe9,"
            "http://creativecommons.org/publicdomain/zero/1.0/\n",
            "clotho_audio_files/development/Distorted AM Radio noise.wav": b"",
            "clotho_audio_files/development/rain.wav": b"",
            "clotho_audio_files/evaluation/rain.wav": b"",
        },
    )
    metadata = root / "clotho_csv_files/clotho_metadata_development.csv"
    metadata.write_bytes(metadata.read_text(encoding="utf-8").encode("latin-1"))
    clips, report = bring("clotho", root)
    clip = clips["clotho-development-Distorted AM Radio noise"]
    assert clip.all_captions() == ("a", "b", "c", "d", "e")
    assert clip.licence == "http://creativecommons.org/publicdomain/zero/1.0/"
    assert (clip.group, clip.split) == ("freesound:346106", "train")
    assert clips["clotho-evaluation-rain"].audio_path.endswith("evaluation/rain.wav")
    assert report.unlisted.examples == []


VGGSOUND = {
    "data/vggsound.csv": '---g-f_I2yQ,1,"people marching, in step",test\n'
    "--0PQM4-hqg,30,waterfall burbling,train\n",
    "audio/---g-f_I2yQ_000001.wav": b"",
    "audio/--0PQM4-hqg_000030.wav": b"",
}


def test_vggsound_captions_are_its_labels(tmp_path: Path) -> None:
    clips, _ = bring("vggsound", lay(tmp_path / "vgg", VGGSOUND))
    clip = clips["vggsound----g-f_I2yQ_000001"]
    assert (clip.caption, clip.split) == ("people marching, in step", "test")


def test_vggsound_takes_the_captions_of_audiosetcaps(tmp_path: Path) -> None:
    table = "id,caption\n--0PQM4-hqg_000030,Water burbles over stones\n"
    root = lay(tmp_path / "vgg", VGGSOUND | {"VGGSound_AudioSetCaps_caption.csv": table})
    clip = bring("vggsound", root)[0]["vggsound---0PQM4-hqg_000030"]
    assert (clip.caption, clip.label) == ("Water burbles over stones", "waterfall burbling")


def wavcaps_list(*clips: dict[str, Any]) -> str:
    return json.dumps({"num_captions_per_audio": 1, "data": clips}, indent=4)


def test_wavcaps_tells_sources_apart(tmp_path: Path) -> None:
    bird = {"id": "123", "caption": "A bird sings.", "duration": 4.5, "href": "/people/x/123/"}
    bell = {"id": "123", "title": "Bell", "caption": "A bell rings.", "duration": 1.5}
    wind = {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind and a man.", "audio": "p", "duration": 10.0}
    root = lay(
        tmp_path / "WavCaps",
        {
            "json_files/FreeSound/fsd_final.json": wavcaps_list(bird),
            "json_files/FreeSound/fsd_final_2s.json": wavcaps_list(bird),
            "json_files/SoundBible/sb_final.json": wavcaps_list(bell),
            "json_files/AudioSet_SL/as_final.json": wavcaps_list(wind),
            "json_files/blacklist/blacklist_exclude_all_ac.json": '{"AudioSet": ["Y1"]}',
            "Zip_files/FreeSound/123.flac": b"",
            "Zip_files/SoundBible/123.flac": b"",
            "Zip_files/AudioSet_SL/Yb0RFKhbpFJA.flac": b"",
        },
    )
    clips, report = bring("wavcaps", root)
    assert report.lines() == ["3 clips written"]
    assert clips["wavcaps-FreeSound-123"].duration == 4.5
    assert clips["wavcaps-SoundBible-123"].audio_path.endswith("SoundBible/123.flac")
    assert clips["wavcaps-AudioSet_SL-Yb0RFKhbpFJA"].group == "youtube:b0RFKhbpFJA"


def test_a_table_of_a_sound_library_is_read(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "stock",
        {
            "items.csv": "id,title,description,tags,license\n"
            "49758,Steps,Footsteps on gravel,steps|gravel,Standard\n49543,Bell,,bell,\n",
            "mp3/49758.mp3": b"",
            "mp3/49543.mp3": b"",
        },
    )
    clips, report = bring("audiostock", root)
    clip = clips["audiostock-49758"]
    assert (clip.caption, clip.phrases, clip.licence) == (
        "Footsteps on gravel",
        ("steps", "gravel"),
        "Standard",
    )
    assert report.wordless.examples == [f"49543 ({root}/items.csv:3)"]


def test_esc50_has_folds_licences_and_groups(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "ESC-50",
        {
            "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
            "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
            "2-1001-A-20.wav,2,20,crying_baby,False,1001,A\n",
            "audio/1-100032-A-0.wav": b"",
            "audio/2-1001-A-20.wav": b"",
        },
    )
    clips, _ = bring("esc50", root)
    assert [(c.caption, c.split, c.licence, c.group) for c in clips.values()] == [
        ("dog", "fold1", "CC-BY-3.0", "freesound:100032"),
        ("crying baby", "fold2", "CC-BY-NC-3.0", "freesound:1001"),
    ]


def test_a_folder_a_class_is_read_with_or_without_splits(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "c",
        {"train/dog_bark/1.wav": b"", "test/dog_bark/1.wav": b"", "rain/x.OGG": b""},
    )
    clips, _ = bring("classes", root, licence="CC0-1.0")
    assert {(c.caption, c.split) for c in clips.values()} == {
        ("dog bark", "train"),
        ("dog bark", "test"),
        ("rain", None),
    }
    assert {c.licence for c in clips.values()} == {"CC0-1.0"}


def test_a_folder_with_sidecars_is_read(tmp_path: Path) -> None:
    root = lay(
        tmp_path / "mine",
        {
            "a/dog.wav": b"",
            "a/dog.txt": "A dog barks.\n\nA dog is heard.\n",
            "b/rain.flac": b"",
            "b/rain.json": '{"caption": "Rain  falls", "license": "CC0", "tags": ["rain"]}',
            "b/silent.flac": b"",
            "b/gone.txt": "Nobody hears this",
            "b/empty.wav": b"",
            "b/empty.txt": "\n",
        },
    )
    clips, report = bring("folder", root)
    assert clips["folder-a-dog"].all_captions() == ("A dog barks.", "A dog is heard.")
    rain = clips["folder-b-rain"]
    assert (rain.caption, rain.licence, rain.phrases) == ("Rain falls", "CC0", ("rain",))
    assert report.unlisted.examples == ["b/silent.flac"]
    assert report.absent.examples == [f"b-gone ({root}/b/gone.txt)"]
    assert report.wordless.examples == [f"b-empty ({root}/b/empty.txt)"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,text\ndog.wav,"A dog, barking"\nno.wav,Nothing\n'),
        (
            "metadata.jsonl",
            '{"file_name": "dog.wav", "text": "A dog, barking"}\n'
            '{"file_name": "../no.wav", "text": "Nothing"}\n',
        ),
    ],
)
def test_a_folder_with_a_table_is_read(tmp_path: Path, name: str, text: str) -> None:
    root = lay(tmp_path / "mine", {f"train/{name}": text, "train/dog.wav": b""})
    clips, report = bring("folder", root)
    assert clips["folder-train-dog"].caption == "A dog, barking"
    assert report.absent.count == 1


def test_a_table_in_another_encoding_is_named_by_line_and_byte(tmp_path: Path) -> None:
    table = "file_name,text\ndog.wav,ein H\u00fcndchen\n".encode("cp1252")
    root = lay(tmp_path / "mine", {"metadata.csv": table, "dog.wav": b""})
    with pytest.raises(ManifestError, match=r"metadata\.csv:2: byte 14 of the line \(0xfc\)"):
        bring("folder", root)


def test_a_sidecar_in_another_encoding_is_named(tmp_path: Path) -> None:
    text = "ein H\u00fcndchen".encode("utf-16")
    root = lay(tmp_path / "mine", {"dog.txt": text, "dog.wav": b""})
    with pytest.raises(ManifestError, match=r"dog\.txt:1: byte 1 of the line \(0xff\)"):
        bring("folder", root)


def test_json_in_another_encoding_is_named_by_byte(tmp_path: Path) -> None:
    root = lay(tmp_path / "as", {"c.json": b'{"---1_cCGK4M": "caf\xe9"}', "Y---1_cCGK4M.wav": b""})
    with pytest.raises(ManifestError, match=r"c\.json: byte 21 \(0xe9\) is not UTF-8"):
        bring("audioset", root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,text\na.wav,one,two\n", r"csv:2: 3 cells, expected 2"),
        ('file_name,text\na.wav,"never closed\nb.wav,x\n', r"csv:3: not CSV"),
        ("name,words\na.wav,x\n", r"csv:2: expected a name \(file_name, .* got name, words"),
    ],
)
def test_a_broken_table_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    root = lay(tmp_path / "mine", {"metadata.csv": text, "a.wav": b""})
    with pytest.raises(ManifestError, match=message):
        bring("folder", root)
    assert not (tmp_path / "out" / "folder.jsonl").exists()


def test_json_that_is_cut_short_is_told(tmp_path: Path) -> None:
    text = wavcaps_list({"id": "1", "caption": "x"})[:-10]
    root = lay(tmp_path / "w", {"json_files/FreeSound/fsd_final.json": text, "1.flac": b""})
    with pytest.raises(ManifestError, match=r"fsd_final\.json: not JSON, or cut short"):
        bring("wavcaps", root)


def test_two_files_for_one_clip_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", VGGSOUND | {"audio/---g-f_I2yQ_000001.flac": b""})
    with pytest.raises(ManifestError, match=r"vggsound\.csv:1: .*\.flac and .*\.wav both fit"):
        bring("vggsound", root)


def test_clips_listed_twice_are_counted(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", VGGSOUND | {"old/vggsound.csv": VGGSOUND["data/vggsound.csv"]})
    assert bring("vggsound", root)[1].repeated.count == 2


def test_a_tree_without_its_list_says_what_is_expected(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", {"audio/---g-f_I2yQ_000001.wav": b""})
    with pytest.raises(ManifestError, match=r"lists no clip; expected vggsound\.csv: video, start"):
        bring("vggsound", root)


def test_a_list_without_its_sounds_names_the_first(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", {"vggsound.csv": VGGSOUND["data/vggsound.csv"], "x.webm": b""})
    with pytest.raises(ManifestError, match="none of 2 listed clips has its sound among 0 files"):
        bring("vggsound", root)


def test_sound_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", VGGSOUND | {"audio/other.m4a": b""})
    assert "1 files of kinds that cannot be read" in bring("vggsound", root)[1].lines()[-1]


def test_an_older_manifest_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    root = lay(tmp_path / "v", VGGSOUND)
    bring("vggsound", root)
    with pytest.raises(OutputError, match="exists already"):
        bring("vggsound", root)
    assert len(bring("vggsound", root, overwrite=True)[0]) == 2


def test_a_root_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing: no such folder"):
        bring("folder", tmp_path / "nothing")


@pytest.mark.parametrize(
    "name",
    ["7fmOlUlwoNg", "Y7fmOlUlwoNg", "7fmOlUlwoNg_20", "Y7fmOlUlwoNg_20_30", "7fmOlUlwoNg_20.000"],
)
def test_the_video_is_found_in_the_names_that_tools_give(name: str) -> None:
    assert video_of(name) == "7fmOlUlwoNg"


def test_a_video_id_may_begin_with_the_letter_that_others_put_before_it() -> None:
    assert video_of("YQSuFyFm3Lc") == "YQSuFyFm3Lc"
    assert video_of("YYQSuFyFm3Lc_30") == "YQSuFyFm3Lc"


def test_a_large_json_list_is_read_in_little_memory(tmp_path: Path) -> None:
    item = {"id": "1", "caption": "x" * 1000}
    path = tmp_path / "big.json"
    path.write_text(json.dumps({"n": 1, "data": [item] * 5_000}), encoding="utf-8")
    tracemalloc.start()
    count = sum(1 for _ in read_json(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 3e6 < path.stat().st_size


def test_a_large_csv_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_text("id,caption\n" + f"1,{'x' * 1000}\n" * 10_000, encoding="utf-8")
    tracemalloc.start()
    count = sum(1 for _ in read_csv(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 1e6


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_table_that_names_a_folder_as_a_sound_is_told(tmp_path: Path, name: str) -> None:
    text = json.dumps({"file_name": name, "text": "A dog"}) + "\n"
    text += json.dumps({"file_name": "a.wav", "text": "A bell"}) + "\n"
    root = lay(tmp_path / "mine", {"metadata.jsonl": text, "a.wav": b""})
    clips, report = bring("folder", root)
    assert [clip.caption for clip in clips.values()] == ["A bell"]
    assert report.absent.count == 1


@pytest.mark.parametrize(
    ("sidecar", "named"),
    [
        ({"caption": ["dog", None]}, "caption is None, expected a text or a list"),
        ({"caption": {"en": "dog"}}, "caption is {'en': 'dog'}, expected a text or a list"),
        ({"text": True}, "text is True, expected a text or a list"),
        ({"caption": "dog", "tags": 5}, "tags is 5, expected a text or a list"),
    ],
)
def test_captions_and_tags_of_another_type_are_named(
    tmp_path: Path, sidecar: dict[str, object], named: str
) -> None:
    lay(tmp_path / "d", {"a.wav": b"", "a.json": json.dumps(sidecar)})
    with pytest.raises(ManifestError, match=re.escape(named)):
        import_corpus("folder", tmp_path / "d", tmp_path / "m.jsonl")


@pytest.mark.parametrize(("seconds", "kept"), [(0, None), (None, None), (2.5, 2.5)])
def test_a_duration_of_nothing_is_left_open(
    tmp_path: Path, seconds: float | None, kept: float | None
) -> None:
    listed = wavcaps_list({"id": "1", "caption": "a dog", "duration": seconds})
    root = lay(tmp_path / "d", {"json_files/BBC_Sound_Effects/bbc_final.json": listed,
                                "BBC_Sound_Effects/1.flac": b""})  # fmt: skip
    clips, _ = bring("wavcaps", root)
    assert [clip.duration for clip in clips.values()] == [kept]


@pytest.mark.parametrize("start", ["", "inf", "-5", "soon"])
def test_a_start_that_is_no_number_of_seconds_is_named(tmp_path: Path, start: str) -> None:
    root = lay(tmp_path / "d", {"vggsound.csv": f"abcdefghijk,{start},dog barking,train\n"})
    with pytest.raises(ManifestError, match=r"vggsound\.csv.*expected a number of seconds"):
        bring("vggsound", root)


def test_a_caption_of_null_leaves_the_next_field_to_say_it(tmp_path: Path) -> None:
    lay(tmp_path / "d", {"a.wav": b"", "a.json": '{"caption": null, "text": "a dog"}'})
    import_corpus("folder", tmp_path / "d", tmp_path / "m.jsonl")
    [line] = (tmp_path / "m.jsonl").read_text().splitlines()
    assert json.loads(line)["caption"] == "a dog"


def test_a_link_to_itself_stops_nothing(tmp_path: Path) -> None:
    lay(tmp_path / "d", {"a.wav": b"", "a.txt": "a dog"})
    (tmp_path / "d" / "loop.wav").symlink_to("loop.wav")
    import_corpus("folder", tmp_path / "d", tmp_path / "m.jsonl")
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 1
