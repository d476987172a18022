"""K4: a path means one thing, whatever command, recipe or list it comes from."""

import ast
import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import AfterValidator

from resonate_audio.audio.io import read_audio, write_audio
from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.errors import InputError, OutputError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.paths import given_path, input_path, listed_path
from resonate_audio.core.types import Audio
from resonate_audio.data.check import check_manifest
from resonate_audio.data.encode import encode_manifest
from resonate_audio.data.importers import import_corpus
from resonate_audio.data.inspection import CheckConfig
from resonate_audio.data.manifest import decode_clips, read_manifest
from resonate_audio.data.mix import MixConfig, mix_manifests
from resonate_audio.data.prompts import read_prompts
from resonate_audio.data.shards.workers import AudioConfig
from resonate_audio.training.algorithms.pairs import read_pairs

HOME = Path(__file__).parents[2] / "resonate_audio"
RATE = 8000
NFD = unicodedata.normalize("NFD", "Glöckchen.wav")
NFC = unicodedata.normalize("NFC", NFD)


def sound(path: Path, pitch_hz: float = 440.0) -> Path:
    """A second of a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(np.arange(RATE) * 2 * np.pi * pitch_hz / RATE)
    write_audio(path, Audio(wave.astype(np.float32), RATE), overwrite=True)
    return path


def line(id: str, path: str) -> str:
    return json.dumps({"audio_id": id, "audio_path": path, "caption": "a tone"}) + "\n"


def checked(manifest: Path, folder: Path) -> int:
    report = check_manifest(manifest, CheckConfig(sample_rate_hz=RATE))
    return report.num_clips - sum(x.kind in ("missing", "unreadable") for x in report.findings)


def packed(manifest: Path, folder: Path) -> int:
    return encode_manifest(
        manifest, folder / "shards", AudioConfig(sample_rate_hz=RATE)
    ).num_samples


def decoded(manifest: Path, folder: Path) -> int:
    found = decode_clips(read_manifest(manifest), RATE)
    return sum(not isinstance(wave, Exception) for _, wave in found)


def mixed(manifest: Path, folder: Path) -> int:
    output = folder / "elsewhere" / "deep" / "mix.jsonl"
    output.parent.mkdir(parents=True)
    mix_manifests([manifest], output, MixConfig())
    return decoded(output, folder)


READERS: dict[str, Callable[[Path, Path], int]] = {
    "data check": checked,
    "data shard and encode": packed,
    "training": decoded,
    "data mix": mixed,
}


def plain(root: Path) -> Path:
    sound(root / "x.wav")
    return root / "x.jsonl"


def link_beside_the_sounds(root: Path) -> Path:
    sound(root / "sounds" / "x.wav")
    (root / "store").mkdir()
    (root / "sounds" / "x.jsonl").symlink_to("../store/blob")
    (root / "store" / "blob").touch()
    return root / "sounds" / "x.jsonl"


def link_far_from_the_sounds(root: Path) -> Path:
    sound(root / "sounds" / "x.wav")
    (root / "sounds" / "x.jsonl").touch()
    (root / "mine.jsonl").symlink_to("sounds/x.jsonl")
    return root / "mine.jsonl"


def linked_folder(root: Path) -> Path:
    sound(root / "sounds" / "x.wav")
    (root / "link").symlink_to("sounds")
    return root / "link" / "x.jsonl"


def through_a_linked_folder_and_up(root: Path) -> Path:
    (root / "a" / "deep").mkdir(parents=True)
    sound(root / "a" / "x.wav")
    (root / "w").symlink_to("a/deep")
    return root / "w.jsonl"


def in_another_spelling(root: Path) -> Path:
    sound(root / NFD)
    return root / "x.jsonl"


def in_a_folder_of_another_spelling(root: Path) -> Path:
    sound(root / NFD / NFC)
    return root / "x.jsonl"


def of_windows(root: Path) -> Path:
    sound(root / "sounds" / "x.wav")
    return root / "x.jsonl"


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "plain": (plain, "x.wav"),
    "a link beside the sounds": (link_beside_the_sounds, "x.wav"),
    "a link far from the sounds": (link_far_from_the_sounds, "x.wav"),
    "a linked folder": (linked_folder, "x.wav"),
    "up from a linked folder": (through_a_linked_folder_and_up, "w/../x.wav"),
    "another spelling": (in_another_spelling, NFC),
    "a folder of another spelling": (in_a_folder_of_another_spelling, f"{NFC}/{NFD}"),
    "a name of Windows": (of_windows, "sounds\\x.wav"),
    "a full path": (plain, "{root}/x.wav"),
    "in the home folder": (plain, "~/x.wav"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_reader_of_a_manifest_finds_the_same_sounds(
    layout: str, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make, name = LAYOUTS[layout]
    manifest = make(tmp_path)
    manifest.write_text(line("one", name.format(root=tmp_path)), encoding="utf-8")
    assert READERS[reader](manifest.relative_to(tmp_path), tmp_path / "out") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_list_of_pairs_finds_its_sounds(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make, name = LAYOUTS[layout]
    listing = make(tmp_path)
    other = sound(tmp_path / "other.wav", 880.0)
    pair = {"prompt": "a tone", "chosen": name.format(root=tmp_path), "rejected": str(other)}
    listing.write_text(json.dumps(pair) + "\n", encoding="utf-8")
    assert all(path.is_file() for path in read_pairs(listing).files())


def corpus(root: Path) -> Iterator[str]:
    """Lays a corpus with everything that hides sounds or looks like one; gives what counts."""
    sound(root / "a" / "dog.WAV")
    (root / "a" / "dog.TXT").write_text("A dog")
    yield "a/dog.WAV"
    sound(root.parent / "other disk" / "rain.wav")
    (root.parent / "other disk" / "rain.JSON").write_text('{"caption": "Rain"}')
    (root / "b").symlink_to(root.parent / "other disk")
    yield "b/rain.wav"
    sound(root / NFD)
    (root / f"{NFC[:-4]}.txt").write_text("A bell", encoding="utf-8")
    yield NFD
    sound(root / "t" / NFD)
    (root / "t" / "METADATA.CSV").write_text("nothing\n")  # another table, which says nothing
    (root / "t" / "metadata.CSV").write_text(f"file_name,text\n{NFC},A bell\n", encoding="utf-8")
    yield f"t/{NFD}"
    for litter in ("a/._dog.wav", "__MACOSX/a/._dog.wav", ".hidden/dog.wav"):
        (root / litter).parent.mkdir(parents=True, exist_ok=True)
        (root / litter).write_bytes(b"\0\5\x16\7")
        (root / litter).with_suffix(".txt").write_text("no sound")
    (root / "a" / "round").symlink_to(root)


def test_a_corpus_is_found_whole_and_nothing_but_it(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    wanted = sorted(corpus(root))
    report = import_corpus("folder", root, tmp_path / "x.jsonl")
    clips = read_manifest(tmp_path / "x.jsonl").clips
    assert sorted(clip.audio_path.removeprefix("corpus/") for clip in clips) == wanted
    assert (report.unlisted.count, report.absent.count, report.wordless.count) == (0, 0, 0)
    assert decoded(tmp_path / "x.jsonl", tmp_path) == len(wanted)


def test_folders_of_clips_pass_what_macos_left(tmp_path: Path) -> None:
    from reader_tables import _prompt_set

    from resonate_audio.evaluation.clips.folder import find_clips
    from resonate_audio.serving.listening.test import read_systems

    sound(tmp_path / "s" / NFD)
    (tmp_path / "s" / f"._{NFD}").write_bytes(b"\0\5\x16\7")
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": NFC[:-4], "prompt": "a bell"}) + "\n", encoding="utf-8"
    )
    found = find_clips(tmp_path / "s", _prompt_set(tmp_path / "p.jsonl"))
    assert [path.name for path in found.files.values()] == [NFD]
    given = read_systems({"s": tmp_path / "s"}, {NFC[:-4]: "a bell"})
    assert [(clip.name, clip.prompt) for clip in given] == [(NFC[:-4], "a bell")]


# --- what a person gives --------------------------------------------------------------------------


def commands() -> Iterator[Any]:
    from resonate_audio.cli.main import app

    waiting = [app]
    while waiting:
        group = waiting.pop()
        yield from (info.callback for info in group.registered_commands)
        waiting += [inner.typer_instance for inner in group.registered_groups]


def test_every_command_takes_its_paths_from_one_function() -> None:
    """Called with nothing but a path in no home, each ends before it does anything."""
    import inspect

    for command in commands():
        for name, one in inspect.signature(command, eval_str=True).parameters.items():
            kinds = str(one.annotation)
            if "pathlib.Path" in kinds:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(Path, "expanduser", _nobody)
                    with pytest.raises(InputError, match=f"{name} ~/x: this user has no home"):
                        command(**{name: [Path("~/x")] if "list" in kinds else Path("~/x")})


def _nobody(self: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def configs() -> Iterator[type[FrozenConfig]]:
    import resonate_audio.nano.judges.training.run
    import resonate_audio.serving.config
    import resonate_audio.training.recipes.codec
    import resonate_audio.training.recipes.pairs
    import resonate_audio.training.recipes.pretrain  # noqa: F401

    waiting: list[type[FrozenConfig]] = [FrozenConfig]
    while waiting:
        yield (found := waiting.pop())
        waiting += found.__subclasses__()


def test_every_path_of_a_recipe_goes_through_one_function() -> None:
    wrong = []
    for config in configs():
        for name, field in config.model_fields.items():
            kinds = [field.annotation, *get_args(field.annotation)]
            told = [*field.metadata, *(x for kind in kinds for x in get_args(kind))]
            if any(Path in (kind, *get_args(kind)) for kind in kinds):
                found = any(isinstance(x, AfterValidator) and x.func is given_path for x in told)
                wrong += [] if found else [f"{config.__name__}.{name}"]
    assert not wrong


def test_a_path_of_a_recipe_lies_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resonate_audio.training.loop.run_config import RunConfig

    monkeypatch.setenv("HOME", str(tmp_path))
    config = parse_config(RunConfig, {"output": "~/runs/one"}, "a recipe")
    assert config.output == tmp_path / "runs" / "one"


def sends_a_sound_home(path: str) -> None:
    write_audio(path, Audio(np.ones(10, np.float32), RATE))
    assert len(read_audio(path).samples) == 10


def plans_a_sound_at_home(path: str) -> None:
    from resonate_audio.cli.naming import Wanted, plan_sounds

    assert plan_sounds([Wanted("a")], 0, path)[0].path == Path.home() / "x.wav"


def finds_a_model_at_home(path: str) -> None:
    from resonate_audio.model.hub import find_model
    from resonate_audio.pipeline.path import recorded_name
    from resonate_audio.rewards.pretrained import find_pretrained

    (Path.home() / "m").mkdir()
    assert find_model("~/m") == find_pretrained("~/m") == Path.home() / "m"
    assert recorded_name("~/m", None) == str(Path.home() / "m")


def names_a_model_at_home(path: str) -> None:
    from resonate_audio.cli.serve import split_model

    (Path.home() / "m").mkdir()
    assert split_model("~/m") == ("m", "~/m")


@pytest.mark.parametrize(
    "use",
    [sends_a_sound_home, plans_a_sound_at_home, finds_a_model_at_home, names_a_model_at_home],
)
def test_a_tilde_in_a_text_is_the_home_folder(
    use: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    use("~/x.wav")
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize(
    "name",
    ["resonate_audio/nano/prompts/practice.jsonl", "practice.jsonl", "held-out.jsonl"],
)
def test_bundled_prompts_are_found_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_prompts(Path(name))) > 20


def test_a_file_of_ones_own_goes_before_a_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("practice.jsonl").write_text('{"prompt": "mine"}\n')
    assert read_prompts(Path("practice.jsonl")) == ("mine",)


def test_bundled_weights_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert input_path("resonate_audio/nano/weights/vae/model.safetensors").is_file()


# --- what is written ------------------------------------------------------------------------------


def test_a_link_that_is_written_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    real = sound(tmp_path / "disk" / "real.wav")
    (tmp_path / "link.wav").symlink_to("disk/real.wav")
    (tmp_path / "new.wav").symlink_to("disk/new.wav")
    short = Audio(np.ones(10, np.float32), RATE)
    write_audio(tmp_path / "link.wav", short, overwrite=True)
    write_audio(tmp_path / "new.wav", short)
    assert (tmp_path / "link.wav").is_symlink()
    assert (tmp_path / "new.wav").is_symlink()
    assert len(read_audio(real).samples) == len(read_audio(tmp_path / "new.wav").samples) == 10
    assert sorted(os.listdir(tmp_path / "disk")) == ["new.wav", "real.wav"]


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_pipe, a_device, a_circle, a_folder])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_file_is_not_replaced_by_one(
    make: Callable[[Path], None], overwrite: bool, tmp_path: Path
) -> None:
    make(tmp_path / "x.wav")
    before = (tmp_path / "x.wav").lstat()
    with (
        pytest.raises(OutputError, match=r"x\.wav: "),
        atomic_path(tmp_path / "x.wav", overwrite) as temporary,
    ):
        temporary.touch()
    assert (tmp_path / "x.wav").lstat().st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["x.wav"]


BESIDE_THE_DOOR = {"expanduser", "rglob", "iterdir", "walk", "scandir", "listdir"}
HOUSEKEEPING = {
    "cli/mcp/command.py",  # folders that were given
    "model/published/ready.py",  # a cache of its own
    "core/paths.py",
    "cli/models.py",  # counts bytes of a cache
    "model/folder.py",  # is it empty?
    "serving/database.py",
    "serving/edge.py",
    "serving/runs.py",  # runs within one folder, no links out of it
    "serving/listening/app.py",  # packs what it has just written
    "core/processor.py",
}


def test_nobody_finds_files_beside_the_one_door() -> None:
    found = set()
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_tree = isinstance(node.func.value, ast.Name) and node.func.value.id == "ast"
                if node.func.attr in BESIDE_THE_DOOR and not of_tree:
                    found.add(path.relative_to(HOME).as_posix())
    assert found <= HOUSEKEEPING


def test_a_listed_path_that_is_nowhere_is_called_as_the_list_has_it(tmp_path: Path) -> None:
    assert listed_path(tmp_path / "x.jsonl", "no/where.wav") == tmp_path / "no" / "where.wav"
    assert listed_path(tmp_path / "x.jsonl", "no\0where") == tmp_path / "no\0where"
