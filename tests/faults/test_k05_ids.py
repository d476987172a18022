"""K5: what is two is called by two names, and what is one is told to be one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_k04_paths import RATE, line, sound

from resonate_audio.core.errors import ManifestError, ResonateError
from resonate_audio.data.check import check_manifest
from resonate_audio.data.importers import import_corpus
from resonate_audio.data.inspection import CheckConfig
from resonate_audio.data.manifest import read_manifest
from resonate_audio.data.sound_files import SoundFiles
from resonate_audio.training.algorithms.pairs import read_pairs

TREES = {
    "a hyphen and a folder": ("dog/bark-1.wav", "dog-bark/1.wav", "dog-bark-1.wav"),
    "two formats": ("dog.wav", "dog.flac", "dog.OGG"),
    "two cases of letters": ("dog.wav", "Dog.wav", "dog.WAV"),
    "a name within a name": ("dog.wav", "dog.flac", "dog.wav.flac", "dog.wav.wav"),
    "two spellings": ("Glo\u0308ckchen.wav", "Gl\u00f6ckchen.wav"),
    "folders of such names": ("a-b/c/d.wav", "a/b-c/d.wav", "a/b/c-d.wav"),
}


def captioned(root: Path, names: tuple[str, ...], kind: str) -> None:
    """Sounds, empty as importers do not open them, each with words."""
    for name in names:
        path = root / "of a class" / name if kind == "classes" else root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if kind == "folder":
            path.with_suffix(".txt").write_text("a sound")
    if kind == "folder of a table":
        rows = "".join(f"{name},a sound\n" for name in names)
        (root / "metadata.csv").write_text(f"file_name,text\n{rows}", encoding="utf-8")


@pytest.mark.parametrize("kind", ["folder", "folder of a table", "classes"])
@pytest.mark.parametrize("tree", TREES)
def test_every_sound_of_a_tree_is_imported_under_a_name_of_its_own(
    tree: str, kind: str, tmp_path: Path
) -> None:
    names = TREES[tree]
    captioned(tmp_path / "c", names, kind)
    report = import_corpus(kind.split()[0], tmp_path / "c", tmp_path / "x.jsonl")
    clips = read_manifest(tmp_path / "x.jsonl").clips  # which refuses an id that occurs twice
    assert len({clip.audio_path for clip in clips}) == len(names) == report.kept
    assert (report.repeated.count, report.unlisted.count) == (0, 0)


LETTERS = st.text("ab-./", min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.sets(LETTERS, max_size=8))
def test_no_two_paths_have_one_id(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in names:
        path = root / f"x{name.strip('/.')}y.wav".replace("/.", "/x").replace("//", "/")
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    files = SoundFiles(root)
    paths = list(files.paths())
    assert len({files.id_of(path) for path in paths}) == len(paths)
    shutil.rmtree(root)


def test_an_id_that_a_list_gives_to_two_files_is_made_two(tmp_path: Path) -> None:
    rows = "id,file,title\n7,a.wav,A dog\n7,b.wav,A cat\n7,b.wav,A cat\n"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "list.csv").write_text(rows)
    for name in ("a.wav", "b.wav"):
        (tmp_path / "c" / name).touch()
    report = import_corpus("audiostock", tmp_path / "c", tmp_path / "x.jsonl")
    clips = read_manifest(tmp_path / "x.jsonl").clips
    assert sorted(clip.caption for clip in clips) == ["A cat", "A dog"]
    assert report.repeated.count == 1  # told: b.wav stands there twice


def same_file(folder: Path) -> tuple[str, str]:
    return "a.wav", "./a.wav"


def same_file_up(folder: Path) -> tuple[str, str]:
    (folder / "in").mkdir()
    return "a.wav", "in/../a.wav"


def same_file_whole(folder: Path) -> tuple[str, str]:
    return "a.wav", str(folder / "a.wav")


def linked(folder: Path) -> tuple[str, str]:
    (folder / "b.wav").symlink_to("a.wav")
    return "a.wav", "b.wav"


def hard_linked(folder: Path) -> tuple[str, str]:
    (folder / "b.wav").hardlink_to(folder / "a.wav")
    return "a.wav", "b.wav"


def copied(folder: Path) -> tuple[str, str]:
    shutil.copy(folder / "a.wav", folder / "b.wav")
    return "a.wav", "b.wav"


@pytest.mark.parametrize(
    "make", [same_file, same_file_up, same_file_whole, linked, hard_linked, copied]
)
def test_a_pair_of_a_sound_with_itself_is_refused(
    make: Callable[[Path], tuple[str, str]], tmp_path: Path
) -> None:
    sound(tmp_path / "a.wav")
    chosen, rejected = make(tmp_path)
    pair = {"prompt": "a tone", "chosen": chosen, "rejected": rejected}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    with pytest.raises(ManifestError, match=r"pairs\.jsonl:1: .* are the same (file|sound)"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_a_clip_that_only_looks_repeated_is_checked(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "x.jsonl").write_text(
        line("dog", "a.wav") + line("dog~2", "gone.wav") + line("dog~3", "a.wav")
    )
    report = check_manifest(tmp_path / "x.jsonl", CheckConfig(sample_rate_hz=RATE))
    assert (report.num_clips, report.num_repeats) == (2, 1)
    assert [x.audio_id for x in report.findings if x.kind == "missing"] == ["dog~2"]


def test_equal_content_is_told(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav")
    (tmp_path / "x.jsonl").write_text(line("one", "a.wav") + line("two", "b.wav"))
    report = check_manifest(tmp_path / "x.jsonl", CheckConfig(sample_rate_hz=RATE))
    assert [(x.audio_id, x.detail) for x in report.findings if x.kind == "duplicate"] == [
        ("two", "sounds like one")
    ]


def test_a_caption_of_two_lines_is_not_two_captions() -> None:
    from resonate_audio.data.latent_cache import cache_key

    assert len({cache_key("a", "b"), cache_key("a\nb"), cache_key("a\n", "b")}) == 3


def judges() -> None:
    from resonate_audio.rewards.catalogue import open_reward

    open_reward("nano-clap,nano-clap")


def metrics() -> None:
    from resonate_audio.evaluation.scores.metrics import check_columns, open_metric

    check_columns([open_metric("nano-clap"), open_metric("nano-clap")])


def models_of_a_server() -> None:
    from resonate_audio.cli.serve import read_models

    read_models(["a=nano", "a=nano-grpo"])


@pytest.mark.parametrize("give", [judges, metrics, models_of_a_server])
def test_two_of_one_name_are_refused_by_it(give: Callable[[], None]) -> None:
    with pytest.raises(ResonateError, match="twice"):
        give()
